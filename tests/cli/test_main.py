"""The command `train`, called in this process: bad input, signals, a full disk."""

import json
import re
import signal
from contextlib import contextmanager

import pytest

from sar_mixmae_jax.cli import common, train
from tests.launch import call, file_size_limit
from tests.shrink import flags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config=configs/pretrain.py:variant=bse"],
            "unknown variant 'bse': did you mean 'base'",
        ),
        (["--config=configs/pretrain.py:size=base"], "unknown config argument 'size'"),
        (["--config=configs/pretrain.py", "--config.weighting.nme=none"], "did you mean 'name'"),
        (["--config=configs/pretrain.py", "--config.bath_size=4"], "did you mean 'batch_size'"),
        (["--config=configs/pretrain.py", "--config.batch_size=four"], "four"),
        (["--config=configs/pretrian.py"], "pretrian"),
        (["--config=configs/pretrain.py", "stray"], "stray"),
        (["--config=configs/pretrain.py", "--config.data_dir=nowhere"], "sar-mixmae build"),
        (
            ["--config=configs/pretrain.py", "--config.data_dir=nope://bucket/data"],
            "nope:// is unknown: expected gs://BUCKET/FOLDER",
        ),
        ([], "config"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, arguments, message):
    workdir = tmp_path / "run"
    status, _, errors = call(train.main, *arguments, f"--workdir={workdir}")
    assert status == 2
    lines = errors.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not workdir.exists()


@contextmanager
def received_while_training(sent: signal.Signals):
    """Send a signal to this process when the run first asks for one after a few steps."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    class Sender(common.PreemptionHandler):
        calls = 0

        def __call__(self) -> bool:
            self.calls += 1
            if self.calls == 3:
                signal.raise_signal(sent)
            return super().__call__()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "PreemptionHandler", Sender)
        yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("no_drawing")
def test_asked_to_stop_it_saves_and_goes_on_from_there(built, tmp_path):
    """Before the first regular checkpoint, where there would be nothing to go on from."""
    workdir, last = tmp_path / "run", 0
    for sent, expected in ((signal.SIGINT, 130), (signal.SIGTERM, 0)):
        settings = flags(built, total_steps=5000, checkpoint_every=5000, picture_every=5000)
        with received_while_training(sent):
            status, output, errors = call(train.main, *settings, f"--workdir={workdir}")
        assert status == expected, errors
        step = int(re.search(r"stopped after step (\d+), which is saved", output)[1])
        assert last < step
        assert (workdir / "checkpoints" / str(step)).is_dir()
        last = step

    settings = flags(built, total_steps=last + 2, checkpoint_every=5000, picture_every=5000)
    status, output, errors = call(train.main, *settings, f"--workdir={workdir}")
    assert status == 0, errors
    assert f"resuming after step {last}" in output
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line) for line in lines if '"loss"' in line]
    assert [line["step"] for line in losses] == list(range(1, last + 3))


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of writes
def test_a_full_disk_is_said_in_one_line_and_loses_nothing(built, tmp_path):
    """No file may become larger than a checkpoint's; then there is room, and the run goes on."""
    workdir = tmp_path / "run"
    settings = flags(built, total_steps=4, picture_every=100)
    with file_size_limit(40_000):
        status, _, errors = call(train.main, *settings, f"--workdir={workdir}")
    assert status == 2, errors
    (error,) = (line for line in errors.splitlines() if "error:" in line)
    assert "a checkpoint cannot be written" in error
    assert "see that the disk has room and start again" in error
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == error

    status, _, errors = call(train.main, *settings, f"--workdir={workdir}")
    assert status == 0, errors
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
