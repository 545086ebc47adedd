"""Directories that are replaced as a whole."""

import pytest

from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import atomic_directory

OWN, SIGN = ("sign", "picture"), "sign"


def fill(folder, **files: str) -> None:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)


def read(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def write(folder) -> None:
    with atomic_directory(folder, OWN, SIGN) as inside:
        (inside / "sign").write_text("new")
        assert not (folder / "sign").exists() or (folder / "sign").read_text() != "new"


def test_a_new_directory_appears_when_it_is_complete(tmp_path):
    write(tmp_path / "parent" / "report")
    assert read(tmp_path / "parent" / "report") == {"sign": "new"}


def test_own_files_are_replaced_and_foreign_files_are_kept(tmp_path):
    fill(tmp_path / "report", sign="old", picture="old", notes="mine")
    write(tmp_path / "report")
    assert read(tmp_path / "report") == {"sign": "new", "notes": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_foreign_file_with_the_name_of_a_new_one_gets_another(tmp_path):
    fill(tmp_path / "report", sign="old", later="mine")
    with atomic_directory(tmp_path / "report", OWN, SIGN) as inside:
        (inside / "sign").write_text("new")
        (inside / "later").write_text("new")
    assert read(tmp_path / "report") == {"sign": "new", "later": "new", "later-0": "mine"}


def test_an_earlier_directory_survives_a_failure(tmp_path):
    fill(tmp_path / "report", sign="old", notes="mine")
    with (
        pytest.raises(InputError, match="disk full"),
        atomic_directory(tmp_path / "report", OWN, SIGN),
    ):
        raise OSError("disk full")
    assert read(tmp_path / "report") == {"sign": "old", "notes": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_an_earlier_directory_is_put_back_if_the_new_one_cannot_be_moved(tmp_path, monkeypatch):
    fill(tmp_path / "report", sign="old")
    rename = type(tmp_path).rename

    def refuse(path, target):
        if path.name.endswith(".partial"):
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(type(tmp_path), "rename", refuse)
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / "report")
    assert read(tmp_path / "report") == {"sign": "old"}


def test_a_directory_of_something_else_is_refused(tmp_path):
    fill(tmp_path / "photos", holiday="mine")
    with pytest.raises(InputError, match="is not empty and holds no sign"):
        write(tmp_path / "photos")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        write(tmp_path / "file")
