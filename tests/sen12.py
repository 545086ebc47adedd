"""Example archive and datasets of SEN12-FLOOD, shared by the tests of its builder."""

import json
import shutil
from pathlib import Path

from tfds_builders.build import build
from tfds_builders.plan import BuildSettings
from tfds_builders.sen12_flood import fake_archive
from tfds_builders.sen12_flood.fake_archive import EXAMPLE, EXAMPLE_SPLITS, FOLDER, Shot

SIZE = 48
ONE_PROCESS = BuildSettings(processes=1)
FLOODED = EXAMPLE["0140"].shots


def example_archive(base: Path) -> Path:
    """Return the folder of the unpacked example archive with its lists.

    Args:
      base: folder in which it is written once in a session.
    """
    root = base / "sen12_example"
    if not root.exists():
        fake_archive.write_archive(root, EXAMPLE, EXAMPLE_SPLITS, SIZE)
    return root


def built_dataset(base: Path) -> Path:
    """Return a data folder with the configs "dates" and "pairs" of the example.

    "dates" has chronological pairs and is built from a folder; "pairs" has the published pairs and
    is built from a zip that contains the lists.

    Args:
      base: folder in which both are built once in a session.
    """
    data = base / "sen12_data"
    if not data.exists():
        archive, folder = example_archive(base), base / "sen12_zip"
        build("sen12_flood/dates", data, archive, {"size": SIZE}, ONE_PROCESS)
        packed = shutil.copytree(archive / FOLDER, folder / FOLDER)
        for file in archive.glob("*.csv"):
            shutil.copy(file, packed)
        fake_archive.pack(packed, folder / "sen12-flood.zip")
        shutil.rmtree(packed)
        build("sen12_flood/pairs", data, folder, {"size": SIZE, "pairs": "published"}, ONE_PROCESS)
    return data


def metadata(data: Path, config: str) -> dict:
    """Return the metadata of a built config."""
    return json.loads((data / f"sen12_flood/{config}/1.0.0/metadata.json").read_text())


def build_metadata(
    archive: Path, tmp_path: Path, settings: BuildSettings = ONE_PROCESS, **options
) -> dict:
    """Build a dataset from an archive and return its metadata.

    Args:
      archive: zip or folder of the archive.
      tmp_path: folder of the data folder.
      settings: settings of the build.
      **options: options of the builder.
    """
    options = {"size": SIZE, **options}
    folder = build("sen12_flood/own", tmp_path / "data", archive, options, settings)
    return json.loads((folder / "metadata.json").read_text())


def band_paths(root: Path, sequence: str, shot: Shot) -> list[Path]:
    """Return the paths of the files of an image of an archive, VH and VV."""
    product = fake_archive.product(shot, EXAMPLE[sequence].frame)
    stem = root / FOLDER / sequence / f"{product}_corrected"
    return [stem.with_name(f"{stem.name}_{band}.tif") for band in ("VH", "VV")]


def change_list(root: Path, change) -> None:
    """Rewrite `S1list.json` of an archive after `change` has edited its values in place."""
    path = root / FOLDER / "S1list.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def without_key(sequence: str, number: str, key: str):
    """Return a function of an archive's folder that removes a key of an image from the list."""
    return lambda root: change_list(root, lambda values: values[sequence][number].pop(key))
