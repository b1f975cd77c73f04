"""Small networks of many kinds, on which every way of evaluating members is compared with explicit weights.

``ZOO[name]()`` returns ``(module, batch, loss)``: a float32 module on the CPU, a tuple of tensors whose first axis is
that of the examples, and ``loss(module, batch)``, which returns one loss per example, ``(B,)``. Nothing depends on
``B`` but through the batch, so that the same module takes the batch tiled. Sizes differ between axes wherever the
architecture allows, so that swapped axes cannot go unnoticed; every weight, the zeros and ones of norms and biases
too, has a random value. Modules are in evaluation mode, except for those named ``-train``: there batch statistics
are those of the examples that ride together, and calls move the running ones.

``DROPOUT`` holds modules in training mode whose losses depend on torch's generator, ``REFUSED`` modules whose weights
are not all real numbers and that dfo must decline. Language models of Hugging Face, built from a configuration with
random weights, are in ``ZOO`` where ``transformers`` is installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo_language import GPT, Conv1D, Llama, MiniLM

__all__ = ["DROPOUT", "REFUSED", "ZOO", "Loss", "Made"]

Batch = tuple[Tensor, ...]
Loss = Callable[[nn.Module, Batch], Tensor]
Made = tuple[nn.Module, Batch, Loss]

ZOO: dict[str, Callable[[], Made]] = {}
DROPOUT: dict[str, Callable[[], Made]] = {}
REFUSED: dict[str, Callable[[], Made]] = {}


def listed(name: str, where: dict[str, Callable[[], Made]] = ZOO, train: bool = False) -> Callable:
    """List a maker under a name; its weights and data come from a seed, and torch's own generator is left alone."""

    def wrap(make: Callable[[], Made]) -> Callable[[], Made]:
        def build() -> Made:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(sum(name.encode()))
                module, batch, loss = make()
                if where is not REFUSED:
                    shake(module)
            return module.train(train), batch, loss

        where[name] = build
        return make

    return wrap


def shake(module: nn.Module) -> None:
    """Move weights that start at constants, and the statistics of norms, to random values."""
    with torch.no_grad():
        for p in module.parameters():
            if p.numel() > 1 and bool((p == p.flatten()[0]).all()):
                p.add_(0.2 * torch.randn_like(p))
        for name, b in module.named_buffers():
            if name.endswith("running_mean"):
                b.normal_(0.0, 0.3)
            elif name.endswith("running_var"):
                b.uniform_(0.5, 1.5)


def classes(module: nn.Module, batch: Batch) -> Tensor:
    """Return ``(B,)`` cross-entropies: the last tensor of the batch holds the classes, the others are the inputs."""
    *inputs, y = batch
    return F.cross_entropy(module(*inputs), y, reduction="none")


def next_token(module: nn.Module, batch: Batch) -> Tensor:
    """Return ``(B,)`` mean cross-entropies of the next tokens of ``(B, T)`` sequences."""
    out = module(batch[0])
    scores = (out if isinstance(out, Tensor) else out.logits)[:, :-1]  # (B, T - 1, V)
    return F.cross_entropy(scores.transpose(1, 2), batch[0][:, 1:], reduction="none").mean(1)


def squares(module: nn.Module, batch: Batch) -> Tensor:
    """Return ``(B,)`` mean squares of the difference between the output and the last tensor of the batch."""
    *inputs, y = batch
    return (module(*inputs) - y).square().flatten(1).mean(1)


# --- perceptrons and convolutions -----------------------------------------------------------------------------------


def _mlp(dropout: float = 0.0) -> Made:
    layers = (nn.Linear(30, 17), nn.ReLU(), nn.Dropout(dropout), nn.Linear(17, 11), nn.Tanh(), nn.Linear(11, 7))
    return nn.Sequential(nn.Flatten(), *layers), (torch.randn(4, 5, 6), torch.randint(7, (4,))), classes


listed("mlp")(_mlp)
listed("mlp", DROPOUT, train=True)(lambda: _mlp(0.4))


@listed("lenet")
def lenet() -> Made:
    """LeCun et al. (1998), smaller: two convolutions with pooling, two linear layers."""
    convolutions = (nn.Conv2d(2, 5, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(5, 9, 3), nn.ReLU())
    head = (nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9 * 2 * 3, 13), nn.Tanh(), nn.Linear(13, 7))
    return nn.Sequential(*convolutions, *head), (torch.randn(4, 2, 12, 16), torch.randint(7, (4,))), classes


class Residual(nn.Module):
    """Two 3 x 3 convolutions with batch norm beside a strided shortcut, He et al. (2015), arXiv:1512.03385."""

    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b)
        self.conv2, self.bn2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
        self.short = (
            nn.Identity() if a == b else nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))
        )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.short(x))


