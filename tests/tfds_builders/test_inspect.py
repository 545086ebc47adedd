"""Inspection of a built dataset: the report agrees with NumPy on the patches."""

import dataclasses
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from matplotlib.image import imread

from sar_mixmae_jax.data.metadata import Statistics
from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from tfds_builders.band_statistics import BandMoments
from tfds_builders.inspect import __main__ as inspect
from tfds_builders.inspect import dataset as dataset_module
from tfds_builders.inspect import inspection, inspection_report
from tfds_builders.inspect.survey import EDGES, survey
from tfds_builders.records import PatchConfig, dataset_info

SIDE = 24
CLASSES = (
    "Land principally occupied by agriculture, with significant areas of natural vegetation",
    "Marine waters",
    "Moors, heathland and sclerophyllous vegetation",
)
EARTH = 6378137.0  # radius of the sphere of EPSG:3857, m
PUBLISHED = Statistics((-19.0, -12.0), (3.0, 4.0), "published patches")
NAME = "tiny/own/1.0.0"


def patch(rng: np.random.Generator, level: float) -> np.ndarray:
    values = rng.normal(level, 3.0, (SIDE, SIDE, 2)) + rng.normal(0, 2.0, 2)
    values[: rng.integers(0, 6), :, 0] = np.nan
    values[:, : rng.integers(0, 4)] = np.nan
    return values.astype(np.float32)


def record(split: str, number: int) -> dict:
    """Return a record; patches of `test` are 10 dB brighter than those of `train`."""
    rng = np.random.default_rng([number, len(split)])
    degrees = (10.0 + number, 50.0 + (1.0 if split == "test" else 0.0))
    return {
        "id": f"{split}_{number}",
        "backscatter": patch(rng, -18.0 if split == "train" else -8.0),
        "labels": (rng.random(3) < 0.5).astype(np.uint8),
        "time": "" if number == 0 else f"201{7 + number % 2}-0{1 + number % 6}-11T05:41:17",
        "crs": "" if number == 0 else "EPSG:3857",
        "transform": np.array([10.0, 0, mercator(*degrees)[0], 0, -10.0, mercator(*degrees)[1]]),
        "country": "Finland" if number % 3 else "Portugal",
    }


def mercator(longitude: float, latitude: float) -> tuple[float, float]:
    y = np.log(np.tan(np.pi / 4 + np.radians(latitude) / 2))
    return EARTH * np.radians(longitude), EARTH * y


RECORDS = {
    split: [record(split, number) for number in range(count)]
    for split, count in (("train", 20), ("test", 7))
}


def measured(split: str) -> dict:
    """Return the sums of the build, deliberately wrong for `test`."""
    values = BandMoments.from_patches(
        np.stack([record["backscatter"] for record in RECORDS[split]])
    ).describe()
    values["global_deviation"][1] += 1e-3 if split == "test" else 0.0
    return values


class Builder(tfds.core.ShardBasedBuilder):
    """Dataset with every feature that a record can have."""

    name = "tiny"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [PatchConfig(name="own", description="")]  # noqa: RUF012

    def _info(self):
        return dataset_info(
            self,
            size=SIDE,
            description="",
            classes=CLASSES,
            statistics=PUBLISHED,
            features={"country": tfds.features.Text()},
            caveats=["spatially dependent split"],
            notes=["3 scenes", "warning: bands exchanged? a.tif (VH -9.1 dB, VV -18.0 dB)"],
            zero_pixels={"border": 1200, "blocks": 0, "eroded": 7},
            measured={split: measured(split) for split in RECORDS},
        )

    def _shard_iterators_per_split(self, dl_manager):
        return {split: [partial(keyed, rows)] for split, rows in RECORDS.items()}


class Plain(tfds.core.ShardBasedBuilder):
    """Dataset with the mandatory features only, in float16, of one value."""

    name = "plain"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [PatchConfig(name="own", description="", dtype="float16")]  # noqa: RUF012

    def _info(self):
        return dataset_info(self, size=8, description="", georeferenced=False)

    def _shard_iterators_per_split(self, dl_manager):
        flat = np.full((8, 8, 2), -12.5, np.float16)
        return {"train": [partial(keyed, [{"id": "one", "backscatter": flat}])]}


