"""Atomic writing of files."""

from pathlib import Path

import pytest

from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import atomic_write, check_writable, read_json


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "metadata.json"
    path.write_bytes(b"old")
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(OSError, match="no space"):
            atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"


def test_json_that_is_nested_too_deeply_is_a_value_error(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"nested too deeply|Expecting value"):
        read_json(path)


def test_links_and_devices_are_not_replaced(tmp_path):
    (tmp_path / "link.npz").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "link.npz", Path("/dev/null")):
        with pytest.raises(InputError, match="is a link or a device"):
            check_writable(path, "--out")
    check_writable(tmp_path / "new.npz", "--out")
