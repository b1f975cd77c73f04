"""Numbers of rows that are not examples, and could be taken for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dfo.directions import Directions, Gaussian, LowRank
from dfo.nn.engine import Engine
from dfo.nn.members import Draws
from dfo.random import Key

CASES = [(1, 32), (4, 32), (2, 24), (3, 31), (1, 1), (2, 1)]
"""Examples and positions: with four members the positions fall into as many equal parts, but for the last."""


class Reader(nn.Module):
    """Words and learned places, told together."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.place = nn.Embedding(20, 8), nn.Embedding(40, 8)
        self.head = nn.Linear(8, 20)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.word(tokens) + self.place(torch.arange(tokens.shape[1]))
        return self.head(torch.tanh(x).cumsum(1))


def loss(module: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    logits = module(tokens[:, :-1])
    return F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").mean(1)


@pytest.mark.parametrize(("examples", "places"), CASES)
@pytest.mark.parametrize("law", [LowRank(), Gaussian()], ids=["low-rank", "gaussian"])
def test_positions_belong_to_every_example_of_every_member(law, examples, places):
    torch.manual_seed(0)
    module, tokens = Reader(), torch.randint(20, (examples, places + 1))
    engine = Engine(module, loss)
    directions = Directions(law, Key(1), 2, engine.tensors)
    index, scale = np.array([0, 0, 1, 1]), np.array([0.3, -0.3, 0.3, -0.3])
    together = engine.losses(tokens, Draws(directions, engine.tensors), index, scale)
    assert engine.together, engine.reason
    alone = Engine(module, loss, evaluate="one by one").losses(tokens, Draws(directions, engine.tensors), index, scale)
    assert float((together - alone).abs().max()) < 1e-5 < 0.01 < float((alone[0] - alone[1]).abs().max())