def keyed(rows: list[dict]) -> Iterator[tuple[str, dict]]:
    for row in rows:
        yield row["id"], row


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data folder with `tiny` and `plain`."""
    folder = tmp_path_factory.mktemp("inspected")
    for builder in (Builder, Plain):
        builder(data_dir=folder, file_format="array_record").download_and_prepare(
            file_format="array_record"
        )
    return folder


@pytest.fixture
def copy(data_dir: Path, tmp_path: Path) -> Path:
    """Copy of the data folder that a test may change."""
    return Path(shutil.copytree(data_dir, tmp_path / "data"))


def run(*arguments: str) -> None:
    inspect.main(["inspect", *map(str, arguments)])


@pytest.fixture(scope="module")
def out(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the output of the command for `tiny`."""
    folder = tmp_path_factory.mktemp("out") / "of" / "tiny"
    run("tiny", f"--data_dir={data_dir}", f"--out={folder}")
    return folder


def rows(report: str, *start: str) -> list[str]:
    """Return the remaining cells of the first table row that starts with these cells."""
    for line in report.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if cells[: len(start)] == list(start) and len(cells) > len(start):
            return cells[len(start) :]
    raise AssertionError(f"no row {start}")


def section(report: str, title: str) -> str:
    return report.split(f"## {title}\n")[1].split("\n## ")[0]


def valid(split: str, band: int) -> np.ndarray:
    values = np.concatenate([row["backscatter"][..., band].ravel() for row in RECORDS[split]])
    return values[~np.isnan(values)].astype(np.float64)


def per_patch(split: str, band: int) -> float:
    return float(
        np.mean([np.nanstd(r["backscatter"][..., band], dtype=float) for r in RECORDS[split]])
    )


def test_files_are_whole_and_linked(out):
    report = (out / "report.md").read_text()
    names = {"report.md", "histograms.png", "contact_sheet.png", "map.png", "labels.png"}
    assert {path.name for path in out.iterdir()} == names
    assert set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", report)) == names - {"report.md"}
    for name in names - {"report.md"}:
        image = imread(out / name)
        assert min(image.shape[:2]) > 300
        assert image[..., :3].std() > 0.05  # something is drawn
    assert report.index("Caveat: spatially dependent split") < report.index("## Splits")


@pytest.mark.parametrize("split", RECORDS)
@pytest.mark.parametrize("band", [0, 1])
def test_statistics_are_those_of_numpy(out, split, band):
    report = (out / "report.md").read_text()
    name, values = ("VH", "VV")[band], valid(split, band)
    cells = [float(x) for x in rows(section(report, "Statistics"), split, name)]
    expected = [values.mean(), values.std(), per_patch(split, band)]
    np.testing.assert_allclose(cells[:3], expected, atol=6e-5)
    assert cells[3:] == [PUBLISHED.mean[band], PUBLISHED.std[band]]
    nodata, *quantiles, below, above = rows(section(report, "Distribution"), split, name)
    pixels = len(RECORDS[split]) * SIDE**2
    assert nodata == f"{100 * (1 - len(values) / pixels):.2f} %"
    assert (below, above) == ("0", "0")
    exact = np.percentile(values, [0, 0.1, 1, 5, 25, 50, 75, 95, 99, 99.9, 100])
    np.testing.assert_allclose(np.array(quantiles, float), exact, atol=0.13)
    np.testing.assert_allclose(np.array(quantiles, float)[[0, -1]], exact[[0, -1]], atol=0.006)


def test_labels_times_and_countries_are_counted(out):
    report = (out / "report.md").read_text()
    for number, name in enumerate(CLASSES, 1):
        cells = rows(report, str(number), name)
        assert cells == [
            str(sum(int(row["labels"][number - 1]) for row in RECORDS[split])) for split in RECORDS
        ]
    times = section(report, "Times of acquisition")
    every = [row["time"] for split in RECORDS.values() for row in split]
    months = Counter(time[:7] for time in every if time)
    for year in ("2017", "2018"):
        counts = [months[f"{year}-{month:02d}"] for month in range(1, 13)]
        expected = [str(count or "") for count in [*counts, sum(counts)]]
        assert rows(times, year) == expected
    assert f"From {min(filter(None, every))} to {max(every)} UTC; unknown for 2 patches" in times
    portugal = [sum(row["country"] == "Portugal" for row in RECORDS[s]) for s in RECORDS]
    assert rows(report, "Portugal") == [str(count) for count in portugal]


