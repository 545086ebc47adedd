"""Damaged runs: `python -m tests.campaigns.damage --times=200 --seed=0`.

Every trial copies the folder of a finished run, damages it in one or two seeded ways, and starts
the run again. That may end in three ways: as if nothing had happened, with the checkpoint before
and a warning, or with one clear line. Everything else is a failure: wrong values, a silent start
from scratch, a traceback, a crash, a hang, something lost.

The trials run in a process of their own, so that one that ends the interpreter is a failure too.
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
from tests.campaigns.kill import digest, hashes, make_data
from tests.launch import ROOT, environment
from tests.shrink import small_config

HARMLESS, RECOVERED, REFUSED, FAILED = "as if nothing", "recovered", "refused", "FAILED"
OUTCOMES = (HARMLESS, RECOVERED, REFUSED, FAILED)

EVERY, LAST, LATER = 2, 8, 10
"""Steps: between checkpoints, of the finished run, and where some trials go on to."""
STEPS = list(range(EVERY, LAST + 1, EVERY))
GO_ON_EVERY = 10
"""One trial in so many goes on training; one in so many makes the page, which takes longest."""

HANG_SECONDS = 120.0
MOST_MEMORY = 2**30
"""More than this for restoring some 200 kB is a failure."""
LONGEST_ERROR = 1500
"""Characters of a line that names up to four checkpoints with what is wrong with each."""
MOST_TOLD = 400
ADVICE = ("restore", "choose", "make room", "check", "remove")
FOREIGN = ("seed", "variant", "dataset")


class Trial(NamedTuple):
    """Outcome of a damaged run.

    Attributes:
      kind: of the damage.
      done: what exactly was damaged.
      outcome: one of `OUTCOMES`.
      told: warnings and error.
    """

    kind: str
    done: str
    outcome: str
    told: str


class Specimen:
    """A finished run, what must come back from it, and checkpoints of other runs."""

    def __init__(self, root: Path, data_dir: Path) -> None:
        """Trains it.

        Args:
          root: a folder for everything.
          data_dir: with `bigearthnet_s1` built.
        """
        self._data = data_dir
        self._root = root
        self.workdir = root / "finished"
        self._state = jax.device_get(self.start(self.workdir, LAST, page=False))
        self.checkpoints = self.workdir / "checkpoints"
        self.states = {step: hashes(self.checkpoints / str(step)) for step in STEPS}
        self.prints = {step: fingerprint(self.checkpoints / str(step)) for step in STEPS}
        self.logged = set(logged_steps(self.workdir))

    def start(
        self, workdir: Path, steps: int, *, best: bool = True, page: bool = True
    ) -> TrainState:
        """Starts the run in this process and returns the state it ends with.

        Args:
          workdir: to start or to go on in.
          steps: to have done; 1 restores and trains nothing.
          best: whether the best checkpoint is kept, which makes Orbax read metrics.
          page: whether to make the page.
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

    def later(self) -> dict[str, str]:
        """The arrays after `LATER` steps."""
        workdir = self._root / "later"
        if not workdir.exists():
            shutil.copytree(self.workdir, workdir)
            self.start(workdir, LATER, page=False)
        return hashes(workdir / "checkpoints" / str(LATER))

    def foreign(self, what: str, step: int) -> Path:
        """The checkpoint of a step of a run that differs in its seed, variant or dataset."""
        place = self._root / "foreign" / what
        target = place / "checkpoints" / str(step)
        if target.exists():
            return target
        told = json.loads((self.checkpoints / str(LAST) / "metadata" / "metadata").read_text())
        for name in ("sha256", "step", "arrays"):
            del told[name]
        params = jax.tree.map(lambda leaf: leaf + 1, self._state.params)
        if what == "seed":
            told["config"]["seed"] = told["order"]["seed"] = 1
        elif what == "variant":
            told["config"]["model"]["variant"] = told["model"]["variant"] = "base"
            params = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), params)
        else:
            told["dataset"]["checksum"] = "0" * 64
        other = self._state.replace(params=params, step=np.int32(step))
        with contextlib.closing(
            CheckpointManager(place / "new", RetentionPolicy(1))
        ) as checkpoints:
            checkpoints.save(step, sharding.replicate(other), told, {})
        target.parent.mkdir(parents=True, exist_ok=True)
        return (place / "new" / "checkpoints" / str(step)).rename(target)


