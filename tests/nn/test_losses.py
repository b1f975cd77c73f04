"""Chunked losses are the usual ones, and hold no tensor of the size of all logits."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from zoo import ZOO

from dfo.directions import Directions
from dfo.distributions import Gaussian, LowRank
from dfo.errors import InvalidArgument, InvalidType
from dfo.nn.engine import Engine
from dfo.nn.losses import causal_loss, cross_entropy, per_example, sequence_loss
from dfo.nn.members import Draws
from dfo.random import Key

LINUX = Path("/proc/self/clear_refs").exists()


def case(seed=0, words=301, dtype=torch.float32, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    hidden, weight = torch.randn(3, 7, 11, generator=g), scale * torch.randn(words, 11, generator=g)
    return hidden.to(dtype), weight.to(dtype), torch.randint(words, (3, 7), generator=g)


def usual(hidden, weight, targets, bias=None):
    logits = F.linear(hidden, weight, bias)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)


@pytest.mark.parametrize("chunk", [1, 2000, 21 * 150, 21 * 300, 1 << 19])  # 64 to 301 words at a time, a last one alone
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float64, 1e-14), (torch.bfloat16, 1e-6)])
def test_every_token_has_its_usual_cross_entropy(chunk, dtype, atol):
    hidden, weight, targets = case(dtype=dtype)
    bias = torch.linspace(-2, 2, 301).to(dtype)
    targets[0, 2] = targets[2, 6] = -100
    targets[1, 0], targets[1, 1] = 0, 300
    for b in (None, bias):
        got = cross_entropy(hidden, weight, targets, bias=b, chunk=chunk)
        assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(got, usual(hidden, weight, targets, b), rtol=1e-6, atol=atol)
    assert got[0, 2] == got[2, 6] == 0.0


def test_large_logits_neither_overflow_nor_become_negative():
    hidden, weight, targets = case(scale=100.0)
    best = F.linear(hidden, weight).argmax(-1)
    for wanted in (targets, best):
        got = cross_entropy(hidden, weight, wanted, chunk=2000)
        torch.testing.assert_close(got, usual(hidden, weight, wanted), rtol=1e-6, atol=1e-4)  # eps times logits of 500
        assert (got >= 0.0).all()
    hidden, weight, _ = case(dtype=torch.bfloat16, scale=100.0)
    assert (cross_entropy(hidden, weight, F.linear(hidden, weight).argmax(-1), chunk=2000) >= 0.0).all()


def test_any_shape_of_tokens():
    hidden, weight, targets = case()
    whole = cross_entropy(hidden, weight, targets, chunk=2000)
    flat = cross_entropy(hidden.flatten(0, 1), weight, targets.flatten(), chunk=2000)
    torch.testing.assert_close(flat.view(3, 7), whole)
    torch.testing.assert_close(cross_entropy(hidden[0, 0], weight, targets[0, 0]), whole[0, 0])
    assert cross_entropy(hidden[:0], weight, targets[:0]).shape == (0, 7)


def test_gradients_are_the_usual_ones():
    hidden, weight, targets = case(dtype=torch.float64)
    leaves = [x.clone().requires_grad_() for x in (hidden, weight)]
    others = [x.clone().requires_grad_() for x in (hidden, weight)]
    cross_entropy(*leaves, targets, chunk=2000).sum().backward()
    usual(*others, targets).sum().backward()
    for a, b in zip(leaves, others, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_what_does_not_fit_is_named():
    hidden, weight, targets = case()
    with pytest.raises(InvalidArgument, match=r"got \(3, 7, 11\), \(11, 301\), \(3, 7\)"):
        cross_entropy(hidden, weight.T, targets)
    with pytest.raises(InvalidArgument, match=r"expected 0 to 300, or -100 .* got 301"):
        cross_entropy(hidden, weight, targets.clamp(min=5) * 0 + 301)
    with pytest.raises(InvalidArgument, match="got -1"):
        cross_entropy(hidden, weight, targets * 0 - 1)
    with pytest.raises(InvalidArgument, match="two tokens"):
        sequence_loss(hidden[:, :1], weight, targets[:, :1])
    with pytest.raises(InvalidType, match="linear layer"):
        sequence_loss(hidden, nn.ReLU(), targets)


def test_means_of_examples_count_their_own_tokens():
    losses = torch.tensor([[1.0, 2.0, 6.0], [4.0, torch.nan, 8.0], [1.0, 1.0, 1.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 0]])
    assert per_example(losses, mask).tolist() == [3.0, 6.0, 0.0]
    assert per_example(losses[:1]).tolist() == [3.0]
    many = torch.full((1, 5000), 0.1, dtype=torch.bfloat16)
    assert per_example(many).dtype == torch.float32
    torch.testing.assert_close(per_example(many), many[:, 0].float())  # a bfloat16 sum would stop at 32


def test_sequences_are_asked_for_their_next_token():
    hidden, weight, tokens = case()
    head = nn.Linear(11, 301)
    wanted = usual(hidden[:, :-1], head.weight, tokens[:, 1:], head.bias)
    torch.testing.assert_close(sequence_loss(hidden, head, tokens, chunk=2000), wanted.mean(1))
    mask = torch.arange(7) < torch.tensor([[7], [4], [2]])
    some = torch.stack([wanted[0].mean(), wanted[1, :3].mean(), wanted[2, :1].mean()])
    torch.testing.assert_close(sequence_loss(hidden, head, tokens, mask=mask), some)
    torch.testing.assert_close(sequence_loss(hidden, head, tokens.masked_fill(~mask, -100)), some)
    assert sequence_loss(hidden, weight, tokens).shape == (3,)


class Causal(nn.Module):
    """The interface of a causal language model of Hugging Face."""

    def __init__(self, **config):
        super().__init__()
        self.embed, self.lm_head = nn.Embedding(31, 6), nn.Linear(6, 31, bias=False)
        self.config = SimpleNamespace(**config)

    def base_model(self, input_ids, attention_mask=None):
        return SimpleNamespace(last_hidden_state=self.embed(input_ids).cumsum(1))

    def get_output_embeddings(self):
        return self.lm_head


def test_causal_models_are_asked_through_their_body_and_head():
    model, tokens = Causal(logit_scale=1.0), torch.randint(31, (3, 5), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(5) < torch.tensor([[5], [3], [2]])
    hidden = model.base_model(tokens).last_hidden_state
    wanted = sequence_loss(hidden, model.lm_head.weight, tokens, mask=mask)
    torch.testing.assert_close(causal_loss(model, {"input_ids": tokens, "attention_mask": mask}), wanted)
    labels = tokens.masked_fill(~mask, -100)
    torch.testing.assert_close(causal_loss(model, {"input_ids": tokens, "labels": labels}), wanted)
    with pytest.raises(InvalidArgument, match="final_logit_softcapping=30"):
        causal_loss(Causal(final_logit_softcapping=30.0), {"input_ids": tokens})
    with pytest.raises(InvalidType, match="got Linear"):
        causal_loss(nn.Linear(2, 2), {"input_ids": tokens})


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_hugging_face_models_report_the_same_loss(kind):
    pytest.importorskip("transformers")
    model, (tokens,), _ = ZOO[f"hf-{kind}"]()
    with torch.no_grad():
        wanted = [model(input_ids=row[None], labels=row[None]).loss for row in tokens]
        torch.testing.assert_close(causal_loss(model, {"input_ids": tokens}), torch.stack(wanted))


MEASURE = """
import json, torch
import torch.nn.functional as F
from dfo.nn.losses import cross_entropy

