"""Damaged runs: `python -m tests.campaigns.damage --times=200 --seed=0`.

Every trial copies the workdir of a finished run, damages it in one or two ways, and starts the run
again. Permitted outcomes: the newest checkpoint is restored; an earlier one is restored, with a
warning; the start is refused with an error of one line. Everything else is a failure: wrong values,
a start from scratch, a traceback, a crash, a hang, lost files.

The trials run in a process of their own, so that a crash counts as a failure of one trial.
"""

import argparse
import contextlib
import faulthandler
import hashlib
import io
import json
import logging
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from sar_mixmae_jax.run_report.page import write_page
from sar_mixmae_jax.training import pretrain, sharding
from sar_mixmae_jax.training.checkpoint import CheckpointManager, RetentionPolicy
from sar_mixmae_jax.training.train_step import TrainState
from sar_mixmae_jax.utils.errors import InputError
from tests.campaigns.kill import array_hash, array_hashes, make_data
from tests.launch import ROOT, environment
from tests.shrink import small_config

EVERY, LAST, LATER = 2, 8, 10
"""Steps between checkpoints, of the finished run, and of continued runs."""
STEPS = list(range(EVERY, LAST + 1, EVERY))
"""Steps with a checkpoint."""

# ---- finished run


class FinishedRun:
    """A finished run, the expected content of its checkpoints, and checkpoints of other runs.

    Attributes:
      workdir: folder of the run.
      checkpoints: folder of its checkpoints.
      states: hashes of the arrays by step.
      files: hashes of the files of a checkpoint by step.
      logged: steps whose loss is in the log.
    """

    def __init__(self, root: Path, data_dir: Path) -> None:
        """Train the run.

        Args:
          root: folder of this run and of the other runs.
          data_dir: data folder with `bigearthnet_s1`.
        """
        self._data = data_dir
        self._root = root
        self.workdir = root / "finished"
        self._state = jax.device_get(self.start(self.workdir, LAST, page=False))
        self.checkpoints = self.workdir / "checkpoints"
        self.states = {step: array_hashes(self.checkpoints / str(step)) for step in STEPS}
        self.files = {step: file_hashes(self.checkpoints / str(step)) for step in STEPS}
        self.logged = set(logged_steps(self.workdir))

    def start(
        self, workdir: Path, steps: int, *, best: bool = True, page: bool = True
    ) -> TrainState:
        """Start or resume a run in this process and return its last state.

        Args:
          workdir: folder of the run.
          steps: total steps; 1 restores a checkpoint and trains nothing.
          best: whether the best checkpoint is kept, for which Orbax reads metrics.
          page: whether to write the page of the run.
        """
        config = small_config(
            self._data,
            total_steps=steps,
            checkpoint_every=EVERY,
            max_to_keep=len(STEPS),
            keep_best=1 if best else None,
            picture_every=LAST,
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            state = pretrain.train(config, workdir).state
            if page:
                write_page(workdir)
            return state

    def later_hashes(self) -> dict[str, str]:
        """Return the hashes of the arrays of an undamaged run after `LATER` steps."""
        workdir = self._root / "later"
        if not workdir.exists():
            shutil.copytree(self.workdir, workdir)
            self.start(workdir, LATER, page=False)
        return array_hashes(workdir / "checkpoints" / str(LATER))

    def foreign_checkpoint(self, difference: str, step: int) -> Path:
        """Return the folder of a checkpoint of another run, which is written once.

        Args:
          difference: one of `FOREIGN`.
          step: step of the checkpoint.
        """
        folder = self._root / "foreign" / difference
        target = folder / "checkpoints" / str(step)
        if target.exists():
            return target
        path = self.checkpoints / str(LAST) / "metadata" / "metadata"
        metadata = json.loads(path.read_text())
        for name in ("sha256", "step", "arrays"):
            del metadata[name]
        params = jax.tree.map(lambda leaf: leaf + 1, self._state.params)
        if difference == "seed":
            metadata["config"]["seed"] = metadata["order"]["seed"] = 1
        elif difference == "variant":
            metadata["config"]["model"]["variant"] = metadata["model"]["variant"] = "base"
            params = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), params)
        else:
            metadata["dataset"]["checksum"] = "0" * 64
        state = self._state.replace(params=params, step=np.int32(step))
        with contextlib.closing(
            CheckpointManager(folder / "new", RetentionPolicy(1))
        ) as checkpoints:
            checkpoints.save(step, sharding.replicate(state), metadata, {})
        target.parent.mkdir(parents=True, exist_ok=True)
        return (folder / "new" / "checkpoints" / str(step)).rename(target)


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder by its relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def logged_steps(workdir: Path) -> Iterator[int]:
    """Yield the steps whose loss is in the log."""
    path = workdir / "metrics.jsonl"
    for text in path.read_text(errors="replace").split("\n") if path.is_file() else ():
        with contextlib.suppress(ValueError, TypeError):
            line = json.loads(text)
            if isinstance(line, dict) and "loss" in line and isinstance(line.get("step"), int):
                yield line["step"]


