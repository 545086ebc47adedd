"""Files of a mapped scene: classes and probabilities, results of windows, or features."""

import dataclasses
import glob
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from sar_mixmae_jax.inference.geoparquet import footprints, write_geoparquet
from sar_mixmae_jax.inference.map_model import MapModel
from sar_mixmae_jax.inference.principal_components import principal_components
from sar_mixmae_jax.inference.quicklook import (
    LONGEST_SIDE,
    QuicklookLayer,
    backscatter_layer,
    draw_quicklook,
)
from sar_mixmae_jax.inference.raster_output import (
    RasterBands,
    WriteRows,
    read_overview,
    write_array,
    write_raster,
)
from sar_mixmae_jax.inference.scene_pipeline import (
    BlockAverage,
    MapScene,
    WindowResult,
    WriteBehind,
    predict_rows,
)
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import atomic_write, report_write_errors
from sar_mixmae_jax.utils.plotting import NO_CLASS, class_colours

PART_VALUES = 4 * 2**20
"""Probabilities that are converted at once."""
PROBABILITY_STEPS = 250
"""Stored value of the probability 1; 255 is nodata."""

SUFFIXES = {
    "pixels": ("_probability.tif", "_classes.tif", ".png"),
    "windows": ("_windows.tif", ".png"),
    "features": ("_features.tif", "_features.parquet"),
}
"""Ends of the names of the files of a scene, by the kind of the model."""


@dataclasses.dataclass(frozen=True)
class MapSettings:
    """Settings of the files.

    Attributes:
      threshold: probability from which a pixel is of the second of two classes.
      components: number of principal components of the features of a scene; None: all features.
    """

    threshold: float = 0.5
    components: int | None = None


def output_files(stem: Path, kind: str) -> list[Path]:
    """Return the paths of all files of a scene.

    Args:
      stem: path without the ends of the names.
      kind: see `MapModel.kind`.
    """
    return [stem.with_name(stem.name + suffix) for suffix in SUFFIXES[kind]]


def existing_rasters(stem: Path, kind: str) -> list[Path]:
    """Return the rasters of a scene, or none if any of its files is missing or empty.

    Raises:
      InputError: a folder has the name of a file.
    """
    files = output_files(stem, kind)
    for file in files:
        if file.is_dir():
            raise InputError(f"{file}: found a folder, expected a file of a map or none: remove it")
    if not all(file.exists() and file.stat().st_size for file in files):
        return []
    return [file for file in files if file.suffix == ".tif"]


def remove_partial_files(stem: Path) -> None:
    """Remove the temporary files and folders of a scene that an interrupted run left."""
    name = glob.escape(stem.name)
    for path in stem.parent.glob(f".{name}.{'?' * 8}.partial"):
        shutil.rmtree(path, ignore_errors=True)
    for path in stem.parent.glob(f".{name}.{'?' * 8}.failure"):
        path.unlink(missing_ok=True)
    for suffix in {suffix for suffixes in SUFFIXES.values() for suffix in suffixes}:
        for path in stem.parent.glob(f".{name}{suffix}.*.partial"):
            path.unlink(missing_ok=True)


def settings_tags(settings: MapSettings, model: MapModel) -> dict[str, str]:
    """Return the settings that the map of a model depends on for its tags, by name."""
    if model.kind == "pixels" and len(model.classes) == 2:
        return {"THRESHOLD": f"probability of {model.classes[1]} at least {settings.threshold:g}"}
    if model.kind == "features":
        return {"COMPONENTS": str(settings.components or "all features")}
    return {}


def map_scene(
    scene: MapScene,
    model: MapModel,
    stem: Path,
    settings: MapSettings,
    description: str | None = None,
) -> list[Path]:
    """Map a scene and write its files, which replace those of an earlier map.

    All files are written into a folder beside them and renamed at the end, after those of the
    earlier map are removed: no two files are ever of different maps.

    Args:
      scene: to map.
      model: to map with.
      stem: path of the files, without the ends of their names.
      settings: settings of the files.
      description: text beside a progress bar; None for no progress bar.

    Raises:
      InputError: the scene cannot be read, or a file cannot be written.
    """
    expected = max(1, len(model.dates))
    if len(scene.dates) != expected:
        raise InputError(
            f"found {len(scene.dates)} dates of {scene.name}, expected {expected} for this model: "
            + ("give --before and --after" if expected == 2 else "name single scenes")
        )
    tags = {**model.tags, "SCENE": scene.name, **scene.tags, **settings_tags(settings, model)}
    paths = output_files(stem, model.kind)
    with report_write_errors(stem):
        stem.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(".partial", f".{stem.name}.", stem.parent) as folder:
            new = output_files(Path(folder, stem.name), model.kind)
            if model.kind == "pixels":
                _map_pixels(scene, model, tags, new, settings, description)
            elif model.kind == "windows":
                _map_windows(scene, model, tags, new, description)
            else:
                _map_features(scene, model, tags, new, settings, description)
            for path in paths:
                path.unlink(missing_ok=True)
            for written, path in zip(new, paths, strict=True):
                written.replace(path)
    return paths


