"""Map scenes: GeoTIFFs of classes, probabilities or features.

  sar-mixmae map --workdir=runs/water scene_VV.tif scenes/ --out=maps
  sar-mixmae map --workdir=runs/flood --before=may.tif --after=june.tif --out=maps
  sar-mixmae map --workdir=runs/base --features --components=3 scenes/ --out=maps

SCENE is a GeoTIFF or a folder of them, as `sar-mixmae build s1_folder` reads them. A model with
labels per pixel writes classes and probabilities, other models the probabilities of windows, each
with a picture; --features writes the tokens of the encoder instead. Maps of the same files and
settings are kept.
"""

import dataclasses
import secrets
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from absl import flags

from sar_mixmae_jax.cli import common
from sar_mixmae_jax.inference.map_model import CAVEATS, Kind, MapModel, ModelChoice, load_map_model
from sar_mixmae_jax.inference.raster_output import check_existing
from sar_mixmae_jax.inference.scene_copies import copy_scenes
from sar_mixmae_jax.inference.scene_grid import NamedScene, quantity_warnings, size_warnings
from sar_mixmae_jax.inference.scene_input import (
    MapMetadata,
    find_pair,
    find_scenes,
    open_scenes,
    scene_tags,
)
from sar_mixmae_jax.inference.scene_products import (
    MapSettings,
    existing_rasters,
    map_scene,
    output_files,
    remove_partial_files,
    settings_tags,
)
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.errors import InputError, UserError
from sar_mixmae_jax.utils.files import (
    atomic_write,
    check_local_path,
    check_writable,
    hold_lock,
    report_write_errors,
)
from tfds_builders.bad_files import BadFile, bad_files_table, write_table
from tfds_builders.process_pool import Tick, run_with_beam
from tfds_builders.s1_folder.s1_folder_dataset_builder import Config, parse_config
from tfds_builders.s1_folder.scene_reader import NodataSettings

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", None, "run that made the model", flag_values=FLAGS)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "best, latest or a step of the run; or, without --workdir, the path of a checkpoint (default: "
    "best, with --features latest)",
    flag_values=FLAGS,
)
OUT = flags.DEFINE_string("out", None, "folder of the maps", flag_values=FLAGS)
BEFORE = flags.DEFINE_string("before", None, "first scene of a pair", flag_values=FLAGS)
AFTER = flags.DEFINE_string(
    "after", None, "second scene of a pair; warped onto the grid of the first", flag_values=FLAGS
)
THRESHOLD = flags.DEFINE_float(
    "threshold",
    0.5,
    "minimum probability of the second class (models of two classes)",
    0.0,
    1.0,
    flag_values=FLAGS,
)
FEATURES = flags.DEFINE_boolean(
    "features", False, "write the tokens of the encoder, and GeoParquet", flag_values=FLAGS
)
COMPONENTS = flags.DEFINE_integer(
    "components",
    None,
    "principal components of the features of a scene (default: all features)",
    1,
    flag_values=FLAGS,
)
WINDOW = flags.DEFINE_integer(
    "window", None, "side of the windows in pixels (default: of the model)", 1, flag_values=FLAGS
)
OVERLAP = flags.DEFINE_integer(
    "overlap",
    None,
    "overlap of the windows in pixels (default: half an input of the encoder for labels per pixel, "
    "else 0)",
    0,
    flag_values=FLAGS,
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "windows in a batch, of all devices (default: by their size)",
    1,
    flag_values=FLAGS,
)
OVERWRITE = flags.DEFINE_boolean(
    "overwrite", False, "replace the maps of an earlier call", flag_values=FLAGS
)
RUNNER = flags.DEFINE_string(
    "runner",
    None,
    "Apache Beam runner that maps the scenes, such as DirectRunner",
    flag_values=FLAGS,
)
COPY_SCENES = flags.DEFINE_boolean(
    "copy_scenes",
    False,
    "allow scenes in gs:// and https:// addresses, which are copied here to be read",
    flag_values=FLAGS,
)
FILE_OPTIONS = (
    "bands",
    "unit",
    "quantity",
    "nodata",
    "band_pattern",
    "mask",
    "zero_block",
    "erode_border",
    "use_gcps",
)
"""Fields of the configuration of `s1_folder` that are flags here too."""
DEFINE: dict[type, Any] = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    str: flags.DEFINE_string,
}
for field in dataclasses.fields(Config):
    if field.name in FILE_OPTIONS:
        DEFINE[type(field.default)](
            field.name, field.default, field.metadata["help"], flag_values=FLAGS
        )

