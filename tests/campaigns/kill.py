"""Exact resume under SIGKILL: `python -m tests.campaigns.kill --times=50 --seed=0`.

Every trial starts the real command in a fresh workdir, ends it at up to three moments, starts it
again until it is done, and compares what it left with what an uninterrupted run left: every array,
the metadata, and every number of the log, bit by bit.

A moment is looked for in the workdir. The process is frozen (SIGSTOP) before it is killed, so that
the phase it was hit in is what lies on the disk and not what was hoped for.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts

from sar_mixmae_jax.cli import train
from tests.launch import ROOT, call, finish, start, start_fork_server
from tests.shrink import flags
from tfds_builders.bigearthnet_s1.fake_patches import write_lists, write_patches
from tfds_builders.build import build

STEPS, EVERY = 24, 3
RUN = {"total_steps": STEPS, "checkpoint_every": EVERY, "max_to_keep": 2, "picture_every": 12}
"""Two steps an epoch, so a wrong order shows at once; two checkpoints kept, so some are removed."""

START_UP = "start-up"
RESTORE = "restoring"
COMPILE = "compiling"
BEFORE = "before the first save"
FIRST = "during the first save"
SAVE = "during a save"
UNNOTED = "saved and not yet noted"
REMOVE = "removing an old checkpoint"
FILES = "writing run.json or the log anew"
BETWEEN = "between saves"
END = "after the last save"
ASKED = "while saving after SIGTERM"
OVER = "already ended"
PHASES = (
    START_UP,
    RESTORE,
    COMPILE,
    BEFORE,
    FIRST,
    SAVE,
    UNNOTED,
    REMOVE,
    FILES,
    BETWEEN,
    END,
    ASKED,
    OVER,
)
LATE = {SAVE, UNNOTED, REMOVE, BETWEEN, ASKED}
"""Phases that come back with every checkpoint, so that a step can be asked for."""

EARLY = {START_UP, RESTORE, COMPILE}
"""Phases before the first step of a start, which take seconds."""

TIMING = ("seconds", "images_per_second")
EXACT = ("loss", "gradient_norm", "learning_rate", "epoch")
TMP = "*.orbax-checkpoint-tmp*"
PATIENCE = 300.0


class Blow(NamedTuple):
    """Signal that ends a start, and the moment it is sent.

    Attributes:
      signal: SIGKILL or SIGTERM.
      phase: to wait for; None for a moment of the clock.
      step: to have been logged before, where the phase comes more than once.
      delay: seconds to wait after that.
    """

    signal: signal.Signals
    phase: str | None
    step: int
    delay: float


class Hit(NamedTuple):
    """State of a run at the moment a signal reached it.

    Attributes:
      signal: that was sent; None if the start had ended.
      phase: one of `PHASES`, as the frozen workdir shows it.
      step: the last one that was logged.
    """

    signal: signal.Signals | None
    phase: str
    step: int


class Trial(NamedTuple):
    """One run that was ended and started again until it was done.

    Attributes:
      hits: what ended its starts.
      starts: how many there were.
      problems: in what it differs from the uninterrupted run; none if all is well.
    """

    hits: list[Hit]
    starts: int
    problems: list[str]


class Campaign:
    """A dataset and the uninterrupted run, for all trials."""

    def __init__(self, root: Path, data_dir: Path | None = None) -> None:
        """Builds the dataset and runs the command once, in this process, without interruption.

        Args:
          root: a folder for everything.
          data_dir: with `bigearthnet_s1` built; None builds it.

        Raises:
          RuntimeError: the uninterrupted run failed.
        """
        self._root = root
        self._data = data_dir or make_data(root)
        self.whole = root / "whole"
        self._code = code()
        status, output, errors = call(train.main, *self.arguments(self.whole))
        if status != 0:
            raise RuntimeError(output + errors)

    def arguments(self, workdir: Path, **changes: Any) -> list[str]:
        """The arguments of a run."""
        return [*flags(self._data, **{**RUN, **changes}), f"--workdir={workdir}"]

    def trial(self, name: str, blows: Sequence[Blow], changes: Sequence[dict[str, Any]]) -> Trial:
        """Runs the command in a fresh workdir, ends it with every blow in turn, and compares.

        Args:
          name: of its folder.
          blows: one for every start but the last.
          changes: of the flags, for every start in turn, of those that may change.

        Raises:
          RuntimeError: the code is not that of the uninterrupted run any more.
        """
        workdir = self._root / name
        shutil.rmtree(workdir, ignore_errors=True)
        hits, problems, noted = [], [], []
        for number, blow in enumerate((*blows, None)):
            with Process(self, workdir, **changes[number % len(changes)]) as process:
                hit = process.end_with(blow) if blow else None
                status, told = process.wait()
            problems += check_ending(hit, status, told)
            if hit:
                hits.append(hit)
            now = record(workdir).get("starts", [])
            if now[: len(noted)] != noted:
                problems.append("run.json lost starts that it had noted")
            noted = now
        if code() != self._code:
            raise RuntimeError("the code was changed meanwhile: run the campaign in a copy of it")
        problems += compare(self.whole, workdir)
        if not problems:
            shutil.rmtree(workdir)
        return Trial(hits, len(blows) + 1, problems)


class Process:
    """One start of the command."""

    def __init__(self, campaign: Campaign, workdir: Path, **changes: Any) -> None:
        """Starts it."""
        self._workdir = workdir
        self._starts = len(record(workdir).get("starts", []))
        self._old = set(temporary(workdir))
        self._command = start(*campaign.arguments(workdir, **changes))

    def __enter__(self) -> "Process":
        """Itself; the process is gone when its block is left."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what is still running."""
        if self._command.poll() is None:
            self._command.kill()
            self.wait()

    def wait(self) -> tuple[int, str]:
        """Its exit status, and what it wrote."""
        status, output, errors = finish(self._command, PATIENCE)
        return status, output + errors

    def end_with(self, blow: Blow) -> Hit:
        """Waits for the moment of a blow and strikes; the phase is that of the frozen process."""
        deadline = time.monotonic() + PATIENCE
        pause = 0.0 if blow.phase == FILES else 0.005  # a file is written within a millisecond
        while blow.phase and self._command.poll() is None and time.monotonic() < deadline:
            if self._is_at(blow):
                time.sleep(blow.delay)
                if self._freeze() and (blow.delay or self._is_at(blow)):
                    return self._strike(blow)
                self._command.send_signal(signal.SIGCONT)
            early = blow.phase not in EARLY | {FILES} and self._phase() in EARLY
            time.sleep(0.02 if early else pause)
        if blow.phase is None:
            time.sleep(blow.delay)
        return self._strike(blow) if self._freeze() else Hit(None, OVER, self._step())

    def _is_at(self, blow: Blow) -> bool:
        if blow.phase == FILES:
            return bool(partial(self._workdir))
        if blow.phase in LATE and self._step() < blow.step:
            return False
        if blow.phase == ASKED:  # so that the step it stops at is none that is saved anyway
            return self._step() % EVERY == 1
        return self._phase() == blow.phase

    def _freeze(self) -> bool:
        """Stops all its threads; False if it has ended."""
        if self._command.poll() is not None:
            return False
        self._command.send_signal(signal.SIGSTOP)
        while any(state not in "TtZX" for state in _states(self._command.pid)):
            time.sleep(0.0005)
        return any(state in "Tt" for state in _states(self._command.pid))

    def _strike(self, blow: Blow) -> Hit:
        if blow.phase == ASKED:
            return self._ask_and_kill()
        hit = Hit(blow.signal, self._phase(), self._step())
        self._command.send_signal(blow.signal)
        self._command.send_signal(signal.SIGCONT)
        return hit

    def _ask_and_kill(self) -> Hit:
        """SIGTERM, and SIGKILL as soon as the checkpoint that follows is being written."""
        self._command.send_signal(signal.SIGTERM)
        self._command.send_signal(signal.SIGCONT)
        while self._command.poll() is None:
            new = {*temporary(self._workdir)} - self._old
            if any(int(path.name.split(".")[0]) % EVERY for path in new):
                break
            time.sleep(0.001)
        if not self._freeze():
            return Hit(None, OVER, self._step())
        hit = Hit(signal.SIGKILL, ASKED, self._step())
        self._command.kill()
        return hit

    def _step(self) -> int:
        """The last step that was logged."""
        return max((step for step, *_ in logged(self._workdir)), default=0)

    def _phase(self) -> str:
        """Return the phase of the process, from the files of its workdir."""
        run, saved = record(self._workdir), on_disk(self._workdir)
        if len(run.get("starts", [])) <= self._starts:
            if partial(self._workdir):
                return FILES
            return RESTORE if self._has_claimed() else START_UP
        if partial(self._workdir):
            return FILES
        noted = run.get("saved") or 0
        if set(temporary(self._workdir)) - self._old:
            return SAVE if noted else FIRST
        if any(not (path / "_CHECKPOINT_METADATA").exists() for path in saved):
            return REMOVE
        newest = max((int(path.name) for path in saved), default=0)
        if newest > noted:
            return UNNOTED
        if newest == STEPS:
            return END
        if self._step() <= run["starts"][-1]["step"]:
            return COMPILE
        return BETWEEN if newest else BEFORE

    def _has_claimed(self) -> bool:
        """Return whether the process holds the lock of the workdir, without taking it."""
        try:
            folder = f"/proc/{self._command.pid}/fd"
            return any(
                os.readlink(f"{folder}/{name}") == str(self._workdir / "lock")
                for name in os.listdir(folder)
            )
        except OSError:  # a file was closed meanwhile, or the process is gone
            return False


