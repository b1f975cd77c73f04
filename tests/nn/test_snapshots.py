"""Named tensors on disk, whole or not at all."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from dfo.errors import BadState, CannotWrite, DfoWarning, InvalidArgument, InvalidType
from dfo.nn.snapshots import Snapshots, fingerprint


def tensors(step=0):
    return {
        "b": torch.arange(12.0).view(3, 4).bfloat16() + step,
        "a/../strange name": torch.full((5,), float("nan")),
        "scalar": torch.tensor(step),
        "half": torch.ones(2, 3, dtype=torch.float16),
        "strided": torch.arange(6.0, dtype=torch.float64).view(2, 3).t() * step,
        "empty": torch.empty(0, 3),
        "mask": torch.tensor([True, False]),
    }


def equal(a, b):
    return a.keys() == b.keys() and fingerprint(a) == fingerprint(b)


def test_round_trip_and_the_package_reads_it(tmp_path):
    snapshots = Snapshots(tmp_path / "new" / "folder", run="abc")
    path = snapshots.save(3, tensors(3))
    assert equal(dict(load_file(path)), tensors(3))
    found = snapshots.latest()
    assert (found.step, found.run, found.sha256) == (3, "abc", fingerprint(tensors(3)))
    assert equal(found.tensors(), tensors(3))
    into = {name: torch.zeros_like(t) for name, t in tensors(3).items()}
    into["b"] = torch.nn.Parameter(into["b"])
    found.load_into(into)
    assert equal(into, tensors(3))
    assert os.listdir(tmp_path / "new" / "folder") == [path.name]


def test_fingerprint_sees_names_shapes_types_and_numbers():
    one = fingerprint({"a": torch.zeros(4)})
    others = [{"b": torch.zeros(4)}, {"a": torch.zeros(2, 2)}, {"a": torch.zeros(4).int()}, {"a": -torch.zeros(4)}]
    assert one not in {fingerprint(other) for other in others}
    pair = {"x": torch.ones(2, 3).t(), "y": torch.zeros(1)}
    assert fingerprint(pair) == fingerprint({"y": torch.zeros(1), "x": torch.ones(3, 2)})


def test_policy(tmp_path):
    snapshots = Snapshots(tmp_path, keep=2, every=4, milestones=(1, 5))
    assert snapshots.latest() is None
    for step in range(11):
        snapshots.save(step, tensors(step))
    assert snapshots.steps() == [0, 1, 4, 5, 8, 9, 10]
    assert snapshots.latest().step == 10
    assert snapshots.latest(before=8).step == 5
    assert snapshots.latest(before=0) is None
    snapshots.truncate(5)
    assert snapshots.steps() == [0, 1, 4, 5]
    snapshots.save(5, tensors(99))
    assert equal(snapshots.latest().tensors(), tensors(99))


def test_every_flipped_byte_falls_back_to_the_one_before(tmp_path):
    snapshots = Snapshots(tmp_path, run="r")
    snapshots.save(1, tensors(1))
    path = snapshots.save(2, {"a": torch.arange(9.0), "b": torch.ones(3).bfloat16()})
    intact = path.read_bytes()
    for at in range(len(intact)):
        damaged = bytearray(intact)
        damaged[at] ^= 1 + at % 255
        path.write_bytes(damaged)
        try:
            with pytest.warns(DfoWarning, match="earlier snapshot"):
                assert equal(snapshots.latest().tensors(), tensors(1))
        except pytest.fail.Exception:  # nothing was found amiss: then nothing of what is read may have changed
            read = snapshots.latest()
            assert read.step == 2
            assert equal(read.tensors(), {"a": torch.arange(9.0), "b": torch.ones(3).bfloat16()})
    for length in (0, 7, 8, 50, len(intact) - 1):
        path.write_bytes(intact[:length])
        with pytest.warns(DfoWarning):
            assert snapshots.latest().step == 1


def test_damage_is_said(tmp_path):
    snapshots = Snapshots(tmp_path)
    path = snapshots.save(1, tensors(1))
    found = snapshots.latest()
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    into = {name: torch.zeros_like(t) for name, t in tensors(1).items()}
    for read in (found.tensors, lambda: found.load_into(into)):
        with pytest.raises(BadState, match="damaged"):
            read()
    assert float(into["b"].sum()) == 0
    with pytest.warns(DfoWarning):
        assert snapshots.latest() is None
    path.write_bytes(b"\x80\x04\x95" * 100)
    with pytest.warns(DfoWarning):
        assert snapshots.latest() is None


def test_other_runs_and_other_tensors(tmp_path):
    Snapshots(tmp_path, run="one").save(1, tensors(1))
    with pytest.warns(DfoWarning, match="another run"):
        assert Snapshots(tmp_path, run="two").latest() is None
    found = Snapshots(tmp_path).latest()
    for change in ({"b": torch.zeros(3, 4)}, {"more": torch.zeros(1)}):
        with pytest.raises(BadState, match="expected"):
            found.load_into({**tensors(), **change})


def test_refusals(tmp_path):
    snapshots = Snapshots(tmp_path)
    for step in (-1, 10**12):
        with pytest.raises(InvalidArgument, match="step"):
            snapshots.save(step, tensors())
    for wrong in ({}, {"__metadata__": torch.ones(1)}):
        with pytest.raises(InvalidArgument, match="at least one"):
            snapshots.save(0, wrong)
    with pytest.raises(InvalidType, match="complex64"):
        snapshots.save(0, {"a": torch.ones(2, dtype=torch.complex64)})
    for keep, every in ((0, None), (1, 0)):
        with pytest.raises(InvalidArgument, match="keep"):
            Snapshots(tmp_path, keep, every)
    assert os.listdir(tmp_path) == []


def test_stays_in_its_folder(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    folder = tmp_path / "folder"
    snapshots = Snapshots(folder)
    (folder / "step-000000000007.safetensors").symlink_to(outside)
    (folder / ".step-000000000008.safetensors.tmp").symlink_to(outside)
    (folder / "step-7.safetensors").write_bytes(b"not ours")
    assert snapshots.steps() == []
    snapshots.save(7, tensors(7))
    snapshots.save(8, tensors(8))
    assert snapshots.steps() == [7, 8]
    assert outside.read_bytes() == b"precious"
    assert (folder / "step-7.safetensors").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_full_disk_leaves_the_earlier_ones(tmp_path):
    code = f"""
