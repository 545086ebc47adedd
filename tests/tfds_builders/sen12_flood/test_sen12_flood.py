"""SEN12-FLOOD built: records on their grid, rules of pairing, validation split."""

from collections import Counter
from datetime import datetime
from itertools import combinations

import numpy as np
import pytest
import rasterio
import tensorflow_datasets as tfds
from rasterio.warp import transform

from sar_mixmae_jax.data.date_pairs import PairSource
from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from tests.sen12 import (
    FLOODED,
    ONE_PROCESS,
    SIZE,
    band_paths,
    build_metadata,
    change_list,
    metadata,
    without_key,
)
from tfds_builders.bad_files import BadFilesError
from tfds_builders.build import build
from tfds_builders.built_dataset import build_summary
from tfds_builders.sen12_flood import archive_plan, fake_archive, index, pairing, splits
from tfds_builders.sen12_flood.archive import Source, relative_orbit
from tfds_builders.sen12_flood.fake_archive import EXAMPLE, EXAMPLE_SPLITS, FOLDER, Place
from tfds_builders.sen12_flood.index import Image
from tfds_builders.sen12_flood.sequences import SequenceSurvey, _item
from tfds_builders.sen12_flood.splits import PairCounts


def records_of(data, config, split) -> list[dict]:
    folder = data / f"sen12_flood/{config}/1.0.0"
    return list(tfds.builder_from_directory(folder).as_data_source(split))


def named_pairs(data, config, split) -> list[tuple[str, str, int]]:
    ids = [record["id"].decode() for record in records_of(data, config, split)]
    pairs = metadata(data, config)["pairs"][split]
    columns = (pairs["before"], pairs["after"], pairs["flooded"])
    return [(ids[b], ids[a], label) for b, a, label in zip(*columns, strict=True)]


# ---- records


def nearest(path, record) -> np.ndarray:
    """Return the value of the pixel that contains the centre of each pixel of a record, or 0."""
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
    pixels = np.where(inside, values[np.where(inside, i, 0), np.where(inside, j, 0)], 0.0)
    return pixels.reshape(SIZE, SIZE)


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


def test_records_have_the_facts_of_list_and_product(built):
    records = {
        record["id"].decode(): record
        for split in ("train", "validation")
        for record in records_of(built, "pairs", split)
    }
    for shot in FLOODED:
        record = records[f"0140/{fake_archive.product(shot, 1)}"]
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
    a = relative_orbit("S1A_IW_GRDH_1SDV_20190218T030905_20190218T030930_025978_02E4EB_98B8")
    b = relative_orbit("S1B_IW_GRDH_1SDV_20190401T030823_20190401T030856_015607_01D42A_6D09")
    assert a == b == 6
    assert relative_orbit("S1C_IW_GRDH_1SDV_20260218T030905_x") == 0
    assert relative_orbit("image_17") == 0


def test_zeros_are_nodata_or_dark_by_option(copy, tmp_path):
    """A hole in both bands, a hole in one, and a pixel below the noise."""
    vh, vv = band_paths(copy, "0140", FLOODED[0])
    for path, holes in ((vh, [slice(20, 24), slice(30, 32)]), (vv, [slice(20, 24)])):
        with rasterio.open(path, "r+") as raster:
            values = raster.read(1)
            for hole in holes:
                values[hole, 20:24] = 0
            values[40, 15:25] = -0.001
            raster.write(values, 1)
    first = f"0140/{fake_archive.product(FLOODED[0], 1)}".encode()
    images = {}
    for zeros in ("nodata", "border"):
        options = {"size": SIZE, "zeros": zeros, "validation_share": 0.0}
        build(f"sen12_flood/{zeros}", tmp_path, copy, options, ONE_PROCESS)
        (record,) = (r for r in records_of(tmp_path, zeros, "train") if r["id"] == first)
        images[zeros] = record["backscatter"]
        assert metadata(tmp_path, zeros)["measured"]["train"]["floored_pixels"] > 0
    hole_vh, hole_vv = np.isnan(images["nodata"][..., 0]), np.isnan(images["nodata"][..., 1])
    assert (hole_vh & ~hole_vv).any()
    assert hole_vv.any()
    assert not np.isnan(images["border"]).any()
    assert (images["border"][np.isnan(images["nodata"])] == -35).all()
    assert (images["nodata"] == -35).any()


# ---- pairs


def test_published_pairs_are_dry_with_every_other_once_without_those_of_many_zeros(built):
    expected = set()
    for sequence in ("5", "22"):
        place = EXAMPLE[sequence]
        whole = [shot for shot in place.shots if shot.coverage == 1]
        for first, second in combinations(whole, 2):
            if not (first.flooded and second.flooded):
                ids = [
                    f"{sequence}/{fake_archive.product(shot, place.frame)}"
                    for shot in (first, second)
                ]
                expected.add((*ids, int(second.flooded)))
    pairs = named_pairs(built, "pairs", "test")
    assert len(pairs) == len(expected)
    assert set(pairs) == expected
    facts = metadata(built, "pairs")
    assert facts["pairs_left_out"]["test"] == {"25% of an image or more is zero or NaN": 5}


