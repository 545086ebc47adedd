"""BigEarthNet-S1, both versions: splits, labels, what a record knows, and broken tables."""

import json
import shutil

import numpy as np
import pytest
import rasterio
import tensorflow_datasets as tfds

from sar_mixmae_jax.data.bigearthnet import CLASSES_19, to_19
from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders.bad_files import BadFilesError
from tfds_builders.bigearthnet_s1 import fake_patches, version1, version2
from tfds_builders.build import build

SPLITS = ("train", "validation", "test")


def ids(folder, split) -> set[str]:
    source = tfds.builder_from_directory(folder).as_data_source(split)
    return {record["id"].decode() for record in source}


@pytest.fixture(scope="module")
def raw2(tmp_path_factory):
    """Version 2 with nine patches, three in each split, and two that are not recommended."""
    root = tmp_path_factory.mktemp("v2")
    rows = [fake_patches.table_row(number, SPLITS[number % 3]) for number in range(9)]
    snow = fake_patches.table_row(9, "train", contains_seasonal_snow=True)
    cloud = fake_patches.table_row(10, "test", contains_cloud_or_shadow=True)
    fake_patches.write_version2(root, [*rows, snow, cloud])
    fake_patches.write_table(root / version2.TABLE, [*rows, snow])
    fake_patches.write_table(root / version2.SNOW_AND_CLOUD, [snow, cloud])
    return root


@pytest.fixture(scope="module")
def built2(raw2, tmp_path_factory):
    return build("bigearthnet_s1/v2", tmp_path_factory.mktemp("data2"), raw2)


def test_the_splits_of_version_1_are_the_lists(built):
    folder = built / "bigearthnet_s1/v1/2.0.0"
    for split, numbers in (("train", range(8)), ("validation", (8, 9)), ("test", (10, 11))):
        assert ids(folder, split) == {fake_patches.patch_name(number) for number in numbers}


def test_train_and_validation_are_read_as_one(built):
    both = load_patch_dataset("bigearthnet_s1", built, "train+validation", ("VH", "VV"))
    assert len(both.source) == 10
    read = {both.source[index]["id"].decode() for index in range(10)}
    assert read == {fake_patches.patch_name(number) for number in range(10)}


def test_results_on_version_1_say_that_its_split_is_spatially_dependent(built):
    patches = load_patch_dataset("bigearthnet_s1", built, "train", ("VH", "VV"))
    assert patches.caveats == ("spatially dependent split",)
    assert patches.title == "bigearthnet_s1/v1/2.0.0/train (spatially dependent split)"


def test_version_2_has_no_such_caveat_and_leaves_out_snow_and_cloud(built2):
    assert not load_patch_dataset(
        "bigearthnet_s1/v2", built2.parents[2], "train", ("VH", "VV")
    ).caveats
    for number, split in enumerate(SPLITS):
        expected = {fake_patches.patch_name(n) for n in range(9) if n % 3 == number}
        assert ids(built2, split) == expected


def test_snow_and_cloud_are_included_when_asked_for(raw2, tmp_path):
    folder = build("bigearthnet_s1/v2_snow_and_cloud", tmp_path, raw2)
    assert ids(folder, "train") == {fake_patches.patch_name(number) for number in (0, 3, 6, 9)}
    assert ids(folder, "test") == {fake_patches.patch_name(number) for number in (2, 5, 8, 10)}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_records_are_the_files_and_what_the_source_knows(version, built, raw, built2, raw2):
    folder, root = {"v1": (built / "bigearthnet_s1/v1/2.0.0", raw), "v2": (built2, raw2)}[version]
    builder = tfds.builder_from_directory(folder)
    for record in builder.as_data_source("train"):
        name = record["id"].decode()
        for band, file in enumerate(("VH", "VV")):
            path = next(root.rglob(f"{name}_{file}.tif"))
            with rasterio.open(path) as raster:
                np.testing.assert_array_equal(record["backscatter"][..., band], raster.read(1))
                assert record["crs"].decode() == raster.crs.to_string()
                assert tuple(record["transform"]) == tuple(raster.transform)[:6]
        number = int(name.split("_")[-2])
        named = [CLASSES_19[index] for index in np.flatnonzero(record["labels"])]
        assert named == to_19(fake_patches.labels(number))
        assert record["time"] == b"2017-06-13T16:50:43"
        if version == "v1":
            assert record["s2_name"].decode() == f"S2A_MSIL2A_20170613T101031_{number}_48"
            assert record["scene"].startswith(b"S1A_IW_GRDH_1SDV_20170613T165043_2017")
        else:
            assert record["s2_name"].endswith(f"_T33UUP_{number}_48".encode())
            assert record["v1_name"].decode() == f"S2A_MSIL2A_20170613T101031_{number}_48"
            assert record["country"] == b"Austria"


