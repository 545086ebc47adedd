"""Table of the results of `accelerator.py`, of the parts that there are."""

from collections.abc import Mapping, Sequence

from benchmarks.measure import Results
from sar_mixmae_jax.utils.tables import markdown_table


def results_table(results: Mapping[str, Results], missing: Sequence[str]) -> str:
    """Return the results as Markdown.

    Args:
      results: results of every part by name, at least one.
      missing: parts without results.
    """
    machine = next(iter(results.values()))["machine"]
    rate = results.get("products", {}).get("matrix_flops_per_second")
    lines = [
        f"{machine['devices']} x {machine['device']}; {machine['processor']}, {machine['cores']} "
        f"cores; Python {machine['python']}, jax {machine['jax']}",
        "",
        *markdown_table(
            STEP_COLUMNS, [step_row(r, rate) for r in results.values() if "loops" in r]
        ),
        "",
        *markdown_table(("training loop", "images/s", "of the step"), loop_rows(results)),
        "",
        *markdown_table(("part", "result"), other_rows(results), text=2),
    ]
    if missing:
        lines += ["", f"Without results, see the log of each: {', '.join(missing)}."]
    return "\n".join(lines)


STEP_COLUMNS = (
    "step",
    "batch",
    "ms",
    "images/s",
    "TFLOP/s",
    "of the products",
    "peak memory, GB",
    "compilation, s",
    "… of all cores, s",
)


def step_row(r: Results, rate: float | None) -> tuple[str, ...]:
    """Return the row of a timed step.

    Args:
      r: of a part.
      rate: rate of matrix products, FLOP/s.
    """
    return (
        f"{r['variant']}, {r['kernels']}, {r['dtype']}",
        f"{r['batch_size']:,}",
        f"{1e3 * r['step_seconds']:.1f}",
        f"{r['step_images_per_second']:,.0f}",
        f"{r['flops_per_second'] / 1e12:.4g}",
        f"{r['flops_per_second'] / rate:.0%}" if rate else "-",
        f"{r['peak_memory_bytes'] / 1e9:.1f}",
        "cached" if r.get("compile_cached") else f"{r['compile_seconds']:.0f}",
        "cached" if r.get("compile_cached") else f"{r['compile_cpu_seconds']:.0f}",
    )


def loop_rows(results: Mapping[str, Results]) -> list[tuple[str, ...]]:
    """Return a row for each training loop."""
    return [
        (
            f"{part['variant']}, {part['kernels']}, batch {part['batch_size']:,}, cache {cache}",
            f"{loop['images_per_second']:,.0f}",
            f"{loop['over_step']:.1%}",
        )
        for part in results.values()
        for cache, loop in part.get("loops", {}).items()
    ]


def other_rows(results: Mapping[str, Results]) -> list[tuple[str, str]]:
    """Return rows of the parts that are no steps of pretraining."""
    rows = []
    if r := results.get("products"):
        rate = r["matrix_flops_per_second"]
        rows.append((f"{r['matrix_side']}³ matrix products", f"{rate / 1e12:.4g} TFLOP/s"))
    for field, errors in results.get("kernels", {}).get("worst_relative_errors", {}).items():
        text = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
        rows.append((f"fused {field}", f"worst relative error, with gradients: {text}"))
    for task, unit in (("classification", "images/s"), ("flood", "pairs/s")):
        if r := results.get(task):
            step, evaluation = (r[f"{task}_{k}_per_second"] for k in ("step", "evaluation"))
            text = f"step {step:,.0f}, evaluation {evaluation:,.0f} {unit}"
            rows.append((f"fine-tuning, {task}, batch {r[f'{task}_batch_size']}", text))
    if r := results.get("golden"):
        bad = r["failures"] + r["errors"]
        text = f"{r['tests'] - r['skipped'] - bad} passed, {bad} failed, {r['skipped']} skipped"
        if r["arrays"]:
            text += f"; worst of {r['arrays']} arrays {r['worst_relative_error']:.1e}"
        rows.append(("golden tests, float32", "; ".join([text, *r["failed"]])))
    if r := results.get("resume"):
        text = f"stopped after {r['stopped_after']} of {r['steps']} steps: losses "
        rows.append(("deterministic resume", text + ("equal" if r["equal"] else "differ")))
    if r := results.get("start"):
        text = f"{r['cold_seconds']:.1f} s without, {r['cached_seconds']:.1f} s with a cache"
        rows.append(("base, command to first loss", text))
    return rows
