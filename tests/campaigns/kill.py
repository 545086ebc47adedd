"""Exact resume after interruptions: `python -m tests.campaigns.kill --times=50 --seed=0`.

Every trial starts the training command in a fresh workdir, interrupts it up to three times and
starts it again until it ends. All arrays, the metadata and all numbers of the log are then compared
bit by bit with those of an uninterrupted run.

The phase of a run is determined from the files of its workdir. The process is stopped (SIGSTOP)
before it is killed, so that the files do not change between the two.
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
"""Flags of the runs.

An epoch has two steps, so that a wrong order of records soon changes the loss. Two checkpoints are
kept, so that older ones are removed.
"""

START_UP = "start-up"
RESTORE = "restoring"
COMPILE = "compiling"
BEFORE = "before the first save"
FIRST = "during the first save"
SAVE = "during a save"
UNRECORDED = "saved, not yet recorded"
REMOVE = "removing an old checkpoint"
FILES = "rewriting run.json or the log"
BETWEEN = "between saves"
END = "after the last save"
TERMINATED = "while saving after SIGTERM"
ENDED = "already ended"
PHASES = (
    START_UP,
    RESTORE,
    COMPILE,
    BEFORE,
    FIRST,
    SAVE,
    UNRECORDED,
    REMOVE,
    FILES,
    BETWEEN,
    END,
    TERMINATED,
    ENDED,
)
RECURRING = {SAVE, UNRECORDED, REMOVE, BETWEEN, TERMINATED}
"""Phases that recur with every checkpoint; an interruption first waits for its `step`."""

EARLY = {START_UP, RESTORE, COMPILE}
"""Phases before the first step of a start, which take seconds."""

TIMING = ("seconds", "images_per_second")
"""Parts of the names of logged times, which are not compared."""

EVERY_STEP = ("loss", "gradient_norm", "learning_rate", "epoch")
"""Numbers that are logged at every step."""

TIMEOUT_SECONDS = 300.0


class Interruption(NamedTuple):
    """Signal that ends a start, and the moment at which it is sent.

    Attributes:
      signal: SIGKILL or SIGTERM.
      phase: phase to wait for; None to wait only for the delay.
      step: smallest last logged step, for phases in `RECURRING`.
      delay: further seconds to wait.
    """

    signal: signal.Signals
    phase: str | None
    step: int
    delay: float


class Hit(NamedTuple):
    """State of a run at the moment of an interruption.

    Attributes:
      signal: the signal that was sent; None if the process had ended before.
      phase: one of `PHASES`, from the files of the stopped process.
      step: last logged step.
    """

    signal: signal.Signals | None
    phase: str
    step: int


class Trial(NamedTuple):
    """Result of a run that was interrupted and started again until it ended.

    Attributes:
      hits: states of the run at its interruptions.
      starts: number of starts.
      problems: differences from the uninterrupted run and other faults; empty if there are none.
    """

    hits: list[Hit]
    starts: int
    problems: list[str]


class Campaign:
    """Dataset and uninterrupted run that all trials share."""

    def __init__(self, root: Path, data_dir: Path | None = None) -> None:
        """Build the dataset and run the command once in this process, without interruption.

        Args:
          root: folder of the dataset and of all runs.
          data_dir: data folder with `bigearthnet_s1`; None builds one.

        Raises:
          RuntimeError: the uninterrupted run failed.
        """
        self._root = root
        self._data = data_dir or make_data(root)
        self.uninterrupted = root / "whole"
        self._source_hash = source_hash()
        status, output, errors = call(train.main, *self.arguments(self.uninterrupted))
        if status != 0:
            raise RuntimeError(output + errors)

    def arguments(self, workdir: Path, **changes: Any) -> list[str]:
        """Return the arguments of the command for a workdir, with changed flags."""
        return [*flags(self._data, **{**RUN, **changes}), f"--workdir={workdir}"]

    def run_trial(
        self, name: str, interruptions: Sequence[Interruption], changes: Sequence[dict[str, Any]]
    ) -> Trial:
        """Run the command in a fresh workdir with interruptions and compare the results.

        Args:
          name: name of the workdir, which is kept if there are problems.
          interruptions: one for every start but the last.
          changes: changed flags of the starts, used in turn.

        Raises:
          RuntimeError: the source code has changed since the uninterrupted run.
        """
        workdir = self._root / name
        shutil.rmtree(workdir, ignore_errors=True)
        hits, problems, recorded_starts = [], [], []
        for number, interruption in enumerate((*interruptions, None)):
            with Process(self, workdir, **changes[number % len(changes)]) as process:
                hit = process.wait_and_interrupt(interruption) if interruption else None
                status, output = process.wait()
            problems += check_ending(hit, status, output)
            if hit:
                hits.append(hit)
            starts = read_record(workdir).get("starts", [])
            if starts[: len(recorded_starts)] != recorded_starts:
                problems.append("run.json lost starts that it had recorded")
            recorded_starts = starts
        if source_hash() != self._source_hash:
            raise RuntimeError("the code was changed meanwhile: run the campaign in a copy of it")
        problems += compare(self.uninterrupted, workdir)
        if not problems:
            shutil.rmtree(workdir)
        return Trial(hits, len(interruptions) + 1, problems)


class Process:
    """Process of one start of the command; it is killed on leaving the context."""

    def __init__(self, campaign: Campaign, workdir: Path, **changes: Any) -> None:
        """Start the command in a workdir with changed flags."""
        self._workdir = workdir
        self._earlier_starts = len(read_record(workdir).get("starts", []))
        self._earlier_unfinished = set(unfinished_checkpoints(workdir))
        self._command = start(*campaign.arguments(workdir, **changes))

    def __enter__(self) -> "Process":
        """Return the process."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the process if it is still running."""
        if self._command.poll() is None:
            self._command.kill()
            self.wait()

    def wait(self) -> tuple[int, str]:
        """Wait for the end of the process; return its exit status, and output with errors."""
        status, output, errors = finish(self._command, TIMEOUT_SECONDS)
        return status, output + errors

    def wait_and_interrupt(self, interruption: Interruption) -> Hit:
        """Wait for the moment of an interruption, send its signal and return the state then."""
        phase = interruption.phase
        deadline = time.monotonic() + TIMEOUT_SECONDS
        pause = 0.0 if phase == FILES else 0.005  # a file is written within a millisecond
        while phase and self._command.poll() is None and time.monotonic() < deadline:
            if self._is_at(interruption):
                time.sleep(interruption.delay)
                if self._suspend() and (interruption.delay or self._is_at(interruption)):
                    return self._interrupt(interruption)
                self._command.send_signal(signal.SIGCONT)
            is_early = phase not in EARLY | {FILES} and self._phase() in EARLY
            time.sleep(0.02 if is_early else pause)
        if phase is None:
            time.sleep(interruption.delay)
        return self._interrupt(interruption) if self._suspend() else self._ended()

    def _is_at(self, interruption: Interruption) -> bool:
        """Return whether the phase and the step of an interruption are reached."""
        if interruption.phase == FILES:
            return bool(partial_files(self._workdir))
        if interruption.phase in RECURRING and self._step() < interruption.step:
            return False
        if interruption.phase == TERMINATED:  # stop where no checkpoint is due
            return self._step() % EVERY == 1
        return self._phase() == interruption.phase

    def _suspend(self) -> bool:
        """Stop all threads of the process; return False if it has ended."""
        if self._command.poll() is not None:
            return False
        self._command.send_signal(signal.SIGSTOP)
        while any(state not in "TtZX" for state in _thread_states(self._command.pid)):
            time.sleep(0.0005)
        return any(state in "Tt" for state in _thread_states(self._command.pid))

    def _interrupt(self, interruption: Interruption) -> Hit:
        """Send the signal of an interruption to the stopped process."""
        if interruption.phase == TERMINATED:
            return self._terminate_and_kill()
        hit = Hit(interruption.signal, self._phase(), self._step())
        self._command.send_signal(interruption.signal)
        self._command.send_signal(signal.SIGCONT)
        return hit

    def _terminate_and_kill(self) -> Hit:
        """Send SIGTERM, then SIGKILL while the process writes the checkpoint that follows."""
        self._command.send_signal(signal.SIGTERM)
        self._command.send_signal(signal.SIGCONT)
        while self._command.poll() is None:
            new = {*unfinished_checkpoints(self._workdir)} - self._earlier_unfinished
            if any(int(path.name.split(".")[0]) % EVERY for path in new):
                break
            time.sleep(0.001)
        if not self._suspend():
            return self._ended()
        hit = Hit(signal.SIGKILL, TERMINATED, self._step())
        self._command.kill()
        return hit

    def _ended(self) -> Hit:
        """Return the state of a process that ended before the interruption."""
        return Hit(None, ENDED, self._step())

    def _step(self) -> int:
        """Return the last logged step, or 0."""
        return max((step for step, *_ in logged_values(self._workdir)), default=0)

    def _phase(self) -> str:
        """Return the phase of the process, from the files of its workdir."""
        record, saved = read_record(self._workdir), saved_checkpoints(self._workdir)
        if len(record.get("starts", [])) <= self._earlier_starts:
            if partial_files(self._workdir):
                return FILES
            return RESTORE if self._holds_lock() else START_UP
        if partial_files(self._workdir):
            return FILES
        recorded = record.get("saved") or 0
        if set(unfinished_checkpoints(self._workdir)) - self._earlier_unfinished:
            return SAVE if recorded else FIRST
        if any(not (path / "_CHECKPOINT_METADATA").exists() for path in saved):
            return REMOVE
        newest = max((int(path.name) for path in saved), default=0)
        if newest > recorded:
            return UNRECORDED
        if newest == STEPS:
            return END
        if self._step() <= record["starts"][-1]["step"]:
            return COMPILE
        return BETWEEN if newest else BEFORE

    def _holds_lock(self) -> bool:
        """Return whether the process holds the lock of the workdir, without taking it."""
        try:
            folder = f"/proc/{self._command.pid}/fd"
            return any(
                os.readlink(f"{folder}/{name}") == str(self._workdir / "lock")
                for name in os.listdir(folder)
            )
        except OSError:  # a file was closed meanwhile, or the process has ended
            return False