LISTED_SCENES = 10
"""Maximum number of scenes whose files are printed."""

FAILURES = "failures.tsv"
"""File in the folder of the maps: the scenes of the last call that were not mapped, and why."""


@dataclasses.dataclass(frozen=True)
class MapJob:
    """A scene to map.

    Attributes:
      dates: the scene, or both dates.
      stem: path of its files, without the ends of their names.
      model: to map with.
      nodata: further nodata.
      settings: settings of the files.
      overwrite: replace existing files.
      call: name of this call of the command, in the names of the files of its failures.
      description: text beside the progress bar; None for no progress bar.
    """

    dates: tuple[NamedScene, ...]
    stem: Path
    model: ModelChoice
    nodata: NodataSettings
    settings: MapSettings
    overwrite: bool
    call: str
    description: str | None

    @property
    def empty_path(self) -> Path:
        """Path of a file that exists if the scene was mapped and has no measurement."""
        return self.stem.with_name(f".{self.stem.name}.empty")

    @property
    def failure_path(self) -> Path:
        """Path of the file with the reason why the scene was not mapped."""
        return self.stem.with_name(f".{self.stem.name}.{self.call}.failure")


@lru_cache(maxsize=1)
def load_model(choice: ModelChoice) -> MapModel:
    """Load a model once in a process; see `load_map_model`."""
    return load_map_model(choice)


def run_job(job: MapJob, tick: Tick) -> None:
    """Map a scene unless its files exist; write `failure_path` or `empty_path` where they apply.

    Raises:
      UserError: the scene was not mapped, and `failure_path` cannot be written.
    """
    tick()
    try:
        with report_write_errors(job.stem, "check the folder and the space on the disk"):
            job.stem.parent.mkdir(parents=True, exist_ok=True)
            _map_or_keep(job)
    except UserError as error:
        with suppress(OSError):
            atomic_write(job.failure_path, str(error).encode())
            return
        raise


def _map_or_keep(job: MapJob) -> None:
    model = load_model(job.model)
    lock = job.stem.with_name(f".{job.stem.name}.lock")
    with hold_lock(lock, f"{job.stem} is in use: another process maps this scene; wait for it"):
        rasters = existing_rasters(job.stem, model.kind)
        if not rasters or job.overwrite:
            _replace_map(job, model)
            return
        for raster in rasters:
            check_existing(raster, expected_tags(job, model))


def _replace_map(job: MapJob, model: MapModel) -> None:
    remove_partial_files(job.stem)
    warnings = size_warnings(job.dates[0].scene, model.pixel_size)
    for date in job.dates:
        warnings += quantity_warnings(date, model.quantity)
    for warning in warnings:
        print(warning, file=sys.stderr)
    with open_scenes(job.dates, model.bands, job.nodata, job.stem) as scene:
        map_scene(scene, model, job.stem, job.settings, job.description)
        if scene.empty:
            atomic_write(job.empty_path, b"")


def expected_tags(job: MapJob, model: MapModel) -> dict[str, str]:
    """Return the tags that a map shares with another one of the same content."""
    tags = model.tags | settings_tags(job.settings, model) | scene_tags(job.dates, job.nodata)
    return {
        name: value
        for name, value in tags.items()
        if name != CAVEATS and not name.startswith("TIFFTAG")
    }


