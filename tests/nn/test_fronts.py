"""The optimizers of networks: steps, memory, logs, and what they leave alone."""

import copy
import gc
import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from zoo import DROPOUT, ZOO

from dfo.directions import LOZO, Directions, Gaussian, LowRank, Rademacher
from dfo.errors import BadObjective, BadState, InvalidArgument, InvalidType
from dfo.nn import ES, ZOSGD, ReplayLog, Snapshots, TorchRule
from dfo.nn.members import Factors

RULES = {"sgd": "sgd", "momentum": "momentum", "adam": TorchRule(torch.optim.Adam)}
LAWS = {"low-rank": LowRank(), "rank 2": LowRank(rank=2), "gaussian": Gaussian(), "rademacher": Rademacher()}
LAWS["gaussian low rank"] = LowRank(rank=2, entries="gaussian")


def network(dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    module = nn.Sequential(nn.Linear(6, 9), nn.LayerNorm(9), nn.Tanh(), nn.Linear(9, 4))
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.4 * torch.randn(p.shape, generator=generator))
    return module.to(dtype)


X = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
Y = (X @ torch.randn(6, 4, generator=torch.Generator().manual_seed(1))).argmax(1)


def loss(module, batch):
    x, y = batch
    scores = module(x.to(next(module.parameters()).dtype))
    return F.cross_entropy(scores.float() if scores.itemsize == 2 else scores, y, reduction="none")


def data(t):
    """Return the minibatch of step ``t``."""
    rows = torch.arange(4) + 4 * (t % 3)
    return X[rows], Y[rows]


def front(module, kind, **options):
    if kind == "es":
        return ES(module, lr=0.02, population=8, sigma=0.05, seed=5, **options)
    if kind == "dealt":
        return ZOSGD(module, lr=0.02, radius=0.02, seed=5, **options)
    return ZOSGD(module, lr=0.02, radius=0.02, samples=3, seed=5, **options)


def run(opt, steps, collect=None):
    told = []
    while opt.t < steps:
        told.append(opt.step(loss, data(opt.t)))
        if collect is not None:
            collect(opt.t)
    return told


