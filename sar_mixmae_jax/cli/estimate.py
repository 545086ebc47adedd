"""Estimate memory and time of a pretraining run.

  sar-mixmae estimate --config=pretrain:variant=base --devices=8
  sar-mixmae estimate --config=pretrain:variant=base --compile=v5e:2x2 --config.batch_size=512

Counts operations and bytes from the configuration and the number of patches, and divides them by
the figures of named accelerators; docs/results.md compares with measurements. With --compile the
step is compiled for a TPU topology, without a TPU, and compared with the count. Prints tables;
--out writes JSON.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict

from sar_mixmae_jax.cli.config_file import CONFIG_HELP, parse_config_flags
from sar_mixmae_jax.data.metadata import open_builder
from sar_mixmae_jax.training.accelerators import ASSUMED_UTILISATION, GIB
from sar_mixmae_jax.training.compiled_cost import estimate_compiled
from sar_mixmae_jax.training.cost import BIGEARTHNET_V2, Results, estimate
from sar_mixmae_jax.training.scaling import (
    DEVICE_COUNTS,
    READ_IMAGES_PER_SECOND,
    estimate_all_scaling,
)
from sar_mixmae_jax.training.step_program import EXAMPLES
from sar_mixmae_jax.utils.command_line import report_errors
from sar_mixmae_jax.utils.errors import InputError, unknown_name
from sar_mixmae_jax.utils.files import atomic_write
from sar_mixmae_jax.utils.tables import markdown_table

FLAGS = flags.FlagValues()
flags.DEFINE_string("config", None, CONFIG_HELP, flag_values=FLAGS)
RECORDS = flags.DEFINE_integer(
    "records",
    None,
    "patches in an epoch (default: of the built dataset, or of BigEarthNet v2)",
    1,
    flag_values=FLAGS,
)
COMPILE = flags.DEFINE_string(
    "compile",
    None,
    f"compile the step for a TPU topology that libtpu names, such as {EXAMPLES}; minutes",
    flag_values=FLAGS,
)
READING_RATE = flags.DEFINE_float(
    "reading_rate",
    READ_IMAGES_PER_SECOND,
    "images/s that a host reads",
    1.0,
    flag_values=FLAGS,
)
DEVICES = flags.DEFINE_integer(
    "devices", 1, "number of devices that share the batch", 1, flag_values=FLAGS
)
SIDE = flags.DEFINE_integer(
    "side",
    None,
    "side of a stored patch in pixels (default: as --records)",
    1,
    2**16,
    flag_values=FLAGS,
)
UTILISATION = flags.DEFINE_float(
    "utilisation",
    None,
    "fraction of the peak that matrix products reach (default: see the table)",
    0.001,
    1.0,
    flag_values=FLAGS,
)
OUT = flags.DEFINE_string("out", None, "JSON file to write", flag_values=FLAGS)

BIGEARTHNET_NAME = "bigearthnet_s1/v2"
NOTE = (
    f"Times have two digits at most: a utilisation of {ASSUMED_UTILISATION:.0%} is an assumption "
    "where it is not marked as measured, on `base`; smaller models reach less (`tiny` 27% on a "
    "CPU). Gradients are exchanged at the full rate of the links, after the backward pass. Not "
    "counted: evaluation, compilation and checkpoints."
)
BOUND_NOTE = (
    "The bound takes all operations at the peak, or all traffic at full bandwidth, whichever is "
    "longer, then the exchange of gradients. XLA counts all operands of an operation as traffic, "
    "also those that are on the chip."
)


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Estimate as the command line says, and print the tables."""
    config = parse_config_flags(argv, FLAGS, __doc__, {"config": "pretrain"})
    if config.get("trainer") != "pretrain":
        raise InputError(
            f"found a configuration of {config.get('trainer')}, expected one of pretraining, such "
            "as --config=pretrain"
        )
    jax.config.update("jax_platforms", "cpu")  # no computation: leave accelerators to others
    records, side = dataset_size(config)
    if COMPILE.value is not None:
        if FLAGS["devices"].present:
            raise InputError(
                f"found --devices={DEVICES.value} and --compile={COMPILE.value}, which sets the "
                "number of devices: give one of them"
            )
        results = estimate_compiled(config, COMPILE.value, records, side)
        print(f"{compiled_table(results)}\n\n{BOUND_NOTE}")
    else:
        results = estimate(
            config,
            records,
            devices=DEVICES.value,
            side=side,
            utilisation=UTILISATION.value,
        )
        results["scaling"] = estimate_all_scaling(
            config,
            devices=DEVICES.value,
            side=side,
            utilisation=UTILISATION.value,
            reading_rate=READING_RATE.value,
        )
        print(tables(results))
    if OUT.value:
        try:
            atomic_write(Path(OUT.value), json.dumps(results, indent=2).encode() + b"\n")
        except OSError as error:
            raise InputError(
                f"cannot write {OUT.value}: {error.strerror}: choose another --out"
            ) from error


