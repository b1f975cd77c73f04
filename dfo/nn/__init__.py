"""Networks: weights as the unknown, forward passes only.

Example:
    >>> import torch, dfo.nn
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    >>> def loss(module, batch):  # one loss an example, so that the members of a step ride in one forward pass
    ...     return (module(batch) - batch.sum(1, keepdim=True)).square().mean(1)
    >>> opt = dfo.nn.ZOSGD(net, lr=0.01, samples=4)
    >>> losses = [opt.step(loss, x) for _ in range(300)]
    >>> losses[-1] < 0.3 * losses[0]
    True
"""

from dfo.nn.distributed import distribute
from dfo.nn.engine import Engine
from dfo.nn.front import Front
from dfo.nn.fronts import ES, ZOSGD
from dfo.nn.losses import causal_loss, cross_entropy, per_example, sequence_loss
from dfo.nn.mezo import MeZO
from dfo.nn.offload import offload
from dfo.nn.options import Options
from dfo.nn.oracle import ModuleOracle, evaluate_population
from dfo.nn.replay import ReplayLog
from dfo.nn.snapshots import Snapshots
from dfo.nn.tensors import trainable
from dfo.nn.torch_rule import TorchRule

__all__ = [
    "ES",
    "ZOSGD",
    "Engine",
    "Front",
    "MeZO",
    "ModuleOracle",
    "Options",
    "ReplayLog",
    "Snapshots",
    "TorchRule",
    "causal_loss",
    "cross_entropy",
    "distribute",
    "evaluate_population",
    "offload",
    "per_example",
    "sequence_loss",
    "trainable",
]
