"""A state goes to a file and comes back to the last bit, and a foreign file is refused without running anything."""

import io
import json
import math
import os
import pickle
import zipfile
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dfo.components.restarts import Regime
from dfo.errors import BadState, InvalidType
from dfo.random import RNG_VERSION, Key
from dfo.run import packing
from dfo.run.packing import load, pack, register, save, unpack
from dfo.solvers.cma import CMA, CMAState
from dfo.testing.equal import identical

quick = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


@register
@dataclass(frozen=True, eq=False, slots=True)
class Node:
    content: object
    rest: object = None


@register
@dataclass
class Trap:
    """Everything that reading must not call."""

    x: int
    calls: list = field(default_factory=list, init=False)

    def __post_init__(self):
        raise AssertionError("__post_init__ ran")

    def __setattr__(self, name, value):
        raise AssertionError("__setattr__ ran")


@dataclass
class Stranger:
    x: int


numbers = (
    st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
    | st.sampled_from([np.float32(0.1), np.float64(-0.0), np.int8(-3), np.bool_(True), np.complex64(1 - 2j)])
    | st.sampled_from([np.datetime64("2020-01-01"), -0.0, math.nan, -math.inf])
)
arrays = hnp.arrays(
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?")
    | hnp.complex_number_dtypes(endianness="?")
    | hnp.unicode_string_dtypes(endianness="?")
    | hnp.byte_string_dtypes()
    | hnp.datetime64_dtypes(endianness="?"),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
keys = st.builds(Key, st.integers(0, 2**70), st.lists(st.integers(0, 9) | st.text(max_size=3), max_size=3).map(tuple))
states = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | numbers | keys | arrays | arrays.map(np.transpose),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.builds(Node, inner, inner)
    ),
    max_leaves=8,
)


def through_json(state):
    tree, content = pack(state)
    return unpack(json.loads(json.dumps(tree, allow_nan=False)), content)


@quick
@given(states)
def test_memory_round_trip_is_exact(state):
    assert identical(through_json(state), state)


