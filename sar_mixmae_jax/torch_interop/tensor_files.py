"""Reading and writing of .pth and .safetensors files, without running code that a file holds.

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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import atomic_path

ALLOWED = (argparse.Namespace,)
METADATA_KEY = "sar_mixmae_jax"
"""Key of the metadata of this project, a JSON text."""

MODEL_KEYS = ("model", "state_dict")
"""Keys of the tensors in a checkpoint that holds more than tensors."""

WRAPPER = "module."
"""Prefix of the tensor names of models that were trained on several devices."""


class TensorFile(NamedTuple):
    """Content of a file.

    Attributes:
      tensors: by PyTorch's names; floats as float32, integers unchanged.
      optimizer: `state` and `param_groups` of PyTorch's optimizer; None without one.
      epoch: int, last epoch of training; None if it is not stored.
      metadata: JSON text of this project; None in other files.
      has_16_bit_floats: bool, whether tensors were stored as float16 or bfloat16.
    """

    tensors: dict[str, np.ndarray]
    optimizer: Any = None
    epoch: int | None = None
    metadata: str | None = None
    has_16_bit_floats: bool = False


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


# ---- reading


def read_tensor_file(path: Path) -> TensorFile:
    """Read a file; the suffix says which format, .pth if it is another one.

    Raises:
      InputError: it is damaged, of another format, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: expected a .pth or .safetensors file")
    return FORMATS.get(path.suffix, FORMATS[".pth"]).read(path)


def read_pth(path: Path) -> TensorFile:
    """Read a checkpoint of PyTorch; see `read_tensor_file`."""
    torch = import_library("torch", "PyTorch")
    check_zip(path)
    content = _load(path, torch)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a checkpoint")
    content = _plain(content, path)
    nested: Any = next(
        (content[name] for name in MODEL_KEYS if isinstance(content.get(name), dict)), None
    )
    model = content if nested is None else _plain(nested, path)
    tensors = {name.removeprefix(WRAPPER): value for name, value in model.items()}
    optimizer, epoch, metadata = (
        content.get(name) for name in ("optimizer", "epoch", METADATA_KEY)
    )
    if len(tensors) < len(model):
        raise InputError(f"{path} has tensors of the same name, with and without {WRAPPER!r}")
    arrays = {name: as_array(name, value, path) for name, value in tensors.items()}
    return TensorFile(
        arrays,
        None if model is content else optimizer,
        epoch if type(epoch) is int and model is not content else None,
        metadata if isinstance(metadata, str) else None,
        any(value.is_floating_point() and value.element_size() == 2 for value in tensors.values()),
    )


def check_zip(path: Path) -> None:
    """Raise if an archive is compressed or damaged; PyTorch reads its parts without checks.

    Raises:
      InputError: a part is compressed, cut off, or fails its checksum.
    """
    if not zipfile.is_zipfile(path):
        return  # the format before PyTorch 1.6
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = [
                part.filename
                for part in archive.infolist()
                if part.compress_type != zipfile.ZIP_STORED
            ]
            wrong = compressed[0] if compressed else archive.testzip()
    except Exception as error:  # zipfile raises many types for damaged files
        raise InputError(
            f"{path} is cut off or damaged ({first_line(error)}): fetch it again"
        ) from error
    if wrong:
        problem = "is compressed" if compressed else "fails its checksum"
        raise InputError(f"{path} is damaged: {wrong[:100]} {problem}: fetch it again")


def _plain(values: dict[Any, Any], path: Path) -> dict[str, Any]:
    """Return a plain copy of a dictionary, which may be a subclass with attributes of its own.

    Raises:
      InputError: a key is not a string.
    """
    plain = dict(dict.items(values))
    if not all(isinstance(name, str) for name in plain):
        raise InputError(f"{path} has keys that are not strings: expected a checkpoint of PyTorch")
    return plain


def _load(path: Path, torch: Any) -> Any:
    """Return the content of a file, by PyTorch's restricted loader.

    Raises:
      InputError: see `read_tensor_file`.
    """
    try:
        with torch.serialization.safe_globals(list(ALLOWED)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats that are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(_refusal(path, torch, error)) from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit into memory: use a machine with more") from error
    except Exception as error:  # the loader raises many types for damaged files
        raise InputError(
            f"{path} is cut off, damaged, or not a checkpoint of PyTorch ({first_line(error)}): "
            "fetch it again"
        ) from error


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
        "argparse.Namespace; no code of it was run: obtain a file with tensors only"
    )


