"""Which checkpoint of a run is the best, and by what."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sar_mixmae_jax.run_report import formatting, html, plots
from sar_mixmae_jax.run_report.history import History, Series, finite, lost, resumed, values_of
from sar_mixmae_jax.run_report.html import Markup, join, note, notice, section, table, tag
from sar_mixmae_jax.run_report.plots import drawable, stem
from sar_mixmae_jax.training.checkpoint import checkpoint_steps, metric_direction, select_step
from sar_mixmae_jax.training.config import flatten
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.tables import format_duration


class Best(NamedTuple):
    """The checkpoint that `evaluate` takes if it is not told otherwise.

    Attributes:
      step: of it.
      metric: by which it was chosen.
      value: of the metric then.
      word: "highest" or "lowest", of the values of the checkpoints that are kept.
      kept: how many these are.
    """

    step: int
    metric: str
    value: float
    word: str
    kept: int


def best_section(run: History, workdir: Path) -> Best | None:
    """The best checkpoint on the disk; None where the metric says nothing of it.

    Args:
      run: so far.
      workdir: of it.
    """
    metric = run.config.get("best_metric")
    if not isinstance(metric, str) or metric not in run.metrics or not metric_direction(metric):
        return None
    try:
        step = int(select_step(workdir, "best").name)
    except InputError:
        return None
    logged = finite(run.metrics[metric])
    value = logged.values[logged.steps == step]
    if not len(value):
        return None
    word = "lowest" if metric_direction(metric) == "min" else "highest"
    return Best(step, metric, float(value[0]), word, len(checkpoint_steps(workdir)))


def best_checkpoint(name: str, values: np.ndarray) -> int | None:
    """Where a metric was best; None where nobody knows whether more or less of it is better."""
    if not metric_direction(name) or not len(values):
        return None
    return int(values.argmin() if metric_direction(name) == "min" else values.argmax())


SETTINGS: dict[str, Callable[[Any], str]] = {
    "weighting.name": lambda name: f"weighting {formatting.value(name)}",
    "label_fraction": lambda share: "all labels" if share == 1 else f"labels: {_percent(share)}",
    "batch_size": lambda size: f"batches of {formatting.value(size)}",
}
"""Fields of the configuration that the first line tells, in words."""


def _percent(share: Any) -> str:
    number = isinstance(share, int | float)
    return f"{100 * share:g} %" if number else formatting.value(share)


def title(run: History) -> str:
    """What was trained on what: a task and its encoder, or a model."""
    dataset = formatting.value(run.dataset.get("name") or "unnamed data")
    if task := run.model.get("task"):
        return f"{formatting.value(task)}: {encoder(run)} on {dataset}"
    variant = dict(flatten(run.config)).get("model.variant")
    return f"{formatting.value(variant or 'A model')} on {dataset}"


def header_section(run: History, workdir: Path) -> Markup:
    """Title, what a reader must know before believing anything, and the key numbers."""
    caveats = run.dataset.get("caveats") or []
    caveats = caveats if isinstance(caveats, list) else [caveats]
    return join(
        tag("h1", title(run)),
        tag("p", "; ".join(_facts(run)), "lead"),
        *(notice(f"Caveat: {formatting.value(caveat)}") for caveat in caveats),
        *map(note, run.problems),
        tag("div", join(*(_tile(*tile) for tile in _tiles(run, workdir))), "tiles"),
    )


def _facts(run: History) -> list[str]:
    """The setting in a few words."""
    fields = dict(flatten(run.config))
    facts = [told(fields[name]) for name, told in SETTINGS.items() if fields.get(name) is not None]
    if isinstance(records := run.dataset.get("records"), int):
        facts.insert(0, f"{records:,} records")
    if run.starts:
        first, last = run.starts[0], run.starts[-1]
        facts += [formatting.devices(last), f"started {formatting.time(first.get('time'))}"]
        if len(run.starts) > 1:
            facts.append(
                f"resumed {len(run.starts) - 1} ×, last {formatting.time(last.get('time'))}"
            )
    return facts


def _tile(number: str, detail: str) -> Markup:
    return tag("div", join(tag("b", number), tag("span", detail)))


def _tiles(run: History, workdir: Path) -> list[tuple[str, str]]:
    """The key numbers, each with what belongs to it."""
    metrics = run.metrics
    tiles = []
    if metrics:
        last = max(series.steps[-1] for series in metrics.values())
        tiles.append((f"{formatting.step(last)} steps", _epochs(run)))
    if loss := values_of(metrics, "loss"):
        told, at = [f"{value:.4f}" for value in loss.values], loss.values.argmin()
        tiles.append((f"loss {told[-1]}", _when(loss, f"lowest {told[at]}", at)))
    if seen := values_of(metrics, "explained_variance"):
        told, at = [f"{100 * value:.1f} %" for value in seen.values], seen.values.argmax()
        tiles.append((f"explained {told[-1]}", _when(seen, f"highest {told[at]}", at)))
    chosen = best_section(run, workdir)
    if chosen and chosen.metric not in ("loss", "explained_variance"):  # whose tiles tell it
        why = f"by {formatting.metric(chosen.metric)} {chosen.value:.4f}, the {chosen.word} kept"
        tiles.append((f"best: step {formatting.step(chosen.step)}", why))
    if rate := values_of(metrics, "images_per_second"):
        median = formatting.number(np.median(rate.values))
        tiles.append((f"{median} images/s", "median of the logged intervals"))
    return tiles


def _when(series: Series, best: str, at: Any) -> str:
    last = formatting.step(series.steps[-1])
    return f"at step {last}; {best} at step {formatting.step(series.steps[at])}"


def _epochs(run: History) -> str:
    """Epochs done, and what the configuration asks for."""
    done = values_of(run.metrics, "epoch")
    told = f"{done.values[-1]:,.2f}" if done else "unknown"
    steps, epochs = run.config.get("total_steps"), run.config.get("epochs")
    if steps:
        return f"epochs: {told}; planned: {formatting.value(steps)} steps"
    planned = f" of {formatting.exact(epochs).removesuffix('.0')}" if epochs else ""
    return f"epochs: {told}{planned}"


ENOUGH = 5
"""Encoders, each of which was the start of the one before."""


def initialisation_section(run: History) -> Markup:
    """Dataset, weighting, step, caveats; nothing for a run that does not ask for an encoder."""
    if "pretrained" not in run.model:
        return Markup()
    heading, found = "Origin of the encoder", run.model["pretrained"]
    if not isinstance(found, dict):
        return section(heading, note("Random: it was not pretrained."))
    parts: list[Markup] = []
    while isinstance(found, dict) and len(parts) < 2 * ENOUGH:
        parts += [note("It began with this one:") if parts else Markup(), _one(found)]
        found = found.get("pretrained")
    return section(heading, *parts, style="whole")


def encoder(run: History) -> str:
    """The encoder in a few words, for titles."""
    variant = formatting.value(run.model.get("variant") or "")
    found = run.model.get("pretrained")
    if not isinstance(found, dict):
        return " ".join(f"a random {variant} encoder".split())
    name = _weighting(found.get("weighting"))[0]
    weights = f", weighting {name}" if name else ""
    return f"{variant or 'encoder'} of step {_known(found, 'step')}{weights}"


def _one(found: dict[str, Any]) -> Markup:
    """What is known of an encoder."""
    caveats = found.get("caveats") or []
    caveats = caveats if isinstance(caveats, list) else [caveats]
    name, settings = _weighting(found.get("weighting"))
    told = f"{name} ({settings})" if settings else name
    rows = [
        ("checkpoint", tag("code", _known(found, "checkpoint"))),
        ("trained by", f"{_known(found, 'trainer')}, step {_known(found, 'step')}"),
        ("on", _known(found, "dataset")),
        ("checksum", tag("code", _known(found, "dataset_checksum"))),
        ("loss weights", told or "none"),
        ("seed", _known(found, "seed")),
        ("SHA-256 of its last norm", tag("code", _known(found, "sha256"))),
    ]
    return join(
        *(notice(f"Caveat of its training: {formatting.value(caveat)}") for caveat in caveats),
        table((), rows),
    )


def _weighting(found: Any) -> tuple[str, str]:
    """Name and settings of loss weights; "" where there were none."""
    if not isinstance(found, dict):
        return "", ""
    settings = [f"{name} {formatting.value(found[name])}" for name in found if name != "name"]
    return _known(found, "name"), ", ".join(settings)


def _known(found: dict[str, Any], name: str) -> str:
    return "not known" if found.get(name) is None else formatting.value(found[name])


def training_section(run: History) -> Markup:
    """Loss, gradient norm and learning rate."""
    png = plots.draw_training(run.metrics, resumed(run.starts))
    names = ("loss", "gradient_norm", "learning_rate")
    holes = [
        f"{name} at step {formatting.steps(steps)}"
        for name in names
        if len(steps := lost(run.metrics.get(name)))
    ]
    again = "Dashed vertical lines: the run was resumed." if resumed(run.starts) else ""
    return section(
        "Training",
        html.picture(png, "Loss, gradient norm and learning rate over the steps") if png else "",
        note(again),
        note(left_out(run.metrics, names)),
        notice(f"Not finite (red crosses): {'; '.join(holes)}.") if holes else "",
    )


def speed_section(run: History) -> Markup:
    """Images per second, and what the time goes into."""
    png = plots.draw_throughput(run.metrics, resumed(run.starts))
    told = " ".join(filter(None, (_time_spent(run.metrics), _saving(run.metrics))))
    return section(
        "Speed",
        html.picture(png, "Images per second; what the time of a step goes into") if png else "",
        note(told),
        note(left_out(run.metrics, ("images_per_second", "seconds"))),
    )


def _time_spent(metrics: Mapping[str, Series]) -> str:
    """Shares of the time of all steps."""
    parts = plots.draw_step_parts(metrics)
    if not parts:
        return ""
    edges, values = plots.durations(parts)
    spent = (values * np.diff(edges)).sum(1)
    shares = ", ".join(
        f"{plots.activity(name)} {100 * share:.1f} %"
        for name, share in zip(parts, spent / max(spent.sum(), 1e-12), strict=True)
    )
    slowest = values.sum(0).argmax()
    return (
        f"In {format_duration(spent.sum())} of steps: {shares}. The slowest logged interval, "
        f"{formatting.number(values.sum(0)[slowest])} s per step, ends at step "
        f"{formatting.step(edges[slowest + 1])}."
    )


def _saving(metrics: Mapping[str, Series]) -> str:
    """How long checkpoints took, and how long training stood still for them."""
    told = []
    for name, what in (
        ("checkpoint_seconds", "to the disk"),
        ("checkpoint_blocked_seconds", "of waiting"),
    ):
        if saves := values_of(metrics, name):
            median, longest = (formatting.number(f(saves.values)) for f in (np.median, np.max))
            told.append(f"{median}, {longest} s {what}")
    return f"Checkpoints (median, longest): {'; '.join(told)}." if told else ""


def left_out(metrics: Mapping[str, Series], names: tuple[str, ...]) -> str:
    """A sentence on the curves that there are not."""
    missing = [
        name
        for name in names
        if not any(stem(one) == name and drawable(metrics[one]) for one in metrics)
    ]
    return f"No curve, for want of two values: {', '.join(missing)}." if missing else ""
