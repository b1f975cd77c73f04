"""Live weights moved and brought back: to the bit, whatever happens."""

import sys
from collections.abc import Mapping
from types import FrameType

import numpy as np
import pytest
import torch
from torch import Tensor

from dfo.directions import Directions, Gaussian, LowRank, NoiseTable, Orthogonal, Rademacher, Sparse
from dfo.errors import InvalidArgument, InvalidType
from dfo.nn import in_place, pieces
from dfo.nn.in_place import InPlace
from dfo.nn.members import Draws, Entries
from dfo.random import Key, fill_signs, signs

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LAWS = [Gaussian(), Rademacher(), Sparse(0.3), LowRank(), LowRank(rank=2), NoiseTable(1 << 16)]
LAWS.append(LowRank(rank=2, entries="gaussian"))
OPTIONS = [{"backup": "copy"}, {"backup": "sparse"}, {"backup": "sparse", "keep": 0}, {"memory": 5000}]

law_ = pytest.mark.parametrize("law", LAWS, ids=lambda law: f"{type(law).__name__}{vars(law)}")
dtype_ = pytest.mark.parametrize("dtype", DTYPES, ids=str)
options_ = pytest.mark.parametrize("options", OPTIONS, ids=str)


@pytest.fixture(autouse=True)
def _short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "CHUNK", 1 << 9)
    monkeypatch.setattr(pieces, "COPIED", 1 << 10)


