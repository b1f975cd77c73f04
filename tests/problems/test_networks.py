"""Networks on images and text: sizes, data that stay apart, batches by number, and values that are those of torch."""

import gzip
import pickle
import re
import struct

import numpy as np
import pytest
import torch

import dfo
from dfo.batch import Points
from dfo.bench.packs import make
from dfo.errors import InvalidArgument, MissingPackage, UnknownName
from dfo.random import Key, normal
from dfo.testing import check_problem
from dfo_problems.digits import load_digits
from dfo_problems.networks import NETWORKS, data, models, tasks

SIZES = {
    "digits-mlp": (2410, 1197, 240, 360),
    "digits-lenet": (5486, 1197, 240, 360),
    "mnist-mlp": (269_322, 3500, 500, 1000),
    "mnist-lenet": (61_706, 3500, 500, 1000),
    "fashion-mlp": (269_322, 50_000, 10_000, 10_000),
    "fashion-lenet": (61_706, 50_000, 10_000, 10_000),
}
SMALL = ["digits-mlp", "digits-lenet", "text-gpt"]


def task(name):
    try:
        return tasks.task(name)
    except MissingPackage as error:
        pytest.skip(str(error))


def count(module):
    return sum(p.numel() for p in module.parameters())


def flat(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_networks_that_are_measured_have_the_sizes_of_the_tables():
    sizes = {f: count(f()) for f in (models.mlp, models.lenet, models.policy, models.transformer)}
    assert list(sizes.values()) == [269_322, 61_706, 5_702, 867_072]
    gpt = models.gpt()
    assert (count(gpt), len(list(gpt.parameters()))) == (10_101_888, 64)
    assert gpt.head.weight is gpt.wte.weight
    assert count(models.gpt(tied=False)) == count(gpt) + 384 * 3072
    assert models.policy()(torch.zeros(3, 17)).shape == (3, 6)
    assert models.lenet()(torch.zeros(3, 1, 28, 28)).shape == models.lenet(8)(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize("make_one", [models.mlp, models.lenet, models.policy, models.transformer])
def test_weights_are_those_of_a_key_and_of_no_generator(make_one):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = make_one(key=Key(1)), make_one(key=Key(1)), make_one(key=Key(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(flat(one), flat(same))
    assert not torch.equal(flat(one), flat(other))


def test_weights_are_scaled_by_the_inputs():
    net = models.mlp()
    assert abs(float(net[1].weight.detach().std()) * 28 - 2**0.5) < 0.01  # 200 thousand entries: ten standard errors
    assert abs(float(net[5].weight.detach().std()) * 16 - 1.0) < 0.1
    assert not net[1].bias.any()
    block = models.transformer().blocks[0]
    assert abs(float(block.qkv.weight.detach().std()) * 128**0.5 - 1.0) < 0.03
    assert abs(float(block.down.weight.detach().std()) * (512 * 8) ** 0.5 - 1.0) < 0.03


def test_the_transformer_does_not_look_ahead():
    model = models.gpt(d=24, layers=2, heads=2, vocab=50, context=16).eval()
    tokens = torch.arange(12)[None] % 50
    later = tokens.clone()
    later[0, 8:] = 49
    with torch.no_grad():
        one, two = model(tokens), model(later)
    assert torch.equal(one[:, :8], two[:, :8])
    assert not torch.equal(one[:, 8:], two[:, 8:])


def test_what_does_not_exist_is_named():
    with pytest.raises(InvalidArgument, match="side 8 or 28, got 32"):
        models.lenet(32)
    with pytest.raises(InvalidArgument, match="divisor of the width 24, got 5"):
        models.gpt(d=24, heads=5)
    with pytest.raises(UnknownName, match="mnist"):
        data.images("minst")
    with pytest.raises(UnknownName, match="Did you mean 'mnist-lenet'"):
        tasks.task("mnist-lenett")


# --- data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_parts_have_their_sizes_and_share_no_image(name):
    work = task(name)
    assert (count(work.make(Key(0))), *(len(part) for part in work.parts.values())) == SIZES[name]
    x, y = work.batch(0)
    assert x.dtype == torch.float32
    assert x.shape == (128, 1, *[8 if name.startswith("digits") else 28] * 2)
    assert set(y.tolist()) <= set(range(10))
    train = {p.tobytes() for p in work.parts["train"].pixels}
    held = [p.tobytes() for part in ("validation", "test") for p in work.parts[part].pixels]
    repeated = sum(p in train for p in held)  # Fashion-MNIST holds some images twice as published
    assert repeated <= len(held) // 200


def test_the_digits_are_those_of_the_other_packs():
    pytest.importorskip("sklearn")
    found, (_, _, _, wanted) = data.digits(), load_digits()
    assert (found.classes[-360:] == wanted).all()
    assert found.pixels.max() == 16
    with pytest.raises(ValueError, match="read-only"):
        found.pixels[0] = 0


def test_mnist_has_as_many_images_of_every_digit():
    classes = task("mnist-mlp").parts["train"].classes
    assert np.bincount(data.mnist().classes).tolist() == [500] * 10
    assert np.bincount(classes).min() > 300


def test_images_are_standardised_by_the_training_part():
    train = task("digits-mlp").parts["train"]
    x, _ = train.take(train.whole())
    assert abs(float(x.mean())) < 1e-5
    assert abs(float(x.std()) - 1.0) < 1e-3


def test_fashion_is_read_from_a_folder_or_named_with_its_package(monkeypatch, tmp_path):
    monkeypatch.setenv(data.FOLDER, str(tmp_path))
    with pytest.raises(MissingPackage, match="apt-get install dataset-fashion-mnist"):
        data.fashion()
    path = tmp_path / "x.gz"
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 2, 3, 4) + values.tobytes()))
    assert (data._idx(path) == values).all()
    path.write_bytes(gzip.compress(b"\x00\x00\x0d\x01\x00\x00\x00\x01abcd"))
    with pytest.raises(InvalidArgument, match="expected an IDX file of bytes"):
        data._idx(path)


def test_text_is_dealt_by_paragraphs_that_occur_once():
    found = data.text()
    parts = ["".join(data.ALPHABET[c] for c in codes) for codes in (found.train, found.validation, found.test)]
    paragraphs = [[p for p in part.split("\n\n") if len(p) > 40] for part in parts]
    assert len(parts[0]) > 200_000
    assert 0.05 < len(parts[1]) / sum(map(len, parts)) < 0.15
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert not set(paragraphs[i]) & set(paragraphs[j])
    assert all(len(set(p)) == len(p) for p in paragraphs)
    assert re.search(r"\bstatement\b", parts[1])


def test_characters_outside_of_the_alphabet_are_question_marks():
    assert data.encode("a\né~🐍").tolist() == [data.ALPHABET.index(c) for c in "a\n?~?"]


# --- tasks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_batches_are_functions_of_their_number(name):
    work = task(name)
    assert all(torch.equal(a, b) for a, b in zip(work.batch(3), tasks.task(name)(3), strict=True))
    assert not torch.equal(work.batch(3)[0], work.batch(4)[0])
    rows = work.batch(3)[0].flatten(1)
    assert len(torch.unique(rows, dim=0)) == len(rows)


@pytest.mark.parametrize("name", SMALL)
def test_a_part_is_worth_the_mean_of_its_losses(name):
    work = task(name)
    module = work.make(Key(1))
    quality = work.measure(module, "validation")
    with torch.no_grad():
        losses = torch.cat([work.loss(module, batch) for batch in work.batches("validation", 97)])
    assert abs(quality.loss - float(losses.double().mean())) < 1e-5
    assert quality.answers == len(losses) * (64 if name == "text-gpt" else 1)
    assert 0.0 <= quality.accuracy < 0.3
    assert module.training


@pytest.mark.parametrize("name", SMALL)
def test_gradients_learn_what_the_labels_say(name):
    work = task(name)
    module = work.make(Key(1))
    rule = torch.optim.Adam(module.parameters(), lr=3e-3)
    for number in range(40):
        rule.zero_grad()
        work.loss(module, work.batch(number)).mean().backward()
        rule.step()
    quality = work.measure(module)
    assert quality.accuracy > (0.2 if name == "text-gpt" else 0.7)  # of characters: 0.17 are spaces


# --- problems -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_values_are_those_of_single_networks(name):
    fun = make(f"networks-{name}-i01").fun
    X = fun.x0 + 0.05 * normal(Key(1), (3, len(fun.x0)), fun.x0)
    with torch.no_grad():
        wanted = [float(fun.task.loss(fun.loaded(x), fun.task.batch(7)).mean()) for x in X]
    assert len(set(wanted)) == 3
    told, _ = fun.evaluate(Points(X, step=7), fun.start(1, Key(0)))
    np.testing.assert_allclose(told.f, wanted, rtol=2e-6)
    assert fun.task.measure(fun.loaded(X[0])).loss == fun.exact(X[0])


def test_a_problem_of_networks_keeps_the_laws_of_problems():
    problem = make("networks-digits-mlp-i02")
    check_problem(problem, seconds=300.0, cases=3).raise_if_failed()
    assert not torch.equal(problem.x0, make("networks-digits-mlp-i01").x0)
    assert pickle.loads(pickle.dumps(problem)).measure(problem.x0) == problem.measure(problem.x0)
    assert NETWORKS.group("mnist-lenet") == "mnist"


def test_a_perceptron_learns_digits_from_values_alone():
    problem = make("networks-digits-mlp-i01")
    res = dfo.minimize(problem.fun, problem.x0, method="openai-es", budget=3000, batch=50, noise=True)
    assert problem.measure(res.x) < 0.4 * problem.measure(problem.x0)
    assert problem.fun.task.measure(problem.fun.loaded(res.x)).accuracy > 0.75  # a fixed seed; 0.88 is usual