def _states(pid: int) -> list[str]:
    """The states of the threads of a process: "T" for one that is stopped, "X" for one gone."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [_state(Path(f"/proc/{pid}/task/{task}/stat")) for task in tasks]


def _state(stat: Path) -> str:
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def make_data(root: Path) -> Path:
    """Twelve imitated patches, ten of which are trained on, built below `root`."""
    raw = write_patches(root / "raw", 12)
    write_lists(raw, {"train": range(8), "validation": range(8, 10), "test": range(10, 12)})
    build("bigearthnet_s1", root / "data", raw)
    return root / "data"


def code() -> str:
    """The SHA-256 of the program, which must stay the same for results to be comparable."""
    paths = sorted((ROOT / "sar_mixmae_jax").rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


# ---- what lies in a workdir


def record(workdir: Path) -> dict[str, Any]:
    """`run.json`, which must be whole at any moment; empty if it is not there."""
    path = workdir / "run.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}


def logged(workdir: Path) -> list[tuple[int, str, Any]]:
    """(step, name, value) of the log in the order of its lines, without a line that is cut off."""
    path = workdir / "metrics.jsonl"
    found = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        found += [(line["step"], name, value) for name, value in line.items() if name != "step"]
    return found


def on_disk(workdir: Path) -> list[Path]:
    """The folders of the saved steps."""
    return [path for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]


def temporary(workdir: Path) -> list[Path]:
    """The folders of checkpoints that are being written."""
    return list((workdir / "checkpoints").glob(TMP))


def partial(workdir: Path) -> list[Path]:
    """Files that are being written."""
    try:
        return [Path(path) for path in os.listdir(workdir) if path.endswith(".partial")]
    except FileNotFoundError:
        return []


def hashes(checkpoint: Path) -> dict[str, str]:
    """Type, shape and SHA-256 of every array of a checkpoint, read without Orbax or this project.

    Args:
      checkpoint: the folder of a step.
    """
    base = {"driver": "ocdbt", "base": f"file://{checkpoint / 'state'}/"}
    keys = ts.KvStore.open(base).result().list().result()
    found = {}
    for key in keys:
        name, _, rest = key.decode().rpartition("/")
        if rest == ".zarray":
            spec = {"driver": "zarr", "kvstore": {**base, "path": f"{name}/"}}
            found[name] = digest(ts.open(spec, read=True).result().read().result())
    return found


def digest(array: np.ndarray) -> str:
    """Type, shape and SHA-256 of an array."""
    return f"{array.dtype}{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def metadata(checkpoint: Path) -> dict[str, Any]:
    """The metadata of a checkpoint without what may differ: flags that may change, their sum.

    With `keep_best` a run looks at the model before every save, so there are more metrics.
    """
    found = json.loads((checkpoint / "metadata" / "metadata").read_text())
    del found["config"]["keep_best"], found["sha256"]
    found["metrics"] = {name: found["metrics"][name] for name in ("loss", "gradient_norm")}
    return found


# ---- comparing


def check_ending(hit: Hit | None, status: int, told: str) -> list[str]:
    """Problems in how a start ended."""
    problems = []
    if "Traceback" in told:
        problems.append(f"a traceback: {told[told.index('Traceback') :][-600:]!r}")
    if "is not used" in told:
        problems.append(f"a killed run left a checkpoint that is damaged: {told[-600:]!r}")
    if hit is None or hit.signal is None:
        expected = {0}
    elif hit.signal == signal.SIGKILL:
        expected = {-signal.SIGKILL}
    else:  # before the program listens, the system ends it
        expected = {0, -signal.SIGTERM} if hit.phase == START_UP else {0}
        if status == 0 and "which is saved" not in told and "done: " not in told:
            problems.append(f"SIGTERM was not answered: {told[-300:]!r}")
    if status not in expected:
        problems.append(f"ended with {status}, expected {expected}: {told[-600:]!r}")
    return problems


def compare(whole: Path, workdir: Path) -> list[str]:
    """Problems of a run that was ended and went on, beside one that was not."""
    return [
        *compare_checkpoints(whole, workdir),
        *compare_logs(whole, workdir),
        *compare_leftovers(workdir),
    ]


def compare_checkpoints(whole: Path, workdir: Path) -> Iterator[str]:
    """Every checkpoint that both runs have; the last one they must."""
    ours, theirs = ({path.name: path for path in on_disk(side)} for side in (workdir, whole))
    if str(STEPS) not in ours:
        yield f"there is no checkpoint of step {STEPS}"
    for step in sorted({*ours} & {*theirs}, key=int):
        found, expected = hashes(ours[step]), hashes(theirs[step])
        names = {*found, *expected}
        wrong = sorted(name for name in names if found.get(name) != expected.get(name))
        if wrong:
            yield f"step {step}: {len(wrong)} of {len(names)} arrays differ: {wrong[:3]}"
        if metadata(ours[step]) != metadata(theirs[step]):
            yield f"step {step}: the metadata differ"
    if record(workdir).get("saved") != STEPS:
        yield f"run.json says that step {record(workdir).get('saved')} was saved last"


def compare_logs(whole: Path, workdir: Path) -> Iterator[str]:
    """Every number that is no time: present once, at the same step, of the same bits."""
    ours, theirs = (series(side) for side in (workdir, whole))
    for name in EXACT:
        steps = [step for step, _ in ours[name]]
        if steps != list(range(1, STEPS + 1)):
            yield f"{name} was logged at {steps}"
        if ours[name] != theirs[name]:
            yield f"{name} differs"
    for name in {*theirs} - {*EXACT}:
        steps = {step for step, _ in theirs[name]}
        if [entry for entry in ours[name] if entry[0] in steps] != theirs[name]:
            yield f"{name} differs: {ours[name]}, expected {theirs[name]}"
    for name, values in ours.items():
        if len({step for step, _ in values}) != len(values):
            yield f"{name} was logged twice at a step: {values}"


def series(workdir: Path) -> dict[str, list[tuple[int, str]]]:
    """(step, value to the last digit) by name, without times."""
    found = defaultdict(list)
    for step, name, value in logged(workdir):
        if not any(part in name for part in TIMING):
            found[name].append((step, json.dumps(value)))
    return found


def compare_leftovers(workdir: Path) -> Iterator[str]:
    """Nothing of a killed start may stay for ever, and none of its checkpoints be damaged."""
    if temporary(workdir):
        yield f"unfinished checkpoints stay: {[path.name for path in temporary(workdir)]}"
    if partial(workdir):
        yield f"unfinished files stay: {[path.name for path in partial(workdir)]}"
    if (workdir / "checkpoints_damaged").exists():
        yield "a checkpoint was taken for damaged"
    halves = [path.name for path in on_disk(workdir) if not (path / "state" / "_METADATA").exists()]
    if halves:
        yield f"half-removed checkpoints stay: {halves}"


# ---- drawing


def draw(number: int, seed: int, seconds: float) -> tuple[list[Blow], list[dict[str, Any]]]:
    """The blows and the changes of flags of a trial.

    Args:
      number: of the trial; the phase of the first blow goes round with it.
      seed: of the campaign.
      seconds: an uninterrupted run takes.
    """
    chance = random.Random(f"{seed}-{number}")
    first = [*PHASES[:-1], None, None]
    phases = [first[number % len(first)]]
    phases += [chance.choice(first) for _ in range(chance.choice((0, 0, 1, 2)))]
    blows = []
    for index, phase in enumerate(phases):
        sent = signal.SIGTERM if chance.random() < 0.2 else signal.SIGKILL
        step = chance.randint(3, STEPS - 6) if index == 0 else chance.randint(6, STEPS - 3)
        if phase is None:
            delay = chance.uniform(0, 1.2 * seconds)
        else:
            delay = chance.choice((0.0, 0.0, chance.uniform(0, 0.05)))
        blows.append(Blow(sent, phase, step, delay))
    changes: list[dict[str, Any]] = [{}, {"keep_best": 1}]
    return blows, chance.choice((changes[:1], changes[:1], changes[1:], changes))


def table(trials: dict[int, Trial]) -> str:
    """All trials, and how often every phase was hit, as Markdown."""
    lines = ["| trial | ended at | starts | result |", "|---:|---|---:|---|"]
    killed: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for number, trial in trials.items():
        words = []
        for hit in trial.hits:
            name = hit.signal.name if hit.signal else "nothing"
            words.append(f"{name}, step {hit.step}, {hit.phase}")
            counter = asked if hit.signal == signal.SIGTERM else killed
            if hit.signal:
                counter[hit.phase] += 1
        result = "DIFFERS: " + "; ".join(trial.problems) if trial.problems else "identical"
        lines.append(f"| {number} | {' → '.join(words)} | {trial.starts} | {result} |")
    lines += ["", "| phase | SIGKILL | SIGTERM |", "|---|---:|---:|"]
    lines += [f"| {phase} | {killed[phase]} | {asked[phase]} |" for phase in PHASES[:-1]]
    lines.append(f"| all | {killed.total()} | {asked.total()} |")
    return "\n".join(lines)


def run(
    numbers: Iterable[int], seed: int, root: Path, tell: Callable[[str], None]
) -> dict[int, Trial]:
    """Runs trials of a campaign below `root`; what differed stays there to be looked at."""
    campaign = Campaign(root)
    begin = time.monotonic()
    control = campaign.trial("control", [], [{}])
    seconds = time.monotonic() - begin
    tell(f"an uninterrupted run takes {seconds:.1f} s; two of them: {control.problems or 'equal'}")
    trials = {}
    for number in numbers:
        blows, changes = draw(number, seed, seconds)
        trials[number] = campaign.trial(f"trial-{number}", blows, changes)
        tell(f"{number}: {trials[number]}")
    return trials


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50, help="trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--only", type=int, help="one trial of the campaign, by its number")
    given = parser.parse_args()
    start_fork_server()
    root = Path(tempfile.mkdtemp(prefix="kill-"))
    begin, load = time.monotonic(), os.getloadavg()[0]
    numbers = range(given.first, given.first + given.times) if given.only is None else [given.only]
    trials = run(numbers, given.seed, root, lambda text: print(text, flush=True))
    print(table(trials))
    minutes = (time.monotonic() - begin) / 60
    print(f"\n{minutes:.1f} min, load {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end")
    failed = [number for number, trial in trials.items() if trial.problems]
    if failed:
        sys.exit(f"{len(failed)} of {len(trials)} differ; their workdirs are in {root}")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
