"""Damaged or crafted files of predictions end in a message of one line."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sar_mixmae_jax.evaluation.predictions import load_predictions, save_predictions
from sar_mixmae_jax.utils.errors import InputError
from tests.evaluation.test_predictions import classified


def crafted(path: Path, **changes) -> None:
    """Write a file with other fields in its head."""
    save_predictions(classified(), path)
    with np.load(path) as file:
        arrays = dict(file)
    head = json.loads(str(arrays["head"])) | changes
    np.savez(path, **(arrays | {"head": np.array(json.dumps(head))}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": None}, "classes are None, expected a list"),
        ({"classes": "ab"}, "classes are 'ab', expected a list"),
        ({"classes": [1, 2]}, "expected names"),
        ({"task": None}, "task is None, expected a name"),
        ({"task": ["flood"]}, "task is"),
        ({"about": None}, "about is NoneType, expected values by name"),
        ({"about": ["d"]}, "about is list"),
        ({"format": None}, "is None, expected 'sar_mixmae_jax predictions 1'"),
    ],
)
def test_heads_that_say_something_else(tmp_path, changes, message):
    crafted(tmp_path / "p.npz", **changes)
    with pytest.raises(InputError, match=message):
        load_predictions(tmp_path / "p.npz")


@pytest.mark.parametrize("head", ["[" * 100_000, "null", "[]", "3", "{", '"text"'])
def test_heads_that_are_no_heads(tmp_path, head):
    path = tmp_path / "p.npz"
    save_predictions(classified(), path)
    with np.load(path) as file:
        arrays = dict(file) | {"head": np.array(head)}
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="damaged or holds no predictions") as caught:
        load_predictions(path)
    assert "\n" not in str(caught.value)


def test_about_that_is_nested_too_deeply():
    deep: list = []
    for _ in range(200_000):  # Python 3.13 and later allow thousands
        deep = [deep]
    with pytest.raises(InputError, match="about is not plain JSON"):
        classified(provenance={"deep": deep})


def test_flipped_bits_are_said_in_one_line(tmp_path):
    path = tmp_path / "p.npz"
    save_predictions(classified(), path)
    whole, messages = path.read_bytes(), []
    for place in range(0, len(whole), 2):
        content = bytearray(whole)
        content[place] ^= (1, 8, 255)[place % 3]
        path.write_bytes(content)
        try:
            load_predictions(path)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > len(whole) / 4
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    "described",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (((",  # tokenize.TokenError
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000,), }",  # MemoryError
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        b"{'descr': None, 'fortran_order': False, 'shape': (1,), }",
    ],
)
def test_heads_of_arrays_that_are_crafted(tmp_path, described):
    path = tmp_path / "p.npz"
    save_predictions(classified(), path)
    crafted_array = b"\x93NUMPY\x01\x00" + len(described).to_bytes(2, "little") + described
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in (members | {"logits.npy": crafted_array}).items():
            file.writestr(name, content)
    with pytest.raises(InputError, match="damaged or holds no predictions"):
        load_predictions(path)