@settings(quick, max_examples=60)
@given(states)
def test_file_round_trip_is_exact(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("state") / "s"
    save(path, state)
    assert identical(load(path), state)


def test_a_loaded_array_keeps_its_layout_and_can_be_written(tmp_path):
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    save(tmp_path / "s", (fortran, np.arange(3)[::-1]))
    back, reversed_ = load(tmp_path / "s")
    assert back.flags.f_contiguous
    assert not back.flags.c_contiguous
    assert reversed_.tolist() == [2, 1, 0]
    back += 1.0


def test_an_array_that_occurs_twice_is_stored_once_and_stays_shared(tmp_path):
    x = np.ones(3)
    assert len(pack((x, x, x.copy()))[1]) == 2
    save(tmp_path / "s", (x, {"again": x}))
    a, b = load(tmp_path / "s")
    assert a is b["again"]


def test_torch_tensors_come_back_as_they_were(tmp_path):
    torch = pytest.importorskip("torch")
    state = tuple(
        torch.arange(6).reshape(2, 3).to(getattr(torch, name)).T
        for name in ("float64", "float32", "float16", "bfloat16", "int8", "bool", "complex64", "float8_e5m2")
    )
    save(tmp_path / "s", (state, torch.tensor(1.5, dtype=torch.bfloat16), torch.empty(0)))
    back, scalar, empty = load(tmp_path / "s")
    for a, b in zip(state, back, strict=True):
        assert type(b) is torch.Tensor
        assert (a.dtype, a.shape, a.stride(), a.device) == (b.dtype, b.shape, b.stride(), b.device)
        assert a.tolist() == b.tolist()
    assert scalar.item() == 1.5
    assert scalar.dtype == torch.bfloat16
    assert empty.shape == (0,)


def test_a_solver_continues_from_a_file_as_if_nothing_had_happened(tmp_path):
    solver = CMA(population=6, restarts="none")
    state = solver.init(np.ones(3), Key(1))
    save(tmp_path / "s", state)
    assert identical(solver.ask(load(tmp_path / "s")), solver.ask(state))


@pytest.mark.parametrize(
    "foreign",
    [
        lambda x: x,
        [1.0],
        {1: 2.0},
        {1, 2},
        object(),
        np.random.default_rng(0),
        np.array([None]),
        np.zeros(2, [("a", "f8")]),
        b"bytes",
        io.BytesIO(),
        Stranger(1),
        Stranger,
        np.ma.array([1.0]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_data_is_refused_with_its_place(foreign, tmp_path):
    with pytest.raises(InvalidType, match=r"state\.content\[1\]"):
        save(tmp_path / "s", Node((0, foreign)))
    assert os.listdir(tmp_path) == []


def test_a_local_class_cannot_be_found_again():
    @dataclass
    class Local:
        x: int = 0

    with pytest.raises(InvalidType, match=r"packing\.register"):
        pack(Local())


def test_register_takes_dataclasses_only():
    with pytest.raises(InvalidType, match="expected a dataclass"):
        register(int)


# ---------------------------------------------------------------------- reading runs nothing


def tree_of(state):
    return {"schema": packing.SCHEMA, "rng": RNG_VERSION, "state": state}


def test_reading_calls_no_code_of_the_class():
    trap = object.__new__(Trap)
    object.__setattr__(trap, "x", 3)
    object.__setattr__(trap, "calls", ())
    back = through_json(trap)
    assert (back.x, back.calls) == (3, ())


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "subprocess:Popen",
        "builtins:eval",
        "dataclasses:Field",
        f"{__name__}:Stranger",
        "dfo.run.minimize:minimize",
        "dfo.run.minimize:Setup.__init__",
        "dfo.solvers.cma:np",
        "dfo.solvers.cma:Regime",
        "dfo.solvers.cma:CMA.ask",
        "dfo:CMA",
        "dfo.nowhere:X",
        "dfo.solvers.cma",
        "",
    ],
)
def test_a_name_finds_dataclasses_of_solver_packages_only(name):
    with pytest.raises(BadState, match="no dataclass of an imported package"):
        unpack(tree_of({"type": name, "fields": {}}), {})


def test_reading_imports_nothing():
    import sys

    before = set(sys.modules)
    with pytest.raises(BadState):
        unpack(tree_of({"type": "dfo.cli.main:X", "fields": {}}), {})
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "node",
    [
        {},
        {"array": "a0"},
        {"array": ["a0"]},
        {"float": "zz"},
        {"float": "00"},
        {"scalar": "<f8", "bytes": "00"},
        {"scalar": "|O", "bytes": "00" * 8},
        {"scalar": "<f4", "bytes": "00" * 8},
        {"key": []},
        {"key": [0.5]},
        {"key": [0, None]},
        {"dict": [["a"]]},
        {"tensor": "x", "dtype": "load", "device": "cpu"},
        {"tensor": "x", "dtype": "float64", "device": "nowhere"},
        {"tensor": "x", "dtype": "no such", "device": "cpu"},
        {"type": "dfo.components.restarts:Regime", "fields": {}},
        {"type": "dfo.components.restarts:Regime", "fields": {"population": 1, "__class__": 2}},
        {"type": 3, "fields": {}},
        {"eval": "1 + 1"},
    ],
    ids=str,
)
def test_a_foreign_tree_is_refused(node):
    with pytest.raises(BadState):
        unpack(tree_of([node]), {"x": np.zeros(2)})


@pytest.mark.parametrize(
    "tree",
    [{}, {"schema": 99, "rng": RNG_VERSION, "state": None}, {"schema": 1, "rng": 7, "state": None}, {"schema": "x"}],
)
def test_another_version_is_refused(tree):
    with pytest.raises(BadState):
        unpack(tree, {})


def test_a_state_with_other_fields_names_them():
    tree, content = pack(Regime(4))
    tree["state"]["fields"]["novelty"] = 1
    with pytest.raises(BadState, match="novelty"):
        unpack(tree, content)


# ---------------------------------------------------------------------- hostile and damaged files


@pytest.fixture
def good(tmp_path):
    save(tmp_path / "good", cma_state())
    return tmp_path / "good"


def cma_state() -> CMAState:
    return CMA(population=4, restarts="bipop").init(np.array([1.0, -2.0]), Key(2**65, ("solver", 3)))


def refused(path, data: bytes):
    path.write_bytes(data)
    with pytest.raises(BadState):
        load(path)


def npz(**entries) -> bytes:
    file = io.BytesIO()
    np.savez(file, **entries)
    return file.getvalue()


def test_a_file_is_whole_and_private(good):
    assert os.stat(good).st_mode & 0o777 == 0o600
    with np.load(good, allow_pickle=False) as archive:
        assert {"tree", "checksum", "a0"} <= set(archive.files)
    assert identical(load(good), cma_state())


def test_a_failed_save_leaves_the_old_file(good, monkeypatch):
    before = good.read_bytes()

    def full(*args, **entries):
        args[0].write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing.np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        save(good, cma_state())
    assert good.read_bytes() == before
    assert os.listdir(good.parent) == ["good"]


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")


def test_flipped_bits_are_noticed_or_harmless(good, tmp_path):
    data, state = good.read_bytes(), cma_state()
    draw = np.random.default_rng(0)
    refusals = 0
    for at in draw.integers(0, 8 * len(data), 2000):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        (tmp_path / "bad").write_bytes(damaged)
        try:
            assert identical(load(tmp_path / "bad"), state)
        except BadState:
            refusals += 1
    assert refusals > 1000


def test_every_truncation_is_refused(good, tmp_path):
    data = good.read_bytes()
    for size in [*range(0, len(data), 97), len(data) - 1]:
        refused(tmp_path / "bad", data[:size])


@pytest.mark.parametrize("block", range(3))
def test_zeroed_blocks_are_refused(good, tmp_path, block):
    data = bytearray(good.read_bytes())
    data[block * 1024 : block * 1024 + 512] = bytes(512)
    refused(tmp_path / "bad", bytes(data))


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("code-ran",)


def object_npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, tree=np.array([Bomb()], dtype=object), checksum=np.zeros(32, np.uint8))
    return file.getvalue()