def _resnet() -> Made:
    stem = (nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
    body = (Residual(6, 6, 1), Residual(6, 10, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5))
    return nn.Sequential(*stem, *body), (torch.randn(4, 3, 8, 12), torch.randint(5, (4,))), classes


listed("resnet")(_resnet)
listed("resnet-train", train=True)(_resnet)


class Depthwise(nn.Module):
    """Sequences: dilated, grouped and depthwise 1-D convolutions, group norm, a transposed one, learned slopes."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.depth = nn.Conv1d(4, 12, 3, padding="same", dilation=2), nn.Conv1d(12, 12, 5, groups=12)
        self.point, self.group = nn.Conv1d(12, 18, 1), nn.Conv1d(18, 6, 3, stride=2, groups=3)
        self.norm, self.slope, self.up = nn.GroupNorm(3, 18), nn.PReLU(18), nn.ConvTranspose1d(6, 5, 4, stride=3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.depth(F.gelu(self.wide(x)))
        h = self.group(self.slope(self.norm(self.point(h))))
        return self.up(h)


@listed("conv1d")
def conv1d() -> Made:
    """Regression of sequences by 1-D convolutions."""
    return Depthwise(), (torch.randn(3, 4, 19), torch.randn(3, 5, 22)), squares


# --- recurrence and attention ---------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """A classifier by the mean state of two recurrent layers; nn.LSTM and nn.GRU hand their weights to one kernel."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], batch_first: bool, **more: object) -> None:
        super().__init__()
        self.embed, self.batch_first = nn.Embedding(23, 6), batch_first
        self.cells = kind(6, 8, num_layers=2, batch_first=batch_first, **more)
        self.head = nn.Linear(16 if self.cells.bidirectional else 8, 5)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        h, _ = self.cells(x if self.batch_first else x.transpose(0, 1))
        return self.head(h.mean(1 if self.batch_first else 0))


def _tokens(classes: int) -> Batch:
    return torch.randint(23, (3, 9)), torch.randint(classes, (3,))


listed("lstm")(lambda: (Recurrent(nn.LSTM, True), _tokens(5), classes))
listed("gru")(lambda: (Recurrent(nn.GRU, False, bidirectional=True), _tokens(5), classes))


class Attention(nn.Module):
    """One nn.MultiheadAttention with a residual; keys and values may have a width of their own, with a padding mask."""

    def __init__(self, batch_first: bool, cross: bool) -> None:
        super().__init__()
        more = {"kdim": 9, "vdim": 9, "add_bias_kv": True} if cross else {}
        self.attend = nn.MultiheadAttention(12, 3, batch_first=batch_first, **more)
        self.norm, self.head, self.batch_first = nn.LayerNorm(12), nn.Linear(12, 5), batch_first

    def forward(self, x: Tensor, memory: Tensor | None = None, padded: Tensor | None = None) -> Tensor:
        memory = x if memory is None else memory
        if not self.batch_first:
            x, memory = x.transpose(0, 1), memory.transpose(0, 1)  # (T, B, E)
        h, _ = self.attend(x, memory, memory, key_padding_mask=padded, need_weights=False)
        return self.head(self.norm(x + h).mean(1 if self.batch_first else 0))


listed("attention")(lambda: (Attention(True, False), (torch.randn(4, 7, 12), torch.randint(5, (4,))), classes))
listed("attention-time-first")(
    lambda: (Attention(False, False), (torch.randn(4, 7, 12), torch.randint(5, (4,))), classes)
)


@listed("attention-padded")
def attention_padded() -> Made:
    """Two layers of torch's own encoder on sentences of different lengths."""
    layer = nn.TransformerEncoderLayer(12, 2, 16, dropout=0.0, batch_first=True)
    padded = torch.arange(7) >= torch.tensor([[7], [4], [2]])  # (3, 7)
    return Padded(layer, nested=False), (torch.randn(3, 7, 12), padded, torch.randint(5, (3,))), classes


class Padded(nn.Module):
    """An encoder and the mean of the words that are there."""

    def __init__(self, layer: nn.TransformerEncoderLayer, nested: bool) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)  # torch warns of nested tensors
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor, padded: Tensor) -> Tensor:
        there = (~padded).to(x.dtype).unsqueeze(2)
        h = self.encoder(x, src_key_padding_mask=padded)
        return self.head((h * there).sum(1) / there.sum(1))


@listed("attention-cross")
def attention_cross() -> Made:
    """Attention to another sequence, part of it padding, with learned extra keys and values."""
    padded = torch.arange(8) >= torch.tensor([[8], [5], [3]])  # (3, 8)
    return Attention(True, True), (torch.randn(3, 7, 12), torch.randn(3, 8, 9), padded, torch.randint(5, (3,))), classes


