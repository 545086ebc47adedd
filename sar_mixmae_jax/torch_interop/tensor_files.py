"""Files of tensors: .pth and .safetensors, read without running anything in them, written whole.

A .pth is a pickle, which could call any function. It is read by PyTorch's own restricted loader,
which makes tensors and plain containers and refuses everything else by name; `ALLOWED` is what a
published file holds besides.
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
STORED = zipfile.ZIP_STORED
NOTE = "sar_mixmae_jax"
"""Where a file says what its tensors do not, as JSON."""

MODEL = ("model", "state_dict")
"""Where a checkpoint has its tensors, unless it is nothing else."""

WRAPPER = "module."
"""Before the names of models that were trained on several devices."""


class TensorFile(NamedTuple):
    """What a file holds.

    Attributes:
      tensors: by PyTorch's names; float32, and integers as they are.
      optimizer: `state` and `param_groups` as PyTorch has them, if there are any.
      epoch: that was done, if it says so.
      note: what a file of this project says of itself, as JSON; None in others.
      halved: whether there were floats of 16 bits.
    """

    tensors: dict[str, np.ndarray]
    optimizer: Any = None
    epoch: int | None = None
    note: str | None = None
    halved: bool = False


def import_library(module: str, name: str) -> Any:
    """A module that only exchanging weights needs.

    Args:
      module: to import.
      name: of its library.

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
    """Reads a file.

    Raises:
      InputError: it is damaged, of another kind, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file: name a .pth or .safetensors file")
    return FORMATS.get(path.suffix, FORMATS[".pth"]).read(path)


def read_pth(path: Path) -> TensorFile:
    """Reads a checkpoint of PyTorch."""
    torch = import_library("torch", "PyTorch")
    check_zip(path)
    content = _load(path, torch)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a checkpoint")
    content = _plain(content, path)
    named: Any = next(
        (content[name] for name in MODEL if isinstance(content.get(name), dict)), None
    )
    model = content if named is None else _plain(named, path)
    tensors = {name.removeprefix(WRAPPER): value for name, value in model.items()}
    optimizer, epoch, note = (content.get(name) for name in ("optimizer", "epoch", NOTE))
    if len(tensors) < len(model):
        raise InputError(f"{path} has tensors of the same name, with and without {WRAPPER!r}")
    arrays = {name: as_array(name, value, path) for name, value in tensors.items()}
    return TensorFile(
        arrays,
        None if model is content else optimizer,
        epoch if type(epoch) is int and model is not content else None,
        note if isinstance(note, str) else None,
        any(value.is_floating_point() and value.element_size() == 2 for value in tensors.values()),
    )


def check_zip(path: Path) -> None:
    """Refuses a packed or damaged archive: what is in it is read as it lies there.

    Raises:
      InputError: a part is packed, cut off, or has not its checksum.
    """
    if not zipfile.is_zipfile(path):
        return  # the format before PyTorch 1.6
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [one.filename for one in archive.infolist() if one.compress_type != STORED]
            wrong = packed[0] if packed else archive.testzip()
    except Exception as error:  # of zipfile, for whatever is wrong with a file
        raise InputError(
            f"{path} is cut off or damaged ({first_line(error)}): fetch it again"
        ) from error
    if wrong:
        what = "is packed" if packed else "has not its checksum"
        raise InputError(f"{path} is damaged: {wrong[:100]} {what}: fetch it again")


def _plain(values: dict[Any, Any], path: Path) -> dict[str, Any]:
    """A dictionary without whatever a file has attached to it.

    Raises:
      InputError: a key is no text.
    """
    found = dict(dict.items(values))
    if not all(isinstance(name, str) for name in found):
        raise InputError(f"{path} has keys that are no text: expected a checkpoint of PyTorch")
    return found


def _load(path: Path, torch: Any) -> Any:
    """What the restricted loader makes of a file.

    Raises:
      InputError: see `read`.
    """
    try:
        with torch.serialization.safe_globals(list(ALLOWED)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats that are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(_refusal(path, torch, error)) from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit into memory: use a machine with more") from error
    except Exception as error:  # whatever the loader stumbles over in a damaged file
        raise InputError(
            f"{path} is cut off, damaged, or no checkpoint of PyTorch ({first_line(error)}): "
            "fetch it again"
        ) from error


def _refusal(path: Path, torch: Any, error: Exception) -> str:
    """Names what a file would have called."""
    allowed = {f"{one.__module__}.{one.__qualname__}" for one in ALLOWED}
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # of the format before PyTorch 1.6, which cannot be searched
        found = re.findall(r"GLOBAL ([\w.]+)", str(error))
    named = ", ".join(sorted({*found} - allowed))
    if not named:
        reason = first_line(error).split("Weights only load failed.")[0].rstrip(": ")
        return (
            f"{path} is damaged, or was not written by torch.save ({reason}); nothing in it was "
            "run: fetch it again, or ask for tensors alone"
        )
    return (
        f"{path} holds {named}, and could run code with it: expected tensors, plain containers and "
        "argparse.Namespace; nothing of it was run. Ask for a file with tensors alone"
    )


def as_array(name: str, value: Any, path: Path) -> np.ndarray:
    """A tensor as an array; floats become float32, if they are not.

    Raises:
      InputError: it is no dense tensor.
    """
    torch = import_library("torch", "PyTorch")
    try:
        return _dense(value, torch)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"{path}: {name[:100]} is no dense tensor of numbers ({first_line(error)}): expected a "
            "checkpoint whose `model` holds nothing else"
        ) from error


def _dense(value: Any, torch: Any) -> np.ndarray:
    """The numbers of a tensor that has one for each of its places.

    Raises:
      TypeError: it is something else.
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
    """Reads a file of nothing but tensors."""
    safetensors = import_library("safetensors", "safetensors")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            note = (file.metadata() or {}).get(NOTE)
            names = list(file.keys())
            arrays = {name.removeprefix(WRAPPER): file.get_tensor(name) for name in names}
    except Exception as error:  # of the library, for whatever is wrong with a file
        raise InputError(
            f"{path} is cut off, damaged, or no file of safetensors ({first_line(error)}): fetch "
            "it again"
        ) from error
    if len(arrays) < len(names):
        raise InputError(f"{path} has tensors of the same name, with and without {WRAPPER!r}")
    floats = {name for name, array in arrays.items() if array.dtype.kind not in "iub"}
    halved = any(arrays[name].dtype.itemsize == 2 for name in floats)
    arrays |= {name: arrays[name].astype(np.float32, copy=False) for name in floats}
    return TensorFile(arrays, note=note, halved=halved)