def test_what_the_build_warned_of_is_repeated(out):
    report = (out / "report.md").read_text()
    assert "> **warning: bands exchanged? a.tif (VH -9.1 dB, VV -18.0 dB)**" in report
    assert "3 scenes" not in report
    assert "| zeros read as nodata | border 1,200, blocks 0, eroded 7 |" in report


def test_places_are_located_and_splits_measured(out):
    places = section((out / "report.md").read_text(), "Places")
    assert "25 of 27 patches have a known place" in places
    # every patch of test lies one degree north of one of train
    nearest = np.array(rows(places, "test"), float)
    np.testing.assert_allclose(nearest, np.radians(1.0) * 6371.0, atol=0.05)


def test_the_build_is_checked(out):
    report = section((out / "report.md").read_text(), "Agreement with the build")
    assert rows(report, "train", "agrees")[1] == "20, 20"
    assert rows(report, "test", "**differs: build the dataset again**") == ["1.0e-03", "7, 7"]


def test_written_statistics_are_what_training_gets(copy, tmp_path, monkeypatch, capsys):
    for function in ("write_inspection", "weight_contrasts"):  # tested above
        module = inspect if function == "write_inspection" else inspection
        monkeypatch.setattr(module, function, lambda *_, **__: [])
    bands = [(valid("train", band), per_patch("train", band)) for band in (1, 0)]
    stds = {
        "per_patch": [each for _, each in bands],
        "global": [values.std() for values, _ in bands],
    }
    meaning = {"global": "deviation over all pixels", "per_patch": "mean of per-patch deviations"}
    for deviation, expected in stds.items():
        run("tiny", f"--data_dir={copy}", f"--out={tmp_path}", "--write_statistics",
            f"--deviation={deviation}")  # fmt: skip
        statistics = load_patch_dataset("tiny", copy, "test", ("VV", "VH")).statistics
        np.testing.assert_allclose(statistics.mean, [values.mean() for values, _ in bands])
        np.testing.assert_allclose(statistics.std, expected)
        assert "the 20 patches of the split train" in statistics.computed_on
        assert meaning[deviation] in statistics.computed_on
        metadata = json.loads((copy / NAME / "metadata.json").read_text())
        assert metadata["classes"] == list(CLASSES)
        printed = capsys.readouterr().out
        assert f"statistics now:    mean {valid('train', 0).mean():.4f}" in printed
        if deviation == "per_patch":
            assert metadata["statistics_before"]["std"] == list(PUBLISHED.std)
            assert "statistics before: mean -19.0000, -12.0000 dB" in printed
    # the published ones are not lost when statistics are written again
    assert meaning["global"] in metadata["statistics"]["of"]
    assert metadata["statistics_before"]["before"]["of"] == PUBLISHED.computed_on


def test_pairs_of_dates_are_counted():
    columns = {
        "before": [0, 0, 3],
        "after": [1, 2, 4],
        "flooded": [0, 1, 1],
        "sequence": ["a", "a", "b"],
        "group": ["a", "a", "a"],
        "onset": [False, True, False],
        "seen_alike": [True, True, False],
    }
    lines = inspection_report._pairs({"train": columns})
    assert "| split | pairs | flooded | images | second images | of the first flood |" in lines[4]
    assert [cell.strip() for cell in lines[6].strip("|").split("|")] == [
        "train", "3", "2", "5", "3", "1", "1", "2", "1",
    ]  # fmt: skip