def test_both_versions_have_the_same_19_classes_in_the_same_order(built, built2):
    for folder in (built / "bigearthnet_s1/v1/2.0.0", built2):
        metadata = json.loads((folder / "metadata.json").read_text())
        assert metadata["classes"] == list(CLASSES_19)


def test_statistics_are_the_published_ones_of_each_version(built, built2):
    v1 = load_patch_dataset("bigearthnet_s1/v1", built, "train", ("VH", "VV"))
    assert (v1.statistics.mean, v1.statistics.std) == ((-19.2309, -12.5951), (3.1672, 2.9644))
    v2 = load_patch_dataset("bigearthnet_s1/v2", built2.parents[2], "train", ("VH", "VV"))
    assert (v2.statistics.mean, v2.statistics.std) == ((-19.1966, -12.5144), (5.4501, 5.0019))


def test_lists_may_lie_beside_the_patches_or_in_a_folder(raw, tmp_path):
    inside = tmp_path / "a" / "BigEarthNet-S1-v1.0"
    shutil.copytree(raw, inside)
    splits = tmp_path / "a" / "splits"
    splits.mkdir()
    for file in version1.LISTS.values():
        (inside / file).rename(splits / file)
    for root in (tmp_path / "a", inside):
        plan = version1.make_plan(root, unsplit=False)
        assert [len(plan.items[split]) for split in SPLITS] == [8, 2, 2]


def test_without_lists_the_message_says_what_to_do(raw, tmp_path):
    shutil.copytree(raw, tmp_path / "raw")
    (tmp_path / "raw/test.csv").unlink()
    with pytest.raises(InputError, match=r"found no test\.csv.*bigearthnet_s1/v1_unsplit"):
        build("bigearthnet_s1", tmp_path / "data", tmp_path / "raw")
    folder = build("bigearthnet_s1/v1_unsplit", tmp_path / "data", tmp_path / "raw")
    assert len(ids(folder, "train")) == 12


def test_lists_that_name_absent_repeated_and_shared_patches(raw, tmp_path):
    shutil.copytree(raw, tmp_path / "raw")
    fake_patches.write_lists(
        tmp_path / "raw",
        {"train": [0, 1, 1, 77], "validation": [2, 0], "test": [3, 88]},
    )
    with pytest.raises(BadFilesError) as raised:
        build("bigearthnet_s1", tmp_path / "data", tmp_path / "raw")
    reasons = sorted(problem.reason for problem in raised.value.bad_files)
    assert len(reasons) == 4
    for found, expected in zip(
        reasons,
        [
            f"names {fake_patches.patch_name(0)}, and train.csv does too",
            f"names {fake_patches.patch_name(1)} more than once",
            f"names {fake_patches.patch_name(77)}, which has no folder",
            f"names {fake_patches.patch_name(88)}, which has no folder",
        ],
        strict=True,
    ):
        assert found.startswith(expected)


