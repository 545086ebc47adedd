"""SEN12-FLOOD with defects: each is named, can be left out, and is never taken for data."""

import os
import shutil
import zipfile

import numpy as np
import pytest
import rasterio

from sar_mixmae_jax.utils.errors import InputError
from tests.sen12 import FLOODED, SIZE, band_paths, build_metadata, change_list, without_key
from tfds_builders.bad_files import BadFilesError
from tfds_builders.build import build
from tfds_builders.geotiff import write_band
from tfds_builders.plan import BuildSettings
from tfds_builders.sen12_flood import fake_archive
from tfds_builders.sen12_flood.archive import Source
from tfds_builders.sen12_flood.fake_archive import FOLDER
from tfds_builders.sen12_flood.index import images_of
from tfds_builders.sen12_flood.sequences import folders, undescribed


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split_list(copy, tmp_path, split):
    (copy / f"{split}.csv").unlink()
    with pytest.raises(InputError, match=f"found no list of the {split} split.*--{split}_list"):
        build_metadata(copy, tmp_path)


def test_lists_that_differ(copy, tmp_path):
    (copy / "my_train.csv").write_text("0140\n")
    (copy / "train.csv").rename(copy / "old_train.csv")
    with pytest.raises(InputError, match="2 lists of the train split that differ"):
        build_metadata(copy, tmp_path)


def drop_reference(root):
    for path in (root / FOLDER / "0167").glob("S2_*_B04.tif"):
        path.unlink()


def move_away(root):
    for path in band_paths(root, "0140", FLOODED[0]):
        with rasterio.open(path) as raster:
            values, where = raster.read(1), raster.transform
        write_band(path, values, crs="EPSG:4326", transform=where.translation(-100, 40) * where)


def in_db(root):
    path = band_paths(root, "0140", FLOODED[0])[0]
    with rasterio.open(path) as raster:
        values, where = raster.read(1), raster.transform
    power = np.where(values > 0, 10 * np.log10(np.maximum(values, 1e-9)), 0)
    write_band(path, power.astype(np.float32), crs="EPSG:4326", transform=where)


def all_of(value):
    """Return a change of an archive: all measurements of a band become one value."""

    def change(root):
        path = band_paths(root, "0140", FLOODED[0])[0]
        with rasterio.open(path) as raster:
            values, where = raster.read(1), raster.transform
        write_band(
            path,
            np.where(values > 0, value, 0).astype(np.float32),
            crs="EPSG:4326",
            transform=where,
        )

    return change


def rename_key(key):
    """Return a change of an archive: an image of the list moves to another key."""

    def change(values):
        values["0140"][key] = values["0140"].pop("1")

    return lambda root: change_list(root, change)


DAMAGES = {
    "empty": (
        lambda r: os.truncate(band_paths(r, "0140", FLOODED[0])[1], 0),
        "found 0 bytes, expected a GeoTIFF",
        1,
    ),
    "negative": (all_of(-0.01), "none of them above -90 dB", 1),
    "tiny": (all_of(1e-44), "none of them above -90 dB", 1),
    "long number": (rename_key("1" * 5000), "found no number", 1),
    "raised number": (rename_key("²"), "image '²' of sequence 0140: found no number", 1),
    "no number": (rename_key("one"), "image 'one' of sequence 0140: found no number", 1),
    "reference": (drop_reference, "found no Sentinel-2 reference", 6),
    "polarisation": (lambda r: band_paths(r, "0140", FLOODED[0])[0].unlink(), "_VH.tif", 1),
    "elsewhere": (move_away, "found no measurement on the grid", 1),
    "truncated": (
        lambda r: os.truncate(band_paths(r, "0140", FLOODED[0])[1], 3000),
        "cannot be read as a GeoTIFF",
        1,
    ),
    "unit": (in_db, "which is dB, expected linear power", 1),
    "label": (without_key("0140", "1", "FLOODING"), "found no key FLOODING", 1),
    "filename": (without_key("0140", "1", "filename"), "found no key FILENAME", 1),
    "coverage": (without_key("0140", "1", "FULL-DATA-COVERAGE"), "no key FULL-DATA-COVERAGE", 1),
    "orbit": (without_key("0140", "1", "orbit"), "found no key orbit", 1),
    "sequence": (
        lambda r: change_list(r, lambda values: values.pop("0140")),
        "names the sequence '0140'",
        0,
    ),
    "folder": (lambda r: shutil.rmtree(r / FOLDER / "0167"), "no folder of sequence 0167", 6),
    "both lists": (lambda r: (r / "test.csv").write_text("5\n22\n0140\n"), "and test.csv does", 0),
}


