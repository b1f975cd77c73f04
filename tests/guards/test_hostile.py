"""No file makes a reader run code, take much memory or time, or fail in a way that is not its own."""

import json
import subprocess
import sys
from pathlib import Path

import hostile
import pytest
import readers

HARMLESS = {
    ("bench_records", "dangling"): "no file is no records",
    ("packing", "dangling"): "a file that is not there raises what open() does",
    ("packing", "loop"): "a file that cannot be found raises what open() does",
    **{("snapshot", case): "only files are snapshots" for case in ("dangling", "fifo", "folder", "loop", "zero")},
    ("snapshot", "password-file"): "a link is not followed",
}
"""What a reader returns from, with the reason; all else ends in an error or a warning of dfo."""


READ = {"store-flipped", "store-nan-json", "store-object", "store-status"}
"""Stores that are read as they are: a byte that nothing uses, a point of NaN, a word that stands for itself."""


def harmless(reader, case, how):
    """Tell whether a reader may return from a file; the right checksums make many turned stores whole ones."""
    turned = case.startswith("store-") and how == "returned"
    if turned and reader in ("store_repair", "store_run"):  # saves what is whole; compares digests and decodes nothing
        return True
    return (turned and case in READ) or (reader, case) in HARMLESS


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Return how each reader ended on each file, and the canary."""
    folder = tmp_path_factory.mktemp("hostile")
    canary = folder / "canary"
    made, turned = hostile.contents(canary, folder / "scratch.db"), list(hostile.stores(folder, canary))
    for reader, name in readers.FILES.items():
        for case, content in made.items():
            (folder / reader.__name__ / case).mkdir(parents=True)
            torn = reader is readers.bench_records and not content.endswith(b"\n")  # a last line that does not count
            (folder / reader.__name__ / case / name).write_bytes(content + b"\n" * torn)
        for case, content in turned if name == "run.db" else ():
            (folder / reader.__name__ / case).mkdir(parents=True)
            (folder / reader.__name__ / case / name).write_bytes(content)
        for case, put in hostile.special(folder, canary):
            (folder / reader.__name__ / case).mkdir(parents=True)
            put(folder / reader.__name__ / case / name)
    command = [sys.executable, str(Path(readers.__file__)), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], canary


def test_there_are_thirty_files_for_every_reader(outcomes):
    lines, _ = outcomes
    for reader in readers.FILES:
        assert len([line for line in lines if line[0] == reader.__name__]) >= 30


def test_no_code_runs(outcomes):
    assert not outcomes[1].exists()


def test_every_file_ends_in_a_typed_error(outcomes):
    wrong = [line for line in outcomes[0] if line[2] == "returned" or line[2].startswith("!")]
    assert [line for line in wrong if not harmless(*line[:3])] == []


def test_nothing_takes_long(outcomes):
    assert [line for line in outcomes[0] if line[3] > 2.0] == []
