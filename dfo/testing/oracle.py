"""Laws of oracles."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfo.batch import Batch
from dfo.feedback import Feedback, Ranking, Values
from dfo.protocols import CONSTRAINTS, Oracle
from dfo.random import Key
from dfo.testing.equal import difference
from dfo.testing.laws import Cases, Law, Skipped, expect, law

__all__ = ["BOOK", "OracleSubject"]

BOOK: dict[str, Law] = {}
COUNTS, SEEDS = range(1, 9), (0, 1, 7)


@dataclass(frozen=True, eq=False)
class OracleSubject:
    """An oracle as its laws see it.

    Args:
        oracle: the oracle.
        batch_factory: makes a batch of n members from a key.
        lanes: persistent inner states to start.
        tolerance: by how much values may differ between groupings, relative to their size.
        cases: draws the cases of the law at hand.
    """

    oracle: Oracle[Any]
    batch_factory: Callable[[Key, int], Batch]
    lanes: int
    tolerance: float
    cases: Cases

    def batch(self, n: int, seed: int) -> Batch:
        """Return a batch of at most ``n`` members, as many as the oracle takes."""
        return self.batch_factory(Key(seed, ("batch",)), min(n, self.oracle.max_batch or n))

    def memory(self, seed: int) -> Any:
        """Return a fresh memory."""
        return self.oracle.start(self.lanes, Key(seed, ("oracle",)))

    def values(self, batch: Batch, memory: Any) -> tuple[Values, Any]:
        """Return values and the memory after them.

        Raises:
            Skipped: the oracle gives none.
        """
        if "values" not in self.oracle.gives:
            raise Skipped("it gives no values")
        told, after = self.oracle.evaluate(batch, memory)
        expect(isinstance(told, Values), f"it gives values, but answered with {type(told).__name__}")
        assert isinstance(told, Values)
        return told, after

    def close(self, a: Any, b: Any, message: str) -> None:
        """Demand that two arrays of values are equal, to the tolerance."""
        equal = np.allclose(a, b, rtol=self.tolerance, atol=0.0, equal_nan=True)
        expect(equal, f"{message}: {np.asarray(a).tolist()} is not {np.asarray(b).tolist()}")


@law(BOOK, "repeatable")
def repeatable(s: OracleSubject) -> None:
    """The same batch and the same memory give the same answer and the same memory after it, bit for bit.

    Broken by: simulators that draw from a generator of their own, and objectives with hidden state.
    """

    def body(n: int, seed: int) -> None:
        batch, memory = s.batch(n, seed), s.memory(seed)
        once = s.oracle.evaluate(batch, copy.deepcopy(memory))
        again = s.oracle.evaluate(batch, copy.deepcopy(memory))
        found = difference(once, again)
        expect(not found, f"the second answer differs: {found}")

    s.cases.each(body, n=COUNTS, seed=SEEDS)


@law(BOOK, "splittable")
def splittable(s: OracleSubject) -> None:
    """A batch answered in two parts, one after the other, has the values of the batch answered whole.

    Broken by: batch normalisation and padding that let one member see another, and generators shared by members.
    """

    def body(n: int, seed: int, at: int) -> None:
        batch = s.batch(n, seed)
        cut = min(at, len(batch))
        whole, _ = s.values(batch, s.memory(seed))
        first, memory = s.values(batch.part(0, cut), s.memory(seed))
        second, _ = s.values(batch.part(cut, len(batch)), memory)
        s.close(first.joined(second).f, whole.f, f"cut after member {cut}")

    s.cases.each(body, n=COUNTS, seed=SEEDS, at=range(9))


@law(BOOK, "lanes-independent")
def lanes_independent(s: OracleSubject) -> None:
    """A member has the value that it has alone: other lanes do not reach it.

    Broken by: vectorised environments that share one random stream, so that one lane's end shifts the others.
    """

    def body(n: int, seed: int) -> None:
        batch = s.batch(n, seed)
        if batch.lane is not None and len(set(batch.lane.tolist())) < len(batch):
            raise Skipped("several members of the batch share a lane")
        whole, _ = s.values(batch, s.memory(seed))
        alone = [s.values(batch.part(i, i + 1), s.memory(seed))[0].f[0] for i in range(len(batch))]
        s.close(alone, whole.f, "evaluated alone")

    s.cases.each(body, n=COUNTS, seed=SEEDS)


@law(BOOK, "gives")
def gives(s: OracleSubject) -> None:
    """The answer is of the kinds that ``gives`` names, one entry a member, and masks what is not finite.

    Broken by: objectives that return a scalar for a batch, NaN that poses as a value (scipy, cmaes).
    """

    def body(n: int, seed: int) -> None:
        batch = s.batch(n, seed)
        told, _ = s.oracle.evaluate(batch, s.memory(seed))
        _expect_kind(told, s.oracle.gives, len(batch))

    limit = s.oracle.max_batch
    expect(limit is None or limit >= 1, f"max_batch is {limit}")
    s.cases.each(body, n=COUNTS, seed=SEEDS)


def _expect_kind(told: Feedback, given: frozenset[str], n: int) -> None:
    if isinstance(told, Ranking):
        expect("ranking" in given, "a ranking, which it does not give")
        expect(told.rank.shape == (n,), f"ranks of shape {told.rank.shape} for {n} members")
    if not isinstance(told, Values):
        expect("values" not in given, f"it gives values, but answered with {type(told).__name__}")
        return
    expect(told.f.shape == (n,), f"values of shape {told.f.shape} for {n} members")
    expect(not np.isnan(told.f).any(), "NaN among the values; failed members are infinite")
    expect(bool(np.isfinite(told.f[told.valid]).all()), "an infinite value that is not marked as failed")
    for word, name in (
        (CONSTRAINTS, "violation"),
        ("ended", "ended"),
        ("losses", "losses"),
        ("behaviour", "behaviour"),
    ):
        part = getattr(told, name)
        expect(word not in given or part is not None, f"it gives {word}, but {name} is missing")
        expect(part is None or len(part) == n, f"{name} has another length than the batch")
    expect(all(0 <= i < n for i, _ in told.notes), f"notes about members that do not exist: {told.notes}")


@law(BOOK, "leaves-batch")
def leaves_batch(s: OracleSubject) -> None:
    """Evaluating changes nothing in the batch, to the last bit: an objective gets a private copy.

    Broken by: cmaes and scipy's dual annealing, which hand out their own arrays; and by MeZO, whose perturbed
    weights are restored by subtraction (MeZO#42).
    """

    def body(n: int, seed: int) -> None:
        batch = s.batch(n, seed)
        before = copy.deepcopy(batch)
        s.oracle.evaluate(batch, s.memory(seed))
        found = difference(before, batch)
        expect(not found, f"batch{found}")

    s.cases.each(body, n=COUNTS, seed=SEEDS)