def test_defects_are_named(copy, tmp_path, capsys):
    for damage in ("empty", "folder"):
        DAMAGES[damage][0](copy)
    with pytest.raises(BadFilesError):
        build_metadata(copy, tmp_path)
    table = capsys.readouterr().err
    assert all(DAMAGES[damage][1] in table for damage in ("empty", "folder"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_defects_can_be_left_out(copy, tmp_path, damage):
    harm, message, images = DAMAGES[damage]
    harm(copy)
    facts = build_metadata(copy, tmp_path, BuildSettings(skip_bad=True, processes=1))
    partial = 1 if images == 6 and damage != "reference" else 0
    assert facts["left_out"]["patches"] in (images, images - partial)
    assert facts["left_out"]["bad_files"] > 0
    table = next((tmp_path / "data").rglob("bad_files.tsv")).read_text()
    assert message in table


def test_sequences_of_another_size_are_left_out_and_named(copy, tmp_path):
    path = copy / FOLDER / "22/S2_2019-01-24_B04.tif"
    write_band(path, np.ones((SIZE, SIZE - 8), np.uint16))
    facts = build_metadata(copy, tmp_path, pairs="published")
    assert facts["sequences_of_another_size"] == ["22"]
    assert facts["pairs_left_out"]["test"][f"not {SIZE}x{SIZE} px"] == 3
    assert any("not 48x48 px: 22" in note for note in facts["notes"])
    with pytest.raises(InputError, match="split train has no patch that can be used"):
        build("sen12_flood/published", tmp_path / "other", copy)


@pytest.mark.parametrize("damage", ["list", "json", "zip", "empty", "two"])
def test_other_folders_are_refused(copy, tmp_path, damage):
    root = copy
    if damage == "list":
        (root / FOLDER / "S1list.json").unlink()
        message = r"found no S1list\.json"
    elif damage == "json":
        (root / FOLDER / "S1list.json").write_text("{")
        message = r"S1list\.json: found no usable JSON"
    elif damage == "zip":
        root = tmp_path / "zip"
        root.mkdir()
        packed = fake_archive.pack(copy / FOLDER, root / "a.zip")
        os.truncate(packed, packed.stat().st_size // 2)
        message = "cannot be read as a zip"
    elif damage == "empty":
        root = tmp_path / "empty"
        root.mkdir()
        (root / "readme.txt").write_text("nothing")
        message = "expected SEN12-FLOOD"
    else:
        root = tmp_path / "two"
        root.mkdir()
        for name in ("a.zip", "b.zip"):
            fake_archive.pack(copy / FOLDER, root / name)
        message = "found 2 archives"
    with pytest.raises(InputError, match=message):
        build_metadata(root, tmp_path / "out")


def test_a_member_of_the_zip_that_is_damaged_is_named(copy, tmp_path):
    root = tmp_path / "zip"
    root.mkdir()
    shutil.copy(copy / "train.csv", root)
    shutil.copy(copy / "test.csv", root)
    packed = fake_archive.pack(copy / FOLDER, root / "a.zip")
    name = f"{FOLDER}/5/{fake_archive.product(FLOODED[0], 1)}_corrected_VH.tif"
    with zipfile.ZipFile(packed) as members:
        start = members.getinfo(name).header_offset + 30 + len(name) + 200
    content = bytearray(packed.read_bytes())
    content[start : start + 50] = bytes(50)
    packed.write_bytes(content)
    with pytest.raises(BadFilesError, match=rf"a\.zip/{name}: cannot be read"):
        build_metadata(root, tmp_path / "out")


def test_malformed_entries_are_problems():
    entries = {
        "1": {"filename": "a", "FLOODING": "maybe"},
        "2": "text",
        "3": {"filename": "b", "FLOODING": True},
        "4": {"filename": "b_VV.tif", "FLOODING": False},
        "5": {"filename": "b_corrected", "FLOODING": True},
        "6": {"filename": ["x"], "FLOODING": True},
        "count": 6,
    }
    images, _, problems, products = images_of("9", entries, Source("x", "S1list.json"))
    assert images == []  # neither label of b is trusted
    assert products == {"a", "b"}
    assert [problem.reason.split(": ", 1)[0][6:7] for problem in problems] == ["1", "2", "4", "6"]
    assert "both flooded and not" in problems[2].reason


def test_other_polarisations_and_folders_are_named():
    """HH and HV, and a second tile of a sequence, which has no Sentinel-2 images."""
    files = [
        "140/S1A_x_corrected_HH.tif",
        "140/S1A_x_corrected_HV.tif",
        "140/S2_2019-01-24_B04.tif",
        "140_2/S1A_y_corrected_VV.tif",
        "0022/S1A_z_corrected_VV.tif",
        "renamed/S1A_z_corrected_VV.tif",
    ]
    named = folders(files)
    (folder,) = named["140"]
    assert (folder.bands, folder.other_bands) == ({}, {"s1a_x"})
    described = {"0140": {}, "22": {}, "23": {"folder": "old\\renamed"}}
    assert undescribed(named, described) == ["140_2"]


def test_options_out_of_range_are_refused(archive, tmp_path):
    for name, value in (("pairs", "all"), ("zeros", "?"), ("max_zeros", 0.0), ("size", 3)):
        with pytest.raises(InputError, match=name):
            build_metadata(archive, tmp_path, **{name: value})


def test_a_split_list_with_an_endless_cell_is_named(copy, tmp_path):
    (copy / "train.csv").write_text("1" * 200_000)
    with pytest.raises(BadFilesError, match=r"train\.csv: names the sequence '1{50}', expected an"):
        build_metadata(copy, tmp_path)
