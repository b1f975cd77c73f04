"""Genetic algorithms: genomes to the bit, selection, re-evaluation, operators and their laws, strings, rankings."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
from scipy import stats

import dfo
from dfo.batch import Perturbations
from dfo.bench.measures import genetic as measured
from dfo.components import mutation_rates, variation
from dfo.components.safe_mutation import divergence, rescaled
from dfo.directions import Directions, Gaussian
from dfo.encodings import Identity
from dfo.errors import InvalidArgument
from dfo.feedback import Ranking, Values
from dfo.protocols import Task
from dfo.random import RNG_VERSION, Key, normal, uniform
from dfo.run.loop import Loop
from dfo.run.packing import load, save
from dfo.run.session import Session
from dfo.run.stopping import MaxSteps
from dfo.solvers.genetic import DeepGA, Genetic
from dfo.solvers.genetic.genome import layout
from dfo.spaces import Box, Free, Text
from dfo_problems.deceptive import trap


def sphere(X):
    return (X * X).sum(axis=1)


def planned(solver, d, **task):
    return solver.plan(Task(task.pop("space", Free(d)), **task))


# ---------------------------------------------------------------------- genomes


@pytest.mark.parametrize("d", [1, 7, 1001])
def test_decoded_genomes_are_the_cached_parents_to_the_last_bit(d):
    assert measured.differing_weights(d, 8) == 0


@pytest.mark.parametrize("start", [np.full(5, 0.5), np.full(5, 0.5, np.float32)])
def test_genomes_decode_in_a_box(start):
    solver = planned(DeepGA(population=20, parents=4, sigma=0.6), 5, space=Box(np.zeros(5), np.ones(5)))
    state = measured.evolved(solver, sphere, start, Key(2), 9)[-1]
    assert any((parent == 0.0).any() for parent in state.parents)  # the bounds were met
    for i, parent in enumerate(state.parents):
        np.testing.assert_array_equal(solver.decode(solver.genome(state, i), start), parent)


def test_a_child_is_its_parent_plus_power_times_noise():
    solver = planned(DeepGA(population=10, parents=3, sigma=0.25), 6)
    state = measured.evolved(solver, sphere, np.ones(6), Key(0), 3)[-1]
    batch = solver.ask(state)
    assert isinstance(batch, Perturbations)
    for i in range(10):
        noise = normal(Key(0).child(state.step, "mutations"), (10, 6))[i]
        expected = state.parents[batch.origin[i]] + 0.25 * noise
        np.testing.assert_array_equal(batch.member(i), expected)
        np.testing.assert_array_equal(solver.decode(solver.offspring(state, i), np.ones(6)), expected)
        assert len(solver.offspring(state, i).chain) == len(state.chains[batch.origin[i]]) + 1


def test_the_first_member_is_the_start_and_its_genome_decodes_to_it():
    solver = planned(DeepGA(), 3)
    state = solver.init(np.arange(3.0), Key(0))
    np.testing.assert_array_equal(solver.ask(state).member(0), np.arange(3.0))
    np.testing.assert_array_equal(solver.decode(solver.offspring(state, 0), np.arange(3.0)), np.arange(3.0))


def test_a_genome_says_what_it_needs_to_be_decoded():
    solver = planned(DeepGA(), 3)
    state = solver.init(np.zeros(3), Key(0))
    genome = solver.genome(state)
    assert genome.rng == RNG_VERSION
    assert genome.layout == (("", (3,), "float64"),) == layout(np.zeros(3))
    with pytest.raises(InvalidArgument, match=r"expected the start of the run.*float64.*got.*float32"):
        solver.decode(genome, np.zeros(3, np.float32))
    with pytest.raises(InvalidArgument, match="random numbers have version 99"):
        solver.decode(replace(genome, rng=99), np.zeros(3))


def test_a_thousand_genomes_of_a_hundred_generations_are_small():
    assert measured.genome_bytes(100, 100, 1000) < 5e6  # the same for 100 weights as for 4 million: seeds only


class ByMember:
    """Sums of squares of points in named blocks, one member built at a time."""

    gives: ClassVar = frozenset({"values"})
    max_batch: ClassVar = None

    def start(self, lanes, key):
        return ()

    def evaluate(self, batch, memory):
        members = (batch.member(i) for i in range(len(batch)))
        return Values(np.array([sum(float((b * b).sum()) for b in member.values()) for member in members])), memory


@pytest.mark.parametrize("again", [0, 2])
def test_named_blocks_evolve_and_survive_a_file_as_seeds_alone(tmp_path, again):
    x0 = {"weight": np.ones((3, 2)), "bias": np.ones(3)}
    solver = DeepGA(population=30, reevaluations=again).plan(Task(Free(9)))
    loop = Loop(solver, Session(ByMember(), Identity(Free(9), x0), 10**6, MaxSteps(12)), x0, Key(0))
    loop.go()
    s = loop.state
    assert sum(float((b * b).sum()) for b in s.parents[0].values()) < 9.0
    save(tmp_path / "s.npz", replace(s, parents=()))
    seeds = load(tmp_path / "s.npz")
    for i, parent in enumerate(s.parents):
        for name, block in solver.decode(solver.genome(seeds, i), x0).items():
            np.testing.assert_array_equal(block, parent[name])


# ---------------------------------------------------------------------- selection


def test_xor_is_learnt_within_a_hundred_generations():
    assert max(measured.xor_generations(10)) < 100


def test_parents_are_drawn_uniformly():
    assert measured.selection_p_value(50) > 1e-3  # false alarm: 0.1 %, and the seed is fixed


def test_the_elite_never_gets_worse_without_noise():
    assert measured.elite_rises(3, 25) == 0


def test_the_parents_are_the_elite_and_the_best_of_the_generation():
    solver = planned(DeepGA(population=20, parents=4), 3)
    states = measured.evolved(solver, sphere, np.ones(3), Key(5), 6)
    for before, after in pairwise(states[1:]):
        f = sphere(solver.ask(before).dense())
        best = np.sort(f)
        np.testing.assert_array_equal(after.merits[0], min(before.merits[0], best[0]))
        others = best[:4] if before.merits[0] > best[0] else best[:3]
        np.testing.assert_array_equal(np.sort(after.merits), np.sort([*others, *after.merits[:1]][-4:]))


def test_with_all_as_parents_and_a_huge_step_it_is_random_search():
    """The control of the paper: selection does nothing, so the last generation is no better than any other."""
    solver = planned(DeepGA(population=50, parents=50, sigma=1e6), 4)
    states = measured.evolved(solver, sphere, np.zeros(4), Key(0), 20)
    late = sphere(solver.ask(states[-1]).dense())
    assert np.median(late) > 1e11


def noisy_run(seed, again, steps, **options):
    solver, key = planned(DeepGA(reevaluations=again, **options), 20, noisy=True), Key(seed, ("noise",))
    state = solver.init(np.ones(20), Key(seed))
    for _ in range(steps):
        batch = solver.ask(state)
        yield solver, state, batch
        f = sphere(batch.dense()) + normal(key.child(state.step), (len(batch),))
        state = solver.tell(state, batch, Values(f))


def test_candidates_are_evaluated_again_on_the_same_data_each_round_and_other_data_the_next():
    rounds = {}
    for _, state, batch in noisy_run(0, 3, 40, candidates=4, population=8):
        if state.stage == "breed":
            assert batch.data is None
            continue
        v = len(state.sums)
        data = batch.data.reshape(-1, v)
        assert (data == data[:, :1]).all()
        rounds.setdefault(state.generation, []).extend(data[:, 0].tolist())
        np.testing.assert_array_equal(batch.dense(), np.tile(np.stack(state.parents[:v]), (len(data), 1)))
        assert len(batch) <= 8
    seen = [number for numbers in list(rounds.values())[:-1] for number in numbers]
    assert all(len(numbers) == 3 for numbers in list(rounds.values())[:-1])
    assert len(set(seen)) == len(seen)


def test_minibatches_of_re_evaluations_are_others_than_the_generation_saw():
    last = None
    for _, state, batch in noisy_run(1, 2, 30, candidates=3, population=6, minibatches=5):
        assert set(batch.data.tolist()) <= set(range(5))
        if state.stage == "breed":
            last = set(batch.data.tolist())
            assert len(last) == 1
        else:
            assert not last & set(batch.data.tolist())


def test_the_elite_is_the_best_mean_and_luck_does_not_stay():
    # means of 4 runs: 3.4 +- 0.3 without, 1.1 +- 0.1 with re-evaluation (30 seeds): apart by ten standard errors
    assert np.mean(measured.luck(0, 4, 6000)) > 2 * np.mean(measured.luck(3, 4, 6000)) > 0


def test_rankings_of_eight_are_enough_and_skips_change_nothing():
    solver = planned(DeepGA(), 5, gives=frozenset({"ranking"}), max_batch=8)
    assert (solver.population, solver.reevaluations) == (8, 1)
    assert solver.candidates <= 8
    state, f0 = solver.init(np.ones(5), Key(0)), 5.0
    for step in range(200):
        batch = solver.ask(state)
        assert len(batch) <= 8
        ranking = Ranking(np.full(len(batch), np.nan), skipped=True)
        if step % 5:
            ranking = Values(sphere(batch.dense())).ranking()
        state = solver.tell(state, batch, ranking)
    assert (solver.recommend(state) ** 2).sum() < 0.2 * f0


def test_safe_mutation_meets_its_target():
    changes = measured.safe_changes(40)
    assert (np.abs(changes / 0.1 - 1) < 0.05).mean() > 0.9
    inputs = normal(Key(0), (30, 4))

    def outputs(x):
        return np.tanh(inputs @ x.reshape(4, 2))

    x, noise = normal(Key(1), (8,)), Directions(Gaussian(), Key(2), 5, np.zeros(8))
    scale = rescaled(outputs, (x,), noise, np.zeros(5, int), np.array([1e-3, 0.01, 0.1, 1.0, 10.0]), 0.05, passes=30)
    for i, s in enumerate(scale):
        moved = outputs(noise.add_member(x.copy(), i, s))
        assert divergence(outputs(x), moved) == pytest.approx(0.05, rel=1e-3)
    flat = rescaled(lambda x: np.zeros(3), (x,), noise, np.zeros(5, int), np.full(5, 0.1), 0.05, passes=30)
    np.testing.assert_allclose(flat, 0.1 * 2.0**10)
    wild = rescaled(lambda x: np.full(3, np.nan), (x,), noise, np.zeros(5, int), np.full(5, 0.1), 0.05, passes=30)
    np.testing.assert_allclose(wild, 0.1 / 2.0**10)


def test_safe_mutations_are_recorded_in_the_genome():
    def outputs(x):
        return 100.0 * x[:2] + x[2:]

    solver = planned(DeepGA(population=12, parents=3, outputs=outputs, change=0.5), 4)
    state = measured.evolved(solver, sphere, np.ones(4), Key(0), 5)[-1]
    powers = [power for chain in state.chains for _, _, power in chain[1:]]
    assert len(set(powers)) > 1
    assert np.median(powers) < 0.02
    for i, parent in enumerate(state.parents):
        np.testing.assert_array_equal(solver.decode(solver.genome(state, i), np.ones(4)), parent)


# ---------------------------------------------------------------------- operators


def test_spread_factors_and_steps_have_their_published_laws():
    assert measured.sbx_distance(20_000) < 1.95  # false alarms: 0.1 % each
    distance, mean = measured.polynomial_distance(20_000)
    assert distance < 1.95
    assert mean == pytest.approx(1 / 22, rel=0.04)  # 0.7 % of standard error


def test_the_spread_factor_is_contracting_as_often_as_expanding():
    u = (np.arange(1000) + 0.5) / 1000
    beta = variation.spread_factors(u, 15.0)
    assert (beta < 1).mean() == 0.5
    np.testing.assert_allclose(beta * beta[::-1], 1.0)  # beta and 1/beta have one distribution
    np.testing.assert_allclose(variation.spread_factors(np.array([0.125]), 2.0), [0.25 ** (1 / 3)])


@pytest.mark.parametrize("kind", variation.CROSSOVERS)
@pytest.mark.parametrize("d", [1, 5, 70_001])
def test_children_keep_the_sum_of_their_parents_and_any_library_agrees(kind, d):
    torch = pytest.importorskip("torch")
    parents, pairs = normal(Key(0), (4, d)), np.array([[0, 1], [2, 2], [3, 0]])
    children = variation.crossed(kind, Key(1), parents, pairs)
    expected = parents[pairs[:, 0]] + parents[pairs[:, 1]]
    np.testing.assert_allclose(children[0::2] + children[1::2], expected, atol=1e-12)
    np.testing.assert_array_equal(children[2:4], parents[[2, 2]])  # equal parents, equal children
    same = variation.crossed(kind, Key(1), torch.tensor(parents), pairs)
    np.testing.assert_allclose(same.numpy(), children, rtol=0, atol=1e-14)
    if kind in ("uniform", "one-point"):
        swapped = children[0] == parents[1]
        assert ((children[0] == parents[0]) | swapped).all()
        if d > 1:
            switches = np.count_nonzero(np.diff(swapped.astype(int)))
            assert (switches == 1) if kind == "one-point" else (d < 10 or abs(swapped.mean() - 0.5) < 0.01)
    if kind == "none":
        np.testing.assert_array_equal(children[0], parents[0])


def test_large_points_are_crossed_in_pieces_that_do_not_repeat():
    d = 3 * variation.CHUNK + 5
    children = variation.crossed("sbx", Key(1), np.stack([np.zeros(d), np.ones(d)]), np.array([[0, 1]]))
    share = children[0]
    c = variation.CHUNK
    assert not (share[:c] == share[c : 2 * c]).all()
    assert (share == 0).mean() == pytest.approx(0.5, abs=0.01)  # four standard deviations are 0.0045


@pytest.mark.parametrize("rate", [1e-4, 0.03, 0.5, 1.0])
def test_places_of_mutations_are_bernoulli(rate):
    size = 40_000
    found = [variation.positions(Key(s), size, rate) for s in range(20)]
    counts = np.array([len(at) for at in found])
    assert all((np.diff(at) > 0).all() and (not len(at) or (at[0] >= 0 and at[-1] < size)) for at in found)
    expected, spread = 20 * size * rate, math.sqrt(20 * size * rate * (1 - rate))
    assert abs(counts.sum() - expected) <= 4 * spread  # beyond it once in 15,000
    if rate < 1:
        assert stats.kstest(np.concatenate(found) / size, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("x", [0.0, 1e-9, 0.3, 1.0])
def test_polynomial_steps_stay_in_the_interval_and_grow_with_the_draw(x):
    u = np.linspace(0.0, 1.0, 1001)
    moved = variation.polynomial_step(np.full(1001, x), u, 20.0)
    assert (moved >= 0).all()
    assert (moved <= 1).all()
    assert (np.diff(moved) >= -1e-15).all()
    assert moved[500] == pytest.approx(x)


def test_rates_are_inherited_within_tau_and_groups_elect_the_best():
    rates = mutation_rates.inherited(Key(0), np.full(5000, 0.3), 2.0)
    assert stats.kstest(np.log2(rates / 0.3), "uniform", args=(-1, 2)).pvalue > 1e-3
    scores = mutation_rates.group_scores(np.array([0, 1, 0, 2]), np.array([1.0, -5.0, 3.0, np.nan]), 3)
    assert scores.tolist() == [3.0, -5.0, -np.inf]
    after = mutation_rates.group_elites(Key(0), np.array([0.1, 1.0, 10.0]), scores, 1.5)
    assert after[0] == 0.1
    assert ((after[1:] >= 0.1 / 1.5) & (after[1:] <= 1.0 * 1.5)).all()
    unknown = np.full(3, -np.inf)
    np.testing.assert_array_equal(mutation_rates.group_elites(Key(0), after, unknown, 1.5), after)


def test_self_adaptive_rates_shrink_near_the_minimum():
    for options in ({"adapt": "samr"}, {"adapt": "gesmr"}):
        solver = planned(Genetic(sigma=5.0, rate=1.0, **options), 5)
        state = measured.evolved(solver, sphere, 0.1 * np.ones(5), Key(0), 60)[-1]
        assert np.median(state.rates) < 0.5


# ---------------------------------------------------------------------- the whole


def test_all_parents_compete_unless_they_are_asked_again():
    solver = planned(Genetic(population=10, parents=6), 3)
    states = measured.evolved(solver, sphere, np.ones(3), Key(0), 5)
    for before, after in pairwise(states[1:]):
        pool = np.concatenate([before.merits, sphere(solver.ask(before).dense())])
        np.testing.assert_array_equal(after.merits, np.sort(pool)[:6])
    again = planned(Genetic(population=10, parents=6, elites=2), 3, gives=frozenset({"ranking"}))
    assert again.again
    state = again.init(np.ones(3), Key(0))
    for _ in range(5):
        batch = again.ask(state)
        if state.generation:
            np.testing.assert_array_equal(batch.dense()[:2], state.parents[:2])
        f = sphere(batch.dense())
        state = again.tell(state, batch, Values(f).ranking())
        np.testing.assert_array_equal(state.parents, batch.dense()[np.argsort(f, kind="stable")[:6]])


def test_values_and_rankings_lead_to_a_tenth():
    values, rankings = measured.by_ranking(5, 500)
    assert max(values, rankings) < 0.1


@pytest.mark.parametrize("length", [12, (3, 12)])
@pytest.mark.parametrize("crossover", ["one-point", "uniform", "none"])
def test_strings_stay_strings_of_the_space(length, crossover):
    space = Text("abcd", length)
    solver = Genetic(crossover=crossover, population=8).plan(Task(space, gives=frozenset({"ranking"}), max_batch=8))
    state, wanted = solver.init("abcabcabc" if length != 12 else "abcabcabcabc", Key(0)), "dadadadada"
    for _ in range(150):
        batch = solver.ask(state)
        assert len(batch) <= 8
        assert all(space.contains(text) for text in batch.items)
        miss = [sum(a != b for a, b in zip(t, wanted, strict=False)) + abs(len(t) - 10) for t in batch.items]
        state = solver.tell(state, batch, Values(np.array(miss, float)).ranking())
    assert sum(a != b for a, b in zip(solver.recommend(state), wanted, strict=False)) <= 4


def test_edits_change_every_string_and_use_every_kind():
    space, texts = Text("ab", (1, 6)), ["abab"] * 300
    after = variation.edited(space, Key(0), texts, 0.25)
    assert (
        "abab" not in [t for t in after if len(t) == 4 and sum(a != b for a, b in zip(t, "abab", strict=True)) == 0][:0]
    )
    assert {len(t) for t in after} >= {3, 4, 5}
    fixed = variation.edited(Text("ab", 4), Key(0), texts, 1e-9)
    assert all(len(t) == 4 and sum(a != b for a, b in zip(t, "abab", strict=True)) == 1 for t in fixed)


def test_children_of_strings_are_made_of_their_parents():
    pairs = np.array([[0, 1]] * 50)
    for kind in ("one-point", "uniform"):
        children = variation.crossed_texts(kind, Key(0), ["aaaaaa", "bbb"], pairs)
        assert {len(c) for c in children} == {3, 6}
        assert all(children[2 * j].count("b") + children[2 * j + 1].count("b") == 3 for j in range(50))
    assert variation.crossed_texts("none", Key(0), ["aa", "b"], pairs[:1]) == ["aa", "b"]
    assert variation.crossed_texts("one-point", Key(0), ["", ""], pairs[:1]) == ["", ""]


def test_the_trap_of_strings_is_nearly_solved_block_by_block():
    options = {"population": 600, "parents": 150, "tournament": 4}
    res = dfo.minimize(trap, Text("01", 30), method="genetic", options=options, budget=9_000, seed=0)
    assert res.fun <= -28  # all zeros, where the slope leads, is worth -24


def test_integers_and_categories_are_searched_through_the_unit_box():
    space = dfo.Named({"n": dfo.Int(0, 50), "c": dfo.Choice(list("abcdefgh")), "x": dfo.Float(-1, 1)})

    def fun(p):
        return abs(p["n"] - 37) + 5 * (p["c"] != "f") + p["x"] ** 2

    runs = [dfo.minimize(fun, space, method="genetic", budget=1500, seed=s) for s in range(5)]
    assert np.median([run.fun for run in runs]) < 0.1


@pytest.mark.parametrize("solver", [Genetic(), DeepGA()])
def test_orders_are_taken_also_where_values_were_expected(solver):
    """What a ranking says of one question is never compared with what was said of another."""
    solver = planned(solver, 5)
    state = solver.init(np.ones(5), Key(0))
    for _ in range(150):
        batch = solver.ask(state)
        state = solver.tell(state, batch, Values(sphere(batch.dense())).ranking())
    assert state.ordinal
    assert (solver.recommend(state) ** 2).sum() < 0.5


def test_options_that_do_not_fit_are_refused():
    for solver, words in (
        (lambda: Genetic(crossover="two-point"), "crossover"),
        (lambda: Genetic(adapt="always"), "adapt"),
        (lambda: Genetic(selection="roulette"), "selection"),
        (lambda: Genetic(population=1), "population"),
        (lambda: DeepGA(reevaluations=-1), "reevaluations"),
        (lambda: DeepGA(adapt="gesmr"), "adapt"),
        (lambda: planned(Genetic(crossover="sbx"), 1, space=Text("ab", 3)), "sbx"),
        (lambda: planned(Genetic(mutation="polynomial"), 2), "two bounds"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            solver()


def test_uniform_numbers_of_the_first_question_fill_the_box():
    box = Box(np.array([0.0, 0.0]), np.array([1.0, np.inf]))
    solver = planned(Genetic(population=400), 2, space=box)
    X = solver.ask(solver.init(np.array([0.5, 1.0]), Key(0))).dense()
    assert stats.kstest(X[1:, 0], "uniform").pvalue > 1e-3
    assert (X[:, 1] >= 0).all()
    assert uniform(Key(0), (1,))[0] < 1
