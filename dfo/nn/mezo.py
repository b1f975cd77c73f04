"""MeZO as published, for those who compare with it or carry on one of its runs.

Malladi et al. 2023, "Fine-Tuning Language Models with Just Forward Passes", arXiv:2305.17333, algorithm 1 and its
public code: the same generator, the same order of draws, the same four sweeps over the weights, hence the same bits
in single precision.

Its defects are a part of it. The sweeps ``+eps, -2 eps, +eps`` do not come back: weights drift by a random walk, of
12 % of their size in a thousand steps in bfloat16; of an update of rms 1e-6, 3 % survives there. The loss that is
reported is the one at ``theta + eps z``, and every sweep draws all normals again. :class:`dfo.nn.ZOSGD` has none of
this and costs less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dfo.arrays import is_torch
from dfo.errors import BadState, InvalidArgument, InvalidType, short
from dfo.random import Key, integers

__all__ = ["MeZO", "Step"]

SEEDS = 10**9
"""Seeds lie below it, as in the public code."""

UNDECAYED = ("bias", "layer_norm", "layernorm")
"""Weights whose names hold one of these do not decay."""

Closure = Callable[[], "Tensor | float"]
Loss = Callable[[nn.Module, Any], "Tensor | float"]
Seeds = Iterable[int] | Callable[[int], int]


class Step(NamedTuple):
    """What one step did; with the weights before it, enough to do it again."""

    seed: int
    slopes: tuple[float, ...]
    """Projected gradient ``(L(theta + eps z) - L(theta - eps z)) / (2 eps)`` for the ``eps`` of every group."""
    rates: tuple[float, ...]
    """Learning rate of every group."""


class MeZO(torch.optim.Optimizer):
    """Zeroth-order SGD in place with two forward passes a step, as published.

    The weights move along ``z ~ N(0, I)``, drawn tensor by tensor in the order of ``named_parameters()`` in the
    dtype and on the device of each, from a private generator that is seeded anew in each of four sweeps::

        theta += eps z;  theta -= 2 eps z;  theta += eps z;  theta -= lr (g z + weight_decay theta)

    The global generators of torch and numpy are neither read nor written. On one device, the private generator draws
    what ``torch.manual_seed(seed)`` and ``torch.normal`` draw.

    Args:
        model: the network; its parameters that require gradients move, a tied tensor once, by its first name.
        lr: learning rate; the public grids use 1e-7..1e-6 for all weights, 1e-5..1e-4 for LoRA.
        eps: radius; one number for all groups, or in the groups.
        weight_decay: decay, not of names with ``bias``, ``layer_norm`` or ``layernorm``.
        groups: parameter groups, each a dict with ``params`` (tensors of the model) and its own ``lr``, ``eps``,
            ``weight_decay``; all parameters in one group by default. The order of draws is the model's all the same.
        seed: names the stream of the steps' seeds: step t takes the integer below 1e9 at
            ``Key(seed).child("mezo", t)``.
        seeds: seeds of the steps instead: an iterable, or a function of the step's number. With those of a
            run of the public code (``numpy.random.randint(1000000000)`` once a step) the run is repeated.

    Attributes:
        log: one :class:`Step` for every step.

    Raises:
        InvalidType: ``model`` is no module.
        InvalidArgument: a number is out of range, or a group holds a tensor that the model does not train.

    Example:
        >>> import torch
        >>> from dfo.nn.mezo import MeZO
        >>> model = torch.nn.Linear(3, 1)
        >>> opt = MeZO(model, lr=1e-2, seed=0)
        >>> x, y = torch.eye(3), torch.ones(3, 1)
        >>> losses = [opt.step(lambda m, b: ((m(b[0]) - b[1]) ** 2).mean(), (x, y)) for _ in range(200)]
        >>> losses[-1] < losses[0]
        True
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 1e-6,
        *,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
        groups: Iterable[Mapping[str, Any]] | None = None,
        seed: int = 0,
        seeds: Seeds | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InvalidType(f"model: expected a torch.nn.Module, got {short(model)}.")
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        given: Any = [{"params": list(named.values())}] if groups is None else [dict(g) for g in groups]
        super().__init__(given, {"lr": lr, "eps": eps, "weight_decay": weight_decay})
        self.model, self.log = model, list[Step]()
        self._key, self._names = Key.of(seed).child("mezo"), {id(p): name for name, p in named.items()}
        self._seeds, self._steps = seeds, 0
        self._given = None if seeds is None or callable(seeds) else iter(seeds)
        self._generators: dict[torch.device, torch.Generator] = {}
        self._check()

    def _check(self) -> None:
        for group in self.param_groups:
            if not (group["lr"] >= 0.0 and group["eps"] > 0.0 and group["weight_decay"] >= 0.0):
                told = {name: group[name] for name in ("lr", "eps", "weight_decay")}
                raise InvalidArgument(f"expected lr >= 0, eps > 0 and weight_decay >= 0, got {told}.")
            if any(id(p) not in self._names for p in group["params"]):
                raise InvalidArgument(
                    "groups: a tensor is no trainable parameter of the model. Take model.parameters()."
                )

    # ------------------------------------------------------------------ sweeps

    def _moves(self, seed: int) -> Iterator[tuple[str, nn.Parameter, dict[str, Any], Tensor]]:
        """Yield name, tensor, group and ``z`` in the order of the model; the generators begin at ``seed``."""
        owner = {id(p): group for group in self.param_groups for p in group["params"]}
        for generator in self._generators.values():
            generator.manual_seed(seed)
        for name, p in self.model.named_parameters():
            if id(p) not in owner or not p.requires_grad:
                continue
            if p.device not in self._generators:
                self._generators[p.device] = torch.Generator(p.device).manual_seed(seed)
            z = torch.empty_like(p, memory_format=torch.contiguous_format)
            yield name, p, owner[id(p)], z.normal_(generator=self._generators[p.device])

    def _sweep(self, seed: int, times: float) -> None:
        for _, p, group, z in self._moves(seed):
            p.add_(times * z * group["eps"])

    def _update(self, step: Step) -> None:
        told = zip(self.param_groups, step.slopes, step.rates, strict=True)
        scalars = {id(group): (slope, rate) for group, slope, rate in told}
        for name, p, group, z in self._moves(step.seed):
            slope, rate = scalars[id(group)]
            change = slope * z
            if not any(word in name for word in UNDECAYED):
                change = change + group["weight_decay"] * p
            p.sub_(rate * change)

    # ------------------------------------------------------------------ a step

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Closure | Loss, *batch: Any) -> float:
        """Take one step.

        Args:
            closure: a function without arguments that returns the loss; or, with a batch behind it, ``loss(model,
                batch)``. A tensor of several losses is averaged. No gradient is taken, dropout is off.
            batch: what the loss function sees.

        Returns:
            The loss at ``theta + eps z``, which is the one that the public code reports.
        """
        function: Any = closure
        given = (self.model, *batch) if batch else ()
        seed = self._next_seed()
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        swept = 0.0
        try:
            self._sweep(seed, 1.0)
            swept = 1.0
            plus = _scalar(function(*given))
            self._sweep(seed, -2.0)
            swept = -1.0
            minus = _scalar(function(*given))
        finally:
            if swept:
                self._sweep(seed, -swept)
            for module, mode in modes:
                module.training = mode
        slopes = tuple(float((plus - minus) / (2 * group["eps"])) for group in self.param_groups)
        self._do(Step(seed, slopes, tuple(float(group["lr"]) for group in self.param_groups)))
        return float(plus)

    def _do(self, step: Step) -> None:
        self._update(step)
        self.log.append(step)
        self._steps += 1

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def replay(self, log: Iterable[Step]) -> None:
        """Do the updates of a log again, without forward passes.

        The weights are those of the run up to the drift of its probing sweeps, which a log cannot know.
        """
        for step in log:
            self._do(Step(*step))

    def _next_seed(self) -> int:
        if self._given is not None:
            seed = next(self._given, None)
            if seed is None:
                raise InvalidArgument(f"seeds: expected one a step, got {self._steps} of them. Give more.")
            return int(seed)
        if callable(self._seeds):
            return int(self._seeds(self._steps))
        return int(integers(self._key.child(self._steps), SEEDS, (1,))[0])

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return groups, number of steps and log."""
        state: dict[str, Any] = super().state_dict()
        return state | {"step": self._steps, "log": [tuple(step) for step in self.log]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state; seeds given as an iterable are passed over up to its step.

        Raises:
            BadState: it is not the state of a MeZO.
        """
        if not {"step", "log"} <= set(state_dict):
            raise BadState("state: expected that of a dfo.nn.MeZO, with its step and its log.")
        super().load_state_dict({name: value for name, value in state_dict.items() if name not in ("step", "log")})
        if self._given is not None:
            for _ in range(int(state_dict["step"]) - self._steps):
                next(self._given, None)
        self._steps = int(state_dict["step"])
        self.log = [Step(*step) for step in state_dict["log"]]


def _scalar(loss: object) -> Any:
    """Return a loss as a tensor of its own precision, in which the public code subtracts, or as a number."""
    if is_torch(loss):
        tensor: Any = loss
        return tensor.detach() if tensor.dim() == 0 else tensor.detach().mean()
    if isinstance(loss, bool) or not isinstance(loss, (int, float)):
        raise InvalidType(f"loss: expected a number or a tensor, got {short(loss)}.")
    return float(loss)
