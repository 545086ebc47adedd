"""Time and memory of `sar-mixmae map` for square scenes, beside the model alone.

  python -m benchmarks.mapping --workdir=runs/water --sides=2500,10000

Every scene is mapped in a process of its own. The model alone computes batches of the same windows
from memory. Processor time is measured too: on a loaded machine only that can be compared.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

TILE = 512
"""Side of the simulated square that a scene repeats, pixels."""
BATCHES = 4
"""Batches by which the model alone is timed."""


def write_scene(path: Path, rows: int, columns: int) -> None:
    """Write a scene of speckle in dB, float32, deflate, with lakes and a border without data."""
    rng = np.random.default_rng(0)
    power = rng.gamma(4.4, 1 / 4.4, (2, TILE, TILE))
    means = np.array([10**-1.7, 10**-1.0])[:, None, None]
    y, x = np.mgrid[:TILE, :TILE] - TILE / 2
    means = np.where(np.hypot(x, y) < TILE / 4, means * 0.03, means)
    tile = (10 * np.log10(power * means)).astype(np.float32)
    profile = {
        "driver": "GTiff",
        "height": rows,
        "width": columns,
        "count": 2,
        "dtype": "float32",
        "nodata": np.nan,
        "crs": "EPSG:32633",
        "transform": rasterio.Affine(10, 0, 4e5, 0, -10, 5.3e6),
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "compress": "deflate",
    }
    with rasterio.open(path, "w", **profile) as raster:
        for number, name in enumerate(("VH", "VV"), start=1):
            raster.set_band_description(number, name)
        for top in range(0, rows, TILE):
            strip = np.tile(tile, (1, 1, -(-columns // TILE)))[:, : rows - top, :columns]
            strip[:, :, : columns // 50] = np.nan
            raster.write(strip, window=Window(0, top, columns, strip.shape[1]))


def measure(workdir: str, rows: int, columns: int) -> dict[str, float]:
    """Map a scene in this process, and return what it took.

    Args:
      workdir: working directory of the run.
      rows: rows of the scene.
      columns: columns of the scene.

    Returns:
      Seconds, processor seconds and peak memory of the map; windows, and what one takes with and
      without reading and writing.
    """
    from benchmarks.measure import peak_host_memory
    from sar_mixmae_jax.inference.map_model import ModelChoice, load_map_model
    from sar_mixmae_jax.inference.scene_input import MapMetadata, find_scenes, open_scenes
    from sar_mixmae_jax.inference.scene_products import MapSettings, map_scene
    from sar_mixmae_jax.inference.window_blending import WindowAxis
    from tfds_builders.s1_folder.scene_reader import NodataSettings

    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, f"scene{rows}_dB.tif"), Path(folder, "maps", "scene")
        out.parent.mkdir()
        write_scene(path, rows, columns)
        model = load_map_model(ModelChoice(Path(workdir), "best"))
        predictor = model.predictor
        shape = (predictor.batch_size, predictor.window, predictor.window, len(model.bands))
        batch = np.random.default_rng(0).normal(-15, 3, shape).astype(np.float32)
        np.asarray(predictor.predict([batch]))  # compiles
        start, processor = time.monotonic(), time.process_time()
        for _ in range(BATCHES):
            np.asarray(predictor.predict([batch]))
        alone = time.monotonic() - start, time.process_time() - processor
        start, processor = time.monotonic(), time.process_time()
        scenes, _ = find_scenes([str(path)], MapMetadata(model_bands=model.bands))
        with open_scenes(scenes, model.bands, NodataSettings(), out) as scene:
            survey = time.monotonic() - start, time.process_time() - processor
            map_scene(scene, model, out, MapSettings())
        spent = time.monotonic() - start, time.process_time() - processor
    axes = (WindowAxis(side, predictor.window, model.overlap) for side in (rows, columns))
    windows = int(np.prod([len(axis.starts) for axis in axes]))
    computed = BATCHES * predictor.batch_size
    return {
        "rows": rows,
        "columns": columns,
        "windows": windows,
        "seconds": spent[0],
        "cpu_seconds": spent[1],
        "survey_cpu_seconds": survey[1],
        "peak_gb": peak_host_memory() / 1e9,
        "share_of_rate": alone[0] / computed * windows / spent[0],
        "share_of_cpu": alone[1] / computed * windows / spent[1],
    }


def main() -> None:
    """Print a line of JSON for every scene."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True, help="run of configs/finetune.py")
    parser.add_argument("--sides", default="2500,10000", help="sides of scenes, or ROWSxCOLUMNS")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for side in arguments.sides.split(","):
        if not arguments.one:
            command = [sys.executable, "-m", "benchmarks.mapping", "--one"]
            subprocess.run(
                [*command, f"--workdir={arguments.workdir}", f"--sides={side}"], check=True
            )
            continue
        rows, _, columns = side.partition("x")
        print(json.dumps(measure(arguments.workdir, int(rows), int(columns or rows))), flush=True)


if __name__ == "__main__":
    main()
