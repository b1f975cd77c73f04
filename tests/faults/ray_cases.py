"""A Ray cluster of several nodes on loopback, and what a run promises when one of them is killed."""

import os
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

import dfo
from dfo.run.crew import ray_head
from dfo.run.crew.ray import RayEvaluator

BATCH = 12
LOOPBACK = {"node_ip_address": "127.0.0.1", "include_dashboard": False, "object_store_memory": 80 * 2**20}


@contextmanager
def cluster_of(nodes, cpus=2):
    """A running cluster: a head and ``nodes - 1`` further nodes, all on loopback."""
    ray_head.load()
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, **LOOPBACK})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=cpus, **LOOPBACK)
        yield cluster
    finally:
        cluster.shutdown()


def counted(path, seconds):
    """An objective that notes each call in a file that all processes of this machine share."""

    def rosenbrock(x):
        with open(path, "ab") as file:  # one byte: appended whole, or not at all
            file.write(b".")
        time.sleep(seconds)
        return float(sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))

    return rosenbrock


def kill_node(cluster, node):
    """A machine that loses its power: every process of the node is killed at once."""
    import psutil

    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in (raylet, *raylet.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    cluster.remove_node(node, allow_graceful=False)


class Watched(RayEvaluator):
    """Calls ``self.during`` with the number of outcomes so far, before each."""

    count = 0

    def __call__(self, call, points, halted):
        for item in super().__call__(call, points, halted):
            self.count += 1
            self.during(self.count)
            yield item


def history(res):
    return res.nfev, res.fun, res.x.tolist(), res.history.fun.tolist()


def run_node_loss(evaluations=500, nodes=3, cluster=None, seconds=0.05, eval_timeout=None):
    """One of ``nodes`` local nodes is killed at 40 % of a run of CMA-ES; the result is compared with a serial run.

    Returns:
        Case, promise, outcome, whether the promise was kept, and the figures.
    """
    if cluster is None:
        with cluster_of(nodes) as fresh:
            return run_node_loss(evaluations, nodes, fresh, seconds, eval_timeout)
    killed = []

    def kill(count):
        if not killed and count >= 0.4 * evaluations and count % BATCH == 2:  # the others of the batch are under way
            killed.append(count)
            here = ray_head.load().get_runtime_context().get_node_id()  # where this process is connected
            kill_node(cluster, next(node for node in cluster.worker_nodes if node.node_id != here))

    with tempfile.TemporaryDirectory() as folder:
        calls = Path(folder, "calls")
        problem = {"x0": np.zeros(4), "method": "cma", "budget": evaluations, "batch": BATCH, "seed": 3}
        evaluator = Watched(cluster.address, retries=0, eval_timeout=eval_timeout)
        evaluator.during = kill
        began = time.monotonic()
        try:
            res = dfo.minimize(counted(calls, seconds), workers=evaluator, **problem)
        finally:
            evaluator.close()
        took, called = time.monotonic() - began, os.path.getsize(calls)
        serial = dfo.minimize(counted(os.devnull, 0), **problem)
    same = history(res) == history(serial)
    kept = bool(killed) and same and res.nfev == evaluations and evaluations <= called <= evaluations + evaluator.lost
    return {
        "case": f"{evaluations} evaluations over {nodes} Ray nodes, one killed after {killed}",
        "promise": "finishes, exact budget, the history of a serial run",
        "outcome": f"{res.nfev} evaluations, {evaluator.lost} made again elsewhere, history "
        f"{'identical' if same else 'DIFFERENT'}",
        "kept": kept,
        "lost": evaluator.lost,
        "calls": called,
        "seconds": round(took, 1),
    }


if __name__ == "__main__":
    print(run_node_loss())