def test_the_summary_counts_pairs_and_those_left_out(built):
    text = build_summary(built / "sen12_flood/pairs/1.0.0").splitlines()
    for split in ("train", "validation", "test"):
        labels = metadata(built, "pairs")["pairs"][split]["flooded"]
        ending = f"{split}, {len(records_of(built, 'pairs', split))} patches, {len(labels)} pairs, "
        assert any(line.endswith(f"{ending}{labels.count(1)} of them flooded") for line in text)
    assert "left out: pairs of test: 5 (25% of an image or more is zero or NaN)" in text
    text = build_summary(built / "sen12_flood/dates/1.0.0")
    assert "left out: pairs of test: 3 (no dry image before it, seen alike), 1 (an image" in text


def test_a_pair_is_read_as_both_dates(built):
    patches = load_patch_dataset("sen12_flood/pairs", built, "train+validation", ("VH", "VV"))
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
        return f"5/{fake_archive.product(shot, 1)}"

    first, _, second, _, onset, later = FLOODED
    named = [pair for pair in named_pairs(built, "dates", "test") if pair[0].startswith("5/")]
    assert named == [
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
    usable = {each.id for each in images}
    pairs = [(p.before.product, p.after.product) for p in pairing.chronological(images, usable)]
    assert pairs == [("p1-3-1-6", "p7-3-0-6"), ("p1-3-1-6", "p7-3-1-6")]
    assert pairing.onsets(images) == {"7/p7-3-0-6"}


def test_an_unknown_relative_orbit_goes_by_the_pass_alone():
    images = [image(1, orbit=6), image(2, orbit=9), image(3, orbit=0), image(4, orbit=6)]
    pairs = pairing.chronological(images, {each.id for each in images})
    assert [(p.before.product, p.after.product) for p in pairs] == [
        ("p2-3-0-9", "p3-3-0-0"),
        ("p3-3-0-0", "p4-3-0-6"),
    ]
    crossing = [image(1), image(2, orbit=0, orbit_pass="ASCENDING")]
    assert pairing.chronological(crossing, {each.id for each in crossing}) == []


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


def test_an_image_without_its_orbit_still_is_the_onset():
    """It is in no pair, and the next flooded image does not become the first one."""
    name = "S1A_IW_GRDH_1SDV_2019010{}T030815_2019010{}T030840_025300_02CCCC_ABCD"
    entries = {
        str(day): {
            "filename": name.format(day, day),
            "FLOODING": day > 1,
            "FULL-DATA-COVERAGE": True,
            "orbit": "DESCENDING",
        }
        for day in (1, 2, 3)
    }
    del entries["2"]["orbit"]
    needs = ("full", "orbit_pass", "time")
    listed = index.images_of("7", entries, Source("x", index.LIST), needs=needs)
    assert len(listed.images) == len(listed.products) == 3
    (missing,) = listed.unusable
    assert "found no key orbit" in listed.problems[0].reason
    scene = pairing.Scene(listed.images, "g", listed.unusable)
    columns = {"id": [i.id for i in listed.images if i.id != missing], "zero_share": [0.0, 0.0]}
    pairs = pairing.make_pairs(
        "test", columns, scenes={"test": {"7": scene}}, rule="chronological", max_zeros=0.25
    )
    assert (pairs.columns["flooded"], pairs.columns["onset"]) == ([1], [False])
    assert pairs.left_out["S1list.json does not state its orbit"] == 1


def test_two_processings_of_one_acquisition_count_once():
    images = [
        image(day, flooded)._replace(product=f"S1A_IW_2019010{day}T030815_025300_{checksum}")
        for day, flooded, checksum in ((1, False, "AAAA"), (3, True, "BBBB"), (3, True, "CCCC"))
    ]
    columns = {"id": [each.id for each in images], "zero_share": [0.0] * 3}
    scenes = {"test": {"7": pairing.Scene(images, "g", {})}}

    def pairs(rule):
        return pairing.make_pairs("test", columns, scenes=scenes, rule=rule, max_zeros=0.25)

    assert pairs("chronological").columns["after"] == [1]
    assert pairs("chronological").left_out[pairing.REPROCESSED] == 1
    assert pairs("published").columns["after"] == [1, 2]  # as the published preparation


def test_a_quarter_of_zeros_is_too_much():
    images = [image(1), image(2), image(3)]
    columns = {"id": [each.id for each in images], "zero_share": [0.0, 0.2499, 0.25]}
    scenes = {"test": {"7": pairing.Scene(images, "g", {})}}
    for rule in pairing.RULES:
        pairs = pairing.make_pairs("test", columns, scenes=scenes, rule=rule, max_zeros=0.25)
        assert list(zip(pairs.columns["before"], pairs.columns["after"], strict=True)) == [(0, 1)]


def test_published_pairs_need_neither_coverage_nor_orbit(copy, tmp_path):
    for key in ("FULL-DATA-COVERAGE", "orbit", "date"):
        without_key("5", "1", key)(copy)
    facts = build_metadata(copy, tmp_path, pairs="published")
    assert Counter(facts["pairs"]["test"]["sequence"]) == {"5": 9, "22": 3}


def test_unknown_times_are_null(copy, tmp_path):
    def change(values):
        entry = values["5"]["1"]
        old, entry["filename"], entry["date"] = entry["filename"], "image_one", "?"
        for path in (copy / FOLDER / "5").glob(f"{old}*"):
            path.rename(path.with_name(path.name.replace(old, "image_one")))

    change_list(copy, change)
    facts = build_metadata(copy, tmp_path / "a", pairs="published")
    assert facts["pairs"]["test"]["gap_days"].count(None) == 4
    with pytest.raises(BadFilesError, match="image 1 of sequence 5: found '\\?' as date"):
        build_metadata(copy, tmp_path / "b")


# ---- splits


def test_groups_are_linked_through_others():
    products = {"a": ["1"], "b": ["1", "2"], "c": ["2"], "d": ["3"], "e": []}
    assert splits.components(products) == {"a": "a", "b": "a", "c": "a", "d": "d", "e": "e"}


def test_validation_is_whole_groups_of_the_right_size_and_balance():
    rng = np.random.default_rng(0)
    sequences = [f"{number:04d}" for number in range(200)]
    group = {name: f"g{rng.integers(40)}" for name in sequences}
    weights = {
        name: PairCounts(int(rng.integers(5, 20)), int(rng.integers(0, 20))) for name in sequences
    }
    chosen = splits.choose_validation(group, weights, 0.15, 0)
    assert not {group[s] for s in chosen} & {group[s] for s in sequences if s not in chosen}
    assert 0.13 <= len(chosen) / 200 <= 0.17

    def flooded(names):
        dry, wet = np.sum([weights[name] for name in names], axis=0)
        return wet / (dry + wet)

    assert abs(flooded(chosen) - flooded(sequences)) < 0.03
    assert splits.choose_validation(group, weights, 0.15, 0) == chosen
    assert splits.choose_validation(group, weights, 0.15, 1) != chosen
    assert splits.choose_validation(group, weights, 0.0, 0) == set()
    assert splits.choose_validation(dict.fromkeys(sequences, "g"), weights, 0.15, 0) == set()


def test_no_group_is_in_train_and_validation_and_shared_products_are_reported(built):
    facts_rule = {"dates": "chronological", "pairs": "published"}
    for config in facts_rule:
        facts = metadata(built, config)
        train, validation = (set(facts["pairs"][s]["group"]) for s in ("train", "validation"))
        assert validation
        assert not train & validation
        chosen = facts["sequences"]
        assert sorted(chosen["train"] + chosen["validation"]) == EXAMPLE_SPLITS["train"]
        assert facts["caveats"][0] == "6 products in both train and test"
        assert facts["caveats"][1:] == list(archive_plan.RULE_CAVEATS[facts_rule[config]])
        assert set(facts["shared_products"]) == {fake_archive.product(shot, 1) for shot in FLOODED}
        assert facts["test_sequences_with_shared_products"] == ["5"]
        assert any(note.startswith("6 Sentinel-1 products are in both") for note in facts["notes"])


def test_training_sequences_of_one_product_have_no_validation(tmp_path):
    places = {"0001": Place(FLOODED), "0002": Place(FLOODED), "3": Place(FLOODED, 2)}
    fake_archive.write_archive(tmp_path, places, {"train": ["0001", "0002"], "test": ["3"]}, SIZE)
    facts = build_metadata(tmp_path, tmp_path / "out")
    assert set(facts["pairs"]) == {"train", "test"}
    (note,) = [note for note in facts["notes"] if note.startswith("there is no validation split")]
    assert "the 2 training sequences share products with each other" in note
    assert "--config.validation=none" in note
    assert facts["caveats"] == []


def test_why_there_is_no_validation_is_told():
    """Sequences that share nothing, of which one has pairs."""
    flooded = [image(1, True), image(2, True)]
    pair = [image(1), image(2, True)]
    surveys = {
        name: SequenceSurvey(
            images, [_item(i, {"VH": "", "VV": ""}, "") for i in images], None, {}, [], 0, 0
        )
        for name, images in (("a", flooded), ("b", pair))
    }
    for train, reason in (
        (["a", "b"], "are 2 groups that share no products, and pairs are in 1 of them"),
        (["b"], "there is one training sequence"),
    ):
        assert reason in archive_plan._no_validation(
            train, surveys, {"a": "a", "b": "b"}, "chronological"
        )
