"""SEN12-FLOOD: zips and folders, forms of the lists, names and dates."""

import shutil
import zipfile
from datetime import datetime

import pytest

from sar_mixmae_jax.utils.errors import InputError
from tests.sen12 import SIZE, build_metadata, change_list, metadata
from tfds_builders.plan import BuildSettings
from tfds_builders.sen12_flood import archive_plan, fake_archive, splits
from tfds_builders.sen12_flood.archive import Source, time_of
from tfds_builders.sen12_flood.fake_archive import EXAMPLE_SPLITS, FOLDER, Shot


def test_zip_and_folder_give_the_same_records(archive, built, tmp_path):
    facts = build_metadata(archive, tmp_path, pairs="published")
    assert facts["checksum"] == metadata(built, "pairs")["checksum"]
    assert facts["pairs"] == metadata(built, "pairs")["pairs"]


def test_the_zip_itself_can_be_named(archive, built, tmp_path):
    """The lists are in the folder of the zip; a second zip there is an error for the folder."""
    packed = fake_archive.pack(archive / FOLDER, tmp_path / "sen12.zip")
    for split in ("train", "test"):
        shutil.copy(archive / f"{split}.csv", tmp_path)
    options = archive_plan.Options("published", SIZE, "nodata", 0.25, 0.15, 0, "", "")
    from_zip, from_folder = (archive_plan.plan(path, options) for path in (packed, archive))
    for split, rows in from_folder.items.items():
        assert [row[:2] for row in from_zip.items[split].tolist()] == [r[:2] for r in rows.tolist()]
    assert from_zip.source_files(*from_zip.arguments, from_zip.items["test"][0].item()) == [packed]
    fake_archive.pack(archive / FOLDER, tmp_path / "other.zip")
    facts = build_metadata(packed, tmp_path / "built", pairs="published")
    assert facts["checksum"] == metadata(built, "pairs")["checksum"]
    with pytest.raises(InputError, match=r"found 2 archives, other\.zip, sen12\.zip"):
        build_metadata(tmp_path, tmp_path / "no")


def test_a_file_that_is_no_zip_is_named(tmp_path):
    file = tmp_path / "sen12.zip"
    file.write_text("nothing")
    with pytest.raises(InputError, match=r"sen12\.zip: cannot be read as a zip"):
        build_metadata(file, tmp_path)


def test_processes_do_not_matter(archive, built, tmp_path, monkeypatch):
    monkeypatch.setattr(archive_plan, "IMAGES_PER_SHARD", 8)
    serial, parallel = (
        build_metadata(archive, tmp_path / str(n), BuildSettings(processes=n)) for n in (1, 2)
    )
    assert serial == parallel
    assert len(serial["pairs"]["train"]["before"]) == len(
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
        "\ufeffsequence,geography\n" + "".join(f"{id},Beira\n" for id in EXAMPLE_SPLITS["train"])
    )
    (root / "SEN12_test_sequences.txt").write_text("5\r\n22\r\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="several folders of sequence 0140"):
        build_metadata(root, tmp_path / "own")
    with zipfile.ZipFile(root / "archive.ZIP") as packed:
        kept = {n: packed.read(n) for n in packed.namelist() if not n.startswith("/tmp")}
    with zipfile.ZipFile(root / "archive.ZIP", "w") as packed:
        for name, content in kept.items():
            packed.writestr(name, content)
    facts = build_metadata(root, tmp_path / "own")
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
    facts = build_metadata(copy, tmp_path)
    assert facts["pairs"] == metadata(built, "dates")["pairs"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0001\n0002\n5\n", ["0001", "0002", "5"]),
        ("\ufeffid\r\n1\r\n\r\n0002\r\n1\r\n", ["1", "0002"]),
        ("sequence,label\n0001,flood\n5,dry\n", ["0001", "5"]),
        ('"0001","Beira"\n"5","Iran"\n', ["0001", "5"]),
    ],
)
def test_a_list_has_an_id_a_line_alone_or_in_the_first_column(tmp_path, text, expected):
    (tmp_path / "train.csv").write_text(text)
    source = Source(tmp_path, "train.csv")
    assert splits.read_ids(source, {"0001", "1", "0002", "5"}) == (expected, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0001,0002,5\n", "found several ids on the line"),
        (",id\n0,0002\n1,0001\n", "found several ids on the line"),
        ("id\n", "found no sequences in it"),
        ("", "found no sequences in it"),
    ],
)
def test_other_forms_of_lists_are_refused(tmp_path, text, message):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        splits.read_ids(Source(tmp_path, "train.csv"), {"0001", "1", "0002", "5"})


def test_an_id_that_is_spelled_differently_is_a_problem(tmp_path):
    """Sequences "0001" and "1" may differ, so leading zeros are not ignored."""
    (tmp_path / "train.csv").write_text("0001\n2\nSEN12FLOOD/0001/\n")
    ids, problems = splits.read_ids(Source(tmp_path, "train.csv"), {"0001", "0002"})
    assert ids == ["0001"]
    assert [problem.reason.split(",")[0] for problem in problems] == [
        "names the sequence '2'",
        "names the sequence 'SEN12FLOOD/0001/'",
    ]


def test_lists_are_found_where_the_options_say(archive, tmp_path, built):
    root = tmp_path / "elsewhere"
    root.mkdir()
    for split, name in (("train", "a.csv"), ("test", "b.csv")):
        shutil.copy(archive / f"{split}.csv", root / name)
    options = {"train_list": str(root / "a.csv"), "test_list": str(root / "b.csv")}
    facts = build_metadata(archive / FOLDER, tmp_path, **options)
    assert facts["pairs"] == metadata(built, "dates")["pairs"]
    with pytest.raises(InputError, match=r"--test_list=c\.csv: found no such file"):
        build_metadata(archive, tmp_path / "no", test_list="c.csv")


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
    time = time_of("image", date)
    assert (time and f"{time:%Y-%m-%d}") == expected
    assert time_of("S1A_x_20190218T030905_y", date) == datetime(2019, 2, 18, 3, 9, 5)


def test_shots_of_the_fake_archive_have_different_products():
    shots = [Shot(0), Shot(0, piece=1), Shot(0, satellite="S1B"), Shot(0, relative_orbit=7)]
    assert len({fake_archive.product(shot) for shot in shots}) == 4
