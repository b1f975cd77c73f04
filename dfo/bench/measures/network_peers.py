"""Other libraries on the workloads of :mod:`dfo.bench.measures.network_workloads`.

Each function returns what evaluates a population once, or runs one generation of it, the way the library's own
documentation does it. ImportError means that the library is not installed; ``None`` that it cannot do the workload.
HyperscaleES is no package: its folder is given by the environment variable :data:`CHECKOUT`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dfo.bench.measures.network_jax import loss_of, parameters
from dfo.bench.measures.network_workloads import Step, Workload

__all__ = ["CHECKOUT", "FORWARD", "GENERATION", "Peer"]

Peer = Callable[[Workload], Step | None]

CHECKOUT = "DFO_HYPERSCALE_ES"
"""Environment variable with the folder of a checkout of HyperscaleES."""

SIGMA = 0.01


# ---------------------------------------------------------------------------------------------- torch alone


def _loop(work: Workload) -> Step:
    """Copy a member into the module, run it, and so on."""
    points, module = work.points(), work.module

    def once() -> Tensor:
        losses = []
        for i, row in enumerate(points):
            nn.utils.vector_to_parameters(row, module.parameters())
            own = (work.x[i : i + 1], work.y[i : i + 1]) if work.own else (work.x, work.y)
            losses.append(work.loss(module, own).mean())
        return torch.stack(losses)

    return _restoring(module, once)


def _restoring(module: nn.Module, step: Step) -> Step:
    own = {name: p.detach().clone() for name, p in module.state_dict().items()}

    def once() -> object:
        done = step()
        module.load_state_dict(own)
        return done

    return once


def _stacked(work: Workload, points: Tensor) -> dict[str, Tensor]:
    made, at = {}, 0
    for name, p in work.module.named_parameters():
        made[name] = points[:, at : at + p.numel()].reshape(len(points), *p.shape)
        at += p.numel()
    return made


def _mapped(work: Workload) -> Callable[[dict[str, Tensor]], Tensor]:
    def one(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        rows = (x.unsqueeze(0), y.unsqueeze(0)) if work.own else (x, y)
        return work.judge(functional_call(work.module, weights, (rows[0],)), rows[1]).mean()

    each = 0 if work.own else None
    mapped = torch.vmap(one, in_dims=(0, each, each))
    return lambda weights: mapped(weights, work.x, work.y)


def _vmap(work: Workload) -> Step:
    weights, mapped = _stacked(work, work.points()), _mapped(work)
    return lambda: mapped(weights)


def _centred(f: Tensor) -> Tensor:
    return (f - f.mean()) / f.std()


def _vmap_generation(work: Workload) -> Step:
    center, mapped = nn.utils.parameters_to_vector(work.module.parameters()).detach(), _mapped(work)

    def once() -> None:
        noise = torch.randn(work.members, len(center))
        f = mapped(_stacked(work, center + SIGMA * noise))
        center.sub_(noise.T @ _centred(f), alpha=1e-6)

    return once


def _loop_generation(work: Workload) -> Step:
    module = work.module
    center = nn.utils.parameters_to_vector(module.parameters()).detach()

    def once() -> None:
        noise = torch.randn(work.members, len(center))
        losses = []
        for i in range(work.members):
            nn.utils.vector_to_parameters(center + SIGMA * noise[i], module.parameters())
            own = (work.x[i : i + 1], work.y[i : i + 1]) if work.own else (work.x, work.y)
            losses.append(work.loss(module, own).mean())
        center.sub_(noise.T @ _centred(torch.stack(losses)), alpha=1e-6)

    return _restoring(module, once)


# ---------------------------------------------------------------------------------------------- EvoTorch


def _ne_problem(work: Workload) -> Any:
    logging.disable(logging.INFO)
    from evotorch.neuroevolution import NEProblem

    seen = [0]

    def fitness(network: nn.Module) -> Tensor:
        i = seen[0] % work.members
        seen[0] += 1
        own = (work.x[i : i + 1], work.y[i : i + 1]) if work.own else (work.x, work.y)
        with torch.no_grad():
            return work.loss(network, own).mean()

    return NEProblem("min", work.module, fitness)


def _evaluating(problem: Any, work: Workload) -> Step:
    batch = problem.generate_batch(work.members)
    batch.set_values(work.points())

    def once() -> None:
        problem.evaluate(batch)

    return once


def _evotorch_ne(work: Workload) -> Step:
    return _evaluating(_ne_problem(work), work)


def _evotorch_supervised(work: Workload) -> Step | None:
    if work.own:
        return None
    logging.disable(logging.INFO)
    from evotorch.neuroevolution import SupervisedNE

    data = torch.utils.data.TensorDataset(work.x, work.y)
    problem = SupervisedNE(
        data, work.module, lambda scores, y: work.judge(scores, y).mean(), minibatch_size=len(work.x)
    )
    return _evaluating(problem, work)


def _evotorch_functional(work: Workload) -> Step:
    logging.disable(logging.INFO)
    from evotorch.neuroevolution.net import make_functional_module

    network, points = make_functional_module(work.module, disable_autograd_tracking=True), work.points()

    def one(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        rows = (x.unsqueeze(0), y.unsqueeze(0)) if work.own else (x, y)
        return work.judge(network(w, rows[0]), rows[1]).mean()

    each = 0 if work.own else None
    mapped = torch.vmap(one, in_dims=(0, each, each))
    return lambda: mapped(points, work.x, work.y)


def _evotorch_policy(work: Workload) -> Step | None:
    """What VecGymNE does with the observations of a population."""
    if not work.own:
        return None
    logging.disable(logging.INFO)
    from evotorch.neuroevolution.net.vecrl import Policy

    policy = Policy(work.module)
    policy.set_parameters(work.points())
    return lambda: work.judge(policy(work.x), work.y)


def _evotorch_pgpe(work: Workload) -> Step:
    problem = _ne_problem(work)
    from evotorch.algorithms import PGPE

    center = nn.utils.parameters_to_vector(work.module.parameters()).detach().clone()
    searcher = PGPE(
        problem, popsize=work.members, center_learning_rate=1e-6, stdev_learning_rate=0.1, stdev_init=SIGMA,
        center_init=center,
    )  # fmt: skip
    step: Step = searcher.step
    return step


# ---------------------------------------------------------------------------------------------- EvoX


def _loader(work: Workload) -> Any:
    data = torch.utils.data.TensorDataset(work.x, work.y)
    return torch.utils.data.DataLoader(data, batch_size=len(work.x))


class _Judge(nn.Module):  # type: ignore[misc]
    def __init__(self, work: Workload) -> None:
        super().__init__()
        self.judge = work.judge

    def forward(self, scores: Tensor, y: Tensor) -> Tensor:
        return self.judge(scores, y)


def _evox_supervised(work: Workload) -> Step | None:
    if work.own:
        return None
    from evox.problems.neuroevolution.supervised_learning import SupervisedLearningProblem

    problem = SupervisedLearningProblem(work.module, _loader(work), _Judge(work), pop_size=work.members)
    weights = _stacked(work, work.points())
    return lambda: problem.evaluate(weights)


def _virtual(work: Workload, rank: int) -> Any:
    if work.own or not isinstance(work.module, nn.Sequential):
        return None
    from evox.problems.neuroevolution.virtual_lora_problem import VirtualLoRAProblem

    return VirtualLoRAProblem(work.module, _loader(work), _Judge(work), rank)


def _evox_virtual(work: Workload, rank: int) -> Step | None:
    problem = _virtual(work, rank)
    if problem is None:
        return None
    center = nn.utils.parameters_to_vector(work.module.parameters()).detach()
    return lambda: problem.evaluate((center, torch.randint(0, 2**31, (work.members,)), SIGMA))


def _evox_virtual_generation(work: Workload, rank: int) -> Step | None:
    problem = _virtual(work, rank)
    if problem is None:
        return None
    from evox.algorithms.so.es_variants.virtual_lora_es import VirtualLoRAES
    from evox.workflows import StdWorkflow

    center = nn.utils.parameters_to_vector(work.module.parameters()).detach()
    shapes = [tuple(p.shape) for p in work.module.parameters()]
    algorithm = VirtualLoRAES(shapes, rank, work.members, center, 1e-6, SIGMA)
    workflow = StdWorkflow(algorithm, problem)
    step: Step = workflow.step
    return step


# ---------------------------------------------------------------------------------------------- CBXpy


def _cbx(work: Workload) -> Step | None:
    if work.own:
        return None
    from cbx.utils.torch_utils import eval_losses, get_param_properties

    properties, points = get_param_properties([work.module]), work.points()

    def mean(scores: Tensor, y: Tensor) -> Tensor:
        return work.judge(scores, y).mean()

    return lambda: eval_losses(work.x, work.y, mean, work.module, points, properties)


# ---------------------------------------------------------------------------------------------- evosax, HyperscaleES


def _waiting(function: Callable[..., Any], *args: Any) -> Step:
    import jax

    return lambda: jax.block_until_ready(function(*args))


def _evosax(work: Workload) -> Step:
    import evosax  # noqa: F401 - it leaves the mapping to its users, but must be there
    import jax
    import jax.numpy as jnp

    points = {name: jnp.asarray(p.numpy()) for name, p in _stacked(work, work.points()).items()}
    each = 0 if work.own else None
    mapped = jax.jit(jax.vmap(loss_of(work), in_axes=(0, each, each)))
    return _waiting(mapped, points, jnp.asarray(work.x.numpy()), jnp.asarray(work.y.numpy()))


def _evosax_generation(work: Workload) -> Step:
    import jax
    import jax.numpy as jnp
    import optax
    from evosax.algorithms import Open_ES

    center = parameters(work)
    algorithm = Open_ES(work.members, center, optimizer=optax.sgd(1e-6), std_schedule=optax.constant_schedule(SIGMA))
    each = 0 if work.own else None
    mapped = jax.vmap(loss_of(work), in_axes=(0, each, each))
    x, y, given = jnp.asarray(work.x.numpy()), jnp.asarray(work.y.numpy()), algorithm.default_params

    def generation(key: Any, state: Any) -> Any:
        ask, tell = jax.random.split(key)
        points, state = algorithm.ask(ask, state, given)
        return algorithm.tell(tell, points, mapped(points, x, y), state, given)[0]

    compiled = jax.jit(generation)
    held = [jax.random.key(0), algorithm.init(jax.random.key(1), center, given)]

    def once() -> None:
        held[0], key = jax.random.split(held[0])
        held[1] = jax.block_until_ready(compiled(key, held[1]))

    return once


def _hyperscale() -> tuple[Any, Any]:
    """Import the two modules that are needed; the package itself imports much that is not."""
    folder = os.environ.get(CHECKOUT)
    if not folder or not (Path(folder) / "src" / "hyperscalees").is_dir():
        raise ImportError(f"{CHECKOUT} names no checkout of HyperscaleES.")
    for name in ("hyperscalees", "hyperscalees.models", "hyperscalees.noiser"):
        shell = ModuleType(name)
        shell.__path__ = [str(Path(folder, "src", *name.split(".")))]
        sys.modules.setdefault(name, shell)
    from importlib import import_module

    return import_module("hyperscalees.models.common"), import_module("hyperscalees.noiser.eggroll")


def _hyperscale_forward(work: Workload, rank: int) -> Step | None:
    if not isinstance(work.module, nn.Sequential):
        return None
    common, eggroll = _hyperscale()
    import jax
    import jax.numpy as jnp

    linear = [layer for layer in work.module if isinstance(layer, nn.Linear)]
    sizes = [linear[0].in_features, *(layer.out_features for layer in linear)]
    fixed, weights, scan, _ = common.MLP.rand_init(
        jax.random.key(0), in_dim=sizes[0], out_dim=sizes[-1], hidden_dims=sizes[1:-1], use_bias=True,
        activation="relu", dtype="float32",
    )  # fmt: skip
    keys = common.simple_es_tree_key(weights, jax.random.key(1), scan)
    frozen, noise = eggroll.EggRoll.init_noiser(weights, SIGMA, 1e-6, rank=rank, noise_reuse=1)
    judge = loss_of(work, lambda x: x)

    def one(epoch: Any, member: Any, x: Any, y: Any) -> Any:
        rows = x[None] if work.own else x
        scores = common.MLP.forward(eggroll.EggRoll, frozen, noise, fixed, weights, keys, (epoch, member), rows)
        return judge(None, scores, y)

    each = 0 if work.own else None
    mapped = jax.jit(jax.vmap(one, in_axes=(None, 0, each, each)))
    x, y, members, epoch = jnp.asarray(work.x.numpy()), jnp.asarray(work.y.numpy()), jnp.arange(work.members), [0]

    def once() -> None:
        epoch[0] += 1
        jax.block_until_ready(mapped(epoch[0], members, x, y))

    return once


FORWARD: Mapping[str, Peer] = {
    "loop": _loop,
    "vmap": _vmap,
    "EvoTorch NEProblem": _evotorch_ne,
    "EvoTorch SupervisedNE": _evotorch_supervised,
    "EvoTorch functional + vmap": _evotorch_functional,
    "EvoTorch VecGymNE Policy": _evotorch_policy,
    "EvoX SupervisedLearning": _evox_supervised,
    "EvoX VirtualLoRA r=4 (draws)": lambda work: _evox_virtual(work, 4),
    "CBXpy eval_losses": _cbx,
    "evosax": _evosax,
    "HyperscaleES r=1 (draws)": lambda work: _hyperscale_forward(work, 1),
    "HyperscaleES r=4 (draws)": lambda work: _hyperscale_forward(work, 4),
}
"""Name of a peer to what builds an evaluation of the whole population."""

GENERATION: Mapping[str, Peer] = {
    "loop + randn": _loop_generation,
    "vmap + randn": _vmap_generation,
    "EvoTorch PGPE": _evotorch_pgpe,
    "evosax Open_ES": _evosax_generation,
    "EvoX VirtualLoRAES r=4": lambda work: _evox_virtual_generation(work, 4),
}
"""Name of a peer to what builds a generation: draw, evaluate, move the center."""
