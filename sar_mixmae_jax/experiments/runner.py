"""Makes the cells of a comparison that are not finished, one arm after the other, in one process.

All seeds of an arm follow each other, so that each program is compiled once.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ml_collections import ConfigDict

from sar_mixmae_jax.experiments import baselines, reconstruction, report, stages, trials
from sar_mixmae_jax.experiments.trials import PRETRAINING, Measured, Trial
from sar_mixmae_jax.training.config import flatten
from sar_mixmae_jax.training.workdir import lock_workdir
from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import atomic_write

CONFIG, LOG, REFERENCES = "comparison.config.json", "log.txt", "references.json"
"""In the workdir."""
MAY_GROW = ("seeds", "compared")
"""Fields that may change; arms may be added too."""


def compare(config: ConfigDict, workdir: Path, stop: Callable[[], bool]) -> list[Path]:
    """Makes what is missing, then the table and the figure.

    Args:
      config: as made by `configs/compare.py`.
      workdir: for everything; finished cells are kept and not made again.
      stop: asked by every run; True saves and ends early, with a table of what is finished.

    Returns:
      The files of the table and the figure.

    Raises:
      UserError: a run cannot be made; what is finished is kept.
    """
    trials.check_comparison_config(config)
    with lock_workdir(workdir):
        check_same_comparison(config, workdir)
        known = measured_references(config, workdir)
        wanted = all_trials(config)
        done = {cell: found for cell in wanted if (found := trials.read_trial(workdir, cell))}
        started, made = time.monotonic(), 0
        left = len(wanted) - len(done)
        print(f"{len(wanted)} cells, of which {len(done)} are finished")
        for cell in wanted:
            if cell in done:
                continue
            begun = time.monotonic()
            try:
                with _quietly(workdir / LOG, cell):
                    make = (
                        stages.run_pretraining
                        if cell.stage == PRETRAINING
                        else stages.run_finetuning
                    )
                    metrics = make(config, workdir, cell, stop)
            except stages.StoppedError:
                print(f"stopped in {cell.name}: the same command goes on from there")
                break
            done[cell] = Measured(cell, metrics, time.monotonic() - begun)
            trials.write_trial(workdir, done[cell])
            made += 1
            rest = (time.monotonic() - started) / made * (left - made)
            print(f"{cell.name}: {done[cell].seconds:.0f} s; about {rest / 60:.0f} minutes left")
        finished = [done[cell] for cell in wanted if cell in done]
        title = f"Comparison: {', '.join(config.finetune)}; {config.pretrain.model.variant}"
        return report.write_comparison(
            config, workdir, finished, known, title, notes(config, finished)
        )


def all_trials(config: ConfigDict) -> list[Trial]:
    """In the order in which they are made."""
    seeds = range(config.seeds)
    return [
        Trial(stage, arm, seed)
        for arm in config.compared
        for stage in (PRETRAINING, *config.finetune)
        if stage != PRETRAINING or trials.is_pretrained(config, arm)
        for seed in seeds
    ]


@contextlib.contextmanager
def _quietly(log: Path, cell: Trial) -> Iterator[None]:
    """What a run prints goes into a file."""
    with log.open("a") as file:
        file.write(f"\n==== {cell.name}\n")
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield


def measured_references(
    config: ConfigDict, workdir: Path
) -> dict[str, dict[str, list[stages.Metrics]]]:
    """The baselines without a network and the references of reconstruction, once a comparison.

    Raises:
      InputError: what an earlier start wrote cannot be read.
    """
    path = workdir / REFERENCES
    if path.exists():
        try:
            stored = json.loads(path.read_text())
            if stored["seeds"] == config.seeds:
                return stored["tasks"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} cannot be read ({first_line(error)}): remove it, and it is made again"
            ) from error
    constant = stages.reconstruction_references(config)
    found = {reconstruction.TASK: {name: [metrics] for name, metrics in constant.items()}}
    for task in config.finetune:
        print(f"baselines without a network: {task}")
        found[task] = baselines.measure_baseline(config, task)
    atomic_write(path, json.dumps({"seeds": config.seeds, "tasks": found}, indent=1).encode())
    return found


def check_same_comparison(config: ConfigDict, workdir: Path) -> None:
    """Refuses cells of another configuration; seeds and arms may be added.

    Raises:
      InputError: names the fields that differ, with both values.
    """
    path = workdir / CONFIG
    now = json.loads(config.to_json_best_effort())
    if path.exists():
        try:
            before = dict(flatten(json.loads(path.read_text())))
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(
                f"{path} cannot be read ({first_line(error)}): restore it, or choose another "
                "--workdir"
            ) from error
        fields = dict(flatten(now))
        arms = {name.split(".")[1] for name in before if name.startswith("arms.")}
        changed = [
            f"{name} was {before.get(name)!r} and is now {fields.get(name)!r}"
            for name in sorted({*before, *fields})
            if before.get(name) != fields.get(name)
            and name not in MAY_GROW
            and not (name.startswith("arms.") and name.split(".")[1] not in arms)
        ]
        if changed:
            raise InputError(
                f"{workdir} holds another comparison ({'; '.join(changed[:5])}): choose another "
                "--workdir, or what it was started with"
            )
    atomic_write(path, (json.dumps(now, indent=2) + "\n").encode())


def notes(config: ConfigDict, finished: list[Measured]) -> list[str]:
    """What must be said beside the tables."""
    told = [
        f"{task}: {recipe.dataset}, label_fraction {recipe.label_fraction:g}, chosen by seed; "
        f"{recipe.total_steps or f'{recipe.epochs:g} epochs of'} steps in batches of "
        f"{recipe.batch_size}; the checkpoint is chosen on {recipe.validation_split}, the numbers "
        "are of test."
        for task, recipe in config.finetune.items()
    ]
    if finished:
        hours = sum(one.seconds for one in finished) / 3600
        told.append(f"{len(finished)} cells, {hours:.2f} hours of computing.")
    return told
