"""The sections of the page about how far a run got, how well and how fast."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sar_mixmae_jax.configuration import flatten
from sar_mixmae_jax.summary import curves, markup, wording
from sar_mixmae_jax.summary.history import History, Series, finite, lost, resumed
from sar_mixmae_jax.summary.markup import Markup, join, note, notice, section, tag


def title(run: History) -> str:
    """What was trained on what."""
    variant = dict(flatten(run.config)).get("model.variant")
    dataset = run.dataset.get("name")
    return f"{wording.value(variant or 'A model')} on {wording.value(dataset or 'unnamed data')}"


def head(run: History) -> Markup:
    """Title, what a reader must know before believing anything, and the key numbers."""
    caveats = run.dataset.get("caveats") or []
    caveats = caveats if isinstance(caveats, list) else [caveats]
    return join(
        tag("h1", title(run)),
        tag("p", "; ".join(_facts(run)), "lead"),
        *(notice(f"Caveat: {wording.value(caveat)}") for caveat in caveats),
        *map(note, run.problems),
        tag("div", join(*(_tile(*tile) for tile in _tiles(run))), "tiles"),
    )


def _facts(run: History) -> list[str]:
    """The setting in a few words."""
    fields = dict(flatten(run.config))
    known = {"weighting.name": "weighting {}", "batch_size": "batches of {}"}
    facts = [
        told.format(wording.value(fields[name]))
        for name, told in known.items()
        if fields.get(name) is not None
    ]
    if isinstance(records := run.dataset.get("records"), int):
        facts.insert(0, f"{records:,} records")
    if run.starts:
        first, last = run.starts[0], run.starts[-1]
        facts += [wording.devices(last), f"started {wording.time(first.get('time'))}"]
        if len(run.starts) > 1:
            facts.append(f"resumed {len(run.starts) - 1} ×, last {wording.time(last.get('time'))}")
    return facts


def _tile(number: str, detail: str) -> Markup:
    return tag("div", join(tag("b", number), tag("span", detail)))


def _tiles(run: History) -> list[tuple[str, str]]:
    """The key numbers, each with what belongs to it."""
    metrics = run.metrics
    tiles = []
    if metrics:
        last = max(series.steps[-1] for series in metrics.values())
        tiles.append((f"{wording.step(last)} steps", _epochs(run)))
    if loss := _values(metrics, "loss"):
        told, at = [f"{value:.4f}" for value in loss.values], loss.values.argmin()
        tiles.append((f"loss {told[-1]}", _when(loss, f"lowest {told[at]}", at)))
    if seen := _values(metrics, "explained"):
        told, at = [f"{100 * value:.1f} %" for value in seen.values], seen.values.argmax()
        tiles.append((f"explained {told[-1]}", _when(seen, f"highest {told[at]}", at)))
    if rate := _values(metrics, "images_per_second"):
        median = wording.number(np.median(rate.values))
        tiles.append((f"{median} images/s", "median of the logged intervals"))
    return tiles


def _values(metrics: Mapping[str, Series], name: str) -> Series | None:
    """The finite values of a metric, None where there are none."""
    series = finite(metrics[name]) if name in metrics else None
    return series if series is not None and len(series.values) else None


def _when(series: Series, best: str, at: Any) -> str:
    last = wording.step(series.steps[-1])
    return f"at step {last}; {best} at step {wording.step(series.steps[at])}"


def _epochs(run: History) -> str:
    """Epochs done, and what the configuration asks for."""
    done = _values(run.metrics, "epoch")
    told = f"{done.values[-1]:,.2f}" if done else "unknown"
    steps, epochs = run.config.get("max_steps"), run.config.get("epochs")
    if steps:
        return f"epochs: {told}; planned: {wording.value(steps)} steps"
    planned = f" of {wording.exact(epochs).removesuffix('.0')}" if epochs else ""
    return f"epochs: {told}{planned}"


def training(run: History) -> Markup:
    """Loss, gradient norm and learning rate."""
    png = curves.training(run.metrics, resumed(run.starts))
    names = ("loss", "gradient_norm", "learning_rate")
    holes = [
        f"{name} at step {wording.steps(steps)}"
        for name in names
        if len(steps := lost(run.metrics.get(name)))
    ]
    again = "Dashed vertical lines: the run was resumed." if resumed(run.starts) else ""
    return section(
        "Training",
        markup.picture(png, "Loss, gradient norm and learning rate over the steps") if png else "",
        note(again),
        note(left_out(run.metrics, names)),
        notice(f"Not finite (red crosses): {'; '.join(holes)}.") if holes else "",
    )


def speed(run: History) -> Markup:
    """Images per second, and what the time goes into."""
    png = curves.throughput(run.metrics, resumed(run.starts))
    told = " ".join(filter(None, (_time_spent(run.metrics), _saving(run.metrics))))
    return section(
        "Speed",
        markup.picture(png, "Images per second; what the time of a step goes into") if png else "",
        note(told),
        note(left_out(run.metrics, ("images_per_second", "seconds"))),
    )


def _time_spent(metrics: Mapping[str, Series]) -> str:
    """Shares of the time of all steps."""
    parts = curves.parts_of_step(metrics)
    if not parts:
        return ""
    edges, values = curves.durations(parts)
    spent = (values * np.diff(edges)).sum(1)
    shares = ", ".join(
        f"{curves.activity(name)} {100 * share:.1f} %"
        for name, share in zip(parts, spent / max(spent.sum(), 1e-12), strict=True)
    )
    slowest = values.sum(0).argmax()
    return (
        f"In {wording.duration(spent.sum())} of steps: {shares}. The slowest logged interval, "
        f"{wording.number(values.sum(0)[slowest])} s per step, ends at step "
        f"{wording.step(edges[slowest + 1])}."
    )


def _saving(metrics: Mapping[str, Series]) -> str:
    """How long checkpoints took, and how long training stood still for them."""
    told = []
    for name, what in (
        ("checkpoint_seconds", "to the disk"),
        ("checkpoint_blocked_seconds", "of waiting"),
    ):
        if saves := _values(metrics, name):
            median, longest = (wording.number(f(saves.values)) for f in (np.median, np.max))
            told.append(f"{median}, {longest} s {what}")
    return f"Checkpoints (median, longest): {'; '.join(told)}." if told else ""


def left_out(metrics: Mapping[str, Series], names: tuple[str, ...]) -> str:
    """A sentence on the curves that there are not."""
    missing = [
        name
        for name in names
        if not any(curves.stem(one) == name and curves.drawable(metrics[one]) for one in metrics)
    ]
    return f"No curve, for want of two values: {', '.join(missing)}." if missing else ""
