"""Any optimizer of torch as the update rule of a network that is trained by forward passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dfo.errors import InvalidArgument, InvalidType, short
from dfo.nn.update import Term, move
from dfo.random import Key

__all__ = ["TorchRule"]


class TorchRule:
    """An optimizer of torch that is given the estimated gradient.

    It costs one gradient of the size and precision of the weights, and the optimizer's own state: twice the weights for
    Adam. The learning rates are those of the front, its groups and schedulers; weight decay is the optimizer's.

    Args:
        make: a class or function that takes groups of tensors, such as ``torch.optim.AdamW``.
        options: passed on to ``make``, such as ``betas``.

    Raises:
        InvalidType: ``make`` cannot be called.
        InvalidArgument: the options hold a learning rate.

    Example:
        >>> import torch, dfo.nn
        >>> net = torch.nn.Linear(3, 1)
        >>> rule = dfo.nn.TorchRule(torch.optim.Adam, {"betas": (0.9, 0.99)})
        >>> opt = dfo.nn.ZOSGD(net, lr=0.05, samples=4, rule=rule)
        >>> x = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
        >>> square = lambda module, batch: (module(batch) - 1.0).square().mean(1)
        >>> first = opt.step(square, x)
        >>> all(opt.step(square, x) < 10 * first for _ in range(60))
        True
        >>> opt.step(square, x) < 0.5 * first
        True
    """

    def __init__(self, make: Callable[..., torch.optim.Optimizer], options: Mapping[str, Any] | None = None) -> None:
        if not callable(make):
            raise InvalidType(f"make: expected an optimizer class such as torch.optim.Adam, got {short(make)}.")
        self.make, self.options = make, dict(options or {})
        if "lr" in self.options:
            raise InvalidArgument("TorchRule: expected no learning rate among the options. Give lr to the front.")

    def __repr__(self) -> str:
        return f"TorchRule({getattr(self.make, '__name__', self.make)}, {self.options})"

    def bind(self, tensors: Mapping[str, Tensor]) -> Bound:
        """Return the rule with an optimizer of these tensors."""
        return Bound(self.make([{"params": [t]} for t in tensors.values()], **self.options))


class Bound:
    """A rule with the optimizer of a network's tensors.

    Args:
        optimizer: of these tensors.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self, tensors: Mapping[str, Tensor], terms: Sequence[Term], rates: Mapping[str, float]) -> None:
        """Give the tensors the gradient ``-sum_j w_j u_j`` and let the optimizer step."""
        for group, name in zip(self.optimizer.param_groups, tensors, strict=True):
            group["lr"] = rates[name]
        gradients = {name: torch.zeros_like(t) for name, t in tensors.items()}
        turned = [Term(term.draws, -term.weights, term.spans) for term in terms]
        move(gradients, turned, Key(0))
        try:
            for name, t in tensors.items():
                t.grad = gradients[name]
            self.optimizer.step()
        finally:
            for t in tensors.values():
                t.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the optimizer."""
        self.optimizer.load_state_dict(state)