def compressed_bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("tree.npy", "w") as entry:
        entry.write(bytes(1 << 24))
    return file.getvalue()


def claims(shape: str, dtype: str = "'<f8'") -> bytes:
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("tree.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return file.getvalue()


def with_tree(text: bytes) -> bytes:
    entries = {"tree": np.frombuffer(text, np.uint8)}
    return npz(checksum=packing._checksum(entries), **entries)


HOSTILE = {
    "empty": lambda: b"",
    "pickle": lambda: pickle.dumps(Bomb()),
    "pickle in npz": object_npz,
    "text": lambda: b"{}",
    "foreign npz": lambda: npz(x=np.ones(2)),
    "no tree": lambda: npz(checksum=packing._checksum({})),
    "wrong checksum": lambda: npz(tree=np.zeros(2, np.uint8), checksum=np.zeros(32, np.uint8)),
    "compressed bomb": compressed_bomb,
    "shape beyond memory": lambda: claims("(2305843009213693952,)"),
    "negative shape": lambda: claims("(-1,)"),
    "object dtype": lambda: claims("(1,)", "'|O'"),
    "code in header": lambda: claims("(__import__('os').mkdir('code-ran'),)"),
    "deep JSON": lambda: with_tree(b"[" * 100_000),
    "deep tree": lambda: with_tree(b'{"schema":1,"rng":%d,"state":' % RNG_VERSION + b"[" * 5_000 + b"]" * 5_000 + b"}"),
    "long integer": lambda: with_tree(b'{"schema":' + b"9" * 100_000 + b"}"),
    "no JSON": lambda: with_tree(b"\xff\xfe"),
    "a list": lambda: with_tree(b"[1, 2]"),
    "future schema": lambda: with_tree(b'{"schema":2,"rng":%d,"state":null}' % RNG_VERSION),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_and_runs_nothing(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path / "bad", HOSTILE[kind]())
    assert os.listdir(tmp_path) == ["bad"]
