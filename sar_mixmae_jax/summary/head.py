"""The head of the page: what was trained on what, how far it got, how well."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sar_mixmae_jax.configuration import flatten
from sar_mixmae_jax.summary import wording
from sar_mixmae_jax.summary.best import best
from sar_mixmae_jax.summary.history import History, Series, values_of
from sar_mixmae_jax.summary.markup import Markup, join, note, notice, tag
from sar_mixmae_jax.summary.origin import encoder

SETTINGS: dict[str, Callable[[Any], str]] = {
    "weighting.name": lambda name: f"weighting {wording.value(name)}",
    "label_fraction": lambda share: "all labels" if share == 1 else f"labels: {_percent(share)}",
    "batch_size": lambda size: f"batches of {wording.value(size)}",
}
"""Fields of the configuration that the first line tells, in words."""


def _percent(share: Any) -> str:
    number = isinstance(share, int | float)
    return f"{100 * share:g} %" if number else wording.value(share)


def title(run: History) -> str:
    """What was trained on what: a task and its encoder, or a model."""
    dataset = wording.value(run.dataset.get("name") or "unnamed data")
    if task := run.model.get("task"):
        return f"{wording.value(task)}: {encoder(run)} on {dataset}"
    variant = dict(flatten(run.config)).get("model.variant")
    return f"{wording.value(variant or 'A model')} on {dataset}"


def head(run: History, workdir: Path) -> Markup:
    """Title, what a reader must know before believing anything, and the key numbers."""
    caveats = run.dataset.get("caveats") or []
    caveats = caveats if isinstance(caveats, list) else [caveats]
    return join(
        tag("h1", title(run)),
        tag("p", "; ".join(_facts(run)), "lead"),
        *(notice(f"Caveat: {wording.value(caveat)}") for caveat in caveats),
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
        facts += [wording.devices(last), f"started {wording.time(first.get('time'))}"]
        if len(run.starts) > 1:
            facts.append(f"resumed {len(run.starts) - 1} ×, last {wording.time(last.get('time'))}")
    return facts


def _tile(number: str, detail: str) -> Markup:
    return tag("div", join(tag("b", number), tag("span", detail)))


def _tiles(run: History, workdir: Path) -> list[tuple[str, str]]:
    """The key numbers, each with what belongs to it."""
    metrics = run.metrics
    tiles = []
    if metrics:
        last = max(series.steps[-1] for series in metrics.values())
        tiles.append((f"{wording.step(last)} steps", _epochs(run)))
    if loss := values_of(metrics, "loss"):
        told, at = [f"{value:.4f}" for value in loss.values], loss.values.argmin()
        tiles.append((f"loss {told[-1]}", _when(loss, f"lowest {told[at]}", at)))
    if seen := values_of(metrics, "explained"):
        told, at = [f"{100 * value:.1f} %" for value in seen.values], seen.values.argmax()
        tiles.append((f"explained {told[-1]}", _when(seen, f"highest {told[at]}", at)))
    chosen = best(run, workdir)
    if chosen and chosen.metric not in ("loss", "explained"):  # whose tiles tell it
        why = f"by {wording.metric(chosen.metric)} {chosen.value:.4f}, the {chosen.word} kept"
        tiles.append((f"best: step {wording.step(chosen.step)}", why))
    if rate := values_of(metrics, "images_per_second"):
        median = wording.number(np.median(rate.values))
        tiles.append((f"{median} images/s", "median of the logged intervals"))
    return tiles


def _when(series: Series, best: str, at: Any) -> str:
    last = wording.step(series.steps[-1])
    return f"at step {last}; {best} at step {wording.step(series.steps[at])}"


def _epochs(run: History) -> str:
    """Epochs done, and what the configuration asks for."""
    done = values_of(run.metrics, "epoch")
    told = f"{done.values[-1]:,.2f}" if done else "unknown"
    steps, epochs = run.config.get("max_steps"), run.config.get("epochs")
    if steps:
        return f"epochs: {told}; planned: {wording.value(steps)} steps"
    planned = f" of {wording.exact(epochs).removesuffix('.0')}" if epochs else ""
    return f"epochs: {told}{planned}"