def state_hashes(state: TrainState) -> dict[str, str]:
    """Return the same as `kill.array_hashes`, of a state in memory."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): array_hash(np.asarray(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


# ---- kinds of damage: each function changes a file or a workdir and describes the change

FileDamage = Callable[[Path, random.Random], str]
Damage = Callable[[Path, FinishedRun, random.Random], str]

FOREIGN = ("seed", "variant", "dataset")
"""Differences of the other runs whose checkpoints are inserted."""


def truncate(path: Path, rng: random.Random) -> str:
    """Truncate a file to a random size."""
    content = path.read_bytes()
    size = rng.randrange(max(1, len(content)))
    path.write_bytes(content[:size])
    return f"{path}: cut to {size} of {len(content)} bytes"


def flip_bit(path: Path, rng: random.Random) -> str:
    """Flip a random bit of a file."""
    content = bytearray(path.read_bytes())
    if not content:
        return f"{path}: empty, no bit to flip"
    position, bit = rng.randrange(len(content)), rng.randrange(8)
    content[position] ^= 1 << bit
    path.write_bytes(content)
    return f"{path}: bit {bit} of byte {position} of {len(content)}"


def overwrite(path: Path, rng: random.Random) -> str:
    """Overwrite a block of a file with zeros or noise."""
    content = path.read_bytes()
    position = rng.randrange(max(1, len(content)))
    size = min(rng.choice((4, 64, 512, 4096)), len(content) - position)
    block = bytes(size) if rng.random() < 0.5 else rng.randbytes(size)
    path.write_bytes(content[:position] + block + content[position + size :])
    return f"{path}: {size} bytes from {position} of {len(content)}"


def empty(path: Path, rng: random.Random) -> str:
    """Remove the content of a file."""
    del rng
    path.write_bytes(b"")
    return f"{path}: emptied"


def delete(path: Path, rng: random.Random) -> str:
    """Delete a file."""
    del rng
    path.unlink()
    return f"{path}: deleted"


def swap(first: Path, second: Path) -> str:
    """Exchange the names of two files or folders."""
    temporary = first.with_name("between")
    first.rename(temporary)
    second.rename(first)
    temporary.rename(second)
    return f"{first} and {second} exchanged"


FILE_DAMAGES: dict[str, FileDamage] = {
    "truncated file": truncate,
    "flipped bit": flip_bit,
    "overwritten bytes": overwrite,
    "deleted file": delete,
    "emptied file": empty,
}


def step_folders(workdir: Path) -> list[Path]:
    """Return the folders of the checkpoints, the newest last."""
    paths = [path for path in (workdir / "checkpoints").glob("*") if path.name in map(str, STEPS)]
    return sorted((path for path in paths if path.is_dir()), key=lambda path: int(path.name))


def draw_step(workdir: Path, rng: random.Random) -> Path:
    """Return the folder of a random checkpoint, mostly of the newest."""
    folders = step_folders(workdir)
    return folders[-1] if rng.random() < 0.75 else rng.choice(folders)


def file_role(path: Path) -> str:
    """Return the role of a file of a checkpoint: folder and name, "*" for names of array files."""
    name = "*" if path.parent.name == "d" else path.name
    return f"{path.parent.name}/{name}".lstrip("0123456789/")


def draw_file(folder: Path, rng: random.Random) -> Path:
    """Return a random file of a checkpoint, drawn in proportion to sizes or by its role."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        return folder / "nothing"
    if rng.random() < 0.4:
        return rng.choices(paths, [path.stat().st_size + 1 for path in paths])[0]
    role = rng.choice(sorted({file_role(path) for path in paths}))
    return rng.choice([path for path in paths if file_role(path) == role])