def weights(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Matrices, a convolution, vectors; zeros of both signs, numbers of every size, infinities and NaN."""
    drawn = torch.Generator().manual_seed(1)
    made = {
        "wide": torch.randn(9, 700, generator=drawn, dtype=torch.float64) * 0.02,
        "tall": torch.randn(130, 17, generator=drawn, dtype=torch.float64) * 0.02,
        "kernel": torch.randn(6, 3, 3, 3, generator=drawn, dtype=torch.float64) * 0.1,
        "bias": torch.randn(77, generator=drawn, dtype=torch.float64),
        "one": torch.randn(1, generator=drawn, dtype=torch.float64),
    }
    odd = made["wide"].view(-1)
    odd[:6] = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-30])
    odd[100:400] *= 10.0 ** -torch.arange(300, dtype=torch.float64).div(10, rounding_mode="floor")
    return {name: x.to(dtype) for name, x in made.items()} | {"none": torch.empty(0, dtype=dtype)}


def copies(x: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: block.clone() for name, block in x.items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Tell whether all bits are equal, NaN and signs of zeros included."""
    return all(torch.equal(a[name].view(torch.uint8), b[name].view(torch.uint8)) for name in b)


def directions(law: object, like: Mapping[str, Tensor], count: int = 2, key: Key | None = None) -> Directions:
    return Directions(law, key or Key(3), count, like)  # type: ignore[arg-type]


def assert_close(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    for name, x in ours.items():
        wide = torch.finfo(x.dtype).eps
        torch.testing.assert_close(x, theirs[name], rtol=2 * wide, atol=8 * wide * 0.2, equal_nan=True)


@law_
@dtype_
@options_
def test_moves_lead_to_the_member_and_back_to_the_bit(law: object, dtype: torch.dtype, options: dict) -> None:  # type: ignore[type-arg]
    live, before = weights(dtype), weights(dtype)
    drawn = directions(law, before)
    with InPlace(live, drawn, **options) as moved:
        for i, scale in ((0, 1e-3), (0, 1e-2), (1, 0.2)):
            moved.to(i, scale)
            assert_close(live, drawn.add_member(copies(before), i, scale))
            moved.flip()
            assert_close(live, drawn.add_member(copies(before), i, -scale))
            assert not same(live, before)
        moved.back()
        assert same(live, before)
        moved.to(1, 0.1)
    assert same(live, before)


@law_
@dtype_
@options_
def test_an_update_is_the_sum_of_the_directions(law: object, dtype: torch.dtype, options: dict) -> None:  # type: ignore[type-arg]
    w = np.array([0.3, 0.0, -0.2])
    live, expected, again = weights(dtype), weights(dtype), weights(dtype)
    drawn = directions(law, weights(dtype), 3)
    with InPlace(live, drawn, **options) as moved:
        moved.to(2, 1e-2)
        moved.flip()
        moved.back_and_add(w)
    with InPlace(again, drawn, backup="copy") as moved:  # replayed from the log, from the center
        moved.back_and_add(w)
    assert same(live, again)
    drawn.add_to(expected, w)
    if isinstance(law, LowRank):
        assert_close(live, expected)
    else:
        assert same(live, expected)


@dtype_
@pytest.mark.parametrize("law", [Gaussian(), Rademacher(), LowRank(rank=2)], ids=["gaussian", "rademacher", "low-rank"])
@pytest.mark.parametrize("backup", ["copy", "sparse"])
def test_a_thousand_steps_of_nothing_change_no_bit(dtype: torch.dtype, law: object, backup: str) -> None:
    live = {"w": torch.randn(40, 16, generator=torch.Generator().manual_seed(2)).mul(0.02).to(dtype)}
    before = copies(live)
    moved = InPlace(live, directions(law, before, 1), backup=backup)  # type: ignore[arg-type]
    for t in range(1000):
        moved.take(directions(law, before, 1, Key(0, (t,))))
        with moved:
            moved.to(0, 1e-3)
            moved.flip()
            moved.back_and_add([0.0])
    assert same(live, before)


def test_subtracting_again_would_not_do() -> None:
    """What the remembered entries are for: without them bits are lost in every dtype."""
    for dtype in DTYPES:
        live = {"w": torch.randn(4000, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)}
        before = copies(live)
        drawn = directions(Gaussian(), before, 1)
        drawn.add_member(live, 0, 1e-2)
        drawn.add_member(live, 0, -1e-2)
        assert not same(live, before)
        with InPlace(before, drawn, backup="sparse") as moved:
            moved.to(0, 1e-2)
            assert 0.0 < moved.remembered <= 1.0


class Stop(BaseException):
    """Neither an Exception nor Ctrl-C."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, Stop])
@options_
def test_an_exception_in_the_loss_restores_every_bit(error: type[BaseException], options: dict) -> None:  # type: ignore[type-arg]
    for moves in range(1, 4):
        live, before = weights(), weights()
        with pytest.raises(error), InPlace(live, directions(Gaussian(), before), **options) as moved:  # noqa: PT012
            moved.to(0, 1e-2)
            if moves > 1:
                moved.flip()
            if moves > 2:
                moved.to(1, 0.3)
            raise error
        assert same(live, before)


def _interrupted(name: str, at: int, owner: object, patch: pytest.MonkeyPatch) -> None:
    """Let call number ``at`` of a function be interrupted, after or before it has done its work."""
    real, calls = getattr(owner, name), [0]

    def function(*args: object, **kwargs: object) -> object:
        calls[0] += 1
        if calls[0] == at:
            if at % 2:
                real(*args, **kwargs)
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    patch.setattr(owner, name, function)


def _at_line(number: int) -> None:
    """Let Ctrl-C arrive at a line of the modules that move weights, counted from here (Python's own race: not at the
    first lines of ``__exit__``, which nobody can guard)."""
    files, left = (pieces.__file__, in_place.__file__), [number]

    def trace(frame: FrameType, event: str, _: object) -> object:
        if frame.f_code.co_filename not in files or frame.f_code.co_name == "__exit__":
            return trace
        left[0] -= event == "line"
        if not left[0]:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)  # type: ignore[arg-type]


@pytest.mark.parametrize("law", [Gaussian(), Rademacher(), LowRank(rank=2)], ids=["gaussian", "rademacher", "low-rank"])
@options_
def test_ctrl_c_at_any_line_leaves_the_center_or_the_whole_update(law: object, options: dict) -> None:  # type: ignore[type-arg]
    before = {name: weights()[name] for name in ("tall", "bias")}
    after, drawn = copies(before), directions(law, before)
    with InPlace(after, drawn) as moved:
        moved.back_and_add([0.1, -0.1])
    ends = []
    for line in range(1, 100000, LINES):
        live, was = copies(before), sys.gettrace()
        try:
            with InPlace(live, drawn, **options) as moved:
                _at_line(line)
                moved.to(0, 1e-2)
                moved.flip()
                moved.to(1, 1e-3)
                moved.back_and_add([0.1, -0.1])
            ends.append("whole")
        except KeyboardInterrupt:
            ends.append("after" if same(live, after) else "before")
        finally:
            sys.settrace(was)
            torch.set_grad_enabled(True)  # Ctrl-C between the end of a block and its __exit__: Python's race too
        assert same(live, before if ends[-1] == "before" else after)
        if ends[-1] == "whole":
            break
    assert {*ends} == {"before", "after", "whole"}


LINES = 13
"""Ctrl-C arrives at every so many lines; 1 is the whole of them."""


def test_ctrl_c_while_coming_back_is_heard_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    law, live, before = Gaussian(), weights(), weights()
    with pytest.raises(KeyboardInterrupt), InPlace(live, directions(law, before), backup="sparse") as moved:  # noqa: PT012
        moved.to(0, 1e-2)
        _interrupted("sub", 3, torch, monkeypatch)
    assert same(live, before)


def test_tied_tensors_move_once_and_parameters_keep_their_gradients() -> None:
    layer = torch.nn.Linear(8, 8, bias=False)
    before = layer.weight.detach().clone()
    named = {"a": layer.weight, "b": layer.weight}
    drawn = directions(Gaussian(), {"a": before}, 1)
    with InPlace(named, drawn) as moved:
        moved.to(0, 0.1)
        assert torch.equal(layer.weight, drawn.add_member({"a": before.clone()}, 0, 0.1)["a"])
    assert torch.equal(layer.weight, before)
    assert layer.weight.requires_grad
    assert layer.weight.grad_fn is None


def test_what_cannot_be_moved_is_refused_with_a_sentence() -> None:
    x = torch.zeros(6, 4)
    for live, law, error, words in (
        ({"w": x.t()}, Gaussian(), InvalidArgument, "not contiguous"),
        ({"w": x, "half": x[3:]}, Gaussian(), InvalidArgument, "share memory"),
        ({"w": x, "flat": x.view(-1)}, Gaussian(), InvalidArgument, "share memory"),
        ({"w": x.long()}, Gaussian(), InvalidType, "floating-point"),
        ({}, Gaussian(), InvalidType, "mapping"),
        (x, Gaussian(), InvalidType, "mapping"),
        ({"w": x}, Orthogonal(), InvalidType, "one array"),
    ):
        with pytest.raises(error, match=words):
            InPlace(live, directions(law, {"w": x}))  # type: ignore[arg-type]
    moved = InPlace({"w": x}, directions(Gaussian(), {"w": x}))
    with pytest.raises(InvalidArgument, match="below 2"):
        moved.to(2, 0.1)
    with pytest.raises(InvalidArgument, match="expected 2 numbers"):
        moved.back_and_add([1.0])
    with pytest.raises(InvalidArgument, match="backup"):
        InPlace({"w": x}, directions(Gaussian(), {"w": x}), backup="none")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="same law"):
        moved.take(directions(Rademacher(), {"w": x}))


@law_
@dtype_
@pytest.mark.parametrize("memory", [0, 5000, 1 << 26])
def test_what_is_lent_is_what_would_be_drawn(law: object, dtype: torch.dtype, memory: int) -> None:
    live = weights(dtype)
    draws, fresh = (Draws(directions(law, live, 1), live) for _ in range(2))
    with InPlace(live, draws.directions, memory=memory) as moved:
        moved.to(0, 1e-3)
        moved.back()
        moved.lend(draws)
    lent = set(draws.shelf.kept)
    if memory > 5000 and not isinstance(law, (Rademacher, NoiseTable)):
        assert len(lent) == sum(x.numel() > 0 for x in live.values())  # all but what costs a bit, or is in a table
    for name in live:
        assert torch.equal(draws.streams[name].rows(0, 1), fresh.streams[name].rows(0, 1))
        if isinstance(stream := draws.streams[name], Entries) and live[name].numel() > 5:
            assert torch.equal(stream.piece(0, 2, 3), fresh.streams[name].rows(0, 1).view(-1)[2:5])


@pytest.mark.parametrize(("count", "room"), [(2, 1 << 26), (1, 0)])
def test_nothing_is_lent_of_several_directions_or_without_room(count: int, room: int) -> None:
    live = weights()
    draws = Draws(directions(Gaussian(), live, count), live, room)
    with InPlace(live, draws.directions) as moved:
        moved.to(count - 1, 1e-3)
        moved.lend(draws)
    assert not draws.shelf.kept


def test_memory_is_what_was_allowed() -> None:
    live = {"w": torch.randn(1 << 14, generator=torch.Generator().manual_seed(0)) * 0.02}  # 64 KiB
    for memory, share in ((0, 0.0), (1 << 15, 0.5), (1 << 16, 1.0)):
        with InPlace(live, directions(Rademacher(), live), memory=memory) as moved:
            moved.to(0, 1e-3)
            assert share <= moved.remembered <= share + (1 - share) * 0.2  # the rest are places of lost entries


@dtype_
@pytest.mark.parametrize("start", [0, 1, 8, 63, 64, 1001])
@pytest.mark.parametrize("count", [0, 1, 8, 64, 77])
def test_signs_out_of_the_table_are_the_bits_of_the_stream(dtype: torch.dtype, start: int, count: int) -> None:
    key = Key(9)
    whole = np.unpackbits(key_bytes(key, start + count), bitorder="little")[start : start + count]
    expected = torch.from_numpy(whole.astype(np.int8) * 2 - 1).to(dtype)
    assert torch.equal(signs(key, (count,), torch.empty(0, dtype=dtype), start), expected)  # type: ignore[arg-type]
    spread = torch.zeros(count, 2, dtype=dtype)[:, 1]  # not contiguous
    fill_signs(spread, key, start, 0.3)  # type: ignore[arg-type]
    assert torch.equal(spread, expected * 0.3)


def key_bytes(key: Key, count: int) -> np.ndarray:  # type: ignore[type-arg]
    from dfo.random import words

    return words(key, count // 64 + 1).astype("<u8").view(np.uint8)
