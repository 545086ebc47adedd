"""Reading and writing of .pth and .safetensors files; the content says which format a file has."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from sar_mixmae_jax.torch_interop.restricted_loader import import_library, load_restricted
from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import atomic_path

METADATA_KEY = "sar_mixmae_jax"
"""Key of the metadata of this project, a JSON text."""

WEIGHTS = {"model": ("model", "state_dict"), "model_ema": ("model_ema", "state_dict_ema")}
"""Keys of the tensors in a checkpoint that holds more than tensors; `model_ema` is a moving average
of `model` over the steps."""

WRAPPERS = re.compile(r"(module\.|_orig_mod\.)+")
"""Prefixes of tensor names of models that were trained on several devices, or compiled."""

MAX_HEADER = 100_000_000
"""Longest header of a file of safetensors, bytes."""


class TensorFile(NamedTuple):
    """Content of a file.

    Attributes:
      tensors: by PyTorch's names; floats as float32, integers unchanged.
      optimizer: `state` and `param_groups` of PyTorch's optimizer; None without one.
      epoch: int, last epoch of training; None if it is not stored.
      metadata: JSON text of this project; None in other files.
      has_16_bit_floats: bool, whether tensors were stored as float16 or bfloat16.
      ignored: names of tensors that were left out.
    """

    tensors: dict[str, np.ndarray]
    optimizer: Any = None
    epoch: int | None = None
    metadata: str | None = None
    has_16_bit_floats: bool = False
    ignored: tuple[str, ...] = ()


class Selection(NamedTuple):
    """Tensors that are read of a file.

    Attributes:
      weights: a key of `WEIGHTS`.
      ignored: names of tensors to leave out, or patterns such as "teacher.*".
    """

    weights: str = "model"
    ignored: Collection[str] = ()


# ---- reading


def read_tensor_file(path: Path, selection: Selection | None = None) -> TensorFile:
    """Read a file of either format, whatever its suffix.

    Args:
      path: path of the file.
      selection: tensors that are read; None: the model, whole.

    Raises:
      InputError: it is damaged, of another format, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: expected a .pth or .safetensors file")
    return FORMATS[_format_of(path)].read(path, selection or Selection())


def _format_of(path: Path) -> str:
    """Return the entry of `FORMATS` by the first bytes, or by the suffix if they show none."""
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith(b"PK\x03\x04"):
        return ".pth"
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") <= MAX_HEADER:
        return ".safetensors"
    return path.suffix if path.suffix in FORMATS else ".pth"


