"""The networks of the workloads as JAX functions of their weights, for the peers that need them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from dfo.bench.measures.network_workloads import DEPTH, HEADS, LENGTH, WIDTH, LeNet, Transformer, Workload

__all__ = ["forward_of", "loss_of", "parameters"]

Forward = Callable[[Any, Any], Any]


def parameters(work: Workload) -> dict[str, Any]:
    """Return the weights by name."""
    import jax.numpy as jnp

    return {name: jnp.asarray(p.detach().numpy()) for name, p in work.module.named_parameters()}


def loss_of(work: Workload, of_scores: Callable[[Any], Any] | None = None) -> Callable[[Any, Any, Any], Any]:
    """Return ``loss(weights, x, y)``, the mean loss of one member; with ``of_scores`` x are the scores."""
    import jax
    import jax.numpy as jnp

    forward = forward_of(work.module)

    def loss(weights: Any, x: Any, y: Any) -> Any:
        rows = x[None] if work.own and of_scores is None else x
        scores = forward(weights, rows) if of_scores is None else of_scores(x)
        if work.own:
            return scores.sum()
        chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), y[..., None], -1)
        return -chosen.mean()

    return loss


def forward_of(module: nn.Module) -> Forward:
    """Return the forward pass of a network as a function of weights and examples."""
    if isinstance(module, LeNet):
        return _lenet
    if isinstance(module, Transformer):
        return _transformer
    names = [name for name, layer in module.named_children() if isinstance(layer, nn.Linear)]
    return lambda weights, x: _dense(weights, x, names)


def _linear(w: Any, name: str, x: Any) -> Any:
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def _dense(w: Any, x: Any, names: list[str]) -> Any:
    import jax

    for name in names[:-1]:
        x = jax.nn.relu(_linear(w, name, x))
    return _linear(w, names[-1], x)


def _lenet(w: Any, x: Any) -> Any:
    import jax
    import jax.numpy as jnp

    for name, padding in (("first", 2), ("second", 0)):
        edges = [(padding, padding)] * 2
        x = jax.lax.conv_general_dilated(x, w[f"{name}.weight"], (1, 1), edges)
        x = jax.nn.relu(x + w[f"{name}.bias"][:, None, None])
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return _dense(w, x.reshape(x.shape[0], -1), ["dense.0", "dense.2", "dense.4"])


def _norm(w: Any, name: str, x: Any) -> Any:
    import jax.numpy as jnp

    centred = x - x.mean(-1, keepdims=True)
    unit = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return unit * w[f"{name}.weight"] + w[f"{name}.bias"]


def _transformer(w: Any, tokens: Any) -> Any:
    import jax
    import jax.numpy as jnp

    x = w["token.weight"][tokens] + w["place.weight"]
    causal = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))
    for i in range(DEPTH):
        at = f"blocks.{i}."
        heads = _linear(w, at + "qkv", _norm(w, at + "before", x)).reshape(-1, LENGTH, 3, HEADS, WIDTH // HEADS)
        q, k, v = (heads[:, :, j].transpose(0, 2, 1, 3) for j in range(3))
        scores = jnp.where(causal, q @ k.swapaxes(2, 3) / (WIDTH // HEADS) ** 0.5, -jnp.inf)
        mixed = (jax.nn.softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        x = x + _linear(w, at + "out", mixed)
        x = x + _linear(
            w, at + "down", jax.nn.gelu(_linear(w, at + "up", _norm(w, at + "between", x)), approximate=False)
        )
    return _linear(w, "head", _norm(w, "norm", x))
