"""What will a run cost? `python -m sar_mixmae_jax.cli.estimate --config=configs/pretrain.py`.

No model is run, no dataset is opened, no accelerator is needed. Prints tables, and writes JSON with
--out. docs/results.md compares with measurements.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from absl import app, flags

from sar_mixmae_jax.cli.common import CONFIG, parse_config_flags
from sar_mixmae_jax.training.accelerators import GIB
from sar_mixmae_jax.training.cost import BIGEARTHNET_V2, estimate
from sar_mixmae_jax.utils.command_line import fail
from sar_mixmae_jax.utils.errors import InputError, UserError
from sar_mixmae_jax.utils.files import atomic_write
from sar_mixmae_jax.utils.tables import format_duration, markdown_table

RECORDS = flags.DEFINE_integer(
    "records",
    BIGEARTHNET_V2,
    "patches in an epoch (default: recommended patches of train and validation in the metadata "
    "table of BigEarthNet v2.0)",
    1,
)
DEVICES = flags.DEFINE_integer("devices", 1, "how many share the batch", 1)
SIDE = flags.DEFINE_integer("side", 120, "of a stored patch in pixels", 1, 2**16)
UTILISATION = flags.DEFINE_float(
    "utilisation",
    None,
    "share of the peak that products reach, instead of those in the table",
    0.001,
    1.0,
)
OUT = flags.DEFINE_string("out", None, "JSON file to write")


def main(argv: Sequence[str]) -> None:
    """Estimates what the flags say."""
    del argv
    jax.config.update("jax_platforms", "cpu")  # takes no accelerator from a run that is going on
    try:
        results = estimate(
            CONFIG.value,
            RECORDS.value,
            devices=DEVICES.value,
            side=SIDE.value,
            utilisation=UTILISATION.value,
        )
        print(tables(results))
        if OUT.value:
            atomic_write(Path(OUT.value), json.dumps(results, indent=2).encode() + b"\n")
    except OSError as error:
        fail(InputError(f"cannot write {OUT.value}: {error.strerror}: choose another --out"))
    except UserError as error:
        fail(error)


Results = dict[str, Any]


CAVEAT = (
    "At best: exchanging gradients, reading, looking and saving are not counted, and nothing was "
    "measured on an accelerator; see docs/results.md."
)


def tables(results: Results) -> str:
    """All results as Markdown."""
    parts = [run_table(results), memory_table(results), accelerator_table(results), CAVEAT]
    return "\n\n".join(parts)


def run_table(results: Results) -> str:
    """The run and its arithmetic."""
    r = results
    sizes = (f"{size / 1e3:.1f} kB in {name}" for name, size in r["record_bytes"].items())
    rows = {
        "model": f"{r['variant']}, {r['parameters']:,} parameters",
        "run": f"{r['steps']:,} steps of {r['batch_size']:,} of {r['records']:,} patches",
        "forward, an image": f"{r['encoder_flops'] / 1e9:.2f} GFLOP encoder, "
        f"{r['decoder_flops'] / 1e9:.2f} GFLOP decoder",
        "a step": f"{r['step_flops'] / 1e12:.3g} TFLOP",
        "the run": f"{r['run_flops'] / 1e18:.3g} EFLOP",
        "a record, uncompressed": ", ".join(sizes),
    }
    return "\n".join(markdown_table(("", ""), rows.items(), text=2))


def memory_table(results: Results) -> str:
    """Memory of a device by part, a column for each dtype."""
    columns = results["memory"].values()
    about = f"{results['batch_size'] // results['devices']:,} images on a device"
    about += f" in {results['grad_accum_steps']} shares" if results["grad_accum_steps"] > 1 else ""
    about += ", remat" if results["remat"] else ""
    parts = [(part, [column[part] for column in columns]) for part in next(iter(columns))]
    parts = [(part, sizes) for part, sizes in parts if any(sizes)]
    parts.append(("total", [sum(column.values()) for column in columns]))
    rows = ([part, *(f"{size / GIB:.2f}" for size in sizes)] for part, sizes in parts)
    return "\n".join(markdown_table((f"GiB, {about}", *results["memory"]), rows))


def accelerator_table(results: Results) -> str:
    """Time, rates and the largest batch by accelerator; a dash is what is not known."""
    head = (
        f"{results['devices']} x",
        "dtype",
        "peak",
        "products reach",
        "a step: products",
        "traffic",
        "images/s",
        "the run",
        "reading float32",
        "float16",
        "largest batch",
    )
    rows = (_row(name, found) for name, found in results["accelerators"].items())
    return "\n".join(markdown_table(head, rows, text=2))


def _row(name: str, found: Results) -> list[str]:
    reading = found["reading_bytes_per_second"] or {"float32": None, "float16": None}
    source = "measured" if found["utilisation_measured"] else "assumed"
    numbers: list[tuple[float | None, Callable[[float], str]]] = [
        (found["peak_flops_per_second"], lambda peak: f"{peak / 1e12:.3g} TFLOP/s"),
        (found["utilisation"], lambda share: f"{share:.0%}, {source}"),
        (found["products_seconds"], format_duration),
        (found["traffic_seconds"], format_duration),
        (found["images_per_second"], lambda rate: f"{rate:,.{0 if rate >= 100 else 1}f}"),
        (found["run_seconds"], format_duration),
        *((rate, lambda rate: f"{rate / 1e6:,.1f} MB/s") for rate in reading.values()),
        (found["largest_batch"], lambda images: f"{images:,}"),
    ]
    cells = ("-" if number is None else text(number) for number, text in numbers)
    return [name, found["dtype"], *cells]


if __name__ == "__main__":
    app.run(
        main, flags_parser=partial(parse_config_flags, required={"config": "configs/pretrain.py"})
    )
