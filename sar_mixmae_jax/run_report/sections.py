"""Header of the page, and its sections about initialisation, training, speed, other metrics."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sar_mixmae_jax.run_report import plots
from sar_mixmae_jax.run_report.content import (
    Block,
    Cell,
    Header,
    Paragraph,
    Section,
    make_figure,
    make_section,
    make_table,
    note,
    notice,
)
from sar_mixmae_jax.run_report.formatting import (
    as_list,
    format_devices,
    format_known,
    format_literal,
    format_metric,
    format_number,
    format_step,
    format_steps,
    format_time,
    format_value,
)
from sar_mixmae_jax.run_report.history import (
    History,
    Series,
    find_best_checkpoint,
    finite,
    finite_series,
    missing_curves,
    nonfinite_steps,
    stem,
)
from sar_mixmae_jax.run_report.weighting_section import DIAGNOSTICS
from sar_mixmae_jax.tasks.registry import get_task, task_names
from sar_mixmae_jax.training.config import flatten
from sar_mixmae_jax.training.run_description import encoder_title
from sar_mixmae_jax.utils.tables import format_duration

TRAINING = ("loss", "gradient_norm", "learning_rate")
"""Metrics of the training section."""

SHOWN = {
    *TRAINING,
    *("epoch", "images_per_second", "seconds", "checkpoint_seconds", "checkpoint_blocked_seconds"),
    *("explained_variance", "validation", *DIAGNOSTICS),
}
"""Metrics that other sections show."""

MAX_PANELS = 24
"""Other metrics that are drawn."""

MAX_ENCODERS = 5
"""Checkpoints of a chain of initialisations that are shown."""


# ---- header


def make_header(run: History, workdir: Path) -> Header:
    """Return the title, the setting, caveats, problems and key numbers."""
    blocks: list[Block | None] = [
        Paragraph("; ".join(_facts(run)), "lead"),
        *(notice(f"Caveat: {format_value(caveat)}") for caveat in run.caveats),
        *map(note, run.problems),
    ]
    return Header(run_title(run), tuple(filter(None, blocks)), tuple(_tiles(run, workdir)))


def run_title(run: History) -> str:
    """Return what was trained on what: a task and its encoder, or a model variant."""
    dataset = format_value(run.dataset.get("name") or "an unnamed dataset")
    if task := run.model.get("task"):
        return f"{format_value(task)}: {_encoder_title(run)} on {dataset}"
    variant = dict(flatten(run.config)).get("model.variant")
    return f"{format_value(variant or 'A model')} on {dataset}"


def _encoder_title(run: History) -> str:
    variant = format_value(run.model.get("variant") or "")
    source = run.model.get("pretrained")
    if not isinstance(source, dict):
        return " ".join(f"a random {variant} encoder".split())
    weighting = source.get("weighting")
    name, domain = "", ""
    if isinstance(weighting, dict):
        name, domain = format_known(weighting, "name"), format_value(weighting.get("domain") or "")
    return encoder_title(variant or "encoder", format_known(source, "step"), name, domain)


def _facts(run: History) -> list[str]:
    """Return the setting: records, settings, devices, times."""

    def label_fraction(value: Any) -> str:
        is_number = isinstance(value, int | float)
        return f"labels: {100 * value:g} %" if is_number else f"labels: {format_value(value)}"

    settings: dict[str, Callable[[Any], str]] = {
        "weighting.name": lambda value: f"weighting {format_value(value)}",
        "label_fraction": lambda value: "all labels" if value == 1 else label_fraction(value),
        "batch_size": lambda value: f"batch size {format_value(value)}",
    }
    fields = dict(flatten(run.config))
    facts = [
        describe(fields[name])
        for name, describe in settings.items()
        if fields.get(name) is not None
    ]
    if isinstance(records := run.dataset.get("records"), int):
        task = run.model.get("task")
        noun = get_task(task).record_noun if task in task_names() else "records"
        facts.insert(0, f"{records:,} {noun}")
    if run.starts:
        first, last = run.starts[0], run.starts[-1]
        facts += [format_devices(last), f"started {format_time(first.get('time'))}"]
        if len(run.starts) > 1:
            facts.append(f"resumed {len(run.starts) - 1} ×, last {format_time(last.get('time'))}")
    return facts


def _tiles(run: History, workdir: Path) -> list[tuple[str, str]]:
    """Return the key numbers, each with a line of detail."""
    metrics = run.metrics
    tiles = []
    if metrics:
        last = max(series.steps[-1] for series in metrics.values())
        tiles.append((f"{format_step(last)} steps", _epochs(run)))
    if loss := finite_series(metrics, "loss"):
        values, best = [f"{value:.4f}" for value in loss.values], loss.values.argmin()
        tiles.append((f"loss {values[-1]}", _when(loss, f"lowest {values[best]}", best)))
    if explained := finite_series(metrics, "explained_variance"):
        values = [f"{100 * value:.1f} %" for value in explained.values]
        best = explained.values.argmax()
        detail = _when(explained, f"highest {values[best]}", best)
        tiles.append((f"explained {values[-1]}", detail))
    checkpoint = find_best_checkpoint(run, workdir)
    if checkpoint and checkpoint.metric not in ("loss", "explained_variance"):  # have their tiles
        tiles.append(
            (
                f"best: step {format_step(checkpoint.step)}",
                f"{format_metric(checkpoint.metric)} {checkpoint.value:.4f}, the "
                f"{checkpoint.rank} of the checkpoints kept",
            )
        )
    if rate := finite_series(metrics, "images_per_second"):
        median = format_number(np.median(rate.values))
        tiles.append((f"{median} images/s", "median of the logged intervals"))
    return tiles


def _when(series: Series, best: str, index: Any) -> str:
    last = format_step(series.steps[-1])
    return f"at step {last}; {best} at step {format_step(series.steps[index])}"


def _epochs(run: History) -> str:
    """Return the epochs done and planned."""
    epoch = finite_series(run.metrics, "epoch")
    done = f"{epoch.values[-1]:,.2f}" if epoch else "unknown"
    steps, epochs = run.config.get("total_steps"), run.config.get("epochs")
    if steps:
        return f"epochs: {done}; planned: {format_value(steps)} steps"
    planned = f" of {format_literal(epochs).removesuffix('.0')}" if epochs else ""
    return f"epochs: {done}{planned}"


# ---- initialisation


def initialisation_section(run: History) -> Section | None:
    """Return the checkpoints that a run began with; None for a run that never begins with one."""
    if "pretrained" not in run.model:
        return None
    title, source = "Initialisation of the encoder", run.model["pretrained"]
    if not isinstance(source, dict):
        return make_section(title, note("Random, not pretrained."))
    blocks: list[Block | None] = []
    for number in range(MAX_ENCODERS):
        blocks += [note("That checkpoint was initialised from:") if number else None]
        blocks += _source_checkpoint(source)
        source = source.get("pretrained")
        if not isinstance(source, dict):
            break
    return make_section(title, *blocks, style="whole")


def _source_checkpoint(source: Mapping[str, Any]) -> list[Block]:
    """Return a table of what is recorded about a checkpoint, and its caveats."""
    name, settings = _weighting(source.get("weighting"))
    unnamed = "not recorded" if source.get("trainer") == "convert" else "none"
    rows = [
        ("checkpoint", Cell(format_known(source, "checkpoint"), "code")),
        ("trained by", f"{format_known(source, 'trainer')}, step {format_known(source, 'step')}"),
        ("dataset", format_known(source, "dataset")),
        ("dataset checksum", Cell(format_known(source, "dataset_checksum"), "code")),
        ("loss weighting", f"{name} ({settings})" if settings else name or unnamed),
        *_changed_bands(source),
        ("seed", format_known(source, "seed")),
        ("SHA-256 of the last norm", Cell(format_known(source, "sha256"), "code")),
    ]
    caveats = as_list(source.get("caveats"))
    return [
        *(notice(f"Caveat of its training: {format_value(caveat)}") for caveat in caveats),
        make_table((), rows),
    ]


def _changed_bands(source: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the row about the bands of a checkpoint, where those of the run are others."""
    if not (bands := as_list(source.get("bands"))):
        return []
    names = ", ".join(map(format_value, bands))
    return [("bands", f"{names}; changed by init_bands={format_known(source, 'init_bands')}")]


