"""Peers as a pair of ``ask`` and ``tell`` and a count of what they were told."""

import numpy as np

DIMENSION = 4


def value(x):
    return float(((np.asarray(x) - 0.3) ** 2).sum())


def nevergrad(budget):
    import nevergrad as ng

    where = ng.p.Array(init=np.full(DIMENSION, 0.5)).set_bounds(-2.0, 2.0)
    optimizer = ng.optimizers.registry["CMA"](where, budget=budget, num_workers=8)
    return optimizer.ask, lambda one: optimizer.tell(one, value(one.value)), lambda: optimizer.num_ask


def pycma(budget):
    """A generation is what pycma asks for and tells; a round is one."""
    import cma

    es = cma.CMAEvolutionStrategy([0.5] * DIMENSION, 0.5, {"seed": 1, "verbose": -9})
    size = es.popsize
    return es.ask, lambda points: es.tell(points, [value(x) for x in points]), lambda: es.countevals // size


def optuna(budget):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1))

    def tell(trial):
        study.tell(trial, value([trial.suggest_float(f"x{i}", -2.0, 2.0) for i in range(DIMENSION)]))

    return study.ask, tell, lambda: sum(t.state.name == "COMPLETE" for t in study.trials)


MADE = {"nevergrad": nevergrad, "pycma": pycma, "optuna": optuna}