import resource, signal, torch
from dfo.errors import CannotWrite
from dfo.nn.snapshots import Snapshots
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
snapshots = Snapshots({str(tmp_path)!r}, keep=1)
snapshots.save(1, {{"a": torch.ones(1000)}})
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
try:
    snapshots.save(2, {{"a": torch.ones(100_000)}})
except CannotWrite as error:
    print("refused:", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "refused" in done.stdout
    assert os.listdir(tmp_path) == ["step-000000000001.safetensors"]
    assert float(Snapshots(tmp_path).latest().tensors()["a"].sum()) == 1000


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_errors_of_the_system_are_of_one_type(tmp_path, monkeypatch, call):
    snapshots = Snapshots(tmp_path, keep=1)
    snapshots.save(1, tensors(1))

    def fails(*arguments, **named):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        with pytest.raises(CannotWrite, match="Read-only"):
            snapshots.save(2, tensors(2))
    assert os.listdir(tmp_path) == ["step-000000000001.safetensors"]
    assert equal(snapshots.latest().tensors(), tensors(1))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CannotWrite):
        Snapshots(tmp_path / "file" / "folder")


def test_leftovers_of_a_killed_process_are_swept(tmp_path):
    snapshots = Snapshots(tmp_path)
    (tmp_path / ".step-000000000005.safetensors.tmp").write_bytes(b"half")
    (tmp_path / ".notes.tmp").write_bytes(b"not ours")
    assert snapshots.latest() is None
    snapshots.save(5, tensors(5))
    assert sorted(os.listdir(tmp_path)) == [".notes.tmp", "step-000000000005.safetensors"]
