"""A damaged run goes on from what is sound and says so, or is refused with one line."""

import contextlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.campaigns import damage
from tests.campaigns.damage import FAILED, HARMLESS, KINDS, LAST, RECOVERED, REFUSED, FinishedRun
from tests.campaigns.kill import array_hashes

pytestmark = pytest.mark.usefixtures("no_drawing_in_module")


@pytest.fixture(scope="module")
def finished_run(built, tmp_path_factory):
    """A finished run of four checkpoints, of steps 2, 4, 6 and 8."""
    return FinishedRun(tmp_path_factory.mktemp("damage"), built)


@pytest.fixture
def outcome(finished_run, tmp_path):
    """Damage a copy of the run and start it: (change, options) -> (outcome, output)."""

    def run_trial(change: Callable[[Path], object], **options: bool) -> tuple[str, str]:
        def damage_copy(workdir: Path) -> str:
            return str(change(workdir) or "change of this test")

        workdir = tmp_path / "run"
        trial = damage.run_trial("test", damage_copy, finished_run, workdir, **options)
        assert trial.outcome != FAILED, f"{trial.damage}: {trial.output}"
        return trial.outcome, trial.output

    return run_trial


def newest(workdir: Path) -> Path:
    return workdir / "checkpoints" / str(LAST)


def flip_unseen(checkpoint: Path) -> str:
    """Flip a bit that changes an array without an error of TensorStore."""
    before, rng = array_hashes(checkpoint), random.Random(0)
    for path in sorted(checkpoint.rglob("d/*"), key=lambda path: -path.stat().st_size):
        for _ in range(8):
            content = path.read_bytes()
            description = damage.flip_bit(path, rng)
            with contextlib.suppress(ValueError):
                if array_hashes(checkpoint) != before:
                    return description
            path.write_bytes(content)
    raise AssertionError("every flipped bit is noticed or harmless")


@pytest.mark.parametrize("number", range(len(KINDS) + 5))
def test_every_kind_of_damage(finished_run, tmp_path, number):
    trial = damage.run_numbered_trial(number, 0, finished_run, tmp_path, quick=True)
    assert trial.outcome != FAILED, f"{trial.kind}: {trial.damage}: {trial.output}"


def test_untouched_it_is_restored_as_it_was(outcome):
    assert outcome(lambda workdir: None)[0] == HARMLESS


def test_a_flipped_bit_that_only_a_checksum_sees_is_found(outcome):
    result, output = outcome(lambda workdir: flip_unseen(newest(workdir)))
    assert result == RECOVERED
    assert f"checkpoints/{LAST} is not used" in output
    assert "do not have their checksums" in output
    assert f"checkpoints_damaged/{LAST}-0" in output


def test_all_damaged_is_refused_in_a_line_that_can_be_read(outcome):
    def empty_all(workdir):
        for checkpoint in (workdir / "checkpoints").iterdir():
            for path in checkpoint.rglob("d/*"):
                path.write_bytes(b"")

    assert outcome(empty_all)[0] == REFUSED


@pytest.mark.parametrize("kind", ["deleted", "emptied"])
def test_checkpoints_that_are_gone_are_no_start_from_scratch(outcome, kind):
    def remove(workdir):
        shutil.rmtree(workdir / "checkpoints")
        if kind == "emptied":
            (workdir / "checkpoints").mkdir()

    result, output = outcome(remove)
    assert result == REFUSED
    assert f"step {LAST} was saved" in output


def test_an_empty_newer_step_is_put_away(outcome):
    result, output = outcome(lambda workdir: (workdir / "checkpoints" / "10").mkdir())
    assert result == HARMLESS
    assert "checkpoints/10 is not used" in output


def test_exchanged_steps_are_told_by_their_metadata(outcome):
    def exchange(workdir):
        return damage.swap(newest(workdir), workdir / "checkpoints" / "4")

    result, output = outcome(exchange)
    assert result == RECOVERED
    assert "its metadata is of step 4" in output


@pytest.mark.parametrize("name", ["0012", "²", "9" * 30])
def test_a_folder_of_an_odd_name_does_no_harm(outcome, name):
    outcome(
        lambda workdir: shutil.copytree(newest(workdir), newest(workdir).with_name(name)) and ""
    )


def test_a_damaged_checkpoint_that_cannot_be_put_away_gets_one_line(outcome):
    def block(workdir):
        (workdir / "checkpoints_damaged").write_text("")
        (newest(workdir) / "metadata" / "metadata").write_text("")

    assert outcome(block)[0] == REFUSED


@pytest.mark.parametrize("saved", ["8", [8], -1])
def test_a_record_with_an_odd_step_gets_one_line_or_none(outcome, saved):
    def edit(workdir):
        record = json.loads((workdir / "run.json").read_text())
        (workdir / "run.json").write_text(json.dumps({**record, "saved": saved}))

    outcome(edit)


def test_a_log_that_is_gone_is_told(outcome):
    _, output = outcome(lambda workdir: (workdir / "metrics.jsonl").unlink())
    assert "metrics.jsonl" in output


def test_a_log_that_is_no_file_gets_one_line(outcome):
    def replace(workdir):
        (workdir / "metrics.jsonl").unlink()
        (workdir / "metrics.jsonl").mkdir()

    assert outcome(replace)[0] == REFUSED


def test_a_record_that_is_gone_is_written_again(outcome):
    """Also by a run that has nothing left to do, whose page is made from it."""
    result, _ = outcome(lambda workdir: (workdir / "run.json").unlink(), page=True)
    assert result == HARMLESS


def test_what_a_killed_start_left_unfinished_is_cleared_away(finished_run, tmp_path):
    """Else every kill costs the disk another checkpoint."""
    workdir = tmp_path / "run"
    shutil.copytree(finished_run.workdir, workdir)
    left = workdir / "checkpoints" / "7.orbax-checkpoint-tmp", workdir / ".run.json.12345.partial"
    shutil.copytree(newest(workdir), left[0])
    left[1].write_text("{")
    assert damage.start_damaged(finished_run, workdir, best=False, page=False).error is None
    assert not [path.name for path in left if path.exists()]
