"""The Trainer of Hugging Face, its steps made by forward passes: another import, and no gradient is taken.

``from dfo.nn.trainer import Trainer`` in the place of ``from transformers import Trainer``. The loop, the data, the
schedule of the rate, logs, evaluations and checkpoints stay the Trainer's own; ``learning_rate`` (unless it is the
default of the Trainer), ``weight_decay`` and ``seed`` of its arguments are those of :class:`dfo.nn.ZOSGD`. Another
optimizer, or more of its arguments, by ``optimizer_cls_and_kwargs=(dfo.nn.ES, {"population": 64})``. Batches of a
gradient accumulation are joined, and evaluated one after another. Dropout is off, and ``max_grad_norm`` has nothing to
clip.

Members ride together in causal language models (:func:`dfo.nn.causal_loss`: the mean over sequences of the mean over
their tokens), and wherever ``compute_loss_func`` returns one loss an example; else they are evaluated one by one. Other
subclasses of the Trainer take :class:`ForwardSteps`: ``class Mine(ForwardSteps, SFTTrainer): ...``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dfo.errors import InvalidArgument, MissingPackage
from dfo.nn.front import Front
from dfo.nn.fronts import ZOSGD
from dfo.nn.losses import causal_loss

__all__ = ["ForwardSteps", "joined"]


class ForwardSteps:
    """What to put before a Trainer in the list of bases."""

    args: Any
    accelerator: Any
    model: Any
    optimizer: Any
    _prepare_inputs: Any
    compute_loss: Any

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        """Return the optimizer: the one given, or one of the model where it now is.

        Raises:
            InvalidArgument: several processes, mixed precision, or a model that was moved behind its optimizer's back.
        """
        self._kept: list[Mapping[str, Any]] = []
        if self.args.world_size > 1 or self.args.fp16 or self.args.bf16:
            raise InvalidArgument(
                "Trainer: expected one process, fp16=False and bf16=False. For 16 bits, load the model with"
                " dtype=torch.bfloat16: no copy in single precision is needed."
            )
        if self.optimizer is None:
            make, given = getattr(self, "optimizer_cls_and_kwargs", None) or (ZOSGD, {})
            named = {"weight_decay": self.args.weight_decay, "seed": self.args.seed}
            if self.args.learning_rate != type(self.args).__dataclass_fields__["learning_rate"].default:
                named["lr"] = self.args.learning_rate
            if isinstance(make, type) and issubclass(make, Front):
                named["decay"] = 0.0  # the schedule is the Trainer's
            self.optimizer = make(self.model, **(named | given))
        elif isinstance(self.optimizer, Front):
            own, parameters = self.optimizer.engine.tensors, dict(self.model.named_parameters())
            if any(parameters[name].data_ptr() != t.data_ptr() for name, t in own.items()):
                raise InvalidArgument("optimizers: the model has been moved since. Take optimizer_cls_and_kwargs=.")
        return self.optimizer

    def training_step(self, model: nn.Module, inputs: Mapping[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Keep a batch of an accumulation; with the last of them, make the step and return the mean loss."""
        del num_items_in_batch
        self._kept.append(dict(self._prepare_inputs(inputs)))
        gradients = self.accelerator.gradient_state
        if not gradients.sync_gradients:
            return torch.zeros((), device=self.args.device)
        batch, count = joined(self._kept), len(self._kept)
        self._kept = []
        model.eval()
        front, rows = self.optimizer.optimizer, len(next(iter(batch.values())))
        parts = next(p for p in range(count, rows + 1) if rows % p == 0)
        words = {"parts": parts} if isinstance(front, Front) else {}
        value = front.step(self.losses, batch, **words)
        gradients._set_sync_gradients(False)  # the step is made: accelerate's wrapper of the optimizer skips its own
        return torch.tensor(value, device=self.args.device)

    def losses(self, module: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        """Return the losses ``(B,)``, or one number; override it for another loss."""
        inner: Any = module.get_base_model() if hasattr(module, "get_base_model") else module
        asked = getattr(self, "compute_loss_func", None) or getattr(self, "label_smoother", None)
        if asked is None and "ForCausalLM" in type(inner).__name__ and "labels" in batch:
            return causal_loss(inner, batch)
        return self.compute_loss(module, dict(batch))


def joined(batches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return batches as one; shorter rows are filled up behind: labels by -100, all else by 0.

    Raises:
        InvalidArgument: rows of different lengths without an attention mask.

    Example:
        >>> short, long = ({"labels": torch.ones(1, n), "attention_mask": torch.ones(1, n)} for n in (1, 3))
        >>> joined([short, long])["labels"].tolist()
        [[1.0, -100.0, -100.0], [1.0, 1.0, 1.0]]
    """
    made = {}
    for key in batches[0]:
        rows = [batch[key] for batch in batches]
        if isinstance(rows[0], Tensor) and rows[0].dim() == 2:
            width, fill = max(r.shape[1] for r in rows), -100 if key == "labels" else 0
            if any(r.shape[1] < width for r in rows) and "attention_mask" not in batches[0]:
                raise InvalidArgument(f"{key}: expected an attention_mask with rows of different lengths.")
            rows = [nn.functional.pad(r, (0, width - r.shape[1]), value=fill) for r in rows]
        made[key] = torch.cat(rows) if isinstance(rows[0], Tensor) else rows[0]
    return made


def __getattr__(name: str) -> Any:
    """Make ``Trainer`` when it is first asked for: transformers is optional."""
    if name != "Trainer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import transformers
    except ImportError:
        raise MissingPackage("Trainer: pip install 'transformers>=5' 'accelerate>=1.1'.") from None
    made = type(name, (ForwardSteps, transformers.Trainer), {"__module__": __name__, "__doc__": __doc__})
    globals()[name] = made
    return made