def test_a_place_in_two_splits_under_two_names(raw, tmp_path):
    shutil.copytree(raw, tmp_path / "raw")
    fake_patches.write_lists(tmp_path / "raw", {"train": [0, 1], "validation": [2], "test": [3]})
    rows = f"S2A_0,{fake_patches.patch_name(3)}\n"
    (tmp_path / "raw/test.csv").write_text(rows)
    plan = version1.make_plan(tmp_path / "raw", unsplit=False)
    assert [problem.reason for problem in plan.bad_files] == [
        "names the Sentinel-2 patch S2A_0, and train.csv does too: correct the lists"
    ]


def test_options_of_the_other_release_are_refused(raw, raw2, tmp_path):
    for root, options in (
        (raw, {"release": "v1", "snow_and_cloud": True}),
        (raw2, {"release": "v2", "unsplit": True}),
    ):
        with pytest.raises(InputError, match=r"is for v[12]"):
            build("bigearthnet_s1/own", tmp_path, root, options)


def test_no_patch_is_in_two_splits_even_if_the_lists_say_so(raw, tmp_path):
    shutil.copytree(raw, tmp_path / "raw")
    fake_patches.write_lists(
        tmp_path / "raw", {"train": [0, 1], "validation": [2, 0], "test": [1, 3]}
    )
    plan = version1.make_plan(tmp_path / "raw", unsplit=False)
    found = [name for split in SPLITS for name in plan.items[split]]
    assert len(found) == len(set(found)) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [("patch,s1\n", "in row 1"), ("a,b,c\n", "in row 1"), ("", "found no rows")],
)
def test_lists_of_another_form(tmp_path, content, message):
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        version1.read_split_list(tmp_path / "train.csv")


def test_bad_rows_of_the_table_are_all_named(raw2, tmp_path):
    root = tmp_path / "raw"
    shutil.copytree(raw2, root)
    rows = [
        fake_patches.table_row(0, "train"),
        fake_patches.table_row(0, "test"),
        fake_patches.table_row(77, "train"),
        fake_patches.table_row(1, "train", labels=["Moon"]),
        fake_patches.table_row(2, "train", labels=[]),
        fake_patches.table_row(3, "holdout"),
        fake_patches.table_row(4, "validation"),
        fake_patches.table_row(6, "test", patch_id=fake_patches.table_row(4, "x")["patch_id"]),
        fake_patches.table_row(5, "test"),
    ]
    fake_patches.write_table(root / version2.TABLE, rows)
    plan = version2.make_plan(root, snow_and_cloud=False)
    assert {split: len(plan.items[split]) for split in SPLITS} == dict.fromkeys(SPLITS, 1)
    told = {problem.reason.split()[1].split("_")[-2]: problem.reason for problem in plan.bad_files}
    assert set(told) == {"0", "77", "1", "2", "3", "6"}
    assert "of a Sentinel-2 patch that it names more than once" in told["6"]
    assert "more than once" in told["0"]
    assert "no folder" in told["77"]
    assert "not of the 19 classes" in told["1"]
    assert "not of the 19 classes" in told["2"]
    assert "in another split" in told["3"]


@pytest.mark.parametrize("damage", ["empty", "truncated", "column"])
def test_a_table_that_cannot_be_read(raw2, tmp_path, damage):
    path = tmp_path / "metadata.parquet"
    shutil.copy(raw2 / version2.TABLE, path)
    if damage == "column":
        fake_patches.write_table(path, [{"s1_name": "x"}])
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else 500])
    with pytest.raises(InputError, match=r"metadata\.parquet: cannot be used as a Parquet table"):
        version2.read_table(path)


def test_labels_travel_as_bits_without_loss():
    import pyarrow as pa

    lists = [[CLASSES_19[18], CLASSES_19[0]], [CLASSES_19[5]], ["Moon", CLASSES_19[1]], []]
    bits = version2.label_bits(pa.array(lists, pa.list_(pa.string())))
    assert bits[:2].tolist() == [2**18 + 1, 2**5]
    assert (bits[2:] == version2.UNKNOWN_LABELS).all()
