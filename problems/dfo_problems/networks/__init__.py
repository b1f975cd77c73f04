"""Networks that torch holds, on images and text, trained by forward passes on minibatches.

=================  ==============  ==========  ==================================================================
name               network         weights     data (training, validation, test)
=================  ==============  ==========  ==================================================================
``digits-mlp``     64-32-10             2,410  digits of scikit-learn, 8 x 8 (1197, 240, 360)
``digits-lenet``   small LeNet          6,010  the same
``mnist-mlp``      784-256-256-10     269,322  5000 images of MNIST (3500, 500, 1000)
``mnist-lenet``    LeNet-5             61,706  the same
``fashion-mlp``    784-256-256-10     269,322  Fashion-MNIST (50000, 10000, 10000)
``fashion-lenet``  LeNet-5             61,706  the same
``text-gpt``       2-layer GPT        110,336  characters of the reference of the Python language (80, 10, 10 %)
=================  ==============  ==========  ==================================================================

A value is the mean cross-entropy of a minibatch of 128 images, or of 16 pieces of text of 64 characters each; the
point is the vector of all weights, a torch tensor, and the objective a :class:`dfo.nn.ModuleOracle`. ``measure`` is
the cross-entropy of the validation part; the test is looked at by ``task(name).measure(module, "test")``, and by no
solver. An instance is a random start.

:mod:`~dfo_problems.networks.models` builds these networks and larger ones without data,
:mod:`~dfo_problems.networks.data` holds the sources of the data and their licences.
"""

from __future__ import annotations

from importlib import util

from dfo.errors import MissingPackage
from dfo.protocols import Problem
from dfo.random import Key
from dfo.spaces import Free
from dfo_problems.pack import Cell, Pack

__all__ = ["NETWORKS"]

_NAMES = {
    "digits": ("digits-mlp", "digits-lenet"),
    "mnist": ("mnist-mlp", "mnist-lenet"),
    "fashion": ("fashion-mlp", "fashion-lenet"),
    "text": ("text-gpt",),
}


def _build(cell: Cell) -> Problem:
    if util.find_spec("torch") is None:
        raise MissingPackage(f"{cell.name} needs torch. Install it: pip install 'dfo-optim[networks]'.")
    from dfo_problems.networks.weights import Weights

    fun = Weights(cell.function, Key(cell.instance or 0, ("networks", cell.function)))
    return Problem(
        name=cell.name,
        space=Free(len(fun.x0)),
        fun=fun,
        x0=fun.x0,
        measure=fun.exact,
        noisy=True,
        group=NETWORKS.group(cell.function),
        tags=frozenset({"network", "minibatch", "torch"}),
        reference="see dfo_problems.networks.data for the images and the text; mean cross-entropy of a network",
    )


NETWORKS = Pack(
    name="networks",
    summary="perceptrons, LeNets and a small transformer in torch, on digits, MNIST, Fashion-MNIST and text",
    groups=_NAMES,
    build=_build,
    instances=(1, 2, 3, 4, 5),
    max_instance=2**31 - 1,
)
"""The pack of torch networks; an instance is a random start."""
