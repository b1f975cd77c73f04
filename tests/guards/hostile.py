"""Files that want to run code, fill the memory, take for ever or be taken for something else."""

import gzip
import io
import json
import os
import pickle
import sqlite3
import struct
import zipfile
import zlib
from contextlib import closing

import numpy as np

import dfo
from dfo.run.store.rows import checksum


class Bomb:
    """Pickled, it writes a file when it is loaded."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return exec, (f"open({str(self.canary)!r}, 'w').close()",)


def archive(entries, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


def npy(header, data=b""):
    text = (header if isinstance(header, bytes) else repr(header).encode()) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def objects(canary):
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(canary)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def claim(shape, dtype="<f8"):
    return {"descr": dtype, "fortran_order": False, "shape": shape}


def zip_bomb():
    """Return an archive of 1 MiB that unpacks to 1 GiB of zeros, without making these."""
    zeros, pack = bytes(1 << 20), zlib.compressobj(9, zlib.DEFLATED, -15)
    parts, check = [], 0
    for _ in range(1 << 10):
        parts.append(pack.compress(zeros))
        check = zlib.crc32(zeros, check)
    data, name = b"".join([*parts, pack.flush()]), b"tree.npy"
    sizes = struct.pack("<III", check, len(data), 1 << 30)
    local = b"PK\x03\x04" + struct.pack("<HHHHH", 20, 0, 8, 0, 0) + sizes + struct.pack("<HH", len(name), 0) + name
    central = b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, 0, 8, 0, 0) + sizes
    central += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local) + len(data), 0)
    return local + data + central + end


def tensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def database(path, *statements):
    """Write a foreign database."""
    if path.exists():
        path.unlink()
    with sqlite3.connect(path) as held:
        for statement in statements:
            held.execute(statement)
    held.close()
    return path.read_bytes()


def contents(canary, scratch):
    """Return hostile contents by name."""
    bomb, deep, digits = pickle.dumps(Bomb(canary)), 100_000, b"9" * 2_000_000
    evil = f"open({str(canary)!r}, 'w').close()"
    return {
        "pickle-0": pickle.dumps(Bomb(canary), protocol=0),
        "pickle-5": bomb,
        "pickle-gzip": gzip.compress(bomb),
        "pickle-lines": b'{"a": 1}\n' + bomb + b"\n",
        "npy-objects": objects(canary),
        "npz-objects": archive({"tree.npy": objects(canary), "checksum.npy": objects(canary)}),
        "torch-zip": archive({"archive/data.pkl": bomb, "archive/version": b"3\n"}),
        "zip-bomb": zip_bomb(),
        "zip-of-1e5": archive({f"a{i}.npy": b"" for i in range(10_000)}),
        "zip-paths": archive({"../../tree.npy": npy(claim((0,))), "/etc/checksum.npy": npy(claim((0,)))}),
        "npy-terabyte": archive({"tree.npy": npy(claim((1 << 37,))), "checksum.npy": npy(claim((32,), "|u1"))}),
        "npy-negative": archive({"tree.npy": npy(claim((-8,)), b"x" * 64), "checksum.npy": npy(claim((-1,)))}),
        "npy-code": archive({"tree.npy": npy(evil.encode()), "checksum.npy": npy(evil.encode())}),
        "safetensors-2e60": struct.pack("<Q", 1 << 60) + b"{}",
        "safetensors-empty": tensors(b""),
        "safetensors-outside": tensors({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}),
        "safetensors-before": tensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [-16, -8]}}, bytes(8)),
        "safetensors-list": tensors([1, 2]),
        "safetensors-deep": tensors(b"[" * deep),
        "json-deep-list": b"[" * deep + b"]" * deep + b"\n",
        "json-deep-table": b'{"a":' * deep + b"1" + b"}" * deep + b"\n",
        "json-digits": b'{"schema": ' + digits + b"}\n",
        "json-large": b'{"schema": 1, "seeds": [' + digits[:4000] + b'], "dim": ' + digits[:4000] + b"}\n",
        "json-nan": b'{"schema": 1, "plan": NaN}\n',
        "json-infinity": b'{"schema": 1, "sessions": [-Infinity]}\n',
        "json-twice": b'{"schema": 1, "schema": 1, "problem": "a", "problem": "b"}\n',
        "json-twice-1e6": b"{" + b",".join(b'"%d":1' % (i // 2) for i in range(500_000)) + b"}\n",
        "json-bytes": b'{"schema": "\xff\xfe"}\n',
        "json-lone": b'{"schema": "\\ud800", "problem": "\\ud800"}\n',
        "json-prototype": b'{"__class__": "os.system", "__reduce__": ["id"], "py/object": "os.system"}\n',
        "yaml-code": f"!!python/object/apply:os.system ['touch {canary}']\n".encode(),
        "toml-deep": b"a = " + b"[" * deep + b"\n",
        "toml-dots": b".".join([b"a"] * 30_000) + b" = 1\n",
        "python": f"import os\n{evil}\n".encode(),
        "utf-16": '{"schema": 1}\n'.encode("utf-16"),
        "empty-line": b"\n",
        "log-2e32": b"dfo.log\n" + struct.pack("<II", 1, 0xFFFFFFFF) + b"{}",
        "sqlite-foreign": database(scratch, "create table t(x)", "insert into t values (1)"),
        "sqlite-view": database(
            scratch, "create view evaluations as with recursive c(n) as (select 1 union all select n + 1 from c)"
            " select n as number, n as step, 1.0 as value from c",
        ),
        "sqlite-trigger": database(
            scratch, "create table evaluations(number, step, x)",
            "create trigger t after insert on evaluations begin select randomblob(1000000000); end",
        ),
        "sqlite-virtual": database(scratch, "create virtual table evaluations using fts5(number, step, x)"),
        "sqlite-generated": database(
            scratch, "create table evaluations(number, x as (hex(zeroblob(400000000 + number))) virtual)",
            "insert into evaluations values (1)",
        ),
        "sqlite-header": b"SQLite format 3\0" + bytes(range(256)) * 64,
        "sqlite-names": database(scratch, 'create table "evaluations""; drop table x; --"(number)'),
    }  # fmt: skip


def special(path, canary):
    """Yield names and functions that put something that is no file at a path."""
    yield "fifo", os.mkfifo
    yield "zero", lambda at: os.symlink("/dev/zero", at)
    yield "dangling", lambda at: os.symlink(canary, at)
    yield "loop", lambda at: os.symlink(at, at)
    yield "folder", os.mkdir
    yield "password-file", lambda at: os.symlink("/etc/passwd", at)
    yield "sparse-gibibytes", sparse


def sparse(at):
    with open(at, "wb") as file:
        file.truncate(4 << 30)


def stores(folder, canary):
    """Yield names and contents of stores that were made by dfo and then turned: every checksum is right."""
    path = folder / "turned.db"
    with dfo.AskTell("cma", [1.0, 2.0], seed=1, store=path) as opt:
        for _ in range(5):
            opt.tell(opt.ask(), 1.0)
    whole, bomb = path.read_bytes(), pickle.dumps(Bomb(canary))
    question = "update questions set {} = ? where number = 2"
    for name, table, text, value in (
        ("trigger", "", "create trigger t after insert on answers begin delete from answers; end", None),
        ("view", "", "create view more as select hex(randomblob(1000000000))", None),
        ("index", "", "create index i on questions(hex(zeroblob(400000)))", None),
        ("future", "", "pragma user_version = 99", None),
        ("other", "", "pragma application_id = 7", None),
        ("torch", "questions", question.format("form"), "torch load (2,)"),
        ("terabyte", "questions", question.format("form"), "float64 (100000000000,)"),
        ("object", "questions", question.format("form"), "object (2,)"),
        ("module", "questions", question.format("form"), "os:system (2,)"),
        ("bytes", "questions", question.format("x"), bomb),
        ("deep", "questions", question.format("x"), "[" * 100_000),
        ("digits", "questions", question.format("x"), "[" + "9" * 2_000_000 + "]"),
        ("nan-json", "questions", question.format("x"), "[NaN, NaN]"),
        ("config-deep", "run", "update run set content = ? where id = 0", '{"a":' * 100_000),
        ("config-digits", "run", "update run set content = ? where id = 0", "9" * 2_000_000),
        ("status", "answers", "update answers set status = ? where number = 2", "os.system"),
        ("turn", "answers", "update answers set turn = ? where number = 2", 1 << 62),
        ("event", "events", "update events set content = ? where id = 0", "[" * 100_000),
        ("unsealed", "", "update answers set value = -1.0 where number = 2", None),
        ("negative", "questions", "update questions set number = ? where number = 2", -2),
    ):  # fmt: skip
        path.write_bytes(whole)
        with closing(sqlite3.connect(path)) as sql:
            sql.execute(text, () if value is None else (value,))
            if table:
                reseal(sql, table)
            sql.commit()
        yield f"store-{name}", path.read_bytes()
    yield "store-half", whole[: len(whole) // 2]
    yield "store-flipped", whole[:5000] + bytes([whole[5000] ^ 255]) + whole[5001:]


def reseal(sql, table):
    """Give every row the checksum that it should have."""
    for rowid, *row in sql.execute(f"select rowid, * from {table}").fetchall():
        sql.execute(f"update {table} set checksum = ? where rowid = ?", (checksum(table, tuple(row[:-1])), rowid))