def _overview(scene: MapScene) -> BlockAverage:
    return BlockAverage(scene.grid.shape, -(-max(scene.grid.shape) // LONGEST_SIDE))


def _map_pixels(
    scene: MapScene,
    model: MapModel,
    tags: dict[str, str],
    paths: list[Path],
    settings: MapSettings,
    description: str | None,
) -> None:
    probability_path, classes_path, quicklook_path = paths
    classes, overview = model.classes, _overview(scene)
    threshold = settings.threshold if len(classes) == 2 else None
    shown = classes[1:] if len(classes) == 2 else classes
    probability = RasterBands(
        tuple(f"probability of {name}" for name in shown),
        "uint8",
        NO_CLASS,
        "mean",
        scale=1 / PROBABILITY_STEPS,
    )
    shades = np.rint(255 * class_colours(len(classes))[:, :3]).astype(int)
    colours = {number: (red, green, blue) for number, (red, green, blue) in enumerate(shades)}
    numbers = RasterBands(("class",), "uint8", NO_CLASS, "mode", colours=colours)
    tags = {**tags, "CLASSES": ", ".join(f"{n} {name}" for n, name in enumerate(classes))}
    with ExitStack() as stack:
        write_classes = stack.enter_context(write_raster(classes_path, scene.grid, numbers, tags))
        write_probability = stack.enter_context(
            write_raster(probability_path, scene.grid, probability, tags)
        )
        rows = predict_rows(
            scene, model.predictor, model.overlap, description=description, overview=overview
        )
        writer = stack.enter_context(
            WriteBehind(_class_writer(write_classes, write_probability, threshold))
        )
        first = 0
        for strip in rows:
            writer(first, strip)
            first += len(strip)
    small = read_overview(classes_path, overview.db().shape)
    title = "most probable class"
    if threshold is not None:
        title = f"{classes[1]}: probability at least {threshold:g}"
    layer = QuicklookLayer(small, title, classes=classes)
    _write_quicklook(quicklook_path, scene, model, overview, [layer])


def _class_writer(
    write_classes: WriteRows, write_probability: WriteRows, threshold: float | None
) -> Callable[[int, np.ndarray], None]:
    """Return a function that writes a strip of probabilities to both rasters.

    Args:
      write_classes: to the raster of classes.
      write_probability: to the raster of probabilities.
      threshold: probability from which a pixel is of the second of two classes, whose probability
        is the only one; None: the most probable class.
    """

    def write(first: int, strip: np.ndarray) -> None:
        height = max(1, PART_VALUES // strip[0].size)
        for row in range(0, len(strip), height):
            write_part(first + row, strip[row : row + height])

    def write_part(first: int, strip: np.ndarray) -> None:
        missing = np.isnan(strip[..., 0])
        if threshold is None:
            numbers = strip.argmax(-1).astype(np.uint8)
        else:
            numbers = (strip[..., 0] >= threshold).view(np.uint8)
        np.copyto(numbers, NO_CLASS, where=missing)
        steps = np.rint(strip * np.float32(PROBABILITY_STEPS))
        np.copyto(steps, NO_CLASS, where=missing[..., None])
        write_classes(first, numbers[None])
        write_probability(first, np.moveaxis(steps.astype(np.uint8), -1, 0))

    return write


def _map_windows(
    scene: MapScene,
    model: MapModel,
    tags: dict[str, str],
    paths: list[Path],
    description: str | None,
) -> None:
    raster_path, quicklook_path = paths
    overview, channels = _overview(scene), model.predictor.channels
    values = np.concatenate(
        list(
            predict_rows(
                scene, model.predictor, model.overlap, description=description, overview=overview
            )
        )
    )
    names = tuple(name if name == "evidence" else f"probability of {name}" for name in channels)
    bands = RasterBands(names, "float32", np.nan, "mean")
    write_array(raster_path, values, scene.grid.coarsen(model.predictor.cell), bands, tags)
    _write_quicklook(quicklook_path, scene, model, overview, _window_layers(values, model))


def _window_layers(values: np.ndarray, model: MapModel) -> list[QuicklookLayer]:
    """Return the panels of (row, column, channel) probabilities of windows."""
    layer = partial(
        QuicklookLayer,
        cell=model.predictor.cell,
        nodata="less than half of the window, inside the scene, measured",
    )
    if model.exclusive and len(model.classes) == 2:
        name = f"probability of {model.classes[1]}"
        return [layer(values[..., 1], name, name)]
    best = values.argmax(-1).astype(np.uint8)
    best[np.isnan(values[..., 0])] = NO_CLASS
    title = "most probable class" if model.exclusive else "most probable class (multi-label)"
    name = "highest class probability"
    return [layer(best, title, classes=model.classes), layer(values.max(-1), name, name)]


def _write_quicklook(
    path: Path,
    scene: MapScene,
    model: MapModel,
    overview: BlockAverage,
    layers: Sequence[QuicklookLayer],
) -> None:
    times = " to ".join(filter(None, scene.times))
    title = ", ".join(filter(None, (Path(scene.name).name, times)))
    title += f"\nmodel: {model.title}"
    backscatter = backscatter_layer(overview.db(), model.bands[-1], overview.block)
    content = draw_quicklook(title, [backscatter, *layers], scene.grid)
    with report_write_errors(path):
        atomic_write(path, content)


def _map_features(
    scene: MapScene,
    model: MapModel,
    tags: dict[str, str],
    paths: list[Path],
    settings: MapSettings,
    description: str | None,
) -> None:
    raster_path, table_path = paths
    cell, width = model.predictor.cell, len(model.predictor.channels)
    coarse, windows = scene.grid.coarsen(cell), list[WindowResult]()

    def keep(result: WindowResult) -> None:
        if result.measured >= 0.5:
            mean = result.values.mean((0, 1))
            windows.append(result._replace(values=mean))

    rows = predict_rows(scene, model.predictor, model.overlap, description=description, watch=keep)
    with report_write_errors(table_path), tempfile.TemporaryFile(dir=table_path.parent) as file:
        for strip in rows:
            file.write(strip.tobytes())
        file.flush()
        tokens = np.memmap(file, np.float32, "r", shape=(*coarse.shape, width))
        if settings.components:
            values, shares = principal_components(tokens, settings.components)
            tags = tags | {"EXPLAINED_VARIANCE": ", ".join(f"{share:.4f}" for share in shares)}
            names = tuple(f"principal component {n + 1}" for n in range(values.shape[-1]))
        else:
            values, names = tokens, model.predictor.channels
        bands = RasterBands(names, "float32", np.nan, "mean")
        write_array(raster_path, values, coarse, bands, tags)
    _write_windows(table_path, scene, model, windows, tags)


def _write_windows(
    path: Path,
    scene: MapScene,
    model: MapModel,
    windows: list[WindowResult],
    tags: dict[str, str],
) -> None:
    """Write one row for every window of which at least half is measured."""
    count, side = len(windows), model.predictor.window
    corners = np.array([(w.row, w.column) for w in windows], np.int64).reshape(count, 2)
    a, b, c, d, e, f = scene.grid.transform
    rows, columns = corners.T
    places = (a * columns + b * rows + c, d * columns + e * rows + f)
    parts = (a, b, places[0], d, e, places[1])
    transforms = np.stack([np.broadcast_to(part, count) for part in parts], axis=1)
    sides = np.full(count, side)
    polygons = footprints(
        transforms,
        np.minimum(sides, scene.grid.shape[0] - rows),
        np.minimum(sides, scene.grid.shape[1] - columns),
    )
    width = len(model.predictor.channels)
    write_geoparquet(
        path,
        polygons,
        scene.grid.crs,
        {
            "scene": np.full(count, scene.name),
            "row": rows,
            "column": columns,
            "time": np.full(count, scene.times[-1]),
            "crs": np.full(count, scene.grid.crs),
            "measured": np.array([window.measured for window in windows], np.float32),
            "features": np.array([w.values for w in windows], np.float32).reshape(count, width),
        },
        tags,
    )