# ---- writing


def write_tensor_file(path: Path, tensors: Mapping[str, np.ndarray], note: str) -> None:
    """Writes tensors, whole or not at all, with a note; the kind of file follows its name.

    Raises:
      InputError: it cannot be written.
    """
    check_suffix(path)
    try:
        with atomic_path(path) as partial:
            FORMATS[path.suffix].write(partial, tensors, note)
    except InputError:
        raise
    except Exception as error:  # OSError, and what libraries make of it
        raise InputError(
            f"{path} cannot be written ({first_line(error)}): check the folder and the disk"
        ) from error


def check_suffix(path: Path) -> None:
    """Refuses a name that does not say which kind of file it is.

    Raises:
      InputError: names the kinds.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"--out is {path}: expected a name that ends with {' or '.join(FORMATS)}")


def write_pth(path: Path, tensors: Mapping[str, np.ndarray], note: str) -> None:
    """Writes a checkpoint as PyTorch's own loader takes it."""
    torch = import_library("torch", "PyTorch")
    model = {name: torch.from_numpy(own_storage(array)) for name, array in tensors.items()}
    with path.open("wb") as file:  # by its name the content would differ
        torch.save({MODEL[0]: model, NOTE: note}, file)


def own_storage(array: np.ndarray) -> np.ndarray:
    """An array in the order of its axes, that may be written to, as PyTorch wants it."""
    return np.require(array, requirements=("C", "W"))


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], note: str) -> None:
    """Writes a file of nothing but tensors."""
    import_library(
        "safetensors", "safetensors"
    )  # before a part of it, which may be there from earlier
    safetensors = import_library("safetensors.numpy", "safetensors")
    path.touch()
    mode = path.stat().st_mode
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    safetensors.save_file(contiguous, path, {"format": "pt", NOTE: note})
    path.chmod(mode)  # the library makes files that nobody else can read


class Format(NamedTuple):
    """A kind of file.

    Attributes:
      read: a path.
      write: tensors and a note to a path.
    """

    read: Callable[[Path], TensorFile]
    write: Callable[[Path, Mapping[str, np.ndarray], str], None]


FORMATS = {
    ".pth": Format(read_pth, write_pth),
    ".safetensors": Format(read_safetensors, write_safetensors),
}
"""By the end of a file's name; what has another one is read as the first."""
