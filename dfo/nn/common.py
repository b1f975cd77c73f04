"""Random numbers that a forward pass draws from torch: the same for all members, and a function of a key.

Two members can be compared only under the same dropout masks and the same noise (common random numbers). A pass
therefore begins with generators seeded from the key of the evaluation, which get their own state back behind it, and
where members ride together every random function is computed as if one member were there, for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dfo.nn.lifted import Tiled, Unhandled, Weight, member_rows, once, plain, tile
from dfo.nn.members import Members
from dfo.random import Key

__all__ = ["Drew", "Seeded", "Together", "generators"]

States = list[Tensor]


class Drew(BaseException):
    """A pass drew random numbers, and nobody had foreseen it; no error, so nobody catches it as one."""


def generators(tensors: Iterable[Tensor]) -> list[torch.Generator]:
    """Return torch's own generators of the host and of the devices of some tensors."""
    indices = sorted({t.device.index for t in tensors if t.device.type == "cuda"})
    return [torch.default_generator, *(torch.cuda.default_generators[i] for i in indices)]


class Seeded:
    """A stretch of code whose random numbers are a function of a key; torch's generators do not notice.

    Args:
        own: the generators.
        key: of the numbers; None to find out whether there are any.
    """

    def __init__(self, own: Sequence[torch.Generator], key: Key | None) -> None:
        self.own, self.key = own, key

    def __enter__(self) -> Self:
        self.states: States = [generator.get_state() for generator in self.own]
        if self.key is not None:
            for generator in self.own:
                generator.manual_seed(self.key.words[0] >> 1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        drew = self.key is not None
        for generator, state in zip(self.own, self.states, strict=True):
            if drew or generator.get_state().numpy().tobytes() != state.numpy().tobytes():
                generator.set_state(state)
                drew = True
        if drew and self.key is None and (error is None or isinstance(error, Exception)):
            raise Drew from error


class Together(TorchFunctionMode):
    """Gives all members of a pass the random numbers of the first.

    Args:
        members: of the pass.
        own: the generators.
    """

    def __init__(self, members: Members, own: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.members, self.own = members, own

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        words = kwargs or {}
        rule = _RULES.get(getattr(func, "__name__", ""))
        if rule is not None:
            done = rule(self, func, args, words)
            if done is not NotImplemented:
                return done
        return func(*args, **words)

    def replayed(self, func: Any, args: Any, words: Any) -> Any:
        """Call a function for each member on its own rows, every time from the same state of the generators."""
        leaves = [x for x in (*args, *words.values()) if isinstance(x, Tensor)]
        own = [x for x in leaves if member_rows(x, self.members)]
        if not own or any(isinstance(x, Weight) for x in leaves):
            return NotImplemented
        if all(isinstance(x, Tiled) for x in own) and not _in_place(func, words):
            return tile(func(*map(_base, args), **{k: _base(v) for k, v in words.items()}), self.members)
        states, told = [generator.get_state() for generator in self.own], []
        for i in range(self.members.n):
            for generator, state in zip(self.own, states, strict=True):
                generator.set_state(state)
            told.append(func(*(self._part(x, i) for x in args), **{k: self._part(v, i) for k, v in words.items()}))
        return args[0] if _in_place(func, words) else torch.cat(told)

    def _part(self, x: Any, i: int) -> Any:
        if not isinstance(x, Tensor) or not member_rows(x, self.members):
            return x
        return plain(x).unflatten(0, (self.members.n, -1))[i]


def _base(x: Any) -> Any:
    return once(x) if isinstance(x, Tiled) else x


def _in_place(func: Any, words: Any) -> bool:
    name: str = func.__name__
    return bool(words.get("inplace")) or (name.endswith("_") and not name.endswith("__"))


# ---------------------------------------------------------------------------------------------- rules


def _replayed(mode: Together, func: Any, args: Any, words: Any) -> Any:
    return mode.replayed(func, args, words)


def _dropped(mode: Together, func: Any, args: Any, words: Any) -> Any:
    """Dropout entry by entry: one mask for the rows of a member, and one product."""
    given = dict(zip(("input", "p", "training", "inplace"), args, strict=False))
    given |= {"training" if name == "train" else name: value for name, value in words.items()}
    x, p = given.get("input"), given.get("p", 0.5)
    if not given.get("training", True) or p == 0.0:
        return NotImplemented
    n = mode.members.n
    if given.get("inplace") or _in_place(func, words) or isinstance(x, (Tiled, Weight)):
        return mode.replayed(func, args, words)
    if not isinstance(x, Tensor) or not member_rows(x, mode.members):
        return NotImplemented
    rows = x.unflatten(0, (n, -1))
    return (rows * F.dropout(torch.ones_like(rows[0]), p)).flatten(0, 1)


def _attended(mode: Together, func: Any, args: Any, words: Any) -> Any:
    p = words.get("dropout_p", args[4] if len(args) > 4 else 0.0)
    return mode.replayed(func, args, words) if p else NotImplemented


def _created(mode: Together, func: Any, args: Any, words: Any) -> Any:
    """Numbers of a shape that begins with the rows of all members."""
    flat = bool(args) and all(isinstance(a, int) for a in args) and func.__name__ in {"rand", "randn"}
    size = words.get("size", args if flat else next((a for a in reversed(args) if isinstance(a, (tuple, list))), ()))
    n = mode.members.n
    if not size or size[0] == 0 or size[0] % (n * mode.members.rows):
        return NotImplemented
    less = (size[0] // n, *size[1:])
    if "size" in words:
        drawn = func(*args, **{**words, "size": less})
    else:
        drawn = func(*(less if flat else [less if a is size else a for a in args]), **words)
    return drawn.repeat(n, *[1] * (drawn.dim() - 1))


def _recurrent(mode: Together, func: Any, args: Any, words: Any) -> Any:
    """Functions that drop within, on rows that cannot be told apart outside."""
    if func.__name__ == "multi_head_attention_forward":
        p, training = args[10], words.get("training", args[13] if len(args) > 13 else True)
    else:
        at = next((i for i, x in enumerate(args) if isinstance(x, float)), None)
        p, training = (0.0, False) if at is None else (args[at], args[at + 1])
    if p and training:
        raise Unhandled(f"{func.__name__} with dropout has no rule for members")
    return NotImplemented


def _sampled(mode: Together, func: Any, args: Any, words: Any) -> Any:
    done = mode.replayed(func, args, words)
    return _created(mode, func, args, words) if done is NotImplemented else done


_RULES: dict[str, Callable[[Together, Any, Any, Any], Any]] = {
    **dict.fromkeys(("dropout", "dropout_"), _dropped),
    **dict.fromkeys((
        "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "alpha_dropout_", "feature_dropout_",
        "feature_alpha_dropout_", "dropout1d", "dropout2d", "dropout3d", "rrelu", "rrelu_", "gumbel_softmax",
        "bernoulli", "multinomial", "poisson", "binomial", "_standard_gamma", "_sample_dirichlet", "rand_like",
        "randn_like", "randint_like", "normal_", "uniform_", "bernoulli_", "exponential_", "random_", "geometric_",
        "log_normal_", "cauchy_", "fractional_max_pool2d", "fractional_max_pool3d",
    ), _replayed),
    **dict.fromkeys(("rand", "randn", "randint"), _created),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu", "multi_head_attention_forward"), _recurrent),
    "normal": _sampled,
    "scaled_dot_product_attention": _attended,
}  # fmt: skip
"""Random functions by name; what has no rule is found by the comparison with single members, and goes one by one."""