def bits(module):
    return {n: t.clone() for n, t in module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


COMBINATIONS = [
    (kind, dtype, rule, law)
    for kind in ("zosgd", "es", "dealt")
    for dtype in (torch.float32, torch.bfloat16)
    for rule in RULES
    for law in LAWS
    if kind != "dealt" or law in ("low-rank", "gaussian")
]


# ---------------------------------------------------------------------- memory


@pytest.mark.parametrize(("kind", "dtype", "rule", "law"), COMBINATIONS)
def test_states_logs_and_resumed_runs_agree_to_the_bit(tmp_path, kind, dtype, rule, law):
    options = {"rule": RULES[rule], "directions": LAWS[law]}
    cut, steps = random.Random(repr((kind, rule, law))).randrange(1, 12), 12

    def fresh():
        module = network(dtype)
        return module, front(module, kind, **options)

    module, opt = fresh()
    log = opt.log_to(tmp_path / "log")
    seen = {}
    run(opt, cut)
    state = copy.deepcopy((opt.state_dict(), module.state_dict()))
    seen[cut] = bits(module)
    run(opt, steps)
    seen[steps] = bits(module)
    log.close()

    module, opt = fresh()  # from a state
    module.load_state_dict(state[1])
    opt.load_state_dict(state[0])
    run(opt, steps)
    assert same(bits(module), seen[steps])

    log = ReplayLog.open(tmp_path / "log")  # from the log alone
    for step in (cut, steps):
        module, opt = fresh()
        opt.replay(log, step)
        assert same(bits(module), seen[step])
    log.close()

    log = ReplayLog.open(tmp_path / "log", write=True)  # as if the process had died
    log.truncate(cut)
    log.close()
    module, opt = fresh()
    opt.resume(tmp_path / "log")
    assert opt.t == cut
    opt.flush()  # as the state that was taken then
    run(opt, steps)
    assert same(bits(module), seen[steps])


@pytest.mark.parametrize("kind", ["zosgd", "es", "dealt"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_runs_resume_from_snapshots(tmp_path, kind, rule, dtype):
    def fresh():
        module = network(dtype)
        return module, front(module, kind, rule=RULES[rule])

    module, opt = fresh()
    opt.log_to(tmp_path / "a", snapshots=Snapshots(tmp_path / "sa", keep=2), every=4)
    run(opt, 19)
    want = bits(module)
    opt.log.close()
    for stop in (3, 8, 10, 19):
        module, opt = fresh()
        opt.log_to(tmp_path / f"b{stop}", snapshots=Snapshots(tmp_path / f"s{stop}"), every=4)
        run(opt, stop)
        opt.log.close()
        del opt
        module, opt = fresh()
        calls = []
        course = opt.course
        course.apply = lambda r, decays, apply=course.apply, calls=calls: (calls.append(r.step), apply(r, decays))
        opt.resume(tmp_path / f"b{stop}", snapshots=Snapshots(tmp_path / f"s{stop}"), every=4)
        assert calls == list(range(stop // 4 * 4, stop))  # only what follows the latest snapshot
        run(opt, 19)
        assert same(bits(module), want)
        opt.log.close()


def test_a_damaged_or_later_snapshot_is_passed_over(tmp_path):
    module = network()
    opt = front(module, "zosgd")
    snapshots = Snapshots(tmp_path / "s")
    log = opt.log_to(tmp_path / "log", snapshots=snapshots, every=4)
    run(opt, 9)
    want = bits(module)
    log.truncate(7)
    log.close()
    with open(snapshots._path(4), "r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\xff\x00\xff")
    module = network()
    opt = front(module, "zosgd")
    with pytest.warns(match="damaged"):
        opt.resume(tmp_path / "log", snapshots=Snapshots(tmp_path / "s"), every=4)
    assert opt.t == 7
    run(opt, 9)
    assert same(bits(module), want)
    opt.log.close()


def test_logs_of_other_runs_are_refused(tmp_path):
    opt = front(network(), "zosgd")
    log = opt.log_to(tmp_path / "log")
    run(opt, 2)
    log.close()
    others = {
        "seed": lambda: ZOSGD(network(), lr=0.02, radius=0.02, samples=3, seed=6),
        "memory": lambda: ZOSGD(network(), lr=0.02, radius=0.02, samples=3, seed=5, memory=0.5),
        "radius": lambda: ZOSGD(network(), lr=0.02, radius=0.03, samples=3, seed=5),
        "tensors": lambda: ZOSGD(network(), lr=0.02, radius=0.02, samples=3, seed=5, params="weight"),
        "method": lambda: front(network(), "es"),
        "start": lambda: front(network().apply(lambda m: getattr(m, "bias", torch.ones(1)).data.add_(1)), "zosgd"),
    }
    for about, make in others.items():
        with pytest.raises(BadState, match="config|tensors" if about == "tensors" else about):
            make().resume(tmp_path / "log")
        with pytest.raises(BadState):
            make().replay(ReplayLog.open(tmp_path / "log"))
    opt = front(network(), "zosgd")
    run(opt, 1)
    with pytest.raises(InvalidArgument, match="no step"):
        opt.resume(tmp_path / "log")
    with pytest.raises(InvalidArgument, match="no step"):
        opt.log_to(tmp_path / "other")
    with pytest.raises(BadState, match="expected a state"):
        front(network(), "es").load_state_dict(front(network(), "zosgd").state_dict())


WORKER = """
    import sys, torch
    sys.path[:0] = [{here!r}]
    import warnings; warnings.simplefilter("error")
    torch.set_num_threads(1)
    from test_fronts import front, loss, data, network, RULES
    from dfo.nn import Snapshots
    module = network(torch.bfloat16)
    opt = front(module, "zosgd", rule=RULES["momentum"])
    path, steps = sys.argv[1], int(sys.argv[2])
    import os
    more = dict(snapshots=Snapshots(path + ".snapshots"), every=25)
    log = opt.resume(path, **more) if os.path.exists(path) else opt.log_to(path, **more)
    print("begins", opt.t, flush=True)
    while opt.t < steps:
        opt.step(loss, data(opt.t))
        print(opt.t, flush=True)
    torch.save(module.state_dict(), path + ".pt")
"""


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.full)])
def test_a_process_may_be_killed_at_any_moment(tmp_path, kills):
    steps, chance = 60 + 15 * kills, random.Random(kills)
    code = textwrap.dedent(WORKER.format(here=os.path.dirname(__file__)))

    def start(name):
        command = [sys.executable, "-c", code, str(tmp_path / name), str(steps)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    whole = start("whole")
    out, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0
    assert out.splitlines()[-1] == str(steps)
    begun = []
    for _ in range(kills):
        process = start("killed")
        begun.append(int(process.stdout.readline().split()[1]))
        for _ in range(chance.randrange(1, steps // (kills + 1))):
            process.stdout.readline()
        time.sleep(0.005 * chance.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert begun == sorted(begun)
    assert begun[-1] > 0
    last = start("killed")
    last.communicate(timeout=300)
    assert last.returncode == 0
    a, b = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "killed"))
    assert same(a, b)


def test_state_dicts_are_numbers(tmp_path):
    for rule in RULES.values():
        module = network()
        opt = front(module, "zosgd", rule=rule)
        run(opt, 3)
        torch.save(opt.state_dict(), tmp_path / "state")
        state = torch.load(tmp_path / "state", weights_only=True)  # nothing that has to be unpickled
        json.dumps({k: v for k, v in state["dfo"].items() if k != "rule"})
        again = front(network(), "zosgd", rule=rule)
        again.load_state_dict(state)
        assert again.t == 3


# ---------------------------------------------------------------------- what stays as it is


def constant(module, batch):
    return (0.0 * module(batch[0].to(next(module.parameters()).dtype)).float().sum(1)) + 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("law", ["low-rank", "gaussian", "rademacher"])
@pytest.mark.parametrize("mode", ["together", "one by one", "closure"])
@pytest.mark.parametrize("steps", [20, pytest.param(1000, marks=pytest.mark.full)])
def test_a_constant_loss_moves_no_bit(dtype, law, mode, steps):
    module = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        module[0].bias.zero_().neg_()  # negative zeros too
    module.to(dtype)
    for make in (
        lambda m: ZOSGD(m, lr=0.3, samples=2, directions=law, evaluate=mode if mode != "closure" else "auto"),
        lambda m: ES(m, lr=0.3, population=4, sigma=0.1, directions=law, rule="momentum"),
    ):
        before, opt = bits(module), make(module)
        raw = {n: t.view(torch.uint8).clone() if t.dim() else t for n, t in before.items()}
        for _ in range(steps):
            if mode == "closure":
                opt.step(lambda: constant(module, (X[:2],)).mean())
            else:
                opt.step(constant, (X[:2],))
        after = bits(module)
        assert all(torch.equal(raw[n], after[n].view(torch.uint8)) for n in raw)


@pytest.mark.parametrize("where", ["loss", "closure"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_error_in_the_loss_costs_a_step_and_nothing_else(where, error, dtype):
    module = network(dtype)
    opt = front(module, "zosgd", directions=Gaussian())
    run(opt, 2)
    before, own = bits(module), [id(p) for p in module.parameters()]

    calls = 0

    def failing(m, b):
        nonlocal calls
        calls += 1
        if calls >= 2:
            raise error
        return loss(m, b)

    def closure():
        return failing(module, data(2)).mean()

    with pytest.raises(error):
        opt.step(failing, data(2)) if where == "loss" else opt.step(closure)
    assert same(bits(module), before)
    assert [id(p) for p in module.parameters()] == own
    assert opt.t == 2
    run(opt, 4)
    twin = network(dtype)
    run(front(twin, "zosgd", directions=Gaussian()), 4)
    if where == "loss":
        assert same(bits(module), bits(twin))


@pytest.mark.parametrize("form", ["loss", "closure"])
def test_global_generators_and_modes_are_left_alone(form):
    module, batch, zoo_loss = DROPOUT["gpt"]()
    opt = ZOSGD(module, lr=1e-3, samples=2)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    for _ in range(3):
        opt.step(zoo_loss, batch) if form == "loss" else opt.step(lambda: zoo_loss(module, batch).mean())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    assert module.training
    assert torch.is_grad_enabled()
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


def test_dropout_is_repeated_by_resumed_runs(tmp_path):
    def fresh():
        module, batch, zoo_loss = DROPOUT["mlp"]()
        return module, batch, zoo_loss, ZOSGD(module, lr=1e-2, samples=2)

    module, batch, zoo_loss, opt = fresh()
    log = opt.log_to(tmp_path / "log")
    told = [opt.step(zoo_loss, batch) for _ in range(6)]
    want = bits(module)
    log.truncate(3)
    log.close()
    module, batch, zoo_loss, opt = fresh()
    torch.manual_seed(999)
    opt.resume(tmp_path / "log")
    assert [opt.step(zoo_loss, batch) for _ in range(3)] == told[3:]
    assert same(bits(module), want)
    opt.log.close()


# ---------------------------------------------------------------------- steps


def explicit_step(module, opt, t, w, share=1.0):
    """Add ``lr share sum_j w_j u_j`` of step ``t`` to a module by the recipes of the directions."""
    tensors = {n: p.detach() for n, p in module.named_parameters()}
    directions = Directions(opt.law, opt.key.child(t), len(w), tensors)
    lr = opt.param_groups[0]["lr"]
    directions.add_to(tensors, lr * share * np.asarray(w))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", ["zosgd", "es"])
def test_steps_are_sums_of_directions(kind, law):
    module = network(torch.float64)
    twin, opt = copy.deepcopy(module), front(module, kind, directions=LAWS[law])
    log = opt.log_to()
    for t in range(3):
        opt.step(loss, data(t))
        explicit_step(twin, opt, t, log[t].weights)
        for a, b in zip(module.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
            b.data.copy_(a)


@pytest.mark.parametrize("law", LAWS)
def test_momentum_is_that_of_a_heavy_ball(law):
    """Polyak (1964): ``m = beta m + sqrt(1 - beta^2) step``, of which terms below 5 % are forgotten."""
    beta, module = 0.8, network(torch.float64)
    twin = copy.deepcopy(module)
    opt = front(module, "zosgd", directions=LAWS[law], rule="momentum", beta=beta)
    log = opt.log_to()
    window = 1 + math.ceil(math.log(0.05) / math.log(beta))
    for t in range(25):
        opt.step(loss, data(t))
        for then in range(max(0, t - window + 1), t + 1):
            explicit_step(twin, opt, then, log[then].weights, beta ** (t - then) * math.sqrt(1 - beta**2))
        for a, b in zip(module.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
            b.data.copy_(a)


def test_momentum_forgets_little():
    beta, w, total = 0.9, np.ones(60), 0.0
    opt = front(network(), "zosgd", rule="momentum", beta=beta)
    shares = beta ** np.arange(opt.course._window)
    total = (shares**2).sum() * (1 - beta**2)
    assert len(w) > opt.course._window
    assert 1.0 - total < 0.05**2  # of the squared length of a long sum of independent steps


def test_weight_decay_and_groups():
    module = network(torch.float64)
    twin = copy.deepcopy(module)
    groups = [{"params": "bias", "lr": 1e-3, "weight_decay": 0.0}, {"params": "^1[.]", "lr": 5e-3}]
    opt = ZOSGD(module, lr=0.02, samples=3, weight_decay=0.5, groups=groups)
    assert [len(g["params"]) for g in opt.param_groups] == [3, 1, 2]
    assert [(g["lr"], g["weight_decay"]) for g in opt.param_groups] == [(1e-3, 0.0), (5e-3, 0.5), (0.02, 0.5)]
    log = opt.log_to()
    for t in range(3):
        opt.step(loss, data(t))
        tensors = {n: p.detach() for n, p in twin.named_parameters()}
        shift = Directions(opt.law, opt.key.child(t), 3, tensors).add_to(
            {n: torch.zeros_like(x) for n, x in tensors.items()}, log[t].weights
        )
        for n, x in tensors.items():
            lr, decay = (1e-3, 0.0) if "bias" in n else (5e-3, 0.5) if n.startswith("1.") else (0.02, 0.5)
            x.mul_(1 - lr * decay).add_(shift[n], alpha=lr)
            torch.testing.assert_close(module.get_parameter(n).detach(), x, rtol=1e-10, atol=1e-11)
    for wrong in ([{"params": "nothing"}], [{"lr": 1.0}], [{"params": "bias", "momentum": 1}]):
        with pytest.raises(InvalidArgument, match="groups"):
            ZOSGD(network(), groups=wrong)


def test_schedules():
    opt = front(network(), "zosgd")
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=10)
    log = opt.log_to()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for t in range(10):
            opt.step(loss, data(t))
            schedule.step()
    want = [0.02 * (1 + math.cos(math.pi * t / 10)) / 2 for t in range(10)]
    np.testing.assert_allclose([r.rates[0] for r in log], want, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("law", LAWS)
def test_closures_are_steps(law, dtype):
    told = {}
    for form in ("loss", "closure"):
        module = network(dtype)
        opt = ZOSGD(module, lr=0.02, radius=0.02, samples=3, directions=LAWS[law])
        opt.log_to()
        for t in range(4):
            if form == "loss":
                opt.step(loss, data(t))
            else:
                opt.step(lambda module=module, t=t: loss(module, data(t)).mean())
        told[form] = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    torch.testing.assert_close(
        told["loss"],
        told["closure"],
        **({"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-8, "atol": 1e-9}),
    )


def test_an_optimizer_that_ends_leaves_all_of_its_updates_and_no_hook():
    module, twin = network(torch.bfloat16), network(torch.bfloat16)
    kept = ZOSGD(twin, lr=0.05, radius=0.02, samples=1)
    run(kept, 3)
    assert kept.course.behind.count
    kept.flush()

    def train():
        run(ZOSGD(module, lr=0.05, radius=0.02, samples=1), 3)

    train()
    gc.collect()
    assert not any(part._forward_pre_hooks or part._state_dict_pre_hooks for part in module.modules())
    for name, weight in twin.state_dict().items():
        assert torch.equal(weight, module.state_dict()[name])
    assert not torch.equal(module[0].weight, network(torch.bfloat16)[0].weight)


def test_closures_see_updates_that_lag_behind():
    """In 16 bits updates ride in the factors; a closure, which calls the module itself, has to find them added."""
    module = network(torch.bfloat16)
    opt = front(module, "zosgd")
    run(opt, 2)
    assert opt.course.behind.count
    opt.step(lambda: loss(module, data(2)).mean())
    twin = network(torch.bfloat16)
    other = front(twin, "zosgd")
    run(other, 2)
    other.flush()
    other.step(lambda: loss(twin, data(2)).mean())
    assert same(bits(module), bits(twin))


@pytest.mark.parametrize(
    ("law", "period", "widths"), [(LowRank(), 8, {8}), (LowRank(rank=3), 3, {8, 16}), (LOZO(), 4, {8})], ids=repr
)
def test_what_lags_behind_has_few_widths_and_is_made_when_it_is_used(law, period, widths):
    """Each width is another kernel, which torch keeps; factors of all tensors at once are as large as directions."""
    opt, seen = ZOSGD(network(torch.bfloat16), lr=0.05, radius=0.02, samples=1, directions=law), set()
    for t in range(period):
        assert opt.course.behind.count == t
        lag = opt.course.lag(1)
        assert lag.keys() == {"0.weight", "3.weight"}
        for behind in lag.values():
            tall, flat = behind.factors()
            assert tall.shape[1] == flat.shape[0] == behind.columns
            seen.add(law.rank + behind.columns)
        run(opt, t + 1)
    assert seen == widths
    assert not opt.course.behind.count


@pytest.mark.parametrize("law", [LowRank(), LowRank(rank=2), LowRank(entries="gaussian"), LOZO()], ids=repr)
def test_what_lags_behind_is_what_is_added_when_it_settles(law):
    module = network(torch.bfloat16)
    opt = ZOSGD(module, lr=0.05, radius=0.02, samples=1, directions=law)
    run(opt, 3)
    lag = {name: behind.factors() for name, behind in opt.course.lag(1).items()}
    opt.flush()
    twin = network(torch.bfloat16)
    for name, (tall, flat) in lag.items():
        moved = module.state_dict()[name].float() - twin.state_dict()[name].float()
        torch.testing.assert_close(tall.float() @ flat.float(), moved, rtol=0.0, atol=0.01)


def test_momentum_adds_every_step_at_once():
    """What it moves in a step are the directions of thirty: more columns than may lag behind."""
    opt = ZOSGD(network(torch.bfloat16), lr=0.05, radius=0.02, samples=1, rule="momentum")
    run(opt, 3)
    assert opt.course.lag(1) is None
    assert not opt.course.behind.count


def test_directions_of_signs_wait_as_bits():
    """A period of a language model would keep tens of mebibytes else."""
    twin = network(torch.bfloat16)
    opt = ZOSGD(twin, lr=0.05, radius=0.02, samples=1)
    fresh = [opt.course.draws(t, 1).streams["3.weight"].factors(0, 1) for t in range(5)]
    run(opt, 5)
    assert not opt.course.drawn
    left, right = opt.course.behind._kept["3.weight"]
    for side, kept in enumerate((left, right)):
        want = torch.stack([drawn[side].flatten() for drawn in fresh])
        assert kept.codes.dtype == torch.uint8
        assert kept.codes.numel() == want.shape[1]
        weights = torch.arange(1.0, 6.0)
        assert torch.equal(kept.read(weights, torch.float32), want.float() * weights.unsqueeze(1))


def test_the_module_outside_sees_every_step():
    module = network(torch.bfloat16)
    opt = ZOSGD(module, lr=0.05, radius=0.02, samples=1)
    before = bits(module)
    opt.step(loss, data(0))
    assert opt.course.behind.count
    with torch.no_grad():
        module(X.bfloat16())
    assert not opt.course.behind.count
    assert not torch.equal(before["0.weight"], module[0].weight)


@pytest.mark.parametrize("kind", ["zosgd", "es"])
def test_parts_of_a_batch_are_the_batch(kind):
    weights = {}
    for parts in (1, 3):
        module = network(torch.float64)
        opt = front(module, kind)
        opt.log_to()
        for _ in range(3):
            opt.step(loss, (X, Y), parts=parts)
        weights[parts] = np.concatenate([r.weights for r in opt.log])
    np.testing.assert_allclose(weights[1], weights[3], rtol=1e-8, atol=1e-9)
    with pytest.raises(InvalidArgument, match="parts"):
        opt.step(loss, (X, Y), parts=5)


def test_failed_members_weigh_nothing():
    module = network()
    opt = front(module, "zosgd")
    log = opt.log_to()
    opt.step(lambda m, b: torch.where(m(b[0]).sum(1) > -1e9, torch.nan, 0.0), data(0))
    assert not log[0].weights.any()
    opt.step(lambda m, b: loss(m, b) * (torch.inf if len(log) == 1 else 1.0), data(0))
    assert np.isfinite(log[1].weights).all()
    opt.step(loss, data(0))
    assert log[2].weights.any()
    assert all(p.isfinite().all() for p in module.parameters())


# ---------------------------------------------------------------------- the estimate


@pytest.mark.parametrize("law", LAWS)
def test_the_estimate_is_right_on_average(law):
    """On a quadratic, differences are exact: the mean of ``slope_j u_j`` is the gradient.

    4000 directions; every entry is within 5 standard errors of the mean, a false alarm in one of 10^4 runs.
    """
    generator = torch.Generator().manual_seed(0)
    module = nn.Linear(4, 3).double()
    x, y = (torch.randn(7, k, generator=generator, dtype=torch.float64) for k in (4, 3))

    def square(m, b):
        return (m(b[0]) - b[1]).square().sum(1)

    square(module, (x, y)).mean().backward()
    want = torch.cat([p.grad.reshape(-1) for p in module.parameters()])
    q = 4000
    opt = ZOSGD(module, samples=q, radius=1e-3, directions=LAWS[law])
    opt.engine.loss, draws = square, opt.course.draws(0, q)
    index, scale = opt.layout(q)
    f = opt.engine.losses((x, y), draws, index, scale).mean(1)
    slopes = (f[0::2] - f[1::2]) / 2e-3
    u = torch.cat([draws.streams[n].rows(0, q).reshape(q, -1) for n in opt.engine.tensors], 1)
    samples = slopes.unsqueeze(1) * u
    error = (samples.mean(0) - want).abs() / (samples.std(0) / math.sqrt(q))
    assert float(error.max()) < 5.0


def test_tensors_draw_independent_numbers():
    """The correlation of the noise of any two tensors, or its factors, is below ``5 / sqrt(n)``, n the length shared.

    Of some 10^4 pairs that are looked at, one would be above 4 by chance; above 5, if normal, one in a hundred runs.
    """
    for name in ("gpt", "vit", "lstm"):
        module, _, _ = ZOO[name]()
        for law in LAWS.values():
            opt = ZOSGD(module, directions=law)
            for steps in ((0, 0), (0, 1)):
                a, b = ({n: _numbers(s) for n, s in opt.course.draws(t, 2).streams.items()} for t in steps)
                _uncorrelated(a, b, steps)


def _numbers(stream):
    """Return what two directions of a tensor are made of: the product of two normal numbers has heavy tails."""
    parts = stream.factors(0, 2) if isinstance(stream, Factors) else [stream.rows(0, 2)]
    return torch.cat([part.reshape(-1).double() for part in parts])


def _uncorrelated(a, b, steps):
    for i, (one, u) in enumerate(a.items()):
        for j, (two, v) in enumerate(b.items()):
            n = min(len(u), len(v))
            if n < 50 or (steps[0] == steps[1] and j <= i):
                continue
            corr = float((u[:n] * v[:n]).mean()) / math.sqrt(float(u[:n].square().mean() * v[:n].square().mean()))
            assert abs(corr) < 5.0 / math.sqrt(n), (one, two, corr, n)


def test_a_module_that_was_moved_is_refused():
    module = network()
    opt = ZOSGD(module, samples=2)
    module.double()
    with pytest.raises(BadState, match="has been replaced since"):
        opt.step(lambda net, batch: net(batch).square().mean(1), torch.ones(4, 4, dtype=torch.float64))


@pytest.mark.parametrize("closure", [False, True])
def test_losses_that_are_one_number_are_shared_by_all_directions(closure):
    torch.manual_seed(0)
    module, x, calls = torch.nn.Linear(4, 1), torch.randn(32, 4), []

    def loss(net, batch):
        calls.append(len(batch))
        return (net(batch) - 1.0).square().mean()

    opt = ZOSGD(module, lr=0.1)
    told = [opt.step(lambda: loss(module, x)) if closure else opt.step(loss, x) for _ in range(40)]
    assert set(calls[10:]) == {32}  # after the comparison of two members that ride together
    assert told[-1] < 0.5 * told[0]


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("make", "wrong", "error", "message"),
    [
        (ZOSGD, {"samples": 0}, InvalidArgument, "samples: expected an integer >= 1"),
        (ZOSGD, {"samples": 2.5}, InvalidArgument, "samples: expected an integer >= 1"),
        (ZOSGD, {"samples": math.nan}, InvalidArgument, "samples: expected an integer >= 1"),
        (ZOSGD, {"samples": True}, InvalidType, "samples: expected a number"),
        (ZOSGD, {"lr": "a"}, InvalidType, "lr: expected a number"),
        (ZOSGD, {"lr": 0.0}, InvalidArgument, "lr: expected a positive number"),
        (ZOSGD, {"radius": [1]}, InvalidType, "radius: expected a number"),
        (ZOSGD, {"radius": math.inf}, InvalidArgument, "radius: expected a positive number"),
        (ZOSGD, {"memory": "0.9"}, InvalidType, "memory: expected a number"),
        (ZOSGD, {"memory": None}, InvalidType, "memory: expected a number"),
        (ZOSGD, {"memory": 1.0}, InvalidArgument, "memory: expected a number from 0 to below 1"),
        (ZOSGD, {"decay": "a"}, InvalidType, "decay: expected a number"),
        (ZOSGD, {"decay": 2}, InvalidArgument, "decay: expected a number from 0 to 1"),
        (ZOSGD, {"beta": "a"}, InvalidType, "beta: expected a number"),
        (ZOSGD, {"beta": 1}, InvalidArgument, "beta: expected a number between 0 and 1"),
        (ZOSGD, {"weight_decay": "a"}, InvalidType, "weight_decay: expected a number"),
        (ZOSGD, {"weight_decay": -1}, InvalidArgument, "weight_decay: expected a number of at least 0"),
        (ZOSGD, {"lag": "a"}, InvalidType, "lag: expected a number"),
        (ZOSGD, {"lag": 1.5}, InvalidArgument, "lag: expected an integer >= 0"),
        (ZOSGD, {"room": -1}, InvalidArgument, "room: expected an integer >= 0"),
        (ZOSGD, {"chunk": "a"}, InvalidType, "chunk: expected a number"),
        (ZOSGD, {"chunk": 0}, InvalidArgument, "chunk: expected an integer >= 1"),
        (ZOSGD, {"groups": [{"params": "bias", "lr": "a"}]}, InvalidType, "lr: expected a number"),
        (ZOSGD, {"groups": [{"params": "bias", "weight_decay": -1}]}, InvalidArgument, "weight_decay"),
        (ES, {"population": "a"}, InvalidType, "population: expected a number"),
        (ES, {"population": 0}, InvalidArgument, "population: expected an integer >= 2"),
        (ES, {"population": 7}, InvalidArgument, "population: expected an even number"),
        (ES, {"sigma": "a"}, InvalidType, "sigma: expected a number"),
        (ES, {"sigma": -1.0}, InvalidArgument, "sigma: expected a positive number"),
        (ES, {"decay": -1}, InvalidArgument, "decay: expected a number from 0 to 1"),
    ],
)
def test_numbers_out_of_their_range_are_refused_in_one_way(make, wrong, error, message):
    with pytest.raises(error, match=message):
        make(network(), **wrong)


def test_a_step_says_what_it_takes():
    opt = front(network(), "zosgd")
    with pytest.raises(InvalidType, match=r"no argument, or step\(loss, batch\)"):
        opt.step(loss)
    with pytest.raises(InvalidType, match=r"module and batch, or step\(closure\)"):
        opt.step(lambda: 1.0, data(0))
    with pytest.raises(InvalidType, match=r"step\(loss, batch\) or step\(closure\)"):
        opt.step(0.5, data(0))
    assert opt.t == 0


@pytest.mark.parametrize("evaluate", ["auto", "together", "one by one"])
@pytest.mark.parametrize("said", [None, "0.5", [], 1j, torch.ones(3), torch.ones(4, 2), torch.ones(4, 4), [0.5] * 5])
def test_a_loss_is_one_number_or_one_an_example(evaluate, said):
    module = network()
    before, opt = bits(module), front(module, "zosgd", evaluate=evaluate)
    with pytest.raises((BadObjective, InvalidArgument), match=r"loss|the losses?"):
        opt.step(lambda m, b: said, data(0))
    assert opt.t == 0
    assert same(bits(module), before)


@pytest.mark.parametrize("said", [None, "0.5", [0.5, 0.6], torch.ones(4)])
def test_a_closure_returns_one_number(said):
    opt = front(network(), "zosgd")
    with pytest.raises(BadObjective, match="expected"):
        opt.step(lambda: said)


def test_a_column_of_losses_counts_as_losses():
    a, b = (front(network(), "zosgd") for _ in range(2))
    assert [a.step(loss, data(t)) for t in range(3)] == [
        b.step(lambda m, x: loss(m, x).unsqueeze(1), data(t)) for t in range(3)
    ]