def _weighting(weighting: Any) -> tuple[str, str]:
    """Return name and settings of a loss weighting; "" without one."""
    if not isinstance(weighting, dict):
        return "", ""
    settings = [f"{name} {format_value(weighting[name])}" for name in weighting if name != "name"]
    return format_known(weighting, "name"), ", ".join(settings)


# ---- training and speed


def training_section(run: History) -> Section:
    """Return the curves of loss, gradient norm and learning rate."""
    png = plots.draw_training(run.metrics, run.resumed)
    gaps = [
        f"{name} at step {format_steps(steps)}"
        for name in TRAINING
        if len(steps := nonfinite_steps(run.metrics.get(name)))
    ]
    return make_section(
        "Training",
        make_figure(png, "Loss, gradient norm and learning rate over the steps"),
        note("Dashed vertical lines: the run was resumed." if run.resumed else ""),
        note(missing_curves(run.metrics, TRAINING)),
        notice(f"Not finite (red crosses): {'; '.join(gaps)}.") if gaps else None,
    )


def speed_section(run: History) -> Section:
    """Return images per second and the time of a step by part."""
    png = plots.draw_throughput(run.metrics, run.resumed)
    return make_section(
        "Speed",
        make_figure(png, "Images per second; time of a step by part"),
        note(" ".join(filter(None, (_step_time(run.metrics), _checkpoint_time(run.metrics))))),
        note(missing_curves(run.metrics, ("images_per_second", "seconds"))),
    )