def test_a_dataset_that_has_little_is_reported_on(data_dir, tmp_path, capsys):
    run("plain", f"--data_dir={data_dir}", f"--out={tmp_path}")
    report = (tmp_path / "report.md").read_text()
    for sentence in (
        "The records have no labels.",
        "The records have no coordinates.",
        "The records have no times of acquisition.",
        "The metadata have no sums of the build to compare with.",
        "**Training cannot use this dataset**",
    ):
        assert sentence in report
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.md",
        "histograms.png",
        "contact_sheet.png",
    }
    assert rows(report, "train", "VH")[:3] == ["-12.5000", "0.0000", "0.0000"]
    metadata = (data_dir / "plain/own/1.0.0/metadata.json").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        run("plain", f"--data_dir={data_dir}", f"--out={tmp_path}", "--write_statistics")
    assert stopped.value.code == 2
    assert "VH has the mean -12.5 dB and the deviation 0 dB" in capsys.readouterr().err
    assert (data_dir / "plain/own/1.0.0/metadata.json").read_bytes() == metadata


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tine"], "found no dataset 'tine'"),
        (["tiny", "--split=train+tset"], "unknown split of tiny/own/1.0.0 'tset': did you mean"),
        (["tiny", "--out=/dev/null/here"], "--out /dev/null/here cannot be written"),
        (["tiny", "--write_statistics", "--patches=5"], "leave --patches out"),
        (["tiny", "--write_statistics", "--split=test"], "expected one that training may use"),
        (["tiny", "--deviation=both"], "should be one of <global|per_patch>"),
        ([], "found the arguments [], expected NAME"),
    ],
)
def test_mistakes_end_in_one_line(data_dir, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run(f"--data_dir={data_dir}", f"--out={tmp_path / 'out'}", *arguments)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_records_that_cannot_be_read_are_named(copy, tmp_path, capsys):
    (path,) = (copy / NAME).glob("*train.array_record*")
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        run("tiny", f"--data_dir={copy}", f"--out={tmp_path / 'out'}", "--write_statistics")
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"error: tiny/own/1\.0\.0/train: record \d+ cannot be read", line)
    assert not list((tmp_path / "out").iterdir())
    metadata = json.loads((copy / NAME / "metadata.json").read_text())
    assert metadata["statistics"]["of"] == PUBLISHED.computed_on


def test_a_sample_is_spread(data_dir, tmp_path):
    drawn = dataset_module.stratified_rows(200, 40)
    assert (drawn // 5).tolist() == list(range(40))
    assert set(drawn % 2) == {0, 1}  # as the dates of pairs alternate
    assert dataset_module.stratified_rows(3, 4).tolist() == [0, 1, 2]
    dataset = dataset_module.open_dataset("tiny", data_dir)
    batches = dataset_module.read(dataset, "train", np.array([3, 5, 17]), ("id",))
    stored = [row["id"] for row in dataset.builder.as_data_source("train")]
    assert [row["id"] for batch in batches for row in batch] == [stored[n] for n in (3, 5, 17)]


def test_sums_do_not_depend_on_the_batches(monkeypatch, data_dir):
    monkeypatch.setattr(dataset_module, "BATCH_BYTES", 3 * SIDE * SIDE * 2 * 4)
    dataset = dataset_module.open_dataset("tiny", data_dir)
    batches = list(
        dataset_module.read(dataset, "train", np.arange(20), ("id", "backscatter", "labels"))
    )
    assert [len(batch) for batch in batches] == [3, 3, 3, 3, 3, 3, 2]
    sums = survey(batches, 2, 3)
    one_by_one = sum(
        (BandMoments.from_patches(r["backscatter"][None]) for r in RECORDS["train"]),
        BandMoments.zeros(2),
    )
    for name, value in dataclasses.asdict(sums.moments).items():
        np.testing.assert_allclose(value, getattr(one_by_one, name), rtol=1e-9)
    labels = np.array([row["labels"] for row in RECORDS["train"]]).astype(int)
    for first, second in np.ndindex(3, 3):
        assert sums.cooccurrence[first, second] == sum(row[first] and row[second] for row in labels)
    assert sums.unlabelled == sum(not row.any() for row in labels)
    for band in (0, 1):
        expected, _ = np.histogram(valid("train", band), EDGES)
        np.testing.assert_array_equal(sums.histogram[band, 1:-1], expected)