def make_jobs(
    scenes: Sequence[NamedScene], pair: bool, out: Path, **common_fields: object
) -> list[MapJob]:
    """Return a job for every scene, or one for a pair.

    Raises:
      InputError: two scenes would have files of one name.
    """
    groups = [tuple(scenes)] if pair else [(scene,) for scene in scenes]
    jobs: dict[Path, MapJob] = {}
    for number, dates in enumerate(groups, start=1):
        name = Path(dates[-1].scene.name)
        stem = out / name
        if pair:
            stem = stem.with_name(f"{Path(dates[0].scene.name).name}_to_{name.name}")
        if stem in jobs:
            raise InputError(
                f"found two scenes named {dates[-1].scene.name}, {dates[-1].path} and "
                f"{jobs[stem].dates[-1].path}: map them into different --out"
            )
        description = f"{number}/{len(groups)} {stem.name}"
        jobs[stem] = MapJob(dates, stem, description=description, **common_fields)  # type: ignore[arg-type]
    return list(jobs.values())


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Map the scenes that the command line names; print the folder, or a table of failures."""
    names = parse_flags(argv, FLAGS, __doc__, {"out": "maps"}, operands=None)
    pair = [str(path) for path in (BEFORE.value, AFTER.value) if path]
    if pair and (len(pair) != 2 or names):
        dates = " and ".join(f"--{flag.name}" for flag in (BEFORE, AFTER) if flag.value)
        raise InputError(
            f"found {dates} with {len(names)} scenes: give both --before and --after and no scene"
        )
    if not pair and not names:
        raise InputError("found no scene, expected paths of GeoTIFFs or folders; see --help")
    if COMPONENTS.value and not FEATURES.value:
        raise InputError("found --components without --features: give both, or neither")
    if FLAGS["threshold"].present and FEATURES.value:
        raise InputError("found --threshold with --features, which have none: give one of them")
    common.configure_logging()
    default = "latest" if FEATURES.value else "best"
    workdir, which = common.locate_checkpoint(WORKDIR.value, CHECKPOINT.value or default)
    out = check_local_path("--out", OUT.value)
    check_writable(out / FAILURES, "--out")
    common.enable_compilation_cache()
    choice = ModelChoice(
        workdir, which, FEATURES.value, WINDOW.value, OVERLAP.value, BATCH_SIZE.value
    )
    model = load_model(choice)
    options: dict[str, Any] = {name: FLAGS[name].value for name in FILE_OPTIONS}
    user, nodata, _ = parse_config(Config(name="map", **options))
    fields = {field.name: getattr(user, field.name) for field in dataclasses.fields(user)}
    metadata = MapMetadata(**fields, model_bands=model.bands)
    given = copy_scenes(pair or names, is_allowed=COPY_SCENES.value)
    scenes, failures = (
        find_pair(given[0], given[1], metadata) if pair else find_scenes(given, metadata)
    )
    jobs = make_jobs(
        scenes,
        bool(pair),
        out,
        model=choice,
        nodata=nodata,
        settings=MapSettings(THRESHOLD.value, COMPONENTS.value),
        overwrite=OVERWRITE.value,
        call=secrets.token_hex(4),
    )
    try:
        if RUNNER.value:
            run_with_beam(run_job, jobs, runner=RUNNER.value, options=None)
        else:
            for job in jobs:
                run_job(job, lambda: None)
    except KeyboardInterrupt:
        print("interrupted: the same command continues with the scene in progress", file=sys.stderr)
        sys.exit(130)
    report(jobs, failures, out, model.kind)


def report(jobs: Sequence[MapJob], failures: list[BadFile], out: Path, kind: Kind) -> None:
    """Print where the maps are, and what failed.

    Args:
      jobs: that were run.
      failures: files that belong to no job.
      out: folder of the maps.
      kind: see `MapModel.kind`.

    Raises:
      InputError: a scene was not mapped, or the table cannot be written.
    """
    failed: list[MapJob] = []
    mapped: list[MapJob] = []
    for job in jobs:
        (failed if job.failure_path.exists() else mapped).append(job)
    for job in failed:
        failures.append(BadFile(job.dates[-1].scene.name, job.failure_path.read_text()))
        job.failure_path.unlink()
    unusable = len(failures) - len(failed)  # files that belong to no scene
    others = f"; {unusable} files belong to no scene that can be mapped" if unusable else ""
    print(f"{len(mapped)} of {len(jobs)} scenes are mapped in {out}{others}")
    for job in mapped[:LISTED_SCENES]:
        files = (str(path.relative_to(out)) for path in output_files(job.stem, kind))
        print(f"  {', '.join(files)}")
    if len(mapped) > LISTED_SCENES:
        print(f"  … and the files of {len(mapped) - LISTED_SCENES} more scenes")
    unplaced = [job.stem.name for job in jobs if not job.dates[-1].scene.georeference.crs]
    if unplaced:
        print(f"not georeferenced (scene has no CRS): {', '.join(unplaced)}")
    empty = [job for job in jobs if job.empty_path.exists()]
    for job in empty:
        job.empty_path.unlink(missing_ok=True)  # another call may report it too
    if empty:
        names = ", ".join(job.stem.name for job in empty)
        print(f"without a measurement in a band, all nodata: {len(empty)} ({names})")
    (out / FAILURES).unlink(missing_ok=True)
    if failures:
        with report_write_errors(out / FAILURES):
            write_table(failures, out / FAILURES)
        print(bad_files_table(failures, 20))
        raise InputError(
            f"{len(failures)} scenes or files were not mapped, for the reasons in "
            f"{out / FAILURES}: correct the files or the flags and give the command again, "
            "which keeps the maps that are there"
        )


if __name__ == "__main__":
    main(sys.argv)
