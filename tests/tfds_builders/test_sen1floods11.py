"""Sen1Floods11 in the official layout: records, splits, counts, and files that are refused."""

import json

import numpy as np
import pytest
import rasterio
import tensorflow_datasets as tfds

from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.task_dataset import load_task_dataset
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders.bad_files import BadFilesError
from tfds_builders.build import build
from tfds_builders.geotiff import write_band
from tfds_builders.plan import BuildSettings
from tfds_builders.sen1floods11 import chips, fake_chips

SIZE = 32
OPTIONS = {"size": SIZE}
ALONE = BuildSettings(processes=1)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return fake_chips.write_dataset(tmp_path_factory.mktemp("raw") / "v1.1", SIZE)


@pytest.fixture(scope="module")
def folder(release, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    return build("sen1floods11/own", data_dir, release.parent, options=OPTIONS, settings=ALONE)


def records(folder, split) -> dict[str, dict]:
    source = tfds.builder_from_directory(folder).as_data_source(split)
    return {source[row]["id"].decode(): source[row] for row in range(len(source))}


def test_records_hold_what_the_files_hold(folder, release):
    record = records(folder, "train")["Sri-Lanka_2"]
    hand = release / "data/flood_events/HandLabeled"
    with rasterio.open(hand / "S1Hand/Sri-Lanka_2_S1Hand.tif") as raster:
        vv, vh = raster.read()
        transform = tuple(raster.transform)[:6]
    with rasterio.open(hand / "LabelHand/Sri-Lanka_2_LabelHand.tif") as raster:
        labels = raster.read(1)
    np.testing.assert_array_equal(record["backscatter"], np.stack([vh, vv], axis=-1))
    np.testing.assert_array_equal(record["water"], labels)
    assert record["water"].min() == -1
    assert record["event"] == b"Sri-Lanka"
    assert record["crs"] == b"EPSG:4326"
    assert tuple(record["transform"]) == transform
    assert records(folder, "test")["Mekong_5"]["time"] == b"2001-02-02"  # "Cambodia" in the table
    assert records(folder, "bolivia")["Bolivia_6"]["time"] == b"2001-03-03"
    assert record["time"] == b""
    notes = json.loads((folder / "metadata.json").read_text())["notes"]
    assert "Sen1Floods11_Metadata.geojson has no date of Sri-Lanka" in notes


def test_chips_without_labels_or_measurement_stay_and_are_counted(folder):
    metadata = json.loads((folder / "metadata.json").read_text())
    assert set(records(folder, "train")) == {"Ghana_1", "Sri-Lanka_2", "Ghana_3"}
    assert metadata["caveats"] == [chips.EVENTS_CAVEAT]
    assert metadata["labels"]["train"]["unlabelled_chips"] == 1
    assert metadata["labels"]["test"] == {
        "chips": 1,
        "unlabelled_chips": 0,
        "labelled_pixels": SIZE**2,
        "water_pixels": SIZE**2,
        "unmeasured_water_pixels": SIZE**2,
    }
    notes = "\n".join(metadata["notes"])
    assert "train: 1 chips have no labelled pixel" in notes
    assert "test: 1,024 of 1,024 pixels labelled water, in 1 chips, have no measurement" in notes
    assert "test: labelled pixels are of one class" in notes
    assert np.isnan(records(folder, "test")["Mekong_5"]["backscatter"]).all()


def test_weak_labels_are_for_training_and_spare_the_held_out_event(release, tmp_path):
    options = {**OPTIONS, "weak": True}
    weak = build("sen1floods11/own", tmp_path, release, options=options, settings=ALONE)
    assert set(records(weak, "train")) == {"Ghana_7"}
    assert set(records(weak, "validation")) == {"Ghana_4"}
    metadata = json.loads((weak / "metadata.json").read_text())
    assert "1 weakly labelled chips are left out" in "\n".join(metadata["notes"])
    assert metadata["caveats"] == [chips.EVENTS_CAVEAT, chips.WEAK_CAVEAT]


def test_a_segmentation_reads_its_masks(folder):
    task = get_task("segmentation")
    data_dir = str(folder.parents[2])
    split = load_task_dataset(task, "sen1floods11/own", data_dir, "train", ("VV",))
    row = split.ids.tolist().index("Ghana_1")
    record = split.patches.source[row]
    assert record["backscatter"].shape == (SIZE, SIZE, 1)
    assert split.task.label_field == "water"
    assert split.columns["event"].tolist() == [name.rsplit("_", 1)[0] for name in split.ids]
    assert split.columns["group"].tolist() == split.ids.tolist()
    units = split.task.label_units(split.patches)
    unlabelled = split.ids.tolist().index("Ghana_3")
    assert units.labels[unlabelled].tolist() == [0, 0]
    assert units.labels[row, 0] == 1


def copy_of_train(release, tmp_path, name="Ghana_1", **changes):
    """A dataset of one chip, and the path of its mask."""
    root = tmp_path / "v1.1"
    fake_chips.write_chip(root, name, SIZE, **changes)
    fake_chips.write_lists(root, {"train": [name]})
    return root, root / f"data/flood_events/HandLabeled/LabelHand/{name}_LabelHand.tif"


def read_first(root):
    plan = chips.make_plan(root, SIZE, weak=False)
    return plan.read(*plan.arguments, plan.items["train"].tolist()[0])


def test_dates_are_those_of_the_table_of_events(release, tmp_path):
    root, _ = copy_of_train(release, tmp_path)
    note = "Sen1Floods11_Metadata.geojson is not there: the dates of the acquisitions are not known"
    assert note in chips.make_plan(root, SIZE, weak=False).notes
    assert read_first(root)["time"] == ""
    fake_chips.write_events(root)
    assert note not in chips.make_plan(root, SIZE, weak=False).notes
    assert read_first(root)["time"] == "2001-01-01"
    (root / chips.METADATA).write_text('{"features": [{"properties": {"location": "Ghana"}}]}')
    with pytest.raises(InputError, match="cannot be read as the table of events"):
        chips.make_plan(root, SIZE, weak=False)


@pytest.mark.parametrize(
    ("profile", "value", "message"),
    [
        ({**fake_chips.GRID, "crs": "EPSG:32633"}, 0, "found the grid .*, expected that of Ghana"),
        (fake_chips.GRID, 2, r"found the labels \[2\], expected -1, 0, 1"),
    ],
)
def test_masks_that_do_not_fit_are_refused(release, tmp_path, profile, value, message):
    root, mask = copy_of_train(release, tmp_path)
    write_band(mask, np.full((SIZE, SIZE), value, np.int16), **profile)
    with pytest.raises(BadFilesError, match=message):
        read_first(root)


def test_missing_masks_bands_and_lists_are_refused(release, tmp_path):
    root, mask = copy_of_train(release, tmp_path)
    mask.unlink()
    with pytest.raises(BadFilesError, match=r"LabelHand\.tif: cannot be read"):
        read_first(root)
    linear = np.full((2, SIZE, SIZE), 0.1, np.float32)
    root, _ = copy_of_train(release, tmp_path, image=linear)
    with pytest.raises(BadFilesError, match="which is linear power, expected dB"):
        read_first(root)
    path = root / "splits/flood_handlabeled/flood_test_data.csv"
    path.write_text("Ghana_1_S1Hand.tif,Ghana_1_LabelHand.tif\n")
    plan = chips.make_plan(root, SIZE, weak=False)
    assert [bad.reason for bad in plan.bad_files] == [
        "found Ghana_1 in flood_train_data.csv too, expected it once"
    ]
    path.write_text("chip\n")
    with pytest.raises(InputError, match=r"found 'chip' in row 1, expected `EVENT_ID_S1Hand\.tif"):
        chips.make_plan(root, SIZE, weak=False)
    path.write_text("")
    with pytest.raises(InputError, match="found no weakly labelled chip"):
        chips.make_plan(root, SIZE, weak=True)
    with pytest.raises(InputError, match=r"expected the layout of Sen1Floods11 v1\.1"):
        chips.make_plan(tmp_path / "elsewhere", SIZE, weak=False)
