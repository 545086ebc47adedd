"""SEN12-FLOOD: the grid, both rules of pairing, the validation split, and archives of all forms."""

import json
import os
import shutil
import zipfile
from collections import Counter
from datetime import datetime
from itertools import combinations

import numpy as np
import pytest
import rasterio
import tensorflow_datasets as tfds
from rasterio.warp import transform

from sar_mixmae_jax.data import open_patches
from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.pairs import PairSource
from tfds_builders.build import build
from tfds_builders.geotiff import write_band
from tfds_builders.plan import Build
from tfds_builders.problems import BadFilesError
from tfds_builders.sen12_flood import groups, imitation, names, pairing, planning, split_lists
from tfds_builders.sen12_flood.archive import Source
from tfds_builders.sen12_flood.groups import Weight
from tfds_builders.sen12_flood.imitation import EXAMPLE, EXAMPLE_SPLITS, FOLDER, Place, Shot
from tfds_builders.sen12_flood.listing import Image, images_of

SIZE = 48
ALONE = Build(processes=1)
FLOODED = EXAMPLE["0140"].shots


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The unpacked example, with its lists beside it."""
    root = tmp_path_factory.mktemp("sen12")
    imitation.write_archive(root, EXAMPLE, EXAMPLE_SPLITS, SIZE)
    return root


@pytest.fixture
def copy(archive, tmp_path):
    """One to be changed."""
    return shutil.copytree(archive, tmp_path / "raw")


@pytest.fixture(scope="module")
def built(archive, tmp_path_factory):
    """Data folder with both rules built, `published` from a zip with everything in it."""
    data = tmp_path_factory.mktemp("data")
    build("sen12_flood/dates", data, archive, {"size": SIZE}, ALONE)
    folder = tmp_path_factory.mktemp("zip")
    inside = shutil.copytree(archive / FOLDER, folder / FOLDER)
    for file in archive.glob("*.csv"):
        shutil.copy(file, inside)
    imitation.pack(inside, folder / "sen12-flood.zip")
    shutil.rmtree(inside)
    options = {"size": SIZE, "pairs": "published"}
    build("sen12_flood/pairs", data, folder, options, ALONE)
    return data


def metadata(data, config) -> dict:
    return json.loads((data / f"sen12_flood/{config}/1.0.0/metadata.json").read_text())


def make(root, tmp_path, how=ALONE, **options) -> dict:
    """Builds, and returns the metadata."""
    folder = build("sen12_flood/own", tmp_path / "data", root, {"size": SIZE, **options}, how)
    return json.loads((folder / "metadata.json").read_text())


def records_of(data, config, split) -> list[dict]:
    folder = data / f"sen12_flood/{config}/1.0.0"
    return list(tfds.builder_from_directory(folder).as_data_source(split))


def named_pairs(data, config, split) -> list[tuple[str, str, int]]:
    ids = [record["id"].decode() for record in records_of(data, config, split)]
    pairs = metadata(data, config)["pairs"][split]
    columns = (pairs["before"], pairs["after"], pairs["flooded"])
    return [(ids[b], ids[a], label) for b, a, label in zip(*columns, strict=True)]


def bands(root, sequence, shot, frame=None):
    """The files of an image."""
    frame = EXAMPLE[sequence].frame if frame is None else frame
    stem = root / FOLDER / sequence / f"{imitation.product(shot, frame)}_corrected"
    return [stem.with_name(f"{stem.name}_{band}.tif") for band in ("VH", "VV")]


def change_list(root, change) -> None:
    path = root / FOLDER / "S1list.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


# ---- records


def nearest(path, record) -> np.ndarray:
    """The value of the pixel that the centre of every pixel of a record lies in; 0 outside."""
    a, _, c, _, e, f = record["transform"]
    row, column = np.mgrid[:SIZE, :SIZE] + 0.5
    with rasterio.open(path) as raster:
        x, y = transform(
            record["crs"].decode(), raster.crs, (c + a * column).ravel(), (f + e * row).ravel()
        )
        i, j = rasterio.transform.rowcol(raster.transform, x, y)
        values = raster.read(1)
    i, j = np.array(i), np.array(j)
    inside = (i >= 0) & (j >= 0) & (i < values.shape[0]) & (j < values.shape[1])
    found = np.where(inside, values[np.where(inside, i, 0), np.where(inside, j, 0)], 0.0)
    return found.reshape(SIZE, SIZE)


def test_a_record_is_the_nearest_pixels_in_db_on_the_grid_of_sentinel_2(archive, built):
    for record in records_of(built, "pairs", "test"):
        sequence = record["sequence"].decode()
        product = record["id"].decode().split("/")[1]
        with rasterio.open(archive / FOLDER / sequence / "S2_2019-01-24_B04.tif") as raster:
            assert record["crs"].decode() == raster.crs.to_string()
            assert tuple(record["transform"]) == tuple(raster.transform)[:6]
        for band, name in enumerate(("VH", "VV")):
            path = archive / FOLDER / sequence / f"{product}_corrected_{name}.tif"
            power = nearest(path, record)
            with np.errstate(divide="ignore"):
                expected = np.where(power == 0, np.nan, 10 * np.log10(power))
            same = np.isclose(record["backscatter"][..., band], expected, 1e-5, equal_nan=True)
            assert same.mean() > 0.97  # the others lie on the border of two pixels


def test_records_say_what_the_list_and_the_product_say(built):
    records = {
        record["id"].decode(): record
        for split in ("train", "validation")
        for record in records_of(built, "pairs", split)
    }
    for shot in FLOODED:
        record = records[f"0140/{imitation.product(shot, 1)}"]
        hour = "03" if shot.orbit_pass == "DESCENDING" else "16"
        assert record["time"].decode() == f"2018-12-{shot.day + 1:02d}T{hour}:00:00"
        assert int(record["flooded"]) == shot.flooded
        assert int(record["full_coverage"]) == (shot.coverage == 1)
        assert record["orbit_pass"].decode() == shot.orbit_pass
        assert int(record["relative_orbit"]) == shot.relative_orbit
        missing = np.isnan(record["backscatter"]).mean((0, 1)).max()
        assert float(record["zero_share"]) == pytest.approx(missing, abs=1e-12)
        assert (missing > 0.4) == (shot.coverage < 1)


def test_published_names_have_the_relative_orbit_of_their_track():
    """Two products of one place, of both satellites, an odd number of half cycles apart."""
    a = names.relative_orbit("S1A_IW_GRDH_1SDV_20190218T030905_20190218T030930_025978_02E4EB_98B8")
    b = names.relative_orbit("S1B_IW_GRDH_1SDV_20190401T030823_20190401T030856_015607_01D42A_6D09")
    assert a == b == 6
    assert names.relative_orbit("S1C_IW_GRDH_1SDV_20260218T030905_x") == 0
    assert names.relative_orbit("image_17") == 0


def test_zeros_are_nodata_or_dark_as_is_asked_for(copy, tmp_path):
    """A hole in both bands, a hole in one, and a pixel below the noise."""
    vh, vv = bands(copy, "0140", FLOODED[0])
    for path, holes in ((vh, [slice(20, 24), slice(30, 32)]), (vv, [slice(20, 24)])):
        with rasterio.open(path, "r+") as raster:
            values = raster.read(1)
            for hole in holes:
                values[hole, 20:24] = 0
            values[40, 15:25] = -0.001
            raster.write(values, 1)
    first = f"0140/{imitation.product(FLOODED[0], 1)}".encode()
    found = {}
    for zeros in ("nodata", "border"):
        options = {"size": SIZE, "zeros": zeros, "validation_share": 0.0}
        build(f"sen12_flood/{zeros}", tmp_path, copy, options, ALONE)
        (record,) = (r for r in records_of(tmp_path, zeros, "train") if r["id"] == first)
        found[zeros] = record["backscatter"]
        assert metadata(tmp_path, zeros)["measured"]["train"]["floored_pixels"] > 0
    hole_vh, hole_vv = np.isnan(found["nodata"][..., 0]), np.isnan(found["nodata"][..., 1])
    assert (hole_vh & ~hole_vv).any()
    assert hole_vv.any()
    assert not np.isnan(found["border"]).any()
    assert (found["border"][np.isnan(found["nodata"])] == -35).all()
    assert (found["nodata"] == -35).any()


# ---- pairs


def test_published_pairs_are_dry_with_every_other_once_without_those_of_many_zeros(built):
    expected = set()
    for sequence in ("5", "22"):
        place = EXAMPLE[sequence]
        whole = [shot for shot in place.shots if shot.coverage == 1]
        for one, other in combinations(whole, 2):
            if not (one.flooded and other.flooded):
                ids = [
                    f"{sequence}/{imitation.product(shot, place.frame)}" for shot in (one, other)
                ]
                expected.add((*ids, int(other.flooded)))
    found = named_pairs(built, "pairs", "test")
    assert len(found) == len(expected)
    assert set(found) == expected
    pairs = metadata(built, "pairs")
    assert pairs["pairs_left_out"]["test"] == {"25% of an image or more is zero": 5}


def test_a_pair_is_read_as_both_dates(built):
    patches = open_patches("sen12_flood/pairs", built, "train+validation", ("VH", "VV"))
    source = PairSource(patches.source, patches.pairs)
    train = sum(len(EXAMPLE[name].shots) == 6 for name in EXAMPLE_SPLITS["train"])
    assert len(source) == train * 9 + (6 - train) * 3
    onset = int(np.flatnonzero(patches.pairs["onset"])[0])
    pair = source[onset]
    wet = slice(SIZE * 3 // 4, None)
    assert np.nanmean(pair["after"][wet, :, 1]) < np.nanmean(pair["before"][wet, :, 1]) - 3
    assert pair["labels"] == 1


def test_chronological_pairs_have_the_latest_dry_image_of_the_same_orbit(built):
    def name(shot):
        return f"5/{imitation.product(shot, 1)}"

    first, _, second, _, onset, later = FLOODED
    found = [pair for pair in named_pairs(built, "dates", "test") if pair[0].startswith("5/")]
    assert found == [
        (name(first), name(second), 0),
        (name(second), name(onset), 1),
        (name(second), name(later), 1),
    ]
    pairs = metadata(built, "dates")["pairs"]["test"]
    rows = [row for row, sequence in enumerate(pairs["sequence"]) if sequence == "5"]
    assert [pairs["gap_days"][row] for row in rows] == [6.0, 12.0, 18.0]
    assert [pairs["onset"][row] for row in rows] == [False, True, False]
    assert metadata(built, "dates")["pairs_left_out"]["test"] == {
        "an image covers the place in part": 1,
        "no dry image before it, seen alike": 3,
    }


def image(day, flooded=False, orbit=6, hour=3, minute=0, orbit_pass="DESCENDING") -> Image:
    time = datetime(2019, 1, day, hour, minute)
    return Image("7", f"p{day}-{hour}-{minute}-{orbit}", flooded, True, time, orbit_pass, orbit)


def test_neighbouring_slices_of_a_datatake_are_no_two_dates():
    images = [image(1), image(1, minute=1), image(7, minute=1), image(7, True)]
    usable = {one.id for one in images}
    pairs = [(p.before.product, p.after.product) for p in pairing.chronological(images, usable)]
    assert pairs == [("p1-3-1-6", "p7-3-0-6"), ("p1-3-1-6", "p7-3-1-6")]
    assert pairing.onsets(images) == {"7/p7-3-0-6"}


def test_an_unknown_relative_orbit_goes_by_the_pass_alone():
    images = [image(1, orbit=6), image(2, orbit=9), image(3, orbit=0), image(4, orbit=6)]
    pairs = pairing.chronological(images, {one.id for one in images})
    assert [(p.before.product, p.after.product) for p in pairs] == [
        ("p2-3-0-9", "p3-3-0-0"),
        ("p3-3-0-0", "p4-3-0-6"),
    ]
    other = [image(1), image(2, orbit=0, orbit_pass="ASCENDING")]
    assert pairing.chronological(other, {one.id for one in other}) == []


def test_of_two_dry_dates_the_earlier_is_first_and_a_dry_one_stays_before_a_flood():
    images = [image(9), image(3, True), image(1)]
    pairs = pairing.published(images, set())
    days = [(p.before.time.day, p.after.time.day, p.after.flooded) for p in pairs]
    assert days == [(9, 3, True), (1, 9, False), (1, 3, True)]


def test_the_onset_is_of_all_images_usable_or_not():
    images = [image(1), image(2, True)._replace(full=False), image(3, True)]
    scene = pairing.Scene(images, "g", {images[1].id: "partial"})
    columns = {"id": [images[0].id, images[2].id], "zero_share": [0.0, 0.0]}
    pairs = pairing.make_pairs(
        "test", columns, scenes={"test": {"7": scene}}, rule="published", max_zeros=0.25
    )
    assert pairs.columns["onset"] == [False]
    assert pairs.columns["flooded"] == [1]
    assert pairs.left_out == {"partial": 1}


def test_a_quarter_of_zeros_is_too_much():
    images = [image(1), image(2), image(3)]
    columns = {"id": [one.id for one in images], "zero_share": [0.0, 0.2499, 0.25]}
    scenes = {"test": {"7": pairing.Scene(images, "g", {})}}
    for rule in pairing.RULES:
        pairs = pairing.make_pairs("test", columns, scenes=scenes, rule=rule, max_zeros=0.25)
        assert list(zip(pairs.columns["before"], pairs.columns["after"], strict=True)) == [(0, 1)]


# ---- splits


def test_groups_are_linked_through_others():
    products = {"a": ["1"], "b": ["1", "2"], "c": ["2"], "d": ["3"], "e": []}
    assert groups.components(products) == {"a": "a", "b": "a", "c": "a", "d": "d", "e": "e"}


def test_validation_is_whole_groups_of_the_right_size_and_balance():
    rng = np.random.default_rng(0)
    sequences = [f"{number:04d}" for number in range(200)]
    group = {name: f"g{rng.integers(40)}" for name in sequences}
    weights = {
        name: Weight(int(rng.integers(5, 20)), int(rng.integers(0, 20))) for name in sequences
    }
    chosen = groups.cut(group, weights, 0.15, 0)
    assert not {group[s] for s in chosen} & {group[s] for s in sequences if s not in chosen}
    assert 0.13 <= len(chosen) / 200 <= 0.17

    def flooded(names):
        dry, wet = np.sum([weights[name] for name in names], axis=0)
        return wet / (dry + wet)

    assert abs(flooded(chosen) - flooded(sequences)) < 0.03
    assert groups.cut(group, weights, 0.15, 0) == chosen
    assert groups.cut(group, weights, 0.15, 1) != chosen
    assert groups.cut(group, weights, 0.0, 0) == set()
    assert groups.cut(dict.fromkeys(sequences, "g"), weights, 0.15, 0) == set()


def test_no_group_is_in_train_and_validation_and_shared_products_are_told(built):
    for config in ("dates", "pairs"):
        facts = metadata(built, config)
        train, validation = (set(facts["pairs"][s]["group"]) for s in ("train", "validation"))
        assert validation
        assert not train & validation
        chosen = facts["sequences"]
        assert sorted(chosen["train"] + chosen["validation"]) == EXAMPLE_SPLITS["train"]
        assert facts["caveats"] == ["6 products in both train and test"]
        assert set(facts["shared_products"]) == {
            imitation.product(shot, 1).lower() for shot in FLOODED
        }
        assert facts["test_sequences_with_shared_products"] == ["5"]
        assert any(note.startswith("6 Sentinel-1 products are in both") for note in facts["notes"])


def test_training_sequences_of_one_product_have_no_validation_and_it_is_said(tmp_path):
    places = {"0001": Place(FLOODED), "0002": Place(FLOODED), "3": Place(FLOODED, 2)}
    imitation.write_archive(tmp_path, places, {"train": ["0001", "0002"], "test": ["3"]}, SIZE)
    facts = make(tmp_path, tmp_path / "out")
    assert set(facts["pairs"]) == {"train", "test"}
    assert any(note.startswith("there is no validation split") for note in facts["notes"])
    assert facts["caveats"] == []


# ---- archives of all forms


def test_zip_and_folder_give_the_same_records(archive, built, tmp_path):
    facts = make(archive, tmp_path, pairs="published")
    assert facts["checksum"] == metadata(built, "pairs")["checksum"]
    assert facts["pairs"] == metadata(built, "pairs")["pairs"]


def test_the_zip_itself_can_be_named(archive, tmp_path):
    """Its lists lie beside it."""
    packed = imitation.pack(archive / FOLDER, tmp_path / "sen12.zip")
    for split in ("train", "test"):
        shutil.copy(archive / f"{split}.csv", tmp_path)
    options = planning.Options("published", SIZE, "nodata", 0.25, 0.15, 0, "", "")
    one, other = (planning.plan(path, options) for path in (packed, archive))
    for split, rows in other.items.items():
        assert [row[:2] for row in one.items[split].tolist()] == [r[:2] for r in rows.tolist()]
    assert one.sources(*one.arguments, one.items["test"][0].item()) == [packed]


def test_processes_do_not_matter(archive, built, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "IMAGES_PER_SHARD", 8)
    one, two = (make(archive, tmp_path / str(n), Build(processes=n)) for n in (1, 2))
    assert one == two
    assert len(one["pairs"]["train"]["before"]) == len(
        metadata(built, "dates")["pairs"]["train"]["before"]
    )


def test_a_zip_beside_its_lists_without_a_top_folder_and_with_hostile_names(copy, tmp_path, built):
    root = tmp_path / "download"
    root.mkdir()
    with zipfile.ZipFile(root / "archive.ZIP", "w") as packed:
        for file in sorted((copy / FOLDER).rglob("*.tif")):
            packed.write(file, file.relative_to(copy / FOLDER).as_posix())
        packed.writestr("../../S1list.json", "[]")
        packed.writestr("/tmp/0140/S1A_evil_corrected_VV.tif", b"no image")
        packed.writestr("__MACOSX/0140/._x_VV.tif", b"")
    shutil.move(copy / FOLDER / "S1list.json", root / "S1list.json")
    (root / "SEN12_train_sequences.csv").write_text(
        "\ufeff,sequence,geography\n"
        + "".join(f"{i},{name},Beira\n" for i, name in enumerate(EXAMPLE_SPLITS["train"]))
    )
    (root / "SEN12_test_sequences.txt").write_text("0005 22\r\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="several folders of sequence 0140"):
        make(root, tmp_path / "own")
    with zipfile.ZipFile(root / "archive.ZIP") as packed:
        kept = {n: packed.read(n) for n in packed.namelist() if not n.startswith("/tmp")}
    with zipfile.ZipFile(root / "archive.ZIP", "w") as packed:
        for name, content in kept.items():
            packed.writestr(name, content)
    facts = make(root, tmp_path / "own")
    assert facts["pairs"] == metadata(built, "dates")["pairs"]
    assert [p for p in sorted(tmp_path.rglob("*")) if tmp_path / "own" not in [p, *p.parents]] == (
        before
    )


def test_a_list_spelled_in_other_ways(copy, tmp_path, built):
    def change(values):
        for place in values.values():
            images = [place.pop(key) for key in list(place) if key.isdigit()]
            for number, entry in reversed(list(enumerate(images, start=1))):
                entry["flooding"] = str(entry.pop("FLOODING")).lower()
                entry["FULL_DATA_COVERAGE"] = int(entry.pop("FULL-DATA-COVERAGE"))
                entry["filename"] += ("", "_corrected", "_corrected_VV", "_VH.tif")[number % 4]
                entry["orbit"] = entry["orbit"].title()
                place[str(number)] = entry

    change_list(copy, change)
    facts = make(copy, tmp_path)
    assert facts["pairs"] == metadata(built, "dates")["pairs"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0001\n0002\n5\n", ["0001", "0002", "5"]),
        ("id\n1\n2\n", ["1", "0002"]),
        ("sequence,label\n0001,flood\n5,dry\n", ["0001", "5"]),
        (",id\n0,0002\n1,0001\n2,5\n", ["0002", "0001", "5"]),
        ("0001,0002,5\n", ["0001", "0002", "5"]),
        ("0001;Beira\n0005;Iran\n", ["0001", "5"]),
        ('"0001"\n"2.0"\n', ["0001", "0002"]),
        ("SEN12FLOOD/0001/\n", ["0001"]),
    ],
)
def test_forms_of_the_lists(tmp_path, text, expected):
    """Here "0001" and "1" are two sequences; "0002" can be written as 2."""
    (tmp_path / "train.csv").write_text(text)
    known = {"0001", "1", "0002", "5"}
    if "/0001" in text:
        known.remove("1")
    found, problems = split_lists.read_ids(Source(tmp_path, "train.csv"), known)
    assert (found, problems) == (expected, [])


def test_lists_are_found_where_the_options_say(archive, tmp_path, built):
    root = tmp_path / "elsewhere"
    root.mkdir()
    for split, name in (("train", "a.csv"), ("test", "b.csv")):
        shutil.copy(archive / f"{split}.csv", root / name)
    options = {"train_list": str(root / "a.csv"), "test_list": str(root / "b.csv")}
    facts = make(archive / FOLDER, tmp_path, **options)
    assert facts["pairs"] == metadata(built, "dates")["pairs"]
    with pytest.raises(InputError, match=r"--test_list=c\.csv: found no such file"):
        make(archive, tmp_path / "no", test_list="c.csv")


# ---- bad input


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split_list(copy, tmp_path, split):
    (copy / f"{split}.csv").unlink()
    with pytest.raises(InputError, match=f"found no list of the {split} split.*--{split}_list"):
        make(copy, tmp_path)


def test_lists_that_differ(copy, tmp_path):
    (copy / "my_train.csv").write_text("0140\n")
    (copy / "train.csv").rename(copy / "old_train.csv")
    with pytest.raises(InputError, match="2 lists of the train split that differ"):
        make(copy, tmp_path)


def drop_reference(root):
    for path in (root / FOLDER / "0167").glob("S2_*_B04.tif"):
        path.unlink()


def move_away(root):
    for path in bands(root, "0140", FLOODED[0]):
        with rasterio.open(path) as raster:
            values, where = raster.read(1), raster.transform
        write_band(path, values, crs="EPSG:4326", transform=where.translation(-100, 40) * where)


def without(sequence, number, key):
    return lambda root: change_list(root, lambda values: values[sequence][number].pop(key))


def in_db(root):
    path = bands(root, "0140", FLOODED[0])[0]
    with rasterio.open(path) as raster:
        values, where = raster.read(1), raster.transform
    power = np.where(values > 0, 10 * np.log10(np.maximum(values, 1e-9)), 0)
    write_band(path, power.astype(np.float32), crs="EPSG:4326", transform=where)


DAMAGES = {
    "reference": (drop_reference, "found no Sentinel-2 reference", 6),
    "polarisation": (lambda r: bands(r, "0140", FLOODED[0])[0].unlink(), "_VH.tif", 1),
    "elsewhere": (move_away, "found no measurement on the grid", 1),
    "truncated": (
        lambda r: os.truncate(bands(r, "0140", FLOODED[0])[1], 3000),
        "cannot be read as a GeoTIFF",
        1,
    ),
    "unit": (in_db, "which is dB, expected linear power", 1),
    "label": (without("0140", "1", "FLOODING"), "found no key FLOODING", 1),
    "filename": (without("0140", "1", "filename"), "found no key FILENAME", 1),
    "coverage": (without("0140", "1", "FULL-DATA-COVERAGE"), "no key FULL-DATA-COVERAGE", 1),
    "orbit": (without("0140", "1", "orbit"), "found no key orbit", 1),
    "sequence": (
        lambda r: change_list(r, lambda values: values.pop("0140")),
        "names the sequence '0140'",
        0,
    ),
    "folder": (lambda r: shutil.rmtree(r / FOLDER / "0167"), "no folder of sequence 0167", 6),
    "both lists": (lambda r: (r / "test.csv").write_text("5\n22\n0140\n"), "and test.csv does", 0),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_is_named_and_can_be_left_out(copy, tmp_path, damage, capsys):
    harm, message, images = DAMAGES[damage]
    harm(copy)
    with pytest.raises(BadFilesError):
        make(copy, tmp_path)
    assert message in capsys.readouterr().err
    facts = make(copy, tmp_path, Build(skip_bad=True, processes=1))
    partial = 1 if images == 6 and damage != "reference" else 0
    assert facts["left_out"]["patches"] in (images, images - partial)
    assert facts["left_out"]["bad_files"] > 0
    table = next((tmp_path / "data").rglob("bad_files.tsv")).read_text()
    assert message in table


def test_published_pairs_need_neither_coverage_nor_orbit(copy, tmp_path):
    for key in ("FULL-DATA-COVERAGE", "orbit", "date"):
        without("5", "1", key)(copy)
    facts = make(copy, tmp_path, pairs="published")
    assert Counter(facts["pairs"]["test"]["sequence"]) == {"5": 9, "22": 3}


def test_times_that_nobody_knows_are_null(copy, tmp_path):
    def change(values):
        entry = values["5"]["1"]
        old, entry["filename"], entry["date"] = entry["filename"], "image_one", "?"
        for path in (copy / FOLDER / "5").glob(f"{old}*"):
            path.rename(path.with_name(path.name.replace(old, "image_one")))

    change_list(copy, change)
    facts = make(copy, tmp_path / "a", pairs="published")
    assert facts["pairs"]["test"]["gap_days"].count(None) == 4
    with pytest.raises(BadFilesError, match="image 1 of sequence 5: found '\\?' as date"):
        make(copy, tmp_path / "b")


def test_sequences_of_another_size_are_left_out_and_named(copy, tmp_path):
    path = copy / FOLDER / "22/S2_2019-01-24_B04.tif"
    write_band(path, np.ones((SIZE, SIZE - 8), np.uint16))
    facts = make(copy, tmp_path, pairs="published")
    assert facts["sequences_of_another_size"] == ["22"]
    assert facts["pairs_left_out"]["test"][f"not {SIZE}x{SIZE} px"] == 3
    assert any("not 48x48 px: 22" in note for note in facts["notes"])
    with pytest.raises(InputError, match="split train has no patch that can be used"):
        build("sen12_flood/published", tmp_path / "other", copy)


@pytest.mark.parametrize("damage", ["list", "json", "zip", "empty", "two"])
def test_what_is_no_archive(copy, tmp_path, damage):
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
        packed = imitation.pack(copy / FOLDER, root / "a.zip")
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
            imitation.pack(copy / FOLDER, root / name)
        message = "found 2 archives"
    with pytest.raises(InputError, match=message):
        make(root, tmp_path / "out")


def test_a_member_of_the_zip_that_is_damaged_is_named(copy, tmp_path):
    root = tmp_path / "zip"
    root.mkdir()
    shutil.copy(copy / "train.csv", root)
    shutil.copy(copy / "test.csv", root)
    packed = imitation.pack(copy / FOLDER, root / "a.zip")
    name = f"{FOLDER}/5/{imitation.product(FLOODED[0], 1)}_corrected_VH.tif"
    with zipfile.ZipFile(packed) as members:
        start = members.getinfo(name).header_offset + 30 + len(name) + 200
    content = bytearray(packed.read_bytes())
    content[start : start + 50] = bytes(50)
    packed.write_bytes(content)
    with pytest.raises(BadFilesError, match=rf"a\.zip/{name}: cannot be read"):
        make(root, tmp_path / "out")


def test_entries_that_make_no_sense_are_problems():
    entries = {
        "1": {"filename": "a", "FLOODING": "maybe"},
        "2": "text",
        "3": {"filename": "b", "FLOODING": True},
        "4": {"filename": "b_VV.tif", "FLOODING": False},
        "5": {"filename": "b_corrected", "FLOODING": True},
        "6": {"filename": ["x"], "FLOODING": True},
        "count": 6,
    }
    images, problems = images_of("9", entries, Source("x", "S1list.json"))
    assert [one.product for one in images] == ["b"]
    assert [problem.reason.split(": ", 1)[0][6:7] for problem in problems] == ["1", "2", "4", "6"]
    assert "both flooded and not" in problems[2].reason


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2019-01-24", "2019-01-24"),
        ("20190124", "2019-01-24"),
        (20190124, "2019-01-24"),
        ("24/01/2019", "2019-01-24"),
        ("2019-01-24T03:00:00Z", "2019-01-24"),
        ("soon", None),
    ],
)
def test_dates(date, expected):
    found = names.time_of("image", date)
    assert (found and f"{found:%Y-%m-%d}") == expected
    assert names.time_of("S1A_x_20190218T030905_y", date) == datetime(2019, 2, 18, 3, 9, 5)


def test_options_that_make_no_sense(archive, tmp_path):
    for name, value in (("pairs", "all"), ("zeros", "?"), ("max_zeros", 0.0), ("size", 3)):
        with pytest.raises(InputError, match=name):
            make(archive, tmp_path, **{name: value})


def test_shots_of_the_imitation_are_told_apart():
    shots = [Shot(0), Shot(0, piece=1), Shot(0, satellite="S1B"), Shot(0, relative_orbit=7)]
    assert len({imitation.product(shot) for shot in shots}) == 4
