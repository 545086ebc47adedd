"""Where does a train step spend its time? `python -m benchmarks.profile_step --variant=base`.

Traces one step on random images and prints what share of it each part of the model took, by kind of
operation. A fusion counts where its result belongs, and as the most of what it does: a product
before a reduction before a move before elementwise work. Where operations run side by side, as on
several cores, each gets an equal share of that moment.
"""

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import app, logging
from ml_collections import ConfigDict

from benchmarks.measure import FLAGS, config_of_flags
from sar_mixmae_jax.models.mixmae import init_params
from sar_mixmae_jax.objectives.preprocess import Preprocessing
from sar_mixmae_jax.objectives.reconstruction import PretrainObjective, pretrain_loss
from sar_mixmae_jax.training.config import make_model, make_weighting
from sar_mixmae_jax.training.optimizer import adamw
from sar_mixmae_jax.training.sharding import replicate, shard_batch
from sar_mixmae_jax.training.train_step import compile_train_step, init_state, map_over_devices
from sar_mixmae_jax.utils.command_line import fail, parse_flags
from sar_mixmae_jax.utils.errors import UserError
from sar_mixmae_jax.utils.tables import markdown_table

KINDS = {  # by operations of the compiled program; the first that a fusion contains counts
    "products": {"dot", "convolution", "custom-call"},
    "reductions": {"reduce", "reduce-window", "all-reduce"},
    "moves": {"copy", "transpose", "pad", "concatenate", "gather", "scatter"},
}
ELEMENTWISE = "elementwise"
PARTS = {  # by the name of the operation; the first that is found in it counts
    "LayerNorm": "norm",
    "MLP": "/mlp/",
    "attention": "/attn/|/qkv/|/proj/|/block_[0-9]+/",
    "rest of the model": "MixMAE",
}
OUTSIDE = "preprocessing, loss, optimizer"

Shares = dict[tuple[str, str], float]
"""(part, kind) -> share of the time."""


class Interval(NamedTuple):
    """An operation that ran: its name in the compiled program, start and end in ns."""

    name: str
    start: float
    end: float


def main(argv: Sequence[str]) -> None:
    """Profiles a step and prints the table."""
    del argv
    logging.set_verbosity(logging.WARNING)
    try:
        print(table(profile(config_of_flags())))
    except UserError as error:
        fail(error)


def profile(config: ConfigDict) -> Shares:
    """Compiles a train step, runs it once to warm up and once under the profiler."""
    size, bands = config.model.image_size, len(config.bands)
    settings = Preprocessing(size, (-15.0,) * bands, (5.0,) * bands, make_weighting(config))
    model = make_model(config)
    objective = PretrainObjective(model, settings, config.mask_ratio, config.norm_pix_loss)
    optimizer = adamw(lambda _: 1e-4, b1=0.9, b2=0.95, weight_decay=0.05)
    state = replicate(init_state(partial(init_params, model), optimizer, jax.random.key(0)))
    images = np.random.default_rng(0).normal(-15, 5, (config.batch_size, size, size, bands))
    batch = {"backscatter": shard_batch(images.astype(np.float32))}
    step = compile_train_step(
        map_over_devices(partial(pretrain_loss, objective=objective), optimizer), state, batch
    )
    state = jax.block_until_ready(step(state, batch)[0])
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(step(state, batch))
        (trace,) = Path(folder).rglob("*.xplane.pb")
        places = classify(step.as_text())  # type: ignore[attr-defined]
        return add_up(read_trace(trace, places), places)


def classify(program: str) -> dict[str, tuple[str, str]]:
    """Part and kind of every instruction of a compiled program, by its name."""
    operations: dict[str, set[str]] = defaultdict(set)
    instructions, inside = [], ""
    for line in program.splitlines():
        if line.startswith(("%", "ENTRY")):
            inside = line.removeprefix("ENTRY ").split()[0]
        elif found := re.match(r"\s+(?:ROOT )?%(\S+) = .*? ([a-z][a-z0-9-]*)\(", line):
            operations[inside].add(found[2])
            if found[2] not in ("while", "conditional", "call"):  # what they run is counted itself
                instructions.append((*found.groups(), line))
    places = {}
    for name, operation, line in instructions:
        called = re.search(r"calls=(%[^\s,]+)", line)
        done = operations[called[1]] if called else {operation}
        kind = next((kind for kind, known in KINDS.items() if known & done), ELEMENTWISE)
        label = re.search(r'op_name="([^"]*)"', line)
        path = label[1] if label else ""
        places[name] = (
            next((part for part, of in PARTS.items() if re.search(of, path)), OUTSIDE),
            kind,
        )
    return places


def read_trace(path: Path, names: Iterable[str]) -> list[Interval]:
    """What ran when; on CPU an operation may end after its event, where a second event says so."""
    names = set(names)
    started, ended = defaultdict(list), defaultdict(list)
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op", event.name)
                if name in names:
                    started[name].append((event.start_ns, event.end_ns))
                elif event.name.startswith("end: "):
                    ended[event.name.removeprefix("end: ")].append(event.end_ns)
    intervals = []
    for name, spans in started.items():
        ends = sorted(ended[name])
        if len(ends) != len(spans):
            ends = [0.0] * len(spans)
        for (start, end), last in zip(sorted(spans), ends, strict=True):
            intervals.append(Interval(name, start, max(end, last)))
    return intervals


def add_up(intervals: Iterable[Interval], places: dict[str, tuple[str, str]]) -> Shares:
    """Shares of the time in which anything ran, every moment divided among what ran then."""
    changes = sorted(
        [(one.start, 1, places[one.name]) for one in intervals]
        + [(one.end, -1, places[one.name]) for one in intervals]
    )
    total: dict[tuple[str, str], float] = defaultdict(float)
    running: Counter[tuple[str, str]] = Counter()
    before = 0.0
    for now, change, place in changes:
        count = running.total()
        for other, times in running.items():
            total[other] += (now - before) * times / count if times else 0.0
        running[place] += change
        before = now
    whole = sum(total.values())
    return {place: time / whole for place, time in total.items()}


def table(shares: Shares) -> str:
    """The shares in percent as a Markdown table, one row a part, one column a kind."""
    kinds, parts = [*KINDS, ELEMENTWISE], [*PARTS, OUTSIDE]
    rows = [(part, [shares.get((part, kind), 0.0) for kind in kinds]) for part in parts]
    rows.append(("all", [sum(column) for column in zip(*(row for _, row in rows), strict=True)]))
    cells = ([part, *(f"{100 * value:.1f}" for value in [*row, sum(row)])] for part, row in rows)
    return "\n".join(markdown_table(("% of the step", *kinds, "all"), cells))


if __name__ == "__main__":
    app.run(main, flags_parser=partial(parse_flags, flag_values=FLAGS))
