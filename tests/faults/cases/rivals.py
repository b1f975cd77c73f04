"""What the child processes run of the peers: each kept and resumed in the way that its documentation gives."""

import hashlib
import os
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from black_box import BlackBox

DIMENSION = 6
START, BOUNDS = [0.5] * DIMENSION, [(-2.0, 2.0)] * DIMENSION


def digest(*arrays):
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.asarray(array, dtype=float).tobytes())
    return content.hexdigest()


# ---------------------------------------------------------------------- kept and resumed


def pycma_pickle(path, budget, box):
    """``open(path, "wb").write(es.pickle_dumps())`` after each generation."""
    import cma

    fun = BlackBox(**box)
    if Path(path).exists():
        es = pickle.loads(Path(path).read_bytes())
    else:
        es = cma.CMAEvolutionStrategy(START, 0.5, {"seed": 1, "bounds": [-2.0, 2.0], "verbose": -9})
        es.values = []
    found = len(es.values)
    while len(es.values) < budget:
        points = es.ask()
        values = [fun(x) for x in points]
        es.tell(points, values)
        es.values += values
        Path(path).write_bytes(es.pickle_dumps())
    return {"digest": digest(es.values, es.mean, [es.sigma]), "nfev": len(es.values), "found": found}


def pycma_kept(path):
    return {"values": pickle.loads(Path(path).read_bytes()).values}


def optuna_journal(path, budget, box):
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return optuna_study(JournalStorage(JournalFileBackend(str(path))), budget, box)


def optuna_sqlite(path, budget, box):
    return optuna_study(f"sqlite:///{path}", budget, box)


def optuna_study(storage, budget, box):
    study = opened(storage)
    fun = BlackBox(**box)

    def objective(trial):
        return fun(np.array([trial.suggest_float(f"x{i}", -2.0, 2.0) for i in range(DIMENSION)]))

    found = len(complete(study))
    study.optimize(objective, n_trials=budget - found)
    values = complete(study)
    return {"digest": digest(values), "nfev": len(values), "found": found}


def opened(storage):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=1)
    return optuna.create_study(storage=storage, study_name="run", load_if_exists=True, sampler=sampler)


def complete(study):
    return [t.value for t in study.trials if t.state.name == "COMPLETE"]


def optuna_journal_kept(path):
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return {"values": complete(existing(JournalStorage(JournalFileBackend(str(path)))))}


def optuna_sqlite_kept(path):
    return {"values": complete(existing(f"sqlite:///{path}"))}


def existing(storage):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.load_study(storage=storage, study_name="run")


def nevergrad_dump(path, budget, box):
    """``optimizer.dump(path)`` after each ``tell``."""
    import nevergrad as ng

    fun = BlackBox(**box)
    optimizer = ng.optimizers.registry["CMA"]
    if Path(path).exists():
        optimizer = optimizer.load(path)
    else:
        where = ng.p.Array(init=np.array(START)).set_bounds(-2.0, 2.0)
        where.random_state.seed(1)
        optimizer = optimizer(where, budget=budget)
        optimizer.told = []
    found = len(optimizer.told)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while len(optimizer.told) < budget:
            candidate = optimizer.ask()
            value = fun(candidate.value)
            optimizer.tell(candidate, value)
            optimizer.told.append(value)
            optimizer.dump(path)
        return {"digest": digest(optimizer.told, optimizer.recommend().value), "nfev": len(optimizer.told),
                "found": found}  # fmt: skip


def nevergrad_kept(path):
    import nevergrad as ng

    return {"values": ng.optimizers.registry["CMA"].load(path).told}


KEPT = {"pycma_pickle": pycma_kept, "optuna_journal": optuna_journal_kept, "optuna_sqlite": optuna_sqlite_kept,
        "nevergrad_dump": nevergrad_kept}  # fmt: skip


def read_flipped(system, source, flips, folder):
    """Read a stored run with one bit changed, in a forked child for each; return a word for each flip."""
    truth, words = KEPT[system](source)["values"], []
    original = Path(source).read_bytes()
    for number, (place, bit) in enumerate(flips):
        damaged = bytearray(original)
        damaged[place] ^= 1 << bit
        path = Path(folder, f"{number}{Path(source).suffix}")
        path.write_bytes(bytes(damaged))
        words.append(judged(system, path, truth))
        path.unlink()
    return {"words": words, "size": len(original)}


def judged(system, path, truth):
    pid = os.fork()
    if pid == 0:
        try:
            import signal

            signal.alarm(20)
            values = KEPT[system](path)["values"]
            code = 0 if values == truth else 2 if values == truth[: len(values)] else 3
        except BaseException:
            code = 1
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {0: "unnoticed, harmless", 1: "refused", 2: "silently fewer", 3: "silently wrong"}.get(code, "crash or hang")


# ---------------------------------------------------------------------- with workers, or at length


def scipy_nelder_mead(budget, box):
    from scipy.optimize import minimize

    return {"nfev": minimize(BlackBox(**box), START, method="Nelder-Mead", options={"maxfev": budget}).nfev}


def scipy_evolution(budget, box, workers=1):
    from scipy.optimize import differential_evolution

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        res = differential_evolution(
            BlackBox(**box), BOUNDS, rng=1, workers=workers, popsize=2, maxiter=max(1, budget // (2 * DIMENSION) - 1),
            polish=False, updating="deferred",
        )  # fmt: skip
    return {"nfev": int(res.nfev)}


def scipy_evolution_two(budget, box):
    return scipy_evolution(budget, box, workers=2)


def pycma_fmin(budget, box):
    import cma

    es = cma.fmin2(BlackBox(**box), START, 0.5, {"seed": 1, "verbose": -9, "maxfevals": budget})[1]
    return {"nfev": int(es.countevals)}


def pycma_two(budget, box):
    import cma

    es = cma.CMAEvolutionStrategy(START, 0.5, {"seed": 1, "verbose": -9, "maxfevals": budget})
    es.optimize(BlackBox(**box), n_jobs=2)
    return {"nfev": int(es.countevals)}


def nevergrad_two(budget, box):
    import nevergrad as ng

    optimizer = ng.optimizers.registry["CMA"](ng.p.Array(init=np.array(START)), budget=budget, num_workers=2)
    with warnings.catch_warnings(), ProcessPoolExecutor(2) as pool:
        warnings.simplefilter("ignore")
        optimizer.minimize(BlackBox(**box), executor=pool, batch_mode=False)
    return {"nfev": optimizer.num_tell}


def nevergrad_serial(budget, box):
    import nevergrad as ng

    optimizer = ng.optimizers.registry["CMA"](ng.p.Array(init=np.array(START)), budget=budget)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.minimize(BlackBox(**box))
    return {"nfev": optimizer.num_tell}


def optuna_create(path, go):
    """Wait for the file ``go``, then create or open a study in sqlite: a race of several processes."""
    import time

    while not Path(go).exists():
        time.sleep(0.001)
    opened(f"sqlite:///{path}").optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    return {"done": True}
