"""The measures of networks in a short form: that they run, and that what they count as exact is so."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

import torch

from dfo.bench.measures import MEASURES, network_exactness, network_steps
from dfo.bench.measures.row import Row

TINY = {"d": 24, "layers": 1, "heads": 2, "vocab": 50}


def told(rows: list[Row]) -> dict[str, Row]:
    found = {row.claim: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_measures_of_networks_are_registered():
    assert {"network-steps", "network-exactness", "network-in-place", "network-coordinates"} <= set(MEASURES)


def test_steps_are_timed_beside_two_passes():
    rows = told(network_steps._small(32, 2, **TINY))
    assert len(rows) == len(network_steps.WAYS) + 1
    assert all(math.isfinite(row.measured) and row.measured > 0 and row.expected == "reported" for row in rows.values())


def test_only_512_tokens_are_held_against_a_target():
    (row, *_) = network_steps._small(512, 1, ["low rank, activation side"], **TINY)
    assert row.expected == "<= 1.1"
    assert row.holds == (row.measured <= 1.1)


def test_populations_are_timed_beside_plain_inference():
    rows = network_steps._crowd(8, 4, 1e9, 2, **TINY)
    assert {row.claim.rpartition("tokens, ")[2]: row.expected for row in rows} == {
        "all members alike": "reported",
        "each direction its own": "<= 1e+09",
        "each direction its own, gaussian factors": "reported",
    }
    assert all(row.holds and row.measured > 0 for row in rows)


def test_memory_is_told_above_plain_passes(monkeypatch):
    from dfo.bench.measures import network_memory

    told_by = {"True": iter((110.0, 130.0, 120.0)), "False": iter((100.0, 101.0, 102.0))}
    asked = lambda module, call, settings: next(told_by[call.rpartition(", ")[2].rstrip(")")])  # noqa: E731
    monkeypatch.setattr(network_memory, "fresh", asked)
    row = network_memory._above("of_directions(1, 8", "steps", 8.0)
    assert (row.measured, row.holds, row.interval) == (19.0, False, "8..30")
    assert network_memory.of_directions(1, 2, False) > 0  # what the fresh process is asked


def test_rows_of_a_gpu_are_made_on_any_device(monkeypatch):
    from dfo.bench.measures import network_gpu

    monkeypatch.setattr(network_gpu, "POPULATIONS", ((8, 4, 1e9),))
    monkeypatch.setattr(network_gpu, "CROWDS", ((8, 4),))
    rows = told(network_gpu.rows_on(torch.device("cpu"), TINY, {**TINY, "d": 32}, pairs=2))
    assert len(rows) == len(network_steps.WAYS) + 1 + 1 + 2
    assert all(math.isfinite(row.measured) and row.measured > 0 for row in rows.values())
    assert all("throughput" in row.source for claim, row in rows.items() if claim.startswith("population"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_where_there_is_no_gpu_a_row_says_so():
    from dfo.bench.measures.network_gpu import network_gpu

    (row,) = network_gpu()
    assert "no GPU" in row.source
    assert math.isnan(row.measured)


def test_a_period_of_steps_is_one_pair():
    calls = {"least": 0, "step": 0}

    def count(name: str) -> None:
        calls[name] += 1
        sum(range(10000))

    ratios = network_steps.paired(lambda: count("least"), {"step": lambda: count("step")}, 3, 4)["step"]
    assert len(ratios) == 3
    assert calls == {"least": 2 + 3 * 2, "step": 2 + 3 * 4}


def test_bits_are_kept_rebuilt_and_repeated(monkeypatch):
    some = ("low rank, activation side", "gaussian, in place, nothing kept")
    monkeypatch.setattr(network_exactness, "MODES", {mode: network_exactness.MODES[mode] for mode in some})
    monkeypatch.setattr(network_exactness, "DTYPES", ("bfloat16", "float32"))
    rows = [*network_exactness._kept(3), *network_exactness._rebuilt(3), network_exactness._mezo(3)]
    exact = [row for row in rows if row.expected == "0"]
    assert len(exact) == 2 * len(network_exactness.MODES) + 1
    assert all(row.holds and row.measured == 0 for row in exact)
    assert max(row.measured for row in rows) > 1e-3  # the reference drifts


def test_bits_that_differ_are_counted():
    import torch

    a = {"w": torch.tensor([0.0, 1.0])}
    assert network_exactness._bits(a, a) == 0
    assert network_exactness._bits(a, {"w": torch.tensor([-0.0, 1.0])}) == 1


def test_noise_masks_and_logs_of_a_small_network():
    rows = [*network_exactness._noise(TINY), *network_exactness._repeated("gaussian", 2, 16, TINY)]
    assert all(row.holds for row in rows if row.expected == "< 4")  # keys are fixed
    (speed, size) = rows[-2:]
    assert "0 bits differ" in speed.source
    assert 0 < size.measured < 200
    assert network_exactness._masks(TINY).measured < 0.03  # 5 deviations of the share among 9,000 weights