def _thread_states(pid: int) -> list[str]:
    """Return the states of the threads of a process: "T" for stopped, "X" for ended."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [_thread_state(Path(f"/proc/{pid}/task/{thread}/stat")) for thread in threads]


def _thread_state(stat_file: Path) -> str:
    try:
        return stat_file.read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def make_data(root: Path) -> Path:
    """Build a dataset of twelve fake patches, ten of them for training, and return its folder."""
    raw = write_patches(root / "raw", 12)
    write_lists(raw, {"train": range(8), "validation": range(8, 10), "test": range(10, 12)})
    build("bigearthnet_s1", root / "data", raw)
    return root / "data"


def source_hash() -> str:
    """Return the SHA-256 of the package's source code, which must not change in a campaign."""
    paths = sorted((ROOT / "sar_mixmae_jax").rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


# ---- content of a workdir


def read_record(workdir: Path) -> dict[str, Any]:
    """Return the content of `run.json`, or an empty record if there is none.

    Raises:
      JSONDecodeError: the file is incomplete, which it must never be.
    """
    path = workdir / "run.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}


def logged_values(workdir: Path) -> list[tuple[int, str, Any]]:
    """Return (step, name, value) of all complete lines of the log, in their order."""
    path = workdir / "metrics.jsonl"
    values = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        values += [(line["step"], name, value) for name, value in line.items() if name != "step"]
    return values


def saved_checkpoints(workdir: Path) -> list[Path]:
    """Return the folders of the saved checkpoints, which are named after their steps."""
    return [path for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]


def unfinished_checkpoints(workdir: Path) -> list[Path]:
    """Return the folders of checkpoints that are not completely written."""
    return list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def partial_files(workdir: Path) -> list[Path]:
    """Return the names of files of a workdir that are not completely written."""
    try:
        return [Path(name) for name in os.listdir(workdir) if name.endswith(".partial")]
    except FileNotFoundError:
        return []


def array_hashes(checkpoint: Path) -> dict[str, str]:
    """Return the `array_hash` of every array of a checkpoint by its name.

    The arrays are read with TensorStore, without Orbax and without this project.

    Args:
      checkpoint: folder of a step.
    """
    base = {"driver": "ocdbt", "base": f"file://{checkpoint / 'state'}/"}
    keys = ts.KvStore.open(base).result().list().result()
    hashes = {}
    for key in keys:
        name, _, rest = key.decode().rpartition("/")
        if rest == ".zarray":
            spec = {"driver": "zarr", "kvstore": {**base, "path": f"{name}/"}}
            hashes[name] = array_hash(ts.open(spec, read=True).result().read().result())
    return hashes


def array_hash(array: np.ndarray) -> str:
    """Return type, shape and SHA-256 of an array."""
    return f"{array.dtype}{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def comparable_metadata(checkpoint: Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint without the fields that may differ.

    These are `keep_best`, the checksum of the metadata, and all metrics but two: with `keep_best`
    a run evaluates the model before every save, which adds metrics.
    """
    metadata = json.loads((checkpoint / "metadata" / "metadata").read_text())
    del metadata["config"]["keep_best"], metadata["sha256"]
    metadata["metrics"] = {name: metadata["metrics"][name] for name in ("loss", "gradient_norm")}
    return metadata


# ---- comparison


def check_ending(hit: Hit | None, status: int, output: str) -> list[str]:
    """Return the problems in the exit status and the output of a start.

    Args:
      hit: state at the interruption; None for a start without one.
      status: exit status, negative for a signal.
      output: output and errors.
    """
    problems = []
    if "Traceback" in output:
        problems.append(f"a traceback: {output[output.index('Traceback') :][-600:]!r}")
    if "is not used" in output:
        problems.append(f"a killed run left a damaged checkpoint: {output[-600:]!r}")
    if hit is None or hit.signal is None:
        expected = {0}
    elif hit.signal == signal.SIGKILL:
        expected = {-signal.SIGKILL}
    else:  # SIGTERM ends the program until its handler is installed
        expected = {0, -signal.SIGTERM} if hit.phase == START_UP else {0}
        if status == 0 and "which is saved" not in output and "done: " not in output:
            problems.append(f"no message after SIGTERM: {output[-300:]!r}")
    if status not in expected:
        problems.append(f"ended with {status}, expected {expected}: {output[-600:]!r}")
    return problems


def compare(uninterrupted: Path, interrupted: Path) -> list[str]:
    """Return the differences between the workdirs of an uninterrupted and an interrupted run."""
    return [
        *compare_checkpoints(uninterrupted, interrupted),
        *compare_logs(uninterrupted, interrupted),
        *check_leftovers(interrupted),
    ]


def compare_checkpoints(uninterrupted: Path, interrupted: Path) -> Iterator[str]:
    """Yield the differences in the checkpoints of both runs, and a missing last checkpoint."""
    expected = {path.name: path for path in saved_checkpoints(uninterrupted)}
    checkpoints = {path.name: path for path in saved_checkpoints(interrupted)}
    if str(STEPS) not in checkpoints:
        yield f"there is no checkpoint of step {STEPS}"
    for step in sorted({*checkpoints} & {*expected}, key=int):
        hashes, expected_hashes = array_hashes(checkpoints[step]), array_hashes(expected[step])
        names = {*hashes, *expected_hashes}
        wrong = sorted(name for name in names if hashes.get(name) != expected_hashes.get(name))
        if wrong:
            yield f"step {step}: {len(wrong)} of {len(names)} arrays differ: {wrong[:3]}"
        if comparable_metadata(checkpoints[step]) != comparable_metadata(expected[step]):
            yield f"step {step}: the metadata differ"
    if read_record(interrupted).get("saved") != STEPS:
        yield f"run.json names step {read_record(interrupted).get('saved')} as the last one saved"


def compare_logs(uninterrupted: Path, interrupted: Path) -> Iterator[str]:
    """Yield the differences in the logged numbers, times left out.

    Every number must be logged once at a step, with equal bits. Numbers in `EVERY_STEP` must be
    logged at all steps, others at least at those of the uninterrupted run.
    """
    expected, values = logged_series(uninterrupted), logged_series(interrupted)
    for name in EVERY_STEP:
        steps = [step for step, _ in values[name]]
        if steps != list(range(1, STEPS + 1)):
            yield f"{name} was logged at {steps}"
        if values[name] != expected[name]:
            yield f"{name} differs"
    for name in {*expected} - {*EVERY_STEP}:
        steps = {step for step, _ in expected[name]}
        if [entry for entry in values[name] if entry[0] in steps] != expected[name]:
            yield f"{name} differs: {values[name]}, expected {expected[name]}"
    for name, entries in values.items():
        if len({step for step, _ in entries}) != len(entries):
            yield f"{name} was logged twice at a step: {entries}"


def logged_series(workdir: Path) -> dict[str, list[tuple[int, str]]]:
    """Return (step, value with all digits) of the logged numbers by name, times left out."""
    series = defaultdict(list)
    for step, name, value in logged_values(workdir):
        if not any(part in name for part in TIMING):
            series[name].append((step, json.dumps(value)))
    return series


def check_leftovers(workdir: Path) -> Iterator[str]:
    """Yield the unfinished and damaged files that a killed start left."""
    if unfinished := unfinished_checkpoints(workdir):
        yield f"unfinished checkpoints stay: {[path.name for path in unfinished]}"
    if partial := partial_files(workdir):
        yield f"unfinished files stay: {[path.name for path in partial]}"
    if (workdir / "checkpoints_damaged").exists():
        yield "a checkpoint was taken for damaged"
    incomplete = [
        path.name
        for path in saved_checkpoints(workdir)
        if not (path / "state" / "_METADATA").exists()
    ]
    if incomplete:
        yield f"half-removed checkpoints stay: {incomplete}"


# ---- campaign


def draw_trial(
    number: int, seed: int, seconds: float
) -> tuple[list[Interruption], list[dict[str, Any]]]:
    """Draw the interruptions and the changed flags of a trial.

    Args:
      number: number of the trial, which also determines the phase of the first interruption.
      seed: seed of the campaign.
      seconds: duration of an uninterrupted run.
    """
    rng = random.Random(f"{seed}-{number}")
    choices = [*PHASES[:-1], None, None]
    phases = [choices[number % len(choices)]]
    phases += [rng.choice(choices) for _ in range(rng.choice((0, 0, 1, 2)))]
    interruptions = []
    for index, phase in enumerate(phases):
        sent_signal = signal.SIGTERM if rng.random() < 0.2 else signal.SIGKILL
        step = rng.randint(3, STEPS - 6) if index == 0 else rng.randint(6, STEPS - 3)
        if phase is None:
            delay = rng.uniform(0, 1.2 * seconds)
        else:
            delay = rng.choice((0.0, 0.0, rng.uniform(0, 0.05)))
        interruptions.append(Interruption(sent_signal, phase, step, delay))
    changes: list[dict[str, Any]] = [{}, {"keep_best": 1}]
    return interruptions, rng.choice((changes[:1], changes[:1], changes[1:], changes))


def format_table(trials: dict[int, Trial]) -> str:
    """Return Markdown tables of all trials and of the number of hits by phase."""
    lines = ["| trial | ended at | starts | result |", "|---:|---|---:|---|"]
    killed: Counter[str] = Counter()
    terminated: Counter[str] = Counter()
    for number, trial in trials.items():
        hit_texts = []
        for hit in trial.hits:
            name = hit.signal.name if hit.signal else "nothing"
            hit_texts.append(f"{name}, step {hit.step}, {hit.phase}")
            counter = terminated if hit.signal == signal.SIGTERM else killed
            if hit.signal:
                counter[hit.phase] += 1
        result = "DIFFERS: " + "; ".join(trial.problems) if trial.problems else "identical"
        lines.append(f"| {number} | {' → '.join(hit_texts)} | {trial.starts} | {result} |")
    lines += ["", "| phase | SIGKILL | SIGTERM |", "|---|---:|---:|"]
    lines += [f"| {phase} | {killed[phase]} | {terminated[phase]} |" for phase in PHASES[:-1]]
    lines.append(f"| all | {killed.total()} | {terminated.total()} |")
    return "\n".join(lines)


def run_trials(
    numbers: Iterable[int], seed: int, root: Path, report: Callable[[str], None]
) -> dict[int, Trial]:
    """Run trials of a campaign and return them by number.

    Args:
      numbers: numbers of the trials.
      seed: seed of the campaign.
      root: folder of all runs; workdirs of trials with problems are kept.
      report: called with every line of the report.
    """
    campaign = Campaign(root)
    begin = time.monotonic()
    control = campaign.run_trial("control", [], [{}])
    seconds = time.monotonic() - begin
    report(
        f"an uninterrupted run takes {seconds:.1f} s; two of them: {control.problems or 'equal'}"
    )
    trials = {}
    for number in numbers:
        interruptions, changes = draw_trial(number, seed, seconds)
        trials[number] = campaign.run_trial(f"trial-{number}", interruptions, changes)
        report(f"{number}: {trials[number]}")
    return trials


def main() -> None:
    """Run a campaign as the command line says and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50, help="number of trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--only", type=int, help="run one trial of the campaign, by its number")
    options = parser.parse_args()
    start_fork_server()
    root = Path(tempfile.mkdtemp(prefix="kill-"))
    begin, load = time.monotonic(), os.getloadavg()[0]
    numbers = range(options.first, options.first + options.times)
    if options.only is not None:
        numbers = [options.only]
    trials = run_trials(numbers, options.seed, root, lambda line: print(line, flush=True))
    print(format_table(trials))
    minutes = (time.monotonic() - begin) / 60
    print(f"\n{minutes:.1f} min, load {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end")
    failed = [number for number, trial in trials.items() if trial.problems]
    if failed:
        sys.exit(f"{len(failed)} of {len(trials)} differ; their workdirs are in {root}")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