def dataset_size(config: ConfigDict) -> tuple[int, int]:
    """Return number and side of the patches, and print where they are from.

    Raises:
      InputError: the dataset is not built, and --records or --side is missing; or it has no such
        split.
    """
    if RECORDS.value and SIDE.value:
        return RECORDS.value, SIDE.value
    name, source = config.dataset, f"{config.split} in {config.data_dir}"
    try:
        info = open_builder(name, config.data_dir).info
    except InputError as error:
        if name != BIGEARTHNET_NAME:
            raise InputError(f"{error}; or give --records and --side") from error
        records, side, source = BIGEARTHNET_V2, 120, "as published; not built here"
    else:
        try:
            records = info.splits[config.split].num_examples
        except (KeyError, ValueError) as error:
            raise unknown_name(config.split, info.splits, f"split of {name}") from error
        side = info.features["backscatter"].shape[0]
    records, side = RECORDS.value or records, SIDE.value or side
    print(f"patches: {records:,} of {side} px ({name}, {source})\n")
    return records, side


def tables(results: Results) -> str:
    """Return all results, with "scaling", as Markdown."""
    parts = [run_table(results), memory_table(results), accelerator_table(results)]
    parts += [scaling_table(results, kind) for kind in ("fixed batch", "fixed share")]
    return "\n\n".join([*parts, NOTE])


def run_table(results: Results) -> str:
    """Return the table of the run and its arithmetic."""
    r = results
    sizes = (f"{size / 1e3:.1f} kB in {name}" for name, size in r["record_bytes"].items())
    rows = {
        "model": f"{r['variant']}, {r['parameters']:,} parameters",
        "run": f"{r['steps']:,} steps of {r['batch_size']:,} of {r['records']:,} patches",
        "forward pass, one image": f"{r['encoder_flops'] / 1e9:.2f} GFLOP encoder, "
        f"{r['decoder_flops'] / 1e9:.2f} GFLOP decoder",
        "step": f"{r['step_flops'] / 1e12:.3g} TFLOP",
        "whole run": f"{r['run_flops'] / 1e18:.3g} EFLOP",
        "gradients": f"{r['gradient_bytes'] / 1e6:,.0f} MB exchanged per step",
        "record, uncompressed": ", ".join(sizes),
    }
    return "\n".join(markdown_table(("", ""), rows.items(), text=2))


def memory_table(results: Results) -> str:
    """Return the table of a device's memory by purpose, with a column for each dtype."""
    columns = results["memory"].values()
    title = f"GiB, {results['batch_size'] // results['devices']:,} images on a device"
    if results["grad_accum_steps"] > 1:
        title += f" in {results['grad_accum_steps']} microbatches"
    if results["remat"] != "none":
        title += f", remat={results['remat']}"
    parts = [(part, [column[part] for column in columns]) for part in next(iter(columns))]
    parts = [(part, sizes) for part, sizes in parts if any(sizes)]
    parts.append(("total", [sum(column.values()) for column in columns]))
    rows = ([part, *(f"{size / GIB:.2f}" for size in sizes)] for part, sizes in parts)
    return "\n".join(markdown_table((title, *results["memory"]), rows))


def accelerator_table(results: Results) -> str:
    """Return the table of times, rates and the largest batch; a dash marks unknown numbers."""
    head = (
        f"{results['devices']} x",
        "dtype",
        "peak, TFLOP/s",
        "utilisation",
        "step: products",
        "step: memory traffic",
        "step: exchange",
        "images/s, if read as fast",
        "images/s per host",
        "whole run, if read as fast",
        "reading float32, MB/s",
        "reading float16, MB/s",
        "largest batch",
    )
    batch_size = results["batch_size"]
    rows = (_row(name, device, batch_size) for name, device in results["accelerators"].items())
    return "\n".join(markdown_table(head, rows, text=2))