def in_checkpoint(file_damage: FileDamage) -> Damage:
    """Return a damage that applies a damage of files to a random file of a checkpoint."""

    def damage(workdir: Path, finished_run: FinishedRun, rng: random.Random) -> str:
        del finished_run
        return file_damage(draw_file(draw_step(workdir, rng), rng), rng)

    return damage


def swap_files(workdir: Path, finished_run: FinishedRun, rng: random.Random) -> str:
    """Swap two files of one checkpoint, or files of the same role of two checkpoints."""
    del finished_run
    folder = draw_step(workdir, rng)
    first = draw_file(folder, rng)
    second = draw_file(folder, rng)
    if rng.random() < 0.5:
        other = rng.choice([path for path in step_folders(workdir) if path != folder])
        paths = sorted(path for path in other.rglob("*") if path.is_file())
        second = rng.choice([p for p in paths if file_role(p) == file_role(first)] or [second])
    return swap(first, second) if first != second else f"{first}: left alone"


def swap_steps(workdir: Path, finished_run: FinishedRun, rng: random.Random) -> str:
    """Swap two checkpoints, or the arrays or the metadata of two checkpoints."""
    del finished_run
    first, second = rng.sample(step_folders(workdir), 2)
    part = rng.choice(("", "", "state", "metadata"))
    return swap(first / part, second / part)


def insert_foreign(workdir: Path, finished_run: FinishedRun, rng: random.Random) -> str:
    """Insert a checkpoint of another run.

    It is added as the next step, replaces a step, is added under the number of a later step, or
    only its arrays replace those of a step.
    """
    difference = rng.choice(FOREIGN)
    placement = rng.choice(("next", "instead", "misnamed", "arrays"))
    step = draw_step(workdir, rng)
    source, target = finished_run.foreign_checkpoint(difference, int(step.name)), step
    if placement == "next":
        source = finished_run.foreign_checkpoint(difference, LATER)
        target = step.with_name(str(LATER))
    elif placement == "misnamed":
        target = step.with_name(str(LATER))
    elif placement == "arrays":
        source, target = source / "state", step / "state"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return f"{target}: of a run with another {difference}, {placement}"


def add_incomplete_step(workdir: Path, finished_run: FinishedRun, rng: random.Random) -> str:
    """Add a newer step that is an empty folder, a folder of one part, or a file."""
    del finished_run
    target, last = workdir / "checkpoints" / str(LATER), step_folders(workdir)[-1]
    shutil.rmtree(target, ignore_errors=True)
    content = rng.choice(("empty", "only metadata", "only state", "a file"))
    if content == "a file":
        target.write_text("")
        return f"{target}: {content}"
    target.mkdir()
    if content != "empty":
        part = content.split()[1]
        shutil.copytree(last / part, target / part)
    return f"{target}: {content}"


def add_odd_name(workdir: Path, finished_run: FinishedRun, rng: random.Random) -> str:
    """Copy the newest checkpoint to a name that resembles the number of a step."""
    del finished_run
    last = step_folders(workdir)[-1]
    name = rng.choice(("0012", "\N{SUPERSCRIPT TWO}", "-12", "1e3", "step_12", "12 (copy)"))
    name = rng.choice((name, "12.orbax-checkpoint-tmp", "12.orbax-checkpoint-tmp-1", "9" * 30))
    target = last.with_name(name)
    shutil.copytree(last, target, dirs_exist_ok=True)
    return f"{target}: a copy of {last.name}"


