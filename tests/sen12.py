"""SEN12-FLOOD examples on disk and built, shared by the tests of its builder."""

import json
import shutil
from pathlib import Path

from tfds_builders.build import build
from tfds_builders.plan import BuildSettings
from tfds_builders.sen12_flood import fake_archive
from tfds_builders.sen12_flood.fake_archive import EXAMPLE, EXAMPLE_SPLITS, FOLDER, Shot

SIZE = 48
ALONE = BuildSettings(processes=1)
FLOODED = EXAMPLE["0140"].shots


def example(base: Path) -> Path:
    """Return the folder of the unpacked example with its lists, written once in a session."""
    root = base / "sen12_example"
    if not root.exists():
        fake_archive.write_archive(root, EXAMPLE, EXAMPLE_SPLITS, SIZE)
    return root


def built_example(base: Path) -> Path:
    """Return the data folder with both rules built, once in a session.

    "dates" is chronological, from a folder; "pairs" is published, from a zip with the lists.
    """
    data = base / "sen12_data"
    if not data.exists():
        archive, folder = example(base), base / "sen12_zip"
        build("sen12_flood/dates", data, archive, {"size": SIZE}, ALONE)
        inside = shutil.copytree(archive / FOLDER, folder / FOLDER)
        for file in archive.glob("*.csv"):
            shutil.copy(file, inside)
        fake_archive.pack(inside, folder / "sen12-flood.zip")
        shutil.rmtree(inside)
        build("sen12_flood/pairs", data, folder, {"size": SIZE, "pairs": "published"}, ALONE)
    return data


def metadata(data: Path, config: str) -> dict:
    """Return the metadata of a built config."""
    return json.loads((data / f"sen12_flood/{config}/1.0.0/metadata.json").read_text())


def make(root: Path, tmp_path: Path, how: BuildSettings = ALONE, **options) -> dict:
    """Build the example with options and return its metadata."""
    folder = build("sen12_flood/own", tmp_path / "data", root, {"size": SIZE, **options}, how)
    return json.loads((folder / "metadata.json").read_text())


def bands(root: Path, sequence: str, shot: Shot) -> list[Path]:
    """Return the paths of the files of an image, VH and VV."""
    product = fake_archive.product(shot, EXAMPLE[sequence].frame)
    stem = root / FOLDER / sequence / f"{product}_corrected"
    return [stem.with_name(f"{stem.name}_{band}.tif") for band in ("VH", "VV")]


def change_list(root: Path, change) -> None:
    """Rewrite S1list.json after `change` has edited its values in place."""
    path = root / FOLDER / "S1list.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def without(sequence: str, number: str, key: str):
    """Return a change of an archive that removes a key of an image from the list."""
    return lambda root: change_list(root, lambda values: values[sequence][number].pop(key))
