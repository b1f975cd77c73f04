"""A method that does not fit is refused before anything is allocated, and one that fits is named."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import dfo
from dfo.run.memory import SQUARE, available, needed


def test_there_is_memory():
    assert 1e7 < available() < 1e15


@pytest.mark.parametrize("name", SQUARE)
def test_needs_grow_with_the_square(name):
    method = name if name in ("pycma",) or ":" in name else getattr(dfo, name)()
    assert 50 < needed(method, 1_000_000) / needed(method, 100_000) <= 101


CASES = ("cma", "xnes", "nelder-mead", "pycma", "scipy:COBYQA", "scipy:COBYLA", "scipy:Nelder-Mead", "cbs")


def test_what_does_not_fit_is_refused_at_once_in_a_process_with_little_memory():
    code = f"""
        import resource, time, numpy as np, dfo
        for method in {CASES!r}:
            dfo.minimize(lambda x: float(x @ x), [1.0, 2.0], method=method, budget=3)
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        called = []
        for method in {CASES!r}:
            began = time.perf_counter()
            try:
                dfo.minimize(lambda x: called.append(1) or 0.0, np.ones(40_000), method=method, budget=10)
            except dfo.errors.ProblemTooLarge as error:
                print(method, len(called), time.perf_counter() - began < 1.0, "sep-cma" in str(error))
    """
    if sys.platform != "linux":
        pytest.skip("limits of memory are set as Linux does")
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines() == [f"{method} 0 True True" for method in CASES], out.stderr


def test_what_is_linear_fits():
    res = dfo.minimize(lambda x: float(x[0] ** 2), np.ones(100_000), method="sep-cma", budget=20)
    assert res.nfev == 20
