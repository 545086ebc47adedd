"""The results as a table."""

from sar_mixmae_jax.benchmark.clock import Results


def table(results: Results) -> str:
    """The results as a Markdown table."""
    r, machine = results, results["machine"]
    share = r["flops_per_second"] / r["matrix_flops_per_second"]
    rows = {
        "machine": f"{machine['processor']}, {machine['cores']} cores; "
        f"{machine['devices']} x {machine['device']}",
        "model": f"{r['variant']}, {r['image_size']} px, batch {r['batch_size']}, {r['dtype']}",
        "reading and batching": f"{r['reading_images_per_second']:.0f} images/s",
        "… against a per-sample loop": f"{r['reading_speedup']:.1f} x "
        f"({r['per_sample_images_per_second']:.0f} images/s)",
        "pretraining step": f"{r['step_images_per_second']:.2f} images/s "
        f"({r['step_seconds']:.3f} s)",
        "pretraining loop": f"{r['loop_images_per_second']:.2f} images/s "
        f"({100 * r['loop_over_step']:.1f} % of the step)",
        "fine-tuning step, labels": f"{r['classification_step_per_second']:.2f} images/s",
        "… evaluation, read from disk": f"{r['classification_evaluation_per_second']:.2f} images/s "
        f"({r['classification_evaluation_over_step']:.1f} x the step)",
        f"fine-tuning step, floods, 2 x {r['flood_size']} px": f"{r['flood_step_per_second']:.2f} "
        "pairs/s",
        "… evaluation of floods": f"{r['flood_evaluation_per_second']:.2f} pairs/s "
        f"({r['flood_evaluation_over_step']:.1f} x the step)",
        "arithmetic of the pretraining step": f"{r['flops_per_second'] / 1e9:.1f} GFLOP/s",
        f"{r['matrix_side']}³ matrix products": f"{r['matrix_flops_per_second'] / 1e9:.1f} GFLOP/s",
        "step against products": f"{100 * share:.1f} %",
        "compiling the step": f"{r['compile_seconds']:.1f} s",
        "peak memory": f"{r['peak_memory_bytes'] / 2**30:.2f} GiB",
    }
    lines = (f"| {name} | {value} |" for name, value in rows.items())
    return "\n".join(["| | |", "|---|---|", *lines])