def as_array(name: str, value: Any, path: Path) -> np.ndarray:
    """Return a tensor as an array; floats become float32.

    Args:
      name: of the tensor, for messages.
      value: the tensor.
      path: of the file, for messages.

    Raises:
      InputError: it is not a dense tensor of numbers.
    """
    torch = import_library("torch", "PyTorch")
    try:
        return _dense(value, torch)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"{path}: {name[:100]} is not a dense tensor of numbers ({first_line(error)}): "
            "expected a checkpoint whose `model` holds nothing else"
        ) from error


def _dense(value: Any, torch: Any) -> np.ndarray:
    """Return the values of a tensor that stores each of its elements.

    Raises:
      TypeError: the value is not such a tensor.
    """
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"found {type(value).__name__}")
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
        raise TypeError(f"found {value.dtype} in layout {value.layout}")
    value = value.detach()
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise TypeError(f"found {tuple(value.shape)} of {value.untyped_storage().nbytes()} bytes")
    return (value.float() if value.is_floating_point() else value).numpy()


def read_safetensors(path: Path) -> TensorFile:
    """Read a file of safetensors; see `read_tensor_file`."""
    safetensors = import_library("safetensors", "safetensors")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = (file.metadata() or {}).get(METADATA_KEY)
            names = list(file.keys())
            arrays = {name.removeprefix(WRAPPER): file.get_tensor(name) for name in names}
    except Exception as error:  # the library raises many types for damaged files
        raise InputError(
            f"{path} is cut off, damaged, or not a file of safetensors "
            f"({first_line(error)}): fetch it again"
        ) from error
    if len(arrays) < len(names):
        raise InputError(f"{path} has tensors of the same name, with and without {WRAPPER!r}")
    floats = {name for name, array in arrays.items() if array.dtype.kind not in "iub"}
    has_16_bit_floats = any(arrays[name].dtype.itemsize == 2 for name in floats)
    arrays |= {name: arrays[name].astype(np.float32, copy=False) for name in floats}
    return TensorFile(arrays, metadata=metadata, has_16_bit_floats=has_16_bit_floats)


# ---- writing


def write_tensor_file(path: Path, tensors: Mapping[str, np.ndarray], metadata: str) -> None:
    """Write tensors and metadata atomically; the suffix says which format.

    Args:
      path: of the file, .pth or .safetensors.
      tensors: by name.
      metadata: JSON text, stored under `METADATA_KEY`.

    Raises:
      InputError: it cannot be written.
    """
    check_suffix(path)
    try:
        with atomic_path(path) as partial:
            FORMATS[path.suffix].write(partial, tensors, metadata)
    except InputError:
        raise
    except Exception as error:  # OSError, and types that libraries wrap it in
        raise InputError(
            f"{path} cannot be written ({first_line(error)}): check the folder and the disk"
        ) from error


def check_suffix(path: Path) -> None:
    """Raise unless the suffix of a file to write names a format.

    Raises:
      InputError: lists the formats.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"--out is {path}: expected a name that ends with {' or '.join(FORMATS)}")


def write_pth(path: Path, tensors: Mapping[str, np.ndarray], metadata: str) -> None:
    """Write a checkpoint that PyTorch's restricted loader reads."""
    torch = import_library("torch", "PyTorch")
    model = {name: torch.from_numpy(own_storage(array)) for name, array in tensors.items()}
    with path.open("wb") as file:  # torch.save stores the name of a path in the file
        torch.save({MODEL_KEYS[0]: model, METADATA_KEY: metadata}, file)


def own_storage(array: np.ndarray) -> np.ndarray:
    """Return a contiguous, writable array, as `torch.from_numpy` requires."""
    return np.require(array, requirements=("C", "W"))


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: str) -> None:
    """Write a file of safetensors."""
    import_library("safetensors", "safetensors")  # the submodule alone may still be cached
    safetensors = import_library("safetensors.numpy", "safetensors")
    path.touch()
    mode = path.stat().st_mode
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    safetensors.save_file(contiguous, path, {"format": "pt", METADATA_KEY: metadata})
    path.chmod(mode)  # the library creates files that only their owner can read


class Format(NamedTuple):
    """A file format.

    Attributes:
      read: function of a path.
      write: function of a path, tensors and metadata.
    """

    read: Callable[[Path], TensorFile]
    write: Callable[[Path, Mapping[str, np.ndarray], str], None]


FORMATS = {
    ".pth": Format(read_pth, write_pth),
    ".safetensors": Format(read_safetensors, write_safetensors),
}
"""Formats by suffix; files with other suffixes are read as .pth."""