def status(name):
    return int(next(row.split()[1] for row in open("/proc/self/status") if row.startswith(name))) / 1024

def peak(function, *args):
    open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts again from what is in use
    before = status("VmHWM")
    with torch.no_grad():
        function(*args)
    return status("VmHWM") - before

def full(hidden, weight, targets):
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="none")

torch.set_num_threads(1)
small = torch.randn(64, 576).bfloat16(), torch.randn(512, 576).bfloat16(), torch.randint(512, (64,))
cross_entropy(*small), full(*small)  # the kernels are loaded
given = torch.randn(1024, 576).bfloat16(), torch.randn(49152, 576).bfloat16(), torch.randint(49152, (1024,))
print(json.dumps({"chunked": peak(cross_entropy, *given), "full": peak(full, *given)}))
"""


@pytest.mark.skipif(not LINUX, reason="reads the high-water mark of Linux")
def test_logits_of_a_large_vocabulary_never_exist_together():
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    peaks = json.loads(done.stdout)  # MiB beyond inputs; the weight itself is 54
    assert peaks["full"] > 192.0  # the measure sees one float32 copy of the logits, at least
    assert peaks["chunked"] < 26.0


@pytest.mark.parametrize("law", [LowRank(rank=1), Gaussian()], ids=["rank 1", "gaussian"])
def test_members_ride_through_the_stretches_of_the_vocabulary(law):
    module, (tokens,), _ = ZOO["gpt"]()
    g = torch.Generator().manual_seed(2)
    module.wte = nn.Embedding.from_pretrained(0.3 * torch.randn(201, 18, generator=g), freeze=False)  # four stretches

    def chunked(model, batch):
        return sequence_loss(model.hidden(batch), model.wte.weight, batch, chunk=1)

    def whole(model, batch):
        return usual(model.hidden(batch)[:, :-1], model.wte.weight, batch[:, 1:]).mean(1)

    given = np.array([0, 0, 1, 1]), np.array([0.1, -0.1, 0.1, -0.1])
    values = {}
    for name, loss, evaluate in (("members", chunked, "together"), ("alone", whole, "one by one")):
        engine = Engine(module, loss, evaluate=evaluate)
        values[name] = engine.losses(tokens, Draws(Directions(law, Key(3), 2, engine.tensors), engine.tensors), *given)
    assert values["members"].std(0).min() > 1e-3
    torch.testing.assert_close(values["members"], values["alone"], rtol=1e-5, atol=1e-5)
