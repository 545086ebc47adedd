"""Comparison of pretraining methods: runs the trials that are not finished, in one process."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ml_collections import ConfigDict

from sar_mixmae_jax.data.metadata import open_builder, read_dataset_metadata
from sar_mixmae_jax.experiments import baselines, trials
from sar_mixmae_jax.experiments.comparison_report import References, write_comparison
from sar_mixmae_jax.experiments.reconstruction_metrics import PRETRAINING
from sar_mixmae_jax.experiments.trials import Trial, TrialResult
from sar_mixmae_jax.training.config import flatten
from sar_mixmae_jax.training.workdir import lock_workdir
from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import read_json, write_json

CONFIG, LOG, REFERENCES = "comparison.config.json", "log.txt", "references.json"
"""Files in the workdir: configuration, output of all runs, metrics of the baselines."""
RESULT_FOLDERS = ("cells", "runs", "encoders", "pretraining", "results", "predictions")
"""Folders in the workdir that hold what was computed with the stored configuration."""

MAY_GROW = ("seeds", "compared", "questions")
"""Fields that may change in a workdir; arms may be added too."""


def compare(config: ConfigDict, workdir: Path, stop: Callable[[], bool]) -> list[Path]:
    """Run the missing trials, then write the tables and the figure.

    Args:
      config: see `configs/compare.py`.
      workdir: folder of all runs; finished trials are kept and not run again.
      stop: polled by every run; True saves and ends early, with tables of the finished trials.

    Returns:
      Paths of the tables and of the figure.

    Raises:
      UserError: a run cannot be started or continued; finished trials are kept.
    """
    trials.check_comparison_config(config)
    with lock_workdir(workdir):
        reported = check_same_comparison(config, workdir)
        references = load_references(config, workdir)
        _run_trials(config, workdir, stop)
        finished = [*_read_finished(reported, workdir).values()]
        title = f"Comparison: {', '.join(config.finetune)}; {config.pretrain.model.variant}"
        notes = footnotes(reported, finished)
        return write_comparison(reported, workdir, finished, references, title, notes)


def _read_finished(config: ConfigDict, workdir: Path) -> dict[Trial, TrialResult]:
    """Return the results of the trials that are finished, in the order of `all_trials`."""
    results = ((trial, trials.read_trial(workdir, trial)) for trial in all_trials(config))
    return {trial: result for trial, result in results if result}


def _run_trials(config: ConfigDict, workdir: Path, stop: Callable[[], bool]) -> None:
    """Run the missing trials."""
    planned, finished = all_trials(config), _read_finished(config, workdir)
    print(f"{len(planned)} trials, of which {len(finished)} are finished")
    missing = [trial for trial in planned if trial not in finished]
    start = time.monotonic()
    for number, trial in enumerate(missing, 1):
        trial_start = time.monotonic()
        run = trials.run_pretraining if trial.stage == PRETRAINING else trials.run_finetuning
        try:
            with _output_to(workdir / LOG, trial):
                metrics = run(config, workdir, trial, stop)
        except trials.StoppedError:
            print(f"stopped in {trial.name}; the same command continues the comparison")
            break
        result = TrialResult(trial, metrics, time.monotonic() - trial_start)
        trials.write_trial(workdir, result)
        print_progress(trial.name, result.seconds, start, number, len(missing))


def print_progress(title: str, seconds: float, start: float, done: int, total: int) -> None:
    """Print what was finished, and the time that is left.

    Args:
      title: what was finished last.
      seconds: that it took.
      start: `time.monotonic()` at the start of the first.
      done: number of those that are finished.
      total: number of all.
    """
    minutes = (time.monotonic() - start) / done * (total - done) / 60
    print(f"{title}: {seconds:.0f} s; about {minutes:.0f} minutes left")


def all_trials(config: ConfigDict) -> list[Trial]:
    """Return all trials in the order in which they run.

    The seeds of an arm follow each other, so that their programs are compiled once.
    """
    return [
        Trial(stage, arm, seed)
        for arm in config.compared
        for stage in (PRETRAINING, *config.finetune)
        if stage != PRETRAINING or trials.is_pretrained(config, arm)
        for seed in range(config.seeds)
    ]


@contextlib.contextmanager
def _output_to(log: Path, trial: Trial) -> Iterator[None]:
    """Append what a run prints to a file."""
    with log.open("a") as file:
        file.write(f"\n==== {trial.name}\n")
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield


def load_references(config: ConfigDict, workdir: Path) -> References:
    """Return the metrics of all baselines by task and name; measured once per workdir and seeds.

    Raises:
      InputError: the stored metrics cannot be read.
    """
    path = workdir / REFERENCES
    if path.exists():
        try:
            stored = read_json(path)
            if stored["seeds"] == config.seeds:
                return stored["tasks"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} cannot be read ({first_line(error)}): remove it to measure the baselines "
                "again"
            ) from error
    reconstruction = trials.reconstruction_references(config)
    references = {PRETRAINING: {name: [metrics] for name, metrics in reconstruction.items()}}
    for task in config.finetune:
        print(f"baselines without a network: {task}")
        references[task] = baselines.measure_baselines(config, task)
    content = {"seeds": config.seeds, "tasks": references}
    write_json(path, content)
    return references


def check_same_comparison(config: ConfigDict, workdir: Path) -> ConfigDict:
    """Refuse a workdir of another configuration, and store this one.

    Returns:
      The configuration to report: `compared` has all arms that any call in this workdir compared.
      Intervals are corrected for all of them, since an arm may be left out after a look at its
      results.

    Raises:
      InputError: names the fields that differ, with both values; or results have lost their
        configuration.
    """
    path = workdir / CONFIG
    content = json.loads(config.to_json_best_effort())
    content["checksums"] = dataset_checksums(config)
    reported = config.copy_and_resolve_references()
    if any((workdir / name).exists() for name in (CONFIG, *RESULT_FOLDERS)):
        try:
            before = dict(flatten(read_json(path)))
            earlier = list(before.get("compared") or ())
            known_arms = {name.split(".")[1] for name in before if name.startswith("arms.")}
            unknown = [arm for arm in earlier if arm not in known_arms]
        except (OSError, ValueError, AttributeError, TypeError, IndexError) as error:
            raise InputError(
                f"{path} cannot be read ({first_line(error)}): restore it, or choose another "
                "--workdir"
            ) from error
        now = dict(flatten(content))
        if unknown:
            raise InputError(
                f"{path}: compared has {unknown[0]!r}, expected names of its arms: restore it, or "
                "choose another --workdir"
            )
        changes = [
            f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
            and name not in MAY_GROW
            and (name in before or not name.startswith("checksums."))  # of earlier versions
            and not (name.startswith("arms.") and name.split(".")[1] not in known_arms)
        ]
        if changes:
            raise InputError(
                f"{workdir} holds another comparison ({'; '.join(changes[:5])}): choose another "
                "--workdir, or restore these fields"
            )
        if "compared" in config:
            content["compared"] = list(dict.fromkeys((*earlier, *config.compared)))
            reported.compared = tuple(content["compared"])
    write_json(path, content, indent=2)
    return reported


def dataset_checksums(config: ConfigDict) -> dict[str, str | None]:
    """Return the checksums of the records of all datasets of a comparison, by name."""
    runs = [config.get("pretrain", ConfigDict())]
    runs += [config.finetune] if "dataset" in config.finetune else list(config.finetune.values())
    names = sorted({run.dataset for run in runs if "dataset" in run})
    return {
        name: read_dataset_metadata(open_builder(name, config.data_dir).info).checksum
        for name in names
    }


def footnotes(config: ConfigDict, finished: list[TrialResult]) -> list[str]:
    """Return sentences about the datasets, the training runs and the cost."""
    sentences = [
        f"{task}: {run.dataset}, label_fraction {run.label_fraction:g}, labels chosen by seed; "
        f"{f'{run.total_steps} steps' if run.total_steps else f'{run.epochs:g} epochs'} with batch "
        f"size {run.batch_size}; checkpoints are selected on {run.validation_split}, results are "
        f"of {trials.TEST}."
        for task, run in config.finetune.items()
    ]
    if finished:
        hours = sum(result.seconds for result in finished) / 3600
        sentences.append(f"{len(finished)} trials, {hours:.2f} hours.")
    return sentences
