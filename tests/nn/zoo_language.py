"""Small language models written as their sources write them: GPT with linear and Conv1D layers, Llama, MiniLM."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GPT", "Conv1D", "Llama", "MiniLM"]


class Conv1D(nn.Module):
    """The linear layer of GPT-2, whose weight is ``(in, out)``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(0.2 * torch.randn(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return flat.view(*x.shape[:-1], -1)


class Block(nn.Module):
    """A transformer block with fused queries, keys and values."""

    def __init__(self, linear: Callable[[int, int], nn.Module], width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.ln_1, self.ln_2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = linear(width, 3 * width), linear(width, width)
        self.up, self.down, self.drop = linear(width, 2 * width + 1), linear(2 * width + 1, width), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        B, T, E = x.shape
        q, k, v = (a.view(B, T, self.heads, -1).transpose(1, 2) for a in self.qkv(self.ln_1(x)).split(E, dim=2))
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop(self.out(h.transpose(1, 2).reshape(B, T, E)))
        return x + self.drop(self.down(F.gelu(self.up(self.ln_2(x)))))


class GPT(nn.Module):
    """Token and learned position embeddings, blocks, a head that is the token embedding; after nanoGPT and GPT-2."""

    def __init__(self, linear: Callable[[int, int], nn.Module] = nn.Linear, dropout: float = 0.0) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(29, 18), nn.Embedding(13, 18)
        self.blocks = nn.ModuleList(Block(linear, 18, 3, dropout) for _ in range(2))
        self.ln_f = nn.LayerNorm(18)

    def hidden(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))  # (B, T, E) + (T, E)
        for block in self.blocks:
            x = block(x)
        return self.ln_f(x)

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.hidden(ids), self.wte.weight)


class RMSNorm(nn.Module):
    """Zhang and Sennrich (2019), arXiv:1910.07467, written out as in Llama."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


class LlamaBlock(nn.Module):
    """Rotary positions (arXiv:2104.09864), grouped keys and values (arXiv:2305.13245), SwiGLU (arXiv:2002.05202)."""

    def __init__(self, width: int, heads: int, groups: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, groups * self.size, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down, self.n1, self.n2 = nn.Linear(hidden, width, bias=False), RMSNorm(width), RMSNorm(width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        def split(a: Tensor, heads: int) -> Tensor:
            return a.view(*a.shape[:2], heads, self.size).transpose(1, 2)  # (B, heads, T, size)

        def turn(a: Tensor) -> Tensor:
            one, two = a.chunk(2, dim=-1)
            return a * cos + torch.cat([-two, one], -1) * sin

        h = self.n1(x)
        q, k, v = turn(split(self.q(h), self.heads)), turn(split(self.k(h), self.groups)), split(self.v(h), self.groups)
        k, v = (a.repeat_interleave(self.heads // self.groups, dim=1) for a in (k, v))
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(h.transpose(1, 2).reshape(x.shape))
        h = self.n2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    """Touvron et al. (2023), arXiv:2302.13971: no biases, an untied head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(31, 24), RMSNorm(24), nn.Linear(24, 31, bias=False)
        self.blocks = nn.ModuleList(LlamaBlock(24, 6, 2, 37) for _ in range(2))

    def forward(self, ids: Tensor) -> Tensor:
        at = torch.arange(ids.shape[1])[:, None] * 10.0 ** -torch.arange(2)  # (T, size / 2)
        angle = torch.cat([at, at], -1)
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, angle.cos(), angle.sin())
        return self.head(self.norm(x))


class MiniLM(nn.Module):
    """A BERT-like encoder (arXiv:1810.04805, 2002.10957): three embeddings, attention by hand, mean over the words."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.kind, self.place = (
            nn.Embedding(27, 20, padding_idx=0),
            nn.Embedding(2, 20),
            nn.Embedding(14, 20),
        )
        self.register_buffer("ids", torch.arange(14)[None], persistent=False)
        self.n0, self.n1, self.n2 = (nn.LayerNorm(20, eps=1e-12) for _ in range(3))
        self.q, self.k, self.v, self.o = (nn.Linear(20, 20) for _ in range(4))
        self.up, self.down, self.head = nn.Linear(20, 33), nn.Linear(33, 20), nn.Linear(20, 5)

    def forward(self, words: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        x = self.n0(self.word(words) + self.kind(types) + self.place(self.ids[:, : words.shape[1]]))
        q, k, v = (f(x).unflatten(-1, (4, 5)).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(5) + (1.0 - mask[:, None, None]) * -1e9
        x = self.n1(x + self.o(torch.matmul(scores.softmax(-1), v).transpose(1, 2).flatten(2)))
        x = self.n2(x + self.down(F.gelu(self.up(x))))
        return self.head((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