# ---- what lies on the disk


def fingerprint(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder by its relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def logged_steps(workdir: Path) -> Iterator[int]:
    """Steps whose loss is in the log."""
    path = workdir / "metrics.jsonl"
    for text in path.read_text(errors="replace").split("\n") if path.is_file() else ():
        with contextlib.suppress(ValueError, TypeError):
            line = json.loads(text)
            if isinstance(line, dict) and "loss" in line and isinstance(line.get("step"), int):
                yield line["step"]


def arrays(state: TrainState) -> dict[str, str]:
    """The same as `kill.hashes`, of a state in memory."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): digest(np.asarray(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


# ---- damages: each changes a workdir and says what it did

Damage = Callable[[Path, Specimen, random.Random], str]


def truncate(path: Path, chance: random.Random) -> str:
    """Cuts a file off somewhere."""
    content = path.read_bytes()
    size = chance.randrange(max(1, len(content)))
    path.write_bytes(content[:size])
    return f"{path}: cut to {size} of {len(content)} bytes"


def flip(path: Path, chance: random.Random) -> str:
    """Turns one bit over."""
    content = bytearray(path.read_bytes())
    if not content:
        return f"{path}: empty, nothing to turn over"
    place, bit = chance.randrange(len(content)), chance.randrange(8)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"{path}: bit {bit} of byte {place} of {len(content)}"


def overwrite(path: Path, chance: random.Random) -> str:
    """Puts zeros or noise in the place of some bytes, as a bad block does."""
    content = path.read_bytes()
    place = chance.randrange(max(1, len(content)))
    size = min(chance.choice((4, 64, 512, 4096)), len(content) - place)
    block = bytes(size) if chance.random() < 0.5 else chance.randbytes(size)
    path.write_bytes(content[:place] + block + content[place + size :])
    return f"{path}: {size} bytes from {place} of {len(content)}"


def empty(path: Path, chance: random.Random) -> str:
    """Leaves nothing of its content."""
    del chance
    path.write_bytes(b"")
    return f"{path}: emptied"


def delete(path: Path, chance: random.Random) -> str:
    """Removes a file."""
    del chance
    path.unlink()
    return f"{path}: deleted"


def swap(one: Path, other: Path) -> str:
    """Exchanges the names of two files or folders."""
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)
    return f"{one} and {other} exchanged"


FILE_DAMAGES = {
    "truncated file": truncate,
    "flipped bit": flip,
    "overwritten bytes": overwrite,
    "deleted file": delete,
    "emptied file": empty,
}


def step_folders(workdir: Path) -> list[Path]:
    """The checkpoints, the newest last."""
    found = [path for path in (workdir / "checkpoints").glob("*") if path.name in map(str, STEPS)]
    return sorted((path for path in found if path.is_dir()), key=lambda path: int(path.name))


def pick_step(workdir: Path, chance: random.Random) -> Path:
    """A checkpoint, mostly the newest."""
    folders = step_folders(workdir)
    return folders[-1] if chance.random() < 0.75 else chance.choice(folders)


def role(path: Path) -> str:
    """Return the role of a file of a checkpoint; files of arrays have random names."""
    name = "*" if path.parent.name == "d" else path.name
    return f"{path.parent.name}/{name}".lstrip("0123456789/")


def pick_file(folder: Path, chance: random.Random) -> Path:
    """A file of a checkpoint: one of a role, or one that a random byte of it hits."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        return folder / "nothing"
    if chance.random() < 0.4:
        return chance.choices(paths, [path.stat().st_size + 1 for path in paths])[0]
    wanted = chance.choice(sorted({role(path) for path in paths}))
    return chance.choice([path for path in paths if role(path) == wanted])


def in_checkpoint(change: Callable[[Path, random.Random], str]) -> Damage:
    """A damage of a random file of a checkpoint."""

    def damage(workdir: Path, specimen: Specimen, chance: random.Random) -> str:
        del specimen
        return change(pick_file(pick_step(workdir, chance), chance), chance)

    return damage


def two_files(workdir: Path, specimen: Specimen, chance: random.Random) -> str:
    """Two files of one checkpoint, or the same one of two, change places."""
    del specimen
    folder = pick_step(workdir, chance)
    one = pick_file(folder, chance)
    other = pick_file(folder, chance)
    if chance.random() < 0.5:
        elsewhere = chance.choice([path for path in step_folders(workdir) if path != folder])
        same = [p for p in sorted(elsewhere.rglob("*")) if p.is_file() and role(p) == role(one)]
        other = chance.choice(same or [other])
    return swap(one, other) if one != other else f"{one}: left alone"


def two_steps(workdir: Path, specimen: Specimen, chance: random.Random) -> str:
    """Two checkpoints, or the arrays of two, change places."""
    del specimen
    one, other = chance.sample(step_folders(workdir), 2)
    part = chance.choice(("", "", "state", "metadata"))
    return swap(one / part, other / part)


def foreign(workdir: Path, specimen: Specimen, chance: random.Random) -> str:
    """A checkpoint of another run, as the next one, in the place of one, or under a wrong name."""
    what, how = chance.choice(FOREIGN), chance.choice(("next", "instead", "misnamed", "arrays"))
    step = pick_step(workdir, chance)
    source, target = specimen.foreign(what, int(step.name)), step
    if how == "next":
        source, target = specimen.foreign(what, LATER), step.with_name(str(LATER))
    elif how == "misnamed":
        target = step.with_name(str(LATER))
    elif how == "arrays":
        source, target = source / "state", step / "state"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return f"{target}: of a run with another {what}, {how}"


def empty_step(workdir: Path, specimen: Specimen, chance: random.Random) -> str:
    """A newer step folder that is empty, holds only metadata, or is no folder."""
    del specimen
    target, last = workdir / "checkpoints" / str(LATER), step_folders(workdir)[-1]
    shutil.rmtree(target, ignore_errors=True)
    how = chance.choice(("empty", "only metadata", "only state", "a file"))
    if how == "a file":
        target.write_text("")
        return f"{target}: {how}"
    target.mkdir()
    if how != "empty":
        part = how.split()[1]
        shutil.copytree(last / part, target / part)
    return f"{target}: {how}"


def odd_name(workdir: Path, specimen: Specimen, chance: random.Random) -> str:
    """A copy of a checkpoint under a name that is nearly one of ours."""
    del specimen
    last = step_folders(workdir)[-1]
    name = chance.choice(("0012", "\N{SUPERSCRIPT TWO}", "-12", "1e3", "step_12", "12 (copy)"))
    name = chance.choice((name, "12.orbax-checkpoint-tmp", "12.orbax-checkpoint-tmp-1", "9" * 30))
    target = last.with_name(name)
    shutil.copytree(last, target, dirs_exist_ok=True)
    return f"{target}: a copy of {last.name}"


def missing_part(workdir: Path, specimen: Specimen, chance: random.Random) -> str:
    """A checkpoint without one of its folders."""
    del specimen
    folder = pick_step(workdir, chance)
    inner = [path for path in sorted(folder.rglob("*")) if path.is_dir()]
    path = chance.choice(inner) if inner else folder
    shutil.rmtree(path)
    return f"{path}: folder deleted"


def several(workdir: Path, specimen: Specimen, chance: random.Random) -> str:
    """The newest two or three checkpoints."""
    del specimen
    folders = step_folders(workdir)[-chance.choice((2, 3)) :]
    return "; ".join(_spoil(folder, chance) for folder in folders)


def all_of_them(workdir: Path, specimen: Specimen, chance: random.Random) -> str:
    """Every checkpoint."""
    del specimen
    return "; ".join(_spoil(folder, chance) for folder in step_folders(workdir))


def _spoil(folder: Path, chance: random.Random) -> str:
    """Damages what is needed of a checkpoint, so that it cannot be sound."""
    if chance.random() < 0.3:
        return truncate(folder / "metadata" / "metadata", chance)
    data = [path for path in sorted(folder.rglob("d/*")) if path.is_file()]
    if not data:
        return f"{folder}: has no arrays"
    return " and ".join(empty(path, chance) for path in data[: len(data) // 2 + 1])


def newest_gone(workdir: Path, specimen: Specimen, chance: random.Random) -> str:
    """The newest checkpoints are deleted."""
    del specimen
    gone = step_folders(workdir)[-chance.choice((1, 2)) :]
    for folder in gone:
        shutil.rmtree(folder)
    return f"{', '.join(map(str, gone))}: deleted"


def all_gone(workdir: Path, specimen: Specimen, chance: random.Random) -> str:
    """The folder of the checkpoints is deleted, emptied or no folder."""
    del specimen
    folder, how = workdir / "checkpoints", chance.choice(("deleted", "emptied", "a file"))
    shutil.rmtree(folder, ignore_errors=True)
    if how == "emptied":
        folder.mkdir()
    elif how == "a file":
        folder.write_text("")
    return f"{folder}: {how}"


def run_json(workdir: Path, specimen: Specimen, chance: random.Random) -> str:
    """`run.json` is damaged, deleted or edited."""
    del specimen
    path = workdir / "run.json"
    if not path.is_file():
        return f"{path}: not there"
    if chance.random() < 0.6:
        return chance.choice(list(FILE_DAMAGES.values()))(path, chance)
    try:
        content = json.loads(path.read_text())
        name, value = chance.choice(
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
        return empty(path, chance)
    path.write_text(json.dumps(content))
    return f"{path}: {name} is {value!r:.50}"


def metrics_log(workdir: Path, specimen: Specimen, chance: random.Random) -> str:
    """`metrics.jsonl` is damaged, deleted, edited or no file."""
    del specimen
    path = workdir / "metrics.jsonl"
    if not path.is_file():
        return f"{path}: not there"
    how = chance.choice((*FILE_DAMAGES.values(), None))
    if how:
        return how(path, chance)
    odd = ("nonsense", "[1]", "null", '{"step": "3", "loss": 1}', '{"step": 3, "loss": "x"}')
    odd = (*odd, '{"step": true}', '{"step": 3, "loss": {}}', "[" * 9999, "9" * 5000, "a folder")
    line = chance.choice(odd)
    if line == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_text(f"{path.read_text(errors='replace')}{line}\n")
    return f"{path}: with {line[:40]!r}"


def other_files(workdir: Path, specimen: Specimen, chance: random.Random) -> str:
    """Damage a file of a workdir outside its checkpoints."""
    del specimen
    name = chance.choice(("tensorboard", "reconstruction.png", "summary.html", "lock"))
    name = chance.choice((name, "checkpoints_damaged"))
    path = workdir / name
    if path.is_dir():
        shutil.rmtree(path)
        if chance.random() < 0.5:
            path.write_text("")
            return f"{path}: a file"
        return f"{path}: deleted"
    if path.is_file() and chance.random() < 0.5:
        return truncate(path, chance)
    path.unlink(missing_ok=True)
    if name == "checkpoints_damaged":
        path.write_text("")
        return f"{path}: a file"
    path.mkdir()
    return f"{path}: a folder"


KINDS: dict[str, Damage] = {
    **{name: in_checkpoint(change) for name, change in FILE_DAMAGES.items()},
    "two files swapped": two_files,
    "two steps swapped": two_steps,
    "foreign checkpoint": foreign,
    "unfinished newer step": empty_step,
    "odd name": odd_name,
    "folder of a checkpoint missing": missing_part,
    "several checkpoints": several,
    "all checkpoints": all_of_them,
    "newest checkpoint deleted": newest_gone,
    "checkpoints folder gone": all_gone,
    "run.json": run_json,
    "metrics.jsonl": metrics_log,
    "other files": other_files,
}
PAIR = "two of these"


def draw(number: int, seed: int) -> tuple[str, random.Random]:
    """The kind of a trial, and the chance that decides everything else in it."""
    names = [*KINDS, "flipped bit", "flipped bit", PAIR, PAIR, PAIR]  # more of what has more cases
    return names[number % len(names)], random.Random(f"{seed}-{number}")


def inflict(kind: str, workdir: Path, specimen: Specimen, chance: random.Random) -> str:
    """Damages a workdir and says how; a pair may find nothing left to damage."""
    if kind != PAIR:
        return KINDS[kind](workdir, specimen, chance)
    done = []
    for name in chance.sample(list(KINDS), 2):
        try:
            done.append(KINDS[name](workdir, specimen, chance))
        except (OSError, IndexError, ValueError) as error:
            done.append(f"{name}: not possible any more ({error})")
    return " AND ".join(done)


# ---- judging


class Attempt(NamedTuple):
    """Result of a start of a damaged run.

    Attributes:
      state: restored; None if it was refused.
      error: why it was refused; any other error is a failure.
      warnings: that were told.
      seconds: it took.
      memory: bytes by which it raised the highest memory.
    """

    state: TrainState | None
    error: Exception | None
    warnings: list[str]
    seconds: float
    memory: int


@contextlib.contextmanager
def absl_records() -> Iterator[list[str]]:
    """The warnings of the block, which are not printed."""
    told: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("absl")
    before, logger.handlers = logger.handlers, [handler]
    try:
        yield told
    finally:
        logger.handlers = before


def attempt(specimen: Specimen, workdir: Path, *, best: bool, page: bool) -> Attempt:
    """Starts a damaged run so that it restores and trains nothing."""
    begin, memory = time.monotonic(), _peak()
    state, error = None, None
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    with absl_records() as warnings:
        try:
            state = specimen.start(workdir, 1, best=best, page=page)
        except Exception as found:  # whatever it is, it is to be judged
            error = found
    faulthandler.cancel_dump_traceback_later()
    return Attempt(state, error, warnings, time.monotonic() - begin, _peak() - memory)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def judge(
    specimen: Specimen, workdir: Path, before: dict[str, str], tried: Attempt
) -> tuple[str, list[str]]:
    """The outcome of an attempt, and what is wrong with it.

    Args:
      specimen: the run as it was.
      workdir: after the attempt.
      before: fingerprint of the workdir after the damage and before the attempt.
      tried: the attempt.
    """
    problems = [*lost(workdir, before)]
    if tried.memory > MOST_MEMORY:
        problems.append(f"took {tried.memory / 2**20:.0f} MiB")
    sound = [step for step in STEPS if is_untouched(specimen, before, step)]
    if tried.state is None:
        return REFUSED, problems + refusal_problems(tried.error, workdir, before, sound, specimen)
    step, found = int(tried.state.step), arrays(tried.state)
    if step not in specimen.states:
        return FAILED, [*problems, f"started from scratch: the state is of step {step}"]
    if found != specimen.states[step]:
        problems.append(f"wrong values in the state of step {step}")
    if sound and step < sound[-1]:
        problems.append(f"went on from step {step} although step {sound[-1]} is sound")
    told = "\n".join(tried.warnings)
    if step < LAST and f"checkpoints/{LAST}" not in told and f"step {LAST} was saved" not in told:
        problems.append(f"went on from step {step} and no warning names step {LAST}")
    left = set(logged_steps(workdir))
    gap = sorted(number for number in specimen.logged - left if number <= step)
    if gap and "metrics.jsonl" not in told:
        problems.append(f"the log has lost steps {gap} and no warning says so")
    return HARMLESS if step == LAST else RECOVERED, problems


def refusal_problems(
    error: Exception | None,
    workdir: Path,
    before: dict[str, str],
    sound: list[int],
    specimen: Specimen,
) -> list[str]:
    """Return the faults of a refusal: unclear message, no file, no advice, a valid checkpoint."""
    message = str(error)
    if not isinstance(error, InputError):
        return [f"{type(error).__name__} instead of one clear line: {message[:300]}"]
    problems = []
    if "\n" in message or len(message) > LONGEST_ERROR:
        problems.append(
            f"the error is no clear line of {len(message)} characters: {message[:MOST_TOLD]!r}"
        )
    if str(workdir) not in message:
        problems.append(f"the error names no file: {message[:300]}")
    if not any(word in message for word in ADVICE):
        problems.append(f"the error does not say what to do: {message[:300]}")
    named = [str(workdir / name) in message for name in before if "/" not in name]
    whole = fingerprint(specimen.workdir)
    others = [name for name in whole if not name.startswith("checkpoints/")]
    intact = all(before.get(name) == whole[name] for name in others)
    if sound and not any(named) and intact:
        problems.append(f"refused although step {sound[-1]} is sound")
    return problems


def is_untouched(specimen: Specimen, before: dict[str, str], step: int) -> bool:
    """Return whether the checkpoint of a step equals what was saved, file by file."""
    folder = f"checkpoints/{step}/"
    now = {
        name.removeprefix(folder): digest
        for name, digest in before.items()
        if name.startswith(folder)
    }
    return now == specimen.prints[step]


def lost(workdir: Path, before: dict[str, str]) -> Iterator[str]:
    """Checkpoint files that are neither in their place nor among the damaged ones."""
    after = Counter(
        content for name, content in fingerprint(workdir).items() if _is_to_be_kept(name)
    )
    gone = []
    for name, content in before.items():
        if _is_to_be_kept(name):
            after[content] -= 1
            if after[content] < 0:
                gone.append(name)
    if gone:
        yield f"{len(gone)} files were deleted, not moved: {gone[:3]}"


def _is_to_be_kept(name: str) -> bool:
    """Checkpoints are, damaged ones too; those that were never finished are not."""
    folders = ("checkpoints/", "checkpoints_damaged/")
    return name.startswith(folders) and "orbax-checkpoint-tmp" not in name


def goes_on(specimen: Specimen, workdir: Path, best: bool) -> Iterator[str]:
    """Yield the faults of a restored run that trains on: bits, log, or an error."""
    with absl_records():
        try:
            specimen.start(workdir, LATER, best=best, page=False)
        except Exception as error:
            yield f"cannot train on: {type(error).__name__}: {error}"
            return
    if hashes(workdir / "checkpoints" / str(LATER)) != specimen.later():
        yield f"trained on to other values at step {LATER}"


def trial(number: int, seed: int, specimen: Specimen, root: Path, *, quick: bool = False) -> Trial:
    """Damages a copy of the finished run, starts it, and judges what became of it.

    Args:
      number: of the trial.
      seed: of the campaign.
      specimen: the finished run.
      root: a folder for the copy, which stays there if the trial failed.
      quick: never train on or make the page.
    """
    kind, chance = draw(number, seed)
    best = chance.random() < 0.5
    page, on = ((number % GO_ON_EVERY) == place and not quick for place in (3, 7))

    def damage(workdir: Path) -> str:
        return inflict(kind, workdir, specimen, chance)

    return try_damage(kind, damage, specimen, root / f"trial-{number}", best, page=page, on=on)


def try_damage(
    kind: str,
    damage: Callable[[Path], str],
    specimen: Specimen,
    workdir: Path,
    best: bool = False,
    *,
    page: bool = False,
    on: bool = False,
) -> Trial:
    """One trial of a damage, which is given the copy and says what it did."""
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(specimen.workdir, workdir)
    done = damage(workdir).replace(f"{workdir}/", "")
    before = fingerprint(workdir)
    tried = attempt(specimen, workdir, best=best, page=page)
    outcome, problems = judge(specimen, workdir, before, tried)
    if tried.state is not None and not problems and on:
        problems += goes_on(specimen, workdir, best)
    lines = [*tried.warnings, *([str(tried.error)] if tried.error else [])]
    told = "; ".join(f"{line:.{MOST_TOLD}}" for line in lines if "peak learning rate" not in line)
    if not problems:
        shutil.rmtree(workdir)
        return Trial(kind, done, outcome, told.replace(f"{workdir}", ""))
    return Trial(kind, done, FAILED, " | ".join(problems) + f" [told: {told}]")


# ---- the campaign


def work(first: int, times: int, seed: int, root: Path) -> None:
    """Does trials and prints each as a line of JSON, in the process that may die of one."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    faulthandler.enable()
    data = root / "data"
    specimen = Specimen(root / f"specimen-{first}", data if data.exists() else make_data(root))
    for number in range(first, first + times):
        print(json.dumps([number, *trial(number, seed, specimen, root)]), flush=True)


def run(first: int, times: int, seed: int, root: Path) -> dict[int, Trial]:
    """Does trials in another process, and goes on in a new one where a trial ended it."""
    trials: dict[int, Trial] = {}
    end, number = first + times, first
    while number < end:
        command = [sys.executable, "-m", "tests.campaigns.damage", f"--root={root}"]
        command += [f"--first={number}", f"--times={end - number}", f"--seed={seed}", "--work"]
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
                    number, *rest = json.loads(line)
                    trials[number] = Trial(*rest)
                    print(f"\r{number + 1 - first}/{times}", end="", file=sys.stderr, flush=True)
                    number += 1
            status = process.wait()
            if status == 0:
                break
            errors.seek(0)
            tail = errors.read()[-3000:]
        if not trials and number == first and "Current thread" not in tail:
            raise RuntimeError(tail)
        kind, _ = draw(number, seed)
        trials[number] = Trial(kind, "?", FAILED, f"the interpreter ended with {status}: {tail}")
        number += 1
    print(file=sys.stderr)
    return trials


def table(trials: dict[int, Trial]) -> str:
    """Kinds by outcomes, and every failure, as Markdown."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in trials.values():
        counts[one.kind][one.outcome] += 1
    lines = [f"| damage | {' | '.join(OUTCOMES)} |", "|---|---:|---:|---:|---:|"]
    for kind in (*KINDS, PAIR):
        if counts[kind]:
            lines.append(f"| {kind} | {_row(counts[kind])} |")
    lines.append(f"| all | {_row(sum(counts.values(), Counter()))} |")
    for number, one in trials.items():
        if one.outcome == FAILED:
            lines += ["", f"{number} FAILED, {one.kind}: {one.done}", f"    {one.told}"]
    return "\n".join(lines)


def _row(counts: Counter[str]) -> str:
    return " | ".join(str(counts[outcome]) for outcome in OUTCOMES)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200, help="trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one trial of the campaign, by its number")
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--verbose", action="store_true", help="every trial, not only failures")
    given = parser.parse_args()
    if given.work:
        work(given.first, given.times, given.seed, given.root)
        return
    root = Path(tempfile.mkdtemp(prefix="damage-"))
    first, times = (0, given.times) if given.only is None else (given.only, 1)
    begin, load = time.monotonic(), os.getloadavg()[0]
    trials = run(first, times, given.seed, root)
    if given.verbose or given.only is not None:
        for number, one in trials.items():
            print(f"{number} {one.kind}: {one.outcome}\n    {one.done}\n    {one.told}")
    print(table(trials))
    minutes = (time.monotonic() - begin) / 60
    print(f"\n{minutes:.1f} min, load {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end")
    failed = [number for number, one in trials.items() if one.outcome == FAILED]
    if failed:
        sys.exit(f"{len(failed)} of {len(trials)} failed; --only=NUMBER repeats one; see {root}")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
