"""Which coordinates are worth a probe: ratios of the layers found at initialisation, coordinates redrawn inside them.

DeepZero (Chen et al. 2024, arXiv:2310.02025) scores weights by GraSP (Wang et al. 2020, arXiv:2002.07376) without
gradients, keeps of the scores only what share of each layer survives, and probes other coordinates of that share at
every redraw, so that the network stays dense.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dfo.errors import InvalidArgument, short
from dfo.nn.coordinates import Params, select
from dfo.nn.reuse import Loss, Session
from dfo.random import Key, choice, normal

__all__ = ["random_mask", "zo_grasp"]


def zo_grasp(
    module: nn.Module,
    loss: Loss,
    batch: Any,
    sparsity: float,
    *,
    params: Params | None = None,
    samples: int = 192,
    radius: float = 5e-3,
    seed: int | Key = 0,
) -> dict[str, float]:
    """Return the share of each tensor's coordinates that are probed, by forward passes only.

    The score of a weight is ``-w (H g)`` (Wang et al. 2020, eq. 8): how removing it moves the squared norm of the
    gradient. The weights of the highest scores are dropped, a share ``sparsity`` of all; ``H g`` is
    ``(G(w + r g) - G(w)) / r`` with ``g = G(w)`` of unit length and G the random estimator, the mean over the samples
    of ``(L(w + r u) - L(w)) u / r``, with the same gaussian directions both times. Vectors (biases, norms) are kept
    whole and not counted.

    Args:
        module: as it is at initialisation.
        loss: as for :func:`~dfo.nn.coordinates.coordinate_gradient`.
        batch: what the loss is given.
        sparsity: share that is dropped, in [0, 1).
        params: as for :func:`~dfo.nn.coordinates.coordinate_gradient`.
        samples: directions of each estimate; 2 samples + 2 forward passes in all.
        radius: of the differences.
        seed: of the directions.

    Raises:
        InvalidArgument: an option is out of its range, or no parameter is selected.
    """
    if not 0 <= sparsity < 1:
        raise InvalidArgument(f"sparsity: expected a share in [0, 1), got {short(sparsity)}.")
    if samples < 1 or not radius > 0:
        raise InvalidArgument(f"expected samples >= 1 and radius > 0, got {samples} and {short(radius)}.")
    chosen, key = select(module, params), Key.of(seed)
    scored = [name for name, p in chosen.items() if p.ndim > 1]
    with Session(module, loss, batch, double=True) as session:
        session.record()
        start = {name: session.stand_in(chosen[name]) for name in scored}
        at = _estimate(session, start, samples, radius, key)
        length = sum(float(g.square().sum()) for g in at.values()) ** 0.5 or 1.0
        ahead = {name: w + radius / length * at[name] for name, w in start.items()}
        there = _estimate(session, ahead, samples, radius, key)
        scores = {name: (-w * (there[name] - at[name])).reshape(-1).cpu() for name, w in start.items()}
    total = sum(s.numel() for s in scores.values())
    kept = torch.zeros(total, dtype=torch.bool)
    if total:
        kept[torch.cat(list(scores.values())).argsort(stable=True)[: total - round(sparsity * total)]] = True
    ratios = dict.fromkeys(chosen, 1.0)
    for name, part in zip(scores, kept.split([s.numel() for s in scores.values()]), strict=True):
        ratios[name] = float(part.double().mean())
    return ratios


def _estimate(
    session: Session, start: Mapping[str, Tensor], samples: int, radius: float, key: Key
) -> dict[str, Tensor]:
    """Return the random estimate of the gradient at ``start``."""
    base, total = session.plain(start), {name: torch.zeros_like(w) for name, w in start.items()}
    for i in range(samples):
        u: dict[str, Any] = {name: normal(key.child(i, name), tuple(w.shape), like=w) for name, w in start.items()}
        slope = (session.plain({name: w + radius * u[name] for name, w in start.items()}) - base) / (radius * samples)
        for name in total:
            total[name] += slope * u[name]
    return total


def random_mask(ratios: Mapping[str, float], module: nn.Module, key: Key) -> dict[str, Tensor]:
    """Return flat indices of the coordinates to probe, drawn anew under each key inside the ratios of the tensors.

    Exactly ``round(ratio * size)`` different coordinates of each tensor are drawn: the density of a mask is not random.

    Args:
        ratios: share of each tensor, by name, as of :func:`zo_grasp`.
        module: whose tensors they are.
        key: of this draw.

    Raises:
        InvalidArgument: a tensor is unknown, or a ratio is not in [0, 1].

    Example:
        >>> import torch
        >>> net = torch.nn.Linear(20, 10)
        >>> {name: len(index) for name, index in random_mask({"weight": 0.1, "bias": 1.0}, net, Key(0)).items()}
        {'weight': 20, 'bias': 10}
    """
    sizes = {name: p.numel() for name, p in module.named_parameters()}
    masks = {}
    for name, ratio in ratios.items():
        if name not in sizes:
            raise InvalidArgument(f"ratios: expected names of parameters, got {short(name)}. Use named_parameters().")
        if not 0 <= ratio <= 1:
            raise InvalidArgument(f"ratios: expected a share in [0, 1] for {name}, got {short(ratio)}.")
        drawn = choice(key.child(name), sizes[name], round(ratio * sizes[name]))
        masks[name] = torch.from_numpy(drawn).sort().values
    return masks
