"""What a killed process leaves beside a folder: brought back or removed by the next."""

import os
import subprocess
import sys

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


@pytest.fixture
def dead() -> int:
    """The number of a process that ran."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture(params=["another", "this"])
def left_by(request, dead) -> int:
    """Another process, or an earlier one with the number of this one."""
    return dead if request.param == "another" else os.getpid()


def test_killed_between_the_renames(tmp_path, left_by):
    fill(tmp_path / f".rep.{left_by}.old", sign="old", notes="mine")
    fill(tmp_path / f".rep.{left_by}.partial", sign="half")
    write(tmp_path / "rep")
    assert read(tmp_path / "rep") == {"sign": "new", "notes": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["rep"]


def test_the_old_one_is_back_even_if_writing_fails(tmp_path, left_by):
    fill(tmp_path / f".rep.{left_by}.old", sign="old", notes="mine")
    with (
        pytest.raises(InputError, match="disk full"),
        atomic_directory(tmp_path / "rep", OWN, SIGN),
    ):
        raise OSError("disk full")
    assert read(tmp_path / "rep") == {"sign": "old", "notes": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["rep"]


def test_killed_after_the_renames(tmp_path, left_by):
    fill(tmp_path / "rep", sign="later", notes="newer")
    fill(tmp_path / f".rep.{left_by}.old", sign="old", picture="old", notes="mine", more="too")
    write(tmp_path / "rep")
    assert read(tmp_path / "rep") == {
        "sign": "new", "notes": "newer", "notes-0": "mine", "more": "too"
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["rep"]


def test_what_is_of_others_stays(tmp_path, dead):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        names = {
            f".rep.{running.pid}.old", f".rep.{running.pid}.partial", f".rep2.{dead}.old",
            f".repo.{dead}.partial", ".rep.x.old", f"rep.{dead}.old",
        }  # fmt: skip
        for name in names:
            fill(tmp_path / name, sign="of another")
        write(tmp_path / "rep")
        assert {path.name for path in tmp_path.iterdir()} == names | {"rep"}
        running.communicate(b"\n")


def test_names_are_no_patterns(tmp_path, dead):
    fill(tmp_path / f".rXp.{dead}.partial", sign="of another")
    write(tmp_path / "r.p")
    assert {path.name for path in tmp_path.iterdir()} == {"r.p", f".rXp.{dead}.partial"}
