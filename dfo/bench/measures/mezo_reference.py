"""The two-point step of public codes, re-told: four sweeps over the weights, each drawing the noise again.

This is what dfo's engine is timed and trained against, and nothing else uses it. A step draws one integer as the seed
of torch's generator and sweeps the weights three times to put them at the two points and back (``+ r z``, ``- 2 r z``,
``+ r z``) and a fourth time to move them; every sweep starts the generator anew and draws normal numbers tensor by
tensor, in the dtype of the tensor, in the order in which the module lists them. Sums are made out of place and bound
to the parameter, and the decay is part of the last one even where it is zero: so the time and the memory are those of
the public codes. Weights below single precision do not come back to the bit, as they do not there.

Source: Malladi et al. (2023), Fine-Tuning Language Models with Just Forward Passes (arXiv:2305.17333), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from dfo.random import Key, integers

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Reference", "reference_step"]


def reference_step(
    weights: Sequence[Tensor],
    value: Callable[[], float],
    lr: float,
    radius: float = 1e-3,
    seed: int = 0,
    decay: float = 0.0,
) -> tuple[float, float]:
    """Move weights along one random direction and return the loss at its far end, and the slope along it.

    Args:
        weights: the parameters that move, each once; they are bound to new memory.
        value: the loss at the weights as they are.
        lr: step length by which slope and direction are multiplied.
        radius: distance of the two points from the weights.
        seed: of the direction.
        decay: weight of the weights themselves in the direction of the step.
    """

    def shift(sign: int) -> None:
        for w, z in _noise(weights, seed):
            w.data = w.data + sign * z * radius

    shift(1)
    ahead = value()
    shift(-2)
    behind = value()
    shift(1)
    slope = (ahead - behind) / (2.0 * radius)
    for w, z in _noise(weights, seed):
        w.data = w.data - lr * (slope * z + decay * w.data)
    return ahead, slope


def _noise(weights: Sequence[Tensor], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every weight with its part of the direction of a seed."""
    import torch

    generators: dict[torch.device, torch.Generator] = {}
    for w in weights:
        if w.device not in generators:  # every device counts from the seed on its own
            generators[w.device] = torch.Generator(w.device).manual_seed(seed)
        yield w, torch.normal(0.0, 1.0, w.shape, generator=generators[w.device], dtype=w.dtype, device=w.device)


class Reference:
    """A training by reference steps, with the constant step length and radius that the public codes start from.

    Args:
        module: whose parameters that require a gradient move; it is put into evaluation mode and stays in it.
        lr: step length.
        radius: distance of the two points from the weights.
        seed: of the sequence of directions.
    """

    def __init__(self, module: nn.Module, lr: float = 1e-6, radius: float = 1e-3, seed: int = 0) -> None:
        self.module, self.lr, self.radius, self.key, self.steps = module.eval(), lr, radius, Key.of(seed), 0

    def step(self, loss: Callable[..., Tensor], batch: object) -> float:
        """Take one step on the mean of ``loss(module, batch)``; return the loss at the far end of the direction."""
        import torch

        def value() -> float:
            with torch.inference_mode():
                return float(loss(self.module, batch).float().mean())

        seed = int(integers(self.key.child(self.steps), 10**9, (1,))[0])
        self.steps += 1
        weights = [w for w in self.module.parameters() if w.requires_grad]
        return reference_step(weights, value, self.lr, self.radius, seed)[0]
