"""A pack of problems that misbehave, found through a real entry point by whoever has this folder on the path."""

import os
import time

import numpy as np

from dfo.errors import unknown
from dfo.protocols import Problem
from dfo.spaces import Box

HOSTILE = "<script>alert(1)</script>\x1b[31m$x^2$"


def bowl(x):
    return float(((x - 0.3) ** 2).sum())


def slow(x):
    if folder := os.environ.get("ODD_PIDS"):
        with open(os.path.join(folder, str(os.getpid())), "w"):
            pass
    time.sleep(0.002)
    return bowl(x)


def raises(x):
    if x[0] != 1.0:  # the start is fine
        raise RuntimeError(f"no value at <b>{x[0]:.1f}</b>\x1b[2J")
    return 7.5


def dies(x):
    os._exit(3)


def nan(x):
    return np.nan if x[0] > 0 else bowl(x)


def minus(x):
    return -np.inf if x[0] > 0 else bowl(x)


def prints(x):
    print("noise on standard output")
    return bowl(x)


FUNCTIONS = {
    "bowl": bowl, "slow": slow, "raises": raises, "dies": dies, "nan": nan, "minus": minus, "prints": prints,
    HOSTILE: bowl,
}  # fmt: skip


class Odd:
    name = "odd"
    summary = "problems that misbehave"

    def select(self, dims=None, functions=None, instances=None):
        for function in functions or ():
            if function not in FUNCTIONS:
                raise unknown("function of pack 'odd'", function, FUNCTIONS)
        return [
            f"odd-{function}-i{i:02d}-d{dim:02d}"
            for dim in dims or (2,)
            for function in functions or ("bowl",)
            for i in instances or (1,)
        ]

    def make(self, name):
        function, instance, dim = name.removeprefix("odd-").rsplit("-", 2)
        if function not in FUNCTIONS:
            raise unknown("problem of pack 'odd'", name, self.select())
        d = int(dim[1:])
        f_opt = None if instance == "i99" else 0.0
        return Problem(
            name, Box(np.full(d, -5.0), np.full(d, 5.0)), FUNCTIONS[function], np.ones(d), f_opt, group="odd"
        )


PROBLEMS = {"odd": Odd()}
