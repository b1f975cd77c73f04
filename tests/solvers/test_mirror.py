"""Mirror descent: geometries against what defines them, and runs in convex sets."""

import numpy as np
import pytest

import dfo
from dfo.components.geometry import Entropy, Euclidean, PNorm, Spectral, geometry
from dfo.errors import InvalidArgument
from dfo.feedback import Values
from dfo.random import Key, normal


def torch_like(x):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(np.array(x))


def symmetric(x, n):
    return (x.reshape(n, n) + x.reshape(n, n).T).reshape(-1) / 2


SETS = {
    "simplex": dfo.Simplex(6, 2.0),
    "l1": dfo.L1Ball(6, 1.5),
    "spectrahedron": dfo.Spectrahedron(3, 2.0),
    "l2": dfo.L2Ball(6),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("seed", range(3))
def test_a_point_inside_is_its_own_image(name, seed):
    space = SETS[name]
    x = 0.9 * space.sample(Key(seed), 1)[0] + 0.1 * space.center
    there = geometry(space)
    back, z = there.primal(there.dual(x))
    np.testing.assert_allclose(back, x, atol=1e-9)
    np.testing.assert_allclose(there.primal(z)[0], x, atol=1e-9)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("seed", range(3))
def test_the_image_is_the_nearest_point_of_the_set_in_the_divergence(name, seed):
    """Where x minimises psi(x) - <z, x> over the set, <grad psi(x) - z, y - x> >= 0 for every y of it."""
    space = SETS[name]
    there = geometry(space)
    z = 3.0 * normal(Key(seed).child(name), (space.dim,))
    z = symmetric(z, 3) if name == "spectrahedron" else z
    x, after = there.primal(z)
    assert space.contains(x)
    for y in space.sample(Key(seed).child("others"), 50):
        assert (after - z) @ (y - x) >= -1e-7


@pytest.mark.parametrize("name", SETS)
def test_torch_and_numpy_take_the_same_step(name):
    space = SETS[name]
    there, x = geometry(space), 0.9 * space.sample(Key(0), 1)[0] + 0.1 * space.center
    g = normal(Key(1), (space.dim,))
    one, two = (
        there.primal(there.dual(x) - 0.3 * g)[0],
        there.primal(there.dual(torch_like(x)) - 0.3 * torch_like(g))[0],
    )
    np.testing.assert_allclose(two.numpy(), one, atol=1e-9)
    assert there.norm(torch_like(g)) == pytest.approx(there.norm(g))


def test_dual_norms_are_the_largest_product_over_unit_vectors():
    g, there = normal(Key(0), (6,)), PNorm(1.0, 6)
    p = 1 + 1 / np.log(6)
    y = there._point(abs(g)) * np.sign(g)  # where Hoelder's inequality is an equality
    assert g @ y / (abs(y) ** p).sum() ** (1 / p) == pytest.approx(there.norm(g))
    assert Entropy(1.0, 6).norm(g) == pytest.approx((g.max() - g.min()) / 2)
    assert Euclidean().norm(g) == pytest.approx(np.linalg.norm(g))
    assert Spectral(1.0, 2).norm(np.array([3.0, 0.0, 0.0, -1.0])) == pytest.approx(2.0)


def test_the_exponentiated_gradient_is_a_multiplication():
    x, g = np.array([0.2, 0.3, 0.5]), np.array([1.0, -1.0, 0.0])
    there = geometry(dfo.Simplex(3))
    expected = x * np.exp(-0.5 * g)
    np.testing.assert_allclose(there.primal(there.dual(x) - 0.5 * g)[0], expected / expected.sum(), rtol=1e-12)


def test_a_start_on_the_border_of_a_simplex_can_leave_it():
    target = np.array([0.0, 0.3, 0.7])
    solver = dfo.ZOMirror()
    res = dfo.minimize(lambda x: float(((x - target) ** 2).sum()), dfo.Simplex(3), method=solver, budget=800)
    planned = solver.plan(dfo.Task(dfo.Simplex(3)))
    assert planned.init(np.array([1.0, 0.0, 0.0]), Key(0)).x.min() > 0.01
    np.testing.assert_allclose(res.x, target, atol=0.02)


@pytest.mark.parametrize("name", [*SETS, "box", "free"])
def test_default_steps_reach_the_minimum_in_every_space(name):
    """Medians of three seeds, at 200 evaluations per variable: within 2 % of what there is to gain at the start."""
    space = {**SETS, "box": dfo.Box(np.zeros(6), np.ones(6)), "free": dfo.Free(6)}[name]
    target = symmetric(np.linspace(-1.0, 1.0, 9), 3) if name == "spectrahedron" else np.linspace(-1.0, 1.0, 6)
    near = space.project(target)

    def f(x):
        return float(((x - target) ** 2).sum())

    gaps = [dfo.minimize(f, space, method="zo-mirror", budget=1200, seed=s).fun - f(near) for s in range(3)]
    center = space.center if hasattr(space, "center") else np.full(6, 0.5 if name == "box" else 0.0)
    assert np.median(gaps) < 0.02 * (f(center) - f(near))


def test_no_answer_near_the_iterate_takes_the_last_step_back():
    solver = dfo.ZOMirror(samples=2, lr=1.0).plan(dfo.Task(dfo.Free(3)))
    state = solver.init(np.ones(3), Key(0))
    batch = solver.ask(state)
    moved = solver.tell(state, batch, Values((batch.dense() ** 2).sum(axis=1)))
    lost = moved
    for _ in range(2):
        batch = solver.ask(lost)
        lost = solver.tell(lost, batch, Values(np.full(4, np.inf), failed=np.ones(4, bool)))
    np.testing.assert_allclose(lost.x, state.x)
    assert lost.cut == 0.5


def test_the_mean_of_the_iterates_forgets_the_first_ones():
    solver = dfo.ZOMirror(average=True, lr=0.1, samples=3).plan(dfo.Task(dfo.Free(3)))
    state, seen = solver.init(np.ones(3), Key(0)), []
    for _ in range(5):
        batch = solver.ask(state)
        state = solver.tell(state, batch, Values((batch.dense() ** 2).sum(axis=1)))
        seen.append(state.x)
    weights = np.array([1.0])
    for t in range(2, 6):  # w_t = 4 / (t + 3), and the rest shares what is left
        weights = np.append(weights * (1 - 4 / (t + 3)), 4 / (t + 3))
    np.testing.assert_allclose(solver.recommend(state), weights @ np.array(seen), rtol=1e-12)


def test_a_geometry_that_the_space_does_not_have_is_refused():
    with pytest.raises(InvalidArgument, match="'p-norm' or 'euclidean' in L1Ball"):
        geometry(dfo.L1Ball(3), "entropy")
    with pytest.raises(InvalidArgument, match="expected 'euclidean' in Free"):
        dfo.minimize(lambda x: 0.0, [1.0], method=dfo.ZOMirror(geometry="spectral"), budget=10)