def delete_part(workdir: Path, finished_run: FinishedRun, rng: random.Random) -> str:
    """Delete a random folder inside a checkpoint."""
    del finished_run
    folder = draw_step(workdir, rng)
    inner = [path for path in sorted(folder.rglob("*")) if path.is_dir()]
    path = rng.choice(inner) if inner else folder
    shutil.rmtree(path)
    return f"{path}: folder deleted"


def damage_several(workdir: Path, finished_run: FinishedRun, rng: random.Random) -> str:
    """Damage the newest two or three checkpoints."""
    del finished_run
    folders = step_folders(workdir)[-rng.choice((2, 3)) :]
    return "; ".join(_make_unusable(folder, rng) for folder in folders)


def damage_all(workdir: Path, finished_run: FinishedRun, rng: random.Random) -> str:
    """Damage every checkpoint."""
    del finished_run
    return "; ".join(_make_unusable(folder, rng) for folder in step_folders(workdir))


def _make_unusable(folder: Path, rng: random.Random) -> str:
    """Truncate the metadata of a checkpoint or empty more than half of its array files."""
    if rng.random() < 0.3:
        return truncate(folder / "metadata" / "metadata", rng)
    paths = [path for path in sorted(folder.rglob("d/*")) if path.is_file()]
    if not paths:
        return f"{folder}: has no arrays"
    return " and ".join(empty(path, rng) for path in paths[: len(paths) // 2 + 1])


def delete_newest(workdir: Path, finished_run: FinishedRun, rng: random.Random) -> str:
    """Delete the newest one or two checkpoints."""
    del finished_run
    folders = step_folders(workdir)[-rng.choice((1, 2)) :]
    for folder in folders:
        shutil.rmtree(folder)
    return f"{', '.join(map(str, folders))}: deleted"


def remove_checkpoints(workdir: Path, finished_run: FinishedRun, rng: random.Random) -> str:
    """Delete the folder of the checkpoints, empty it, or replace it by a file."""
    del finished_run
    folder, change = workdir / "checkpoints", rng.choice(("deleted", "emptied", "a file"))
    shutil.rmtree(folder, ignore_errors=True)
    if change == "emptied":
        folder.mkdir()
    elif change == "a file":
        folder.write_text("")
    return f"{folder}: {change}"


def damage_run_json(workdir: Path, finished_run: FinishedRun, rng: random.Random) -> str:
    """Damage or delete `run.json`, or replace one of its values."""
    del finished_run
    path = workdir / "run.json"
    if not path.is_file():
        return f"{path}: not there"
    if rng.random() < 0.6:
        return rng.choice(list(FILE_DAMAGES.values()))(path, rng)
    try:
        content = json.loads(path.read_text())
        name, value = rng.choice(
            [
                *(("saved", value) for value in ("8", -1, 10**9, None, [8], 3.5, True)),
                *(("starts", value) for value in ([], ["x"], {}, None)),
                ("config", {}),
                ("config", {**content["config"], "seed": 7}),
                ("dataset", None),
                ("model", []),
            ]
        )
        content[name] = value
    except (ValueError, KeyError, TypeError):
        return empty(path, rng)
    path.write_text(json.dumps(content))
    return f"{path}: {name} is {value!r:.50}"


def damage_log(workdir: Path, finished_run: FinishedRun, rng: random.Random) -> str:
    """Damage or delete `metrics.jsonl`, append an odd line, or replace it by a folder."""
    del finished_run
    path = workdir / "metrics.jsonl"
    if not path.is_file():
        return f"{path}: not there"
    file_damage = rng.choice((*FILE_DAMAGES.values(), None))
    if file_damage:
        return file_damage(path, rng)
    lines = ("nonsense", "[1]", "null", '{"step": "3", "loss": 1}', '{"step": 3, "loss": "x"}')
    lines += ('{"step": true}', '{"step": 3, "loss": {}}', "[" * 9999, "9" * 5000, "a folder")
    line = rng.choice(lines)
    if line == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_text(f"{path.read_text(errors='replace')}{line}\n")
    return f"{path}: with {line[:40]!r}"


def damage_other_file(workdir: Path, finished_run: FinishedRun, rng: random.Random) -> str:
    """Damage, delete or replace a file or folder of a workdir outside its checkpoints."""
    del finished_run
    name = rng.choice(("tensorboard", "reconstruction.png", "summary.html", "lock"))
    name = rng.choice((name, "checkpoints_damaged"))
    path = workdir / name
    if path.is_dir():
        shutil.rmtree(path)
        if rng.random() < 0.5:
            path.write_text("")
            return f"{path}: a file"
        return f"{path}: deleted"
    if path.is_file() and rng.random() < 0.5:
        return truncate(path, rng)
    path.unlink(missing_ok=True)
    if name == "checkpoints_damaged":
        path.write_text("")
        return f"{path}: a file"
    path.mkdir()
    return f"{path}: a folder"


KINDS: dict[str, Damage] = {
    **{name: in_checkpoint(file_damage) for name, file_damage in FILE_DAMAGES.items()},
    "two files swapped": swap_files,
    "two steps swapped": swap_steps,
    "foreign checkpoint": insert_foreign,
    "unfinished newer step": add_incomplete_step,
    "odd name": add_odd_name,
    "folder of a checkpoint missing": delete_part,
    "several checkpoints": damage_several,
    "all checkpoints": damage_all,
    "newest checkpoint deleted": delete_newest,
    "checkpoints folder gone": remove_checkpoints,
    "run.json": damage_run_json,
    "metrics.jsonl": damage_log,
    "other files": damage_other_file,
}
PAIR = "two of these"


def draw_trial(number: int, seed: int) -> tuple[str, random.Random]:
    """Return the kind of damage of a trial and the generator of its other random choices."""
    names = [*KINDS, "flipped bit", "flipped bit", PAIR, PAIR, PAIR]  # kinds with many cases
    return names[number % len(names)], random.Random(f"{seed}-{number}")


def apply_damage(kind: str, workdir: Path, finished_run: FinishedRun, rng: random.Random) -> str:
    """Damage a workdir and return a description.

    A damage of a pair that is impossible, such as that of a deleted file, is left out.
    """
    if kind != PAIR:
        return KINDS[kind](workdir, finished_run, rng)
    descriptions = []
    for name in rng.sample(list(KINDS), 2):
        try:
            descriptions.append(KINDS[name](workdir, finished_run, rng))
        except (OSError, IndexError, ValueError) as error:
            descriptions.append(f"{name}: not possible any more ({error})")
    return " AND ".join(descriptions)


# ---- trials

HARMLESS, RECOVERED, REFUSED, FAILED = "harmless", "recovered", "refused", "FAILED"
OUTCOMES = (HARMLESS, RECOVERED, REFUSED, FAILED)

EXTRAS_EVERY = 10
"""One trial in so many continues training, one in so many writes the page: both take longest."""

HANG_SECONDS = 120.0
MAX_MEMORY = 2**30
"""Permitted bytes for restoring about 200 kB."""
MAX_ERROR_LENGTH = 1500
"""Characters of an error of one line, which may name four checkpoints with their defects."""
MAX_QUOTE_LENGTH = 400
"""Characters of a warning or an error in the report."""
ADVICE_WORDS = ("restore", "choose", "make room", "check", "remove")


class Trial(NamedTuple):
    """Result of a trial.

    Attributes:
      kind: one of `KINDS`, or `PAIR`.
      damage: description of the damage.
      outcome: one of `OUTCOMES`.
      output: warnings and error of the start, after the problems of a failed trial.
    """

    kind: str
    damage: str
    outcome: str
    output: str


class StartResult(NamedTuple):
    """Result of the start of a damaged run.

    Attributes:
      state: restored state; None if the start raised an error.
      error: the error, or None; any other than `InputError` is a failure.
      warnings: logged warnings.
      memory: bytes by which the start raised the peak memory of the process.
    """

    state: TrainState | None
    error: Exception | None
    warnings: list[str]
    memory: int


@contextlib.contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Yield a list to which warnings of absl are added instead of being printed."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("absl")
    before, logger.handlers = logger.handlers, [handler]
    try:
        yield lines
    finally:
        logger.handlers = before


def start_damaged(
    finished_run: FinishedRun, workdir: Path, *, best: bool, page: bool
) -> StartResult:
    """Start a damaged run so that it restores a checkpoint and trains nothing.

    Args:
      finished_run: the run before the damage.
      workdir: damaged copy of its workdir.
      best: whether the best checkpoint is kept.
      page: whether to write the page of the run.
    """
    memory = _peak_memory()
    state, error = None, None
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    with collect_warnings() as warnings:
        try:
            state = finished_run.start(workdir, 1, best=best, page=page)
        except Exception as raised:  # its type is checked by `refusal_problems`
            error = raised
    faulthandler.cancel_dump_traceback_later()
    return StartResult(state, error, warnings, _peak_memory() - memory)


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def assess_start(
    finished_run: FinishedRun, workdir: Path, before: dict[str, str], result: StartResult
) -> tuple[str, list[str]]:
    """Return the outcome of the start of a damaged run, and its problems.

    Args:
      finished_run: the run before the damage.
      workdir: damaged copy of its workdir, after the start.
      before: hashes of the files of the copy, after the damage and before the start.
      result: result of the start.
    """
    problems = [*deletion_problems(workdir, before)]
    if result.memory > MAX_MEMORY:
        problems.append(f"took {result.memory / 2**20:.0f} MiB")
    intact = [step for step in STEPS if is_intact(finished_run, before, step)]
    if result.state is None:
        problems += refusal_problems(result.error, workdir, before, intact, finished_run)
        return REFUSED, problems
    step, hashes = int(result.state.step), state_hashes(result.state)
    if step not in finished_run.states:
        return FAILED, [*problems, f"started from scratch: the state is of step {step}"]
    if hashes != finished_run.states[step]:
        problems.append(f"wrong values in the state of step {step}")
    if intact and step < intact[-1]:
        problems.append(f"went on from step {step} although step {intact[-1]} is intact")
    output = "\n".join(result.warnings)
    is_named = f"checkpoints/{LAST}" in output or f"step {LAST} was saved" in output
    if step < LAST and not is_named:
        problems.append(f"went on from step {step} and no warning names step {LAST}")
    lost_steps = finished_run.logged - set(logged_steps(workdir))
    missing = sorted(number for number in lost_steps if number <= step)
    if missing and "metrics.jsonl" not in output:
        problems.append(f"the log has lost steps {missing} and no warning says so")
    return HARMLESS if step == LAST else RECOVERED, problems


def refusal_problems(
    error: Exception | None,
    workdir: Path,
    before: dict[str, str],
    intact: list[int],
    finished_run: FinishedRun,
) -> list[str]:
    """Return the problems of a refused start.

    The error must be an `InputError` of one line that names a file and what to do. A start must not
    be refused if a checkpoint and all other files are intact.

    Args:
      error: error of the start.
      workdir: damaged copy of the workdir.
      before: hashes of its files before the start.
      intact: steps whose checkpoints are intact.
      finished_run: the run before the damage.
    """
    message = str(error)
    if not isinstance(error, InputError):
        return [f"{type(error).__name__} instead of an error of one line: {message[:300]}"]
    problems = []
    if "\n" in message or len(message) > MAX_ERROR_LENGTH:
        problems.append(
            f"the error has several lines or is too long ({len(message)} characters): "
            f"{message[:MAX_QUOTE_LENGTH]!r}"
        )
    if str(workdir) not in message:
        problems.append(f"the error names no file: {message[:300]}")
    if not any(word in message for word in ADVICE_WORDS):
        problems.append(f"the error does not say what to do: {message[:300]}")
    named = [str(workdir / name) in message for name in before if "/" not in name]
    expected = file_hashes(finished_run.workdir)
    others = [name for name in expected if not name.startswith("checkpoints/")]
    others_intact = all(before.get(name) == expected[name] for name in others)
    if intact and not any(named) and others_intact:
        problems.append(f"refused although step {intact[-1]} is intact")
    return problems


def is_intact(finished_run: FinishedRun, before: dict[str, str], step: int) -> bool:
    """Return whether all files of the checkpoint of a step are as they were saved."""
    folder = f"checkpoints/{step}/"
    files = {
        name.removeprefix(folder): content_hash
        for name, content_hash in before.items()
        if name.startswith(folder)
    }
    return files == finished_run.files[step]


def deletion_problems(workdir: Path, before: dict[str, str]) -> Iterator[str]:
    """Yield a problem if a start deleted files of checkpoints instead of moving them."""
    after = Counter(
        content_hash
        for name, content_hash in file_hashes(workdir).items()
        if _is_checkpoint_file(name)
    )
    deleted = []
    for name, content_hash in before.items():
        if _is_checkpoint_file(name):
            after[content_hash] -= 1
            if after[content_hash] < 0:
                deleted.append(name)
    if deleted:
        yield f"{len(deleted)} files were deleted, not moved: {deleted[:3]}"


def _is_checkpoint_file(name: str) -> bool:
    """Return whether a file belongs to a finished checkpoint, which may be damaged."""
    folders = ("checkpoints/", "checkpoints_damaged/")
    return name.startswith(folders) and "orbax-checkpoint-tmp" not in name


def training_problems(finished_run: FinishedRun, workdir: Path, best: bool) -> Iterator[str]:
    """Yield the problems of continued training after a restore: an error, or other values."""
    with collect_warnings():
        try:
            finished_run.start(workdir, LATER, best=best, page=False)
        except Exception as error:
            yield f"cannot continue training: {type(error).__name__}: {error}"
            return
    if array_hashes(workdir / "checkpoints" / str(LATER)) != finished_run.later_hashes():
        yield f"continued training has other values at step {LATER}"


def run_numbered_trial(
    number: int, seed: int, finished_run: FinishedRun, root: Path, *, quick: bool = False
) -> Trial:
    """Run a trial of a campaign.

    Args:
      number: number of the trial.
      seed: seed of the campaign.
      finished_run: the run to damage a copy of.
      root: folder of the copy, which is kept if the trial failed.
      quick: whether to leave out continued training and the page.
    """
    kind, rng = draw_trial(number, seed)
    best = rng.random() < 0.5
    page, continue_training = (
        (number % EXTRAS_EVERY) == remainder and not quick for remainder in (3, 7)
    )

    def damage(workdir: Path) -> str:
        return apply_damage(kind, workdir, finished_run, rng)

    workdir = root / f"trial-{number}"
    return run_trial(
        kind, damage, finished_run, workdir, best, page=page, continue_training=continue_training
    )


def run_trial(
    kind: str,
    damage: Callable[[Path], str],
    finished_run: FinishedRun,
    workdir: Path,
    best: bool = False,
    *,
    page: bool = False,
    continue_training: bool = False,
) -> Trial:
    """Damage a copy of the finished run, start it, and assess the start.

    Args:
      kind: name of the damage.
      damage: function that damages a workdir and returns a description.
      finished_run: the run to damage a copy of.
      workdir: folder of the copy, which is kept if the trial failed.
      best: whether the best checkpoint is kept.
      page: whether to write the page of the run.
      continue_training: whether to continue training after a start without problems.
    """
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(finished_run.workdir, workdir)
    description = damage(workdir).replace(f"{workdir}/", "")
    before = file_hashes(workdir)
    result = start_damaged(finished_run, workdir, best=best, page=page)
    outcome, problems = assess_start(finished_run, workdir, before, result)
    if result.state is not None and not problems and continue_training:
        problems += training_problems(finished_run, workdir, best)
    lines = [*result.warnings, *([str(result.error)] if result.error else [])]
    lines = [line for line in lines if "peak learning rate" not in line]
    output = "; ".join(f"{line:.{MAX_QUOTE_LENGTH}}" for line in lines)
    if not problems:
        shutil.rmtree(workdir)
        return Trial(kind, description, outcome, output.replace(f"{workdir}", ""))
    return Trial(kind, description, FAILED, " | ".join(problems) + f" [output: {output}]")


# ---- campaign and command line


def print_trials(first: int, times: int, seed: int, root: Path) -> None:
    """Run trials in this process, which one of them may end, and print each as a line of JSON.

    Args:
      first: number of the first trial.
      times: number of trials.
      seed: seed of the campaign.
      root: folder of the dataset and of all runs.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    faulthandler.enable()
    data = root / "data"
    finished_run = FinishedRun(
        root / f"finished-run-{first}", data if data.exists() else make_data(root)
    )
    for number in range(first, first + times):
        trial = run_numbered_trial(number, seed, finished_run, root)
        print(json.dumps([number, *trial]), flush=True)


def run_trials(first: int, times: int, seed: int, root: Path) -> dict[int, Trial]:
    """Run trials in another process, and in a new one after a trial that ended it.

    Args:
      first: number of the first trial.
      times: number of trials.
      seed: seed of the campaign.
      root: folder of the dataset and of all runs.

    Returns:
      The trials by number.

    Raises:
      RuntimeError: the process failed before the first result, other than by a crash.
    """
    trials: dict[int, Trial] = {}
    end, number = first + times, first
    while number < end:
        command = [sys.executable, "-m", "tests.campaigns.damage", f"--root={root}"]
        command += [f"--first={number}", f"--times={end - number}", f"--seed={seed}", "--worker"]
        with (root / "errors").open("w+") as errors:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**environment(), "JAX_COMPILATION_CACHE_DIR": str(root / "cache")},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            for line in process.stdout or ():
                if line.startswith("["):
                    number, *values = json.loads(line)
                    trials[number] = Trial(*values)
                    print(f"\r{number + 1 - first}/{times}", end="", file=sys.stderr, flush=True)
                    number += 1
            status = process.wait()
            if status == 0:
                break
            errors.seek(0)
            tail = errors.read()[-3000:]
        if not trials and number == first and "Current thread" not in tail:
            raise RuntimeError(tail)
        kind, _ = draw_trial(number, seed)
        trials[number] = Trial(kind, "?", FAILED, f"the interpreter ended with {status}: {tail}")
        number += 1
    print(file=sys.stderr)
    return trials


def format_table(trials: dict[int, Trial]) -> str:
    """Return a Markdown table of the outcomes by kind of damage, followed by all failures."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for trial in trials.values():
        counts[trial.kind][trial.outcome] += 1
    lines = [f"| damage | {' | '.join(OUTCOMES)} |", "|---|---:|---:|---:|---:|"]
    for kind in (*KINDS, PAIR):
        if counts[kind]:
            lines.append(f"| {kind} | {_format_cells(counts[kind])} |")
    lines.append(f"| all | {_format_cells(sum(counts.values(), Counter()))} |")
    for number, trial in trials.items():
        if trial.outcome == FAILED:
            lines += ["", f"{number} FAILED, {trial.kind}: {trial.damage}", f"    {trial.output}"]
    return "\n".join(lines)


def _format_cells(counts: Counter[str]) -> str:
    return " | ".join(str(counts[outcome]) for outcome in OUTCOMES)


def main() -> None:
    """Run a campaign as the command line says and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200, help="number of trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run one trial of the campaign, by its number")
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--verbose", action="store_true", help="print all trials, not only failures"
    )
    options = parser.parse_args()
    if options.worker:
        print_trials(options.first, options.times, options.seed, options.root)
        return
    root = Path(tempfile.mkdtemp(prefix="damage-"))
    first, times = (0, options.times) if options.only is None else (options.only, 1)
    begin, load = time.monotonic(), os.getloadavg()[0]
    trials = run_trials(first, times, options.seed, root)
    if options.verbose or options.only is not None:
        for number, trial in trials.items():
            print(f"{number} {trial.kind}: {trial.outcome}\n    {trial.damage}\n    {trial.output}")
    print(format_table(trials))
    minutes = (time.monotonic() - begin) / 60
    print(f"\n{minutes:.1f} min, load {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end")
    failed = [number for number, trial in trials.items() if trial.outcome == FAILED]
    if failed:
        sys.exit(f"{len(failed)} of {len(trials)} failed; --only=NUMBER repeats one; see {root}")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