class ViT(nn.Module):
    """Patches by a convolution, a class token, learned positions; Dosovitskiy et al. (2020), arXiv:2010.11929."""

    def __init__(self, dropout: float, norm_first: bool) -> None:
        super().__init__()
        self.patch, self.cls = nn.Conv2d(3, 16, 4, 4), nn.Parameter(0.1 * torch.randn(1, 1, 16))
        self.pos_embed = nn.Parameter(0.1 * torch.randn(1, 7, 16))
        layer = {"batch_first": True, "norm_first": norm_first, "activation": "gelu"}
        self.block = nn.TransformerEncoderLayer(16, 2, 24, dropout, **layer)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patch(x).flatten(2).transpose(1, 2)  # (B, 6, 16)
        h = torch.cat([self.cls.expand(x.shape[0], -1, -1), h], 1) + self.pos_embed
        return self.head(self.norm(self.block(h))[:, 0])


def _vit(dropout: float = 0.0, norm_first: bool = True) -> Made:
    return ViT(dropout, norm_first), (torch.randn(4, 3, 8, 12), torch.randint(5, (4,))), classes


listed("vit")(_vit)
listed("vit-norm-last")(lambda: _vit(norm_first=False))
listed("vit", DROPOUT, train=True)(lambda: _vit(0.3))


# --- language models ------------------------------------------------------------------------------------------------


listed("gpt")(lambda: (GPT(), (torch.randint(29, (3, 11)),), next_token))
listed("gpt", DROPOUT, train=True)(lambda: (GPT(dropout=0.2), (torch.randint(29, (3, 11)),), next_token))
listed("gpt2-conv1d")(lambda: (GPT(Conv1D), (torch.randint(29, (3, 11)),), next_token))


listed("llama")(lambda: (Llama(), (torch.randint(31, (3, 11)),), next_token))


@listed("minilm")
def minilm() -> Made:
    """Sentences of different lengths, each in two parts."""
    mask = (torch.arange(9) < torch.tensor([[9], [6], [2]])).float()
    words = torch.randint(1, 27, (3, 9)) * mask.long()
    return MiniLM(), (words, torch.randint(2, (3, 9)), mask, torch.randint(5, (3,))), classes


class Bag(nn.Module):
    """The mean of word vectors beside nn.EmbeddingBag's sum, a temperature, and a bilinear form by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.bag = nn.Embedding(23, 6, padding_idx=0), nn.EmbeddingBag(23, 7, mode="sum", padding_idx=0)
        self.form, self.scale = nn.Parameter(0.3 * torch.randn(6, 7, 5)), nn.Parameter(torch.tensor(1.3))

    def forward(self, ids: Tensor) -> Tensor:
        mean = self.embed(ids).sum(1) / (ids > 0).sum(1, keepdim=True)
        return torch.einsum("bi,ijk,bj->bk", mean, self.form, self.bag(ids)) * self.scale.exp()


@listed("bag")
def bag() -> Made:
    """Bags of words of different sizes."""
    ids = torch.randint(1, 23, (4, 8)) * (torch.arange(8) < torch.tensor([[8], [5], [1], [3]]))
    return Bag(), (ids, torch.randint(5, (4,))), classes


# --- declined -------------------------------------------------------------------------------------------------------


@listed("dynamic-int8", REFUSED)
def dynamic() -> Made:
    """torch's own dynamic quantisation: the weights are packed objects, and no parameter is left."""
    module, batch, loss = _mlp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8), batch, loss


class IntegerLinear(nn.Module):
    """Codes of eight bits, a scale per row: only scale and bias are real numbers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        codes = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8)
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.scale, self.bias = nn.Parameter(torch.rand(outputs) / 100), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype) * self.scale[:, None], self.bias)


@listed("integer-weights", REFUSED)
def integers() -> Made:
    """Weight-only quantisation with the codes as a parameter."""
    layers = nn.Flatten(), IntegerLinear(30, 17), nn.ReLU(), IntegerLinear(17, 7)
    return nn.Sequential(*layers), (torch.randn(4, 5, 6), torch.randint(7, (4,))), classes


# --- Hugging Face ---------------------------------------------------------------------------------------------------


def _hf_llama() -> Made:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=31,
        hidden_size=24,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=16,
        use_cache=False,
    )
    return LlamaForCausalLM(config), (torch.randint(31, (3, 11)),), next_token


def _hf_gpt2() -> Made:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=29, n_positions=13, n_embd=18, n_layer=2, n_head=3, bos_token_id=1, eos_token_id=2, use_cache=False
    )
    return GPT2LMHeadModel(config), (torch.randint(29, (3, 11)),), next_token


def _hf_bert() -> Made:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=27,
        hidden_size=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=33,
        max_position_embeddings=14,
    )
    mask = (torch.arange(9) < torch.tensor([[9], [6], [2]])).long()
    batch = torch.randint(27, (3, 9)), mask, torch.randint(2, (3, 9)), torch.randn(3, 20)
    return BertModel(config), batch, lambda m, b: (m(*b[:3]).pooler_output - b[3]).square().mean(1)


if find_spec("transformers") is not None:
    listed("hf-llama")(_hf_llama)
    listed("hf-gpt2")(_hf_gpt2)
    listed("hf-bert")(_hf_bert)