def _row(name: str, device: Results, batch_size: int) -> list[str]:
    reading = device["reading_bytes_per_second"] or {"float32": None, "float16": None}
    source = "measured with `base`" if device["utilisation_measured"] else "assumed"
    numbers: list[tuple[float | None, Callable[[float], str]]] = [
        (device["peak_flops_per_second"], lambda peak: f"{peak / 1e12:.3g}"),
        (device["utilisation"], lambda fraction: f"{fraction:.0%}, {source}"),
        (device["products_seconds"], two_digit_duration),
        (device["traffic_seconds"], two_digit_duration),
        (device["exchange_seconds"], two_digit_duration),
        (device["images_per_second"], two_digits),
        (device["images_per_second_and_host"], two_digits),
        (device["run_seconds"], two_digit_duration),
        *((rate, lambda rate: two_digits(rate / 1e6)) for rate in reading.values()),
        (
            device["largest_batch"],
            lambda images: f"{images:,}{' (too small)' if images < batch_size else ''}",
        ),
    ]
    cells = ("-" if number is None else text(number) for number, text in numbers)
    return [name, device["dtype"], *cells]


def scaling_table(results: Results, kind: str) -> str:
    """Return the table of images/s by number of devices, with efficiency and limit.

    Args:
      results: of `estimate`, with "scaling".
      kind: "fixed batch" or "fixed share".
    """
    title = f"images/s, batch of {results['batch_size']:,}"
    if kind == "fixed share":
        title = f"images/s, {results['batch_size'] // results['devices']:,} images on a device"
    rows = (
        [name, *map(_rate, by_kind[kind])]
        for name, by_kind in results["scaling"].items()
        if any(by_kind[kind])
    )
    return "\n".join(markdown_table((title, *map(str, DEVICE_COUNTS)), rows))


def _rate(rate: Results | None) -> str:
    if rate is None:
        return "-"
    return f"{two_digits(rate['images_per_second'])} ({rate['efficiency']:.0%}, {rate['limit']})"


def compiled_table(results: Results) -> str:
    """Return the table of a step compiled for TPUs beside the paper estimate."""
    r = results
    available = r["available"] or r["device_memory"]
    fit = "fits" if r["fits"] else "does not fit"
    rows: list[tuple[str, ...]] = [
        ("devices", f"{r['devices']} x {r['kind']}, {r['chips']} chips", ""),
        ("images on a device", f"{r['images']:,}", ""),
        ("memory that a device has, GiB", _format(available, GIB), ""),
        (f"memory needed ({fit}), GiB", *_pair(r, "required", "estimated_memory", GIB)),
        *((f"… {name}", _format(size, GIB), "") for name, size in (r["memory"] or {}).items()),
        ("TFLOP of a device", *_pair(r, "flops", "estimated_flops", 1e12)),
        ("traffic of a device, GB", *_pair(r, "traffic", "estimated_traffic", 1e9)),
        ("gradients exchanged, MB", *_pair(r, "exchanged", "estimated_exchanged", 1e6)),
    ]
    bound, estimated = r.get("bound_seconds"), r.get("estimated_seconds")
    for name in ("products", "traffic", "exchange", "step"):
        pair = (times and times[name] for times in (bound, estimated))
        rows.append((f"time: {name}", *map(_duration, pair)))
    rates = (times and r["batch_size"] / times["step"] for times in (bound, estimated))
    rows.append(("images/s", *("-" if rate is None else two_digits(rate) for rate in rates)))
    rows.append(("limit", *(times["limit"] if times else "-" for times in (bound, estimated))))
    head = (f"{r['topology']}, {r['dtype']}", "compiled: bound", "paper estimate")
    lines = markdown_table(head, rows)
    if not r["fits"]:
        changes = ", or ".join(r["changes"]) or "a smaller model, or chips with more memory"
        lines += [
            "",
            f"The step does not fit: found {_format(r['required'], GIB)} GiB, expected at most "
            f"{_format(available, GIB)} GiB on a device. Estimated to fit: {changes}.",
        ]
    return "\n".join(lines)


def _pair(results: Results, compiled: str, estimated: str, unit: float) -> tuple[str, str]:
    return _format(results[compiled], unit), _format(results[estimated], unit)


def _format(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:.3g}"


def _duration(seconds: float | None) -> str:
    return "-" if seconds is None else two_digit_duration(seconds)


def two_digits(value: float) -> str:
    """Format a number with two significant digits: 10237 as "10,000", 0.0251 as "0.025"."""
    rounded = float(f"{value:.1e}")
    decimals = 1 - math.floor(math.log10(rounded)) if rounded > 0 else 0
    return f"{rounded:,.{max(decimals, 0)}f}"


def two_digit_duration(seconds: float) -> str:
    """Format a duration in the unit that suits it, with two significant digits."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 2 * length:
            return f"{two_digits(seconds / length)} {unit}"
    return f"{two_digits(1e3 * seconds)} ms"


if __name__ == "__main__":
    main(sys.argv)
