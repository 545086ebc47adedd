"""The dispatcher, the help of every command, and configuration files."""

import importlib
import os
import signal
import sys
from pathlib import Path

import pytest

from sar_mixmae_jax import cli
from sar_mixmae_jax.cli.common import locate_checkpoint
from sar_mixmae_jax.cli.config_file import load_config, shipped_configs
from sar_mixmae_jax.utils.command_line import report_errors
from sar_mixmae_jax.utils.errors import InputError

ROOT = Path(__file__).parents[2]


def test_the_dispatcher_lists_all_commands(capsys):
    cli.main(["sar-mixmae", "--help"])
    output = capsys.readouterr().out
    assert all(f"  {name} " in output for name in cli.COMMANDS)
    modules = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    assert modules == {*cli.COMMANDS, "__init__", "common", "config_file"}


def test_an_unknown_command_is_refused_in_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["sar-mixmae", "evalute"])
    assert stopped.value.code == 2
    assert "unknown command 'evalute': did you mean 'evaluate'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_is_short_and_names_the_flags_with_their_defaults(name, capsys):
    """The first line is the one that the dispatcher shows."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(["sar-mixmae", name, "--help"])
    assert not stopped.value.code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == cli.COMMANDS[name]
    assert len(lines) < 45
    assert not any("verbosity" in line for line in lines)
    if name == "evaluate":
        assert any("--split" in line and "(default: test)" in line for line in lines)
        assert any("--checkpoint" in line for line in lines)


@pytest.mark.parametrize("argument", ["--config=pretrain:variant=tiny", "--help"])
def test_an_output_that_nobody_reads_ends_a_command_silently(argument, monkeypatch):
    """The output of `sar-mixmae estimate | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as output, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as stopped:
            cli.main(["sar-mixmae", "estimate", argument])
        output.flush()  # nothing is left that would fail
    assert stopped.value.code == 128 + signal.SIGPIPE


@pytest.mark.parametrize("argument", ["--config=pretrain:variant=tiny", "--help"])
def test_a_full_output_ends_a_command_with_one_line(argument, monkeypatch, capsys):
    with open("/dev/full", "w") as output, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as stopped:
            cli.main(["sar-mixmae", "estimate", argument])
        output.flush()  # nothing is left that would fail
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: standard output cannot be written")


def test_a_command_without_an_output_succeeds(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as after `>&-`
    with report_errors():
        print("dataset: data/synthetic_s1")


def test_a_broken_pipe_elsewhere_is_an_error():
    with pytest.raises(BrokenPipeError), report_errors():
        raise BrokenPipeError


def test_every_command_is_a_module():
    for name in cli.COMMANDS:
        assert callable(importlib.import_module(f"sar_mixmae_jax.cli.{name}").main)


@pytest.mark.parametrize(
    ("workdir", "checkpoint", "expected"),
    [
        ("runs/a", "best", ("runs/a", "best")),
        ("runs/a", "120", ("runs/a", "120")),
        (None, "runs/a/checkpoints/120", ("runs/a", "120")),
        (None, "runs/a", ("runs/a", "latest")),
    ],
)
def test_a_checkpoint_is_a_path_or_belongs_to_a_run(workdir, checkpoint, expected):
    path, name = locate_checkpoint(workdir, checkpoint)
    assert (path, name) == (Path(expected[0]), expected[1])


def test_a_checkpoint_of_no_run_is_refused():
    with pytest.raises(InputError, match="found no --workdir"):
        locate_checkpoint(None, "best")


def test_shipped_configurations_have_names():
    assert set(shipped_configs()) == {
        "compare",
        "few_patches",
        "finetune",
        "pretrain",
        "repeat",
        "synthetic",
    }
    assert load_config("pretrain:variant=tiny").model.variant == "tiny"


def test_a_configuration_file_may_start_from_a_shipped_one(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from configs import pretrain\n"
        "def get_config(arguments=''):\n"
        "    config = pretrain.get_config(arguments)\n"
        "    config.batch_size = 12\n"
        "    return config\n"
    )
    config = load_config(f"{path}:variant=tiny")
    assert (config.batch_size, config.model.variant) == (12, "tiny")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config():\n    return undefined\n", "line 2"),
        ("import", "SyntaxError"),
        ("x = 1\n", "expected a Python file with get_config"),
        ("def get_config():\n    return {}\n", "returned dict, expected an ml_collections"),
    ],
)
def test_a_broken_configuration_file_is_refused(tmp_path, text, message):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_config(str(path))


def test_a_configuration_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="did you mean 'synthetic'"):
        load_config("syntetic")
