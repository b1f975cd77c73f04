"""The Trainer of Hugging Face with steps by forward passes: losses, schedules, accumulation, checkpoints, errors."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F

import dfo.nn
from dfo.errors import InvalidArgument, MissingPackage
from dfo.nn import trainer as swap

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

WORDS, LENGTH = 24, 8


def language(dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).to(dtype)


def sentences(count: int = 16, lengths: tuple[int, ...] = (LENGTH,)) -> list[dict[str, list[int]]]:
    """Words that count up from different first words."""
    ids = [[(5 * i + j) % (WORDS - 3) + 3 for j in range(lengths[i % len(lengths)])] for i in range(count)]
    return [{"input_ids": row, "labels": row, "attention_mask": [1] * len(row)} for row in ids]


def arguments(folder, **more):
    given = {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "max_steps": 20, "learning_rate": 2e-2,
        "lr_scheduler_type": "constant", "logging_steps": 5, "save_strategy": "no", "report_to": [], "use_cpu": True,
        "disable_tqdm": True, "seed": 3,
    }  # fmt: skip
    return transformers.TrainingArguments(**(given | more))


def run(model, args, data=None, resume=None, **more):
    made = swap.Trainer(model, args, train_dataset=sentences() if data is None else data, **more)
    made.train(resume_from_checkpoint=resume)
    return made, made.optimizer.optimizer


def logged(made, what: str = "loss") -> list[float]:
    return [entry[what] for entry in made.state.log_history if what in entry]


def test_the_loss_falls_and_members_ride_together(tmp_path):
    made, opt = run(language(), arguments(tmp_path, learning_rate=3e-2), eval_dataset=sentences(4))
    assert type(opt) is dfo.nn.ZOSGD
    assert opt.t == 20
    assert "members ride together" in opt.engine.describe()
    losses = logged(made)
    assert len(losses) == 4
    assert losses[-1] < losses[0] - 0.1
    assert abs(made.evaluate()["eval_loss"] - losses[-1]) < 0.5


def test_the_first_value_is_the_loss_of_the_model(tmp_path):
    """Members lie a radius of 1e-3 to both sides, so their mean is the loss but for 1e-3."""
    model, data = language(), sentences(8)
    batch = {key: torch.tensor([row[key] for row in data]) for key in data[0]}
    with torch.no_grad():
        expected = float(model(**batch).loss)  # rows of one length: means over tokens and over sequences agree
    made, _ = run(model, arguments(tmp_path, max_steps=1, logging_steps=1), data)
    assert logged(made)[0] == pytest.approx(expected, abs=1e-3)


def test_the_schedule_of_the_rate_reaches_the_steps(tmp_path):
    """With a rate that falls to zero within ten steps, the last step moves by a tenth of the first."""
    model = language()
    args = arguments(tmp_path, max_steps=10, logging_steps=1, lr_scheduler_type="linear", learning_rate=1e-2)
    lengths, last = [], [p.detach().clone() for p in model.parameters()]

    class Watch(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            now = [p.detach().clone() for p in model.parameters()]
            moved = sum(float((a - b).square().sum()) for a, b in zip(now, last, strict=True))
            lengths.append((moved / sum(p.numel() for p in now)) ** 0.5)
            last[:] = now

    made, _ = run(model, args, callbacks=[Watch()], optimizer_cls_and_kwargs=(dfo.nn.ES, {"population": 16}))
    assert logged(made, "learning_rate") == pytest.approx([1e-2 * (10 - i) / 10 for i in range(10)], abs=1e-9)
    assert lengths[0] == pytest.approx(1e-2, rel=0.2)  # the rate is the root mean square of a step per weight
    assert lengths[-1] == pytest.approx(1e-3, rel=0.2)


@pytest.mark.parametrize("options", [{}, {"samples": 2}], ids=["dealt", "shared"])
def test_an_accumulation_is_one_step_on_the_joined_batch(tmp_path, options):
    data = sentences(8)
    whole, accumulated = language(), language()
    words = {"optimizer_cls_and_kwargs": (dfo.nn.ZOSGD, options)}
    run(whole, arguments(tmp_path, max_steps=3), data, **words)
    more = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    _, opt = run(accumulated, arguments(tmp_path, max_steps=3, **more), data, **words)
    assert opt.t == 3
    for a, b in zip(whole.parameters(), accumulated.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-4)  # sums in another order, divided by twice the radius


def test_rows_of_different_lengths_are_filled_up():
    rows = [{key: torch.tensor([value]) for key, value in row.items()} for row in sentences(2, (4, 7))]
    batch, model = swap.joined(rows), language()
    assert batch["labels"].tolist()[0][4:] == [-100] * 3
    with torch.no_grad():
        alone = torch.cat([dfo.nn.causal_loss(model, row) for row in rows])
        assert torch.allclose(dfo.nn.causal_loss(model, batch), alone, atol=1e-5)
    with pytest.raises(InvalidArgument, match="expected an attention_mask"):
        swap.joined([{"input_ids": row["input_ids"]} for row in rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("make", [dfo.nn.ZOSGD, dfo.nn.ES])
def test_a_resumed_run_continues_bit_for_bit(tmp_path, make, dtype):
    """Also where rate and radius follow from the weights of the start, which the second process does not see."""
    whole, resumed = language(dtype), language(dtype)
    args = arguments(tmp_path, max_steps=7, save_strategy="steps", save_steps=4, learning_rate=5e-5)
    options = {"optimizer_cls_and_kwargs": (make, {"rule": "momentum"})}
    run(whole, args, **options)
    _, opt = run(resumed, args, resume=str(tmp_path / "checkpoint-4"), **options)
    assert opt.t == 7
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert not any(
        torch.equal(value, other)
        for value, other in zip(ours.values(), language(dtype).state_dict().values(), strict=True)
    )


def test_weights_that_are_loaded_are_not_moved_by_updates_that_lag_behind(tmp_path):
    model = language(torch.bfloat16)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"optimizer_cls_and_kwargs": (dfo.nn.ZOSGD, {"samples": 2})}
    _, opt = run(model, arguments(tmp_path, max_steps=2), **options)
    assert opt.course.behind.count
    model.load_state_dict(kept)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def classifier() -> tuple[torch.nn.Module, list[dict[str, object]]]:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_labels=2, pad_token_id=0,
    )  # fmt: skip
    data = [{**row, "labels": int(row["input_ids"][0] > 12)} for row in sentences(16)]
    return transformers.LlamaForSequenceClassification(config), data


def test_a_loss_function_that_answers_by_example_rides_together(tmp_path):
    def wrong(outputs, labels, num_items_in_batch=None):
        return F.cross_entropy(outputs.logits, labels, reduction="none")

    model, data = classifier()
    args = arguments(tmp_path, per_device_train_batch_size=16)
    options = {"optimizer_cls_and_kwargs": (dfo.nn.ES, {"population": 16})}
    made, opt = run(model, args, data, compute_loss_func=wrong, **options)
    assert "members ride together" in opt.engine.describe()
    assert logged(made)[-1] < logged(made)[0] - 0.02
    assert made.evaluate(data)["eval_loss"] < logged(made)[0]


def test_a_model_with_a_loss_of_its_own_goes_one_by_one(tmp_path):
    model, data = classifier()
    _, opt = run(model, arguments(tmp_path, max_steps=1), data)
    assert "one member a pass (the loss is one number" in opt.engine.describe()


def test_the_published_optimizer_fits_as_well(tmp_path):
    model = language()
    before = model.lm_head.weight.clone()
    _, opt = run(model, arguments(tmp_path, max_steps=2), optimizer_cls_and_kwargs=(dfo.nn.MeZO, {"lr": 1e-3}))
    assert len(opt.log) == 2
    assert not torch.equal(model.lm_head.weight, before)


def test_an_optimizer_made_before_is_taken_unless_the_model_has_moved_since(tmp_path):
    model = language()
    opt = dfo.nn.ZOSGD(model, lr=1e-3, samples=2)
    assert run(model, arguments(tmp_path, max_steps=1), optimizers=(opt, None))[1] is opt
    assert opt.t == 1
    model = language()
    opt = dfo.nn.ZOSGD(model, lr=1e-3)
    model.to(torch.bfloat16)
    with pytest.raises(InvalidArgument, match="has been moved since"):
        run(model, arguments(tmp_path, max_steps=1), optimizers=(opt, None))


def test_mixed_precision_is_declined(tmp_path):
    with pytest.raises(InvalidArgument, match=r"bf16=False.*dtype=torch\.bfloat16"):
        run(language(), arguments(tmp_path, max_steps=1, bf16=True))


def test_without_transformers_the_message_says_what_to_install(monkeypatch):
    monkeypatch.delattr(swap, "Trainer", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingPackage, match="pip install 'transformers"):
        swap.Trainer  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        swap.Nothing  # noqa: B018