def _step_time(metrics: Mapping[str, Series]) -> str:
    """Return a sentence about the parts of the time of all steps."""
    parts = plots.step_time_parts(metrics)
    if not parts:
        return ""
    edges, values = plots.step_times(parts)
    spent = (values * np.diff(edges)).sum(1)
    shares = ", ".join(
        f"{plots.part_label(name)} {100 * share:.1f} %"
        for name, share in zip(parts, spent / max(spent.sum(), 1e-12), strict=True)
    )
    slowest = values.sum(0).argmax()
    return (
        f"In {format_duration(spent.sum())} of steps: {shares}. The slowest logged interval, "
        f"{format_number(values.sum(0)[slowest])} s per step, ends at step "
        f"{format_step(edges[slowest + 1])}."
    )


def _checkpoint_time(metrics: Mapping[str, Series]) -> str:
    """Return a sentence about the time of checkpoints."""
    times = []
    for name, what in (
        ("checkpoint_seconds", "to write"),
        ("checkpoint_blocked_seconds", "of training blocked"),
    ):
        if seconds := finite_series(metrics, name):
            median, longest = (format_number(f(seconds.values)) for f in (np.median, np.max))
            times.append(f"{median}, {longest} s {what}")
    return f"Checkpoints (median, longest): {'; '.join(times)}." if times else ""


# ---- other metrics


def other_metrics_section(run: History) -> Section | None:
    """Return curves and extremes of the metrics that no other section shows."""
    metrics = {name: series for name, series in run.metrics.items() if stem(name) not in SHOWN}
    if not metrics:
        return None
    names = tuple(dict.fromkeys(map(stem, metrics)))
    drawn = names[:MAX_PANELS]
    png = plots.draw_small_multiples(metrics, drawn, run.resumed)
    head = ("", "last", "at step", "lowest", "at step", "highest", "at step")
    return make_section(
        "Other metrics",
        make_figure(png, "Other metrics over the steps"),
        note(missing_curves(metrics, drawn)),
        note(f"Curves of the first {MAX_PANELS} of {len(names)}." if drawn != names else ""),
        make_table(
            head, [(name, *_extremes(series)) for name, series in metrics.items()], range(1, 7)
        ),
    )


def _extremes(series: Series) -> list[str]:
    """Return the last, lowest and highest value, each with its step."""
    steps, values = finite(series)
    if not len(values):
        return ["not finite", *[""] * 5]
    indices = (len(values) - 1, values.argmin(), values.argmax())
    return [
        text
        for index in indices
        for text in (format_number(values[index]), format_step(steps[index]))
    ]