def read_pth(path: Path, selection: Selection) -> TensorFile:
    """Read a checkpoint of PyTorch; see `read_tensor_file`."""
    content = load_restricted(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a checkpoint")
    content = _plain(content, path)
    model = _model_of(content, selection.weights, path)
    stored_names, ignored = select_names(model, selection.ignored, path)
    arrays = {name: as_array(name, model[key], path) for name, key in stored_names.items()}
    optimizer, epoch, metadata = (
        content.get(name) for name in ("optimizer", "epoch", METADATA_KEY)
    )
    nested = model is not content
    if selection.weights != "model" and optimizer is not None:
        logging.warning("%s: the optimizer belongs to other weights: it is left out", path.name)
    return TensorFile(
        arrays,
        optimizer if nested and selection.weights == "model" else None,
        epoch if type(epoch) is int and nested else None,
        metadata if isinstance(metadata, str) else None,
        any(
            model[key].is_floating_point() and model[key].element_size() == 2
            for key in stored_names.values()
        ),
        ignored,
    )


def _model_of(content: dict[str, Any], weights: str, path: Path) -> dict[str, Any]:
    """Return the tensors of a checkpoint: an entry of it, or itself if it holds nothing else.

    Raises:
      InputError: it has no such tensors.
    """
    entries = {
        name: next((key for key in keys if isinstance(content.get(key), dict)), None)
        for name, keys in WEIGHTS.items()
    }
    wanted, average = entries[weights], entries["model_ema"]
    if wanted is None and (weights != "model" or average):
        present = ", ".join(name for name, key in entries.items() if key) or "model"
        raise InputError(f"{path} holds no {weights}: choose --weights={present}")
    if weights == "model" and average:
        logging.warning(
            "%s also holds %s, a moving average of the weights, which is not used: "
            "--weights=model_ema converts it",
            path.name,
            average,
        )
    return content if wanted is None else _plain(content[wanted], path)


def select_names(
    stored: Iterable[str], ignored: Collection[str], path: Path
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the names of tensors without `WRAPPERS`, and those that are left out.

    Args:
      stored: names in the file.
      ignored: see `Selection`.
      path: path of the file, for messages.

    Returns:
      Name in the file by name, and the names that are left out.

    Raises:
      InputError: two tensors have one name, or an entry of `ignored` names none.
    """
    stored = list(stored)
    names = {WRAPPERS.sub("", key): key for key in stored}
    if len(names) < len(stored):
        raise InputError(
            f"{path} has tensors of the same name, with and without 'module.' or '_orig_mod.'"
        )
    left_out = {
        pattern: [name for name in names if fnmatchcase(name, pattern)] for pattern in ignored
    }
    for pattern, matches in left_out.items():
        if not matches:
            raise InputError(
                f"{path} has no tensor {pattern[:100]!r}, which --ignore_unexpected names"
            )
    dropped = {name for matches in left_out.values() for name in matches}
    kept = {name: key for name, key in names.items() if name not in dropped}
    return kept, tuple(sorted(dropped))


def _plain(values: dict[Any, Any], path: Path) -> dict[str, Any]:
    """Return a plain copy of a dictionary, which may be a subclass with attributes of its own.

    Raises:
      InputError: a key is not a string.
    """
    plain = dict(dict.items(values))
    if not all(isinstance(name, str) for name in plain):
        raise InputError(f"{path} has keys that are not strings: expected a checkpoint of PyTorch")
    return plain


def as_array(name: str, value: Any, path: Path) -> np.ndarray:
    """Return a tensor as an array; floats become float32.

    Args:
      name: name of the tensor, for messages.
      value: the tensor.
      path: path of the file, for messages.

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


def read_safetensors(path: Path, selection: Selection) -> TensorFile:
    """Read a file of safetensors; see `read_tensor_file`."""
    safetensors = import_library("safetensors", "safetensors")
    if selection.weights != "model":
        raise InputError(f"{path} holds no {selection.weights}: leave --weights out")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = (file.metadata() or {}).get(METADATA_KEY)
            stored_names, ignored = select_names(file.keys(), selection.ignored, path)
            arrays = {name: file.get_tensor(key) for name, key in stored_names.items()}
    except InputError:
        raise
    except Exception as error:  # the library raises many types for damaged files
        raise InputError(
            f"{path} is cut off, damaged, or not a file of safetensors "
            f"({first_line(error)}): fetch it again"
        ) from error
    floats = {name for name, array in arrays.items() if array.dtype.kind not in "iub"}
    has_16_bit_floats = any(arrays[name].dtype.itemsize == 2 for name in floats)
    arrays |= {name: arrays[name].astype(np.float32, copy=False) for name in floats}
    return TensorFile(
        arrays, metadata=metadata, has_16_bit_floats=has_16_bit_floats, ignored=ignored
    )


# ---- writing


def write_tensor_file(path: Path, tensors: Mapping[str, np.ndarray], metadata: str) -> None:
    """Write tensors and metadata atomically; the suffix says which format.

    Args:
      path: path of the file, .pth or .safetensors.
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
        torch.save({"model": model, METADATA_KEY: metadata}, file)


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
      read: function of a path and a selection.
      write: function of a path, tensors and metadata.
    """

    read: Callable[[Path, Selection], TensorFile]
    write: Callable[[Path, Mapping[str, np.ndarray], str], None]


FORMATS = {
    ".pth": Format(read_pth, write_pth),
    ".safetensors": Format(read_safetensors, write_safetensors),
}
"""Formats by suffix."""
