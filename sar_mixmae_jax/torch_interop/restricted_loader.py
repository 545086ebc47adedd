"""Loading of a .pth file without running code that it holds.

A .pth is a pickle, which could call any function. It is read by PyTorch's restricted loader, which
creates tensors and plain containers and refuses everything else; `ALLOWED` lists what published
files hold besides.
"""

import argparse
import importlib
import pickle
import re
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from sar_mixmae_jax.utils.errors import InputError, first_line

ALLOWED = (argparse.Namespace,)
RESAVE = (
    "obtain a file with tensors only, or, if you trust this one, write one where its code is "
    'installed: torch.save({"model": torch.load("OLD.pth", weights_only=False)["model"]}, '
    '"NEW.pth")'
)
"""Advice on a file that holds more than tensors."""


def import_library(module: str, name: str) -> Any:
    """Import a module of an optional dependency.

    Args:
      module: name of the module.
      name: name of its library.

    Raises:
      InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{name} is needed and not installed ({first_line(error)}): "
            'pip install "sar-mixmae-jax[torch]", or -e ".[torch]" in the project; the CPU build '
            "of PyTorch is enough"
        ) from error


def load_restricted(path: Path) -> Any:
    """Return the content of a .pth, by PyTorch's restricted loader.

    Archives are mapped into memory, so that tensors that are never used, such as the state of an
    optimizer, are not read into it.

    Raises:
      InputError: it is damaged, of another format, or holds more than tensors and plain values.
    """
    torch = import_library("torch", "PyTorch")
    sizes = record_sizes(path)
    mapped = sizes is not None and path.suffix != ".safetensors"  # which PyTorch reads otherwise
    try:
        with (
            torch.serialization.safe_globals(list(ALLOWED)),
            warnings.catch_warnings(),
            path.open("rb") as file,
        ):
            warnings.simplefilter("ignore")  # about formats that are refused below
            content = torch.load(
                path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped
            )
    except pickle.UnpicklingError as error:
        raise InputError(_refusal(path, torch, error)) from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit into memory: use a machine with more") from error
    except Exception as error:  # the loader raises many types for damaged files
        raise InputError(
            f"{path} is cut off, damaged, or not a checkpoint of PyTorch ({first_line(error)}): "
            "fetch it again"
        ) from error
    if sizes is not None and storage_sizes(content, torch) - sizes:
        raise InputError(
            f"{path} is cut off, damaged: a tensor is larger than its part of the archive: fetch "
            "it again"
        )
    return content


def _refusal(path: Path, torch: Any, error: Exception) -> str:
    """Return a message with the functions that a file would have called."""
    allowed = {f"{kind.__module__}.{kind.__qualname__}" for kind in ALLOWED}
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the format before PyTorch 1.6 cannot be searched
        names = re.findall(r"GLOBAL ([\w.]+)", str(error))
    unsafe = ", ".join(sorted({*names} - allowed))
    if not unsafe:
        reason = first_line(error).split("Weights only load failed.")[0].rstrip(": ")
        return (
            f"{path} is damaged, or was not written by torch.save ({reason}); no code of it was "
            "run: fetch it again, or obtain a file with tensors only"
        )
    return (
        f"{path} holds {unsafe}, which could run code: expected tensors, plain containers and "
        f"argparse.Namespace; no code of it was run: {RESAVE}"
    )


def record_sizes(path: Path) -> Counter[int] | None:
    """Check the parts of an archive, which PyTorch reads without checks, and return their sizes.

    Returns:
      Number of parts by size in bytes; None for the format before PyTorch 1.6, which is no archive.

    Raises:
      InputError: a part is compressed, cut off, or fails its checksum.
    """
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            compressed = [p.filename for p in parts if p.compress_type != zipfile.ZIP_STORED]
            wrong = compressed[0] if compressed else archive.testzip()
    except Exception as error:  # zipfile raises many types for damaged files
        raise InputError(
            f"{path} is cut off or damaged ({first_line(error)}): fetch it again"
        ) from error
    if wrong:
        problem = "is compressed" if compressed else "fails its checksum"
        raise InputError(f"{path} is damaged: {wrong[:100]} {problem}: fetch it again")
    return Counter(part.file_size for part in parts)


def storage_sizes(content: Any, torch: Any) -> Counter[int]:
    """Return the number of storages of the tensors in a checkpoint, by size in bytes.

    A tensor that is mapped into memory takes the size that the pickle states, even where that
    exceeds its part of the archive.
    """
    sizes: dict[int, int] = {}
    visited: set[int] = set()
    values = [content]
    while values:
        value = values.pop()
        if isinstance(value, torch.Tensor):
            if value.layout == torch.strided and not value.is_meta:
                storage = value.untyped_storage()
                sizes[storage.data_ptr()] = storage.nbytes()
        elif id(value) not in visited and isinstance(value, dict | list | tuple | set | ALLOWED[0]):
            visited.add(id(value))
            parts = vars(value) if isinstance(value, ALLOWED) else value
            values += parts.values() if isinstance(parts, dict) else parts
    return Counter(size for size in sizes.values() if size)
