"""Records read together: equal to records read one by one, whatever their bytes are."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer

from sar_mixmae_jax.data.patch_dataset import ReadOptions, batches, load_patch_dataset
from sar_mixmae_jax.data.record_source import ExampleDecoder, RecordSource, read_rows
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.utils.errors import InputError

ALL = ("id", "backscatter", "labels", "time", "crs", "transform")


@pytest.mark.parametrize("bands", [("VH", "VV"), ("VV", "VH"), ("VV",)])
def test_records_read_together_are_those_read_one_by_one(built, bands):
    source = load_patch_dataset("bigearthnet_s1", built, "train", bands, ALL).source
    rows = np.array([5, 0, 7, 5, 2])
    columns = read_rows(source, rows)
    assert set(columns) == set(ALL)
    assert np.isnan(columns["backscatter"]).any()  # nodata
    for name, column in columns.items():
        expected = np.stack([source[row][name] for row in rows])
        assert column.dtype == expected.dtype
        assert column.tobytes() == expected.tobytes()


FEATURES = tfds.features.FeaturesDict(
    {
        "id": tfds.features.Text(),
        "image": tfds.features.Tensor(shape=(9, 9), dtype=np.float16, encoding="bytes"),
        "labels": tfds.features.Tensor(shape=(3,), dtype=np.uint8),
        "numbers": tfds.features.Tensor(shape=(2,), dtype=np.float32),
        "empty": tfds.features.Text(),
        "angle": tfds.features.Tensor(shape=(), dtype=np.float64, encoding="bytes"),
    }
)


def serialize(labels=(0, 1, 1)) -> bytes:
    example = {
        "id": "S1A",
        "image": np.random.default_rng(0).normal(size=(9, 9)).astype(np.float16),
        "labels": np.array(labels, np.uint8),
        "numbers": np.array([0.5, np.nan], np.float32),
        "empty": "",
        "angle": np.float64(0.25),
    }
    serializer = example_serializer.ExampleSerializer(FEATURES.get_serialized_info())
    encoded = FEATURES.encode_example(example)
    return serializer.get_tf_example(encoded).SerializeToString(deterministic=True)


def equal(ours: dict, theirs: dict) -> bool:
    return ours.keys() == theirs.keys() and all(
        np.asarray(ours[name]).tobytes() == np.asarray(theirs[name]).tobytes() for name in ours
    )


def test_every_kind_of_feature_is_decoded():
    record, decoder = serialize(), ExampleDecoder.of(FEATURES)
    assert equal(decoder.decode(record), FEATURES.deserialize_example_np(record))
    some = ExampleDecoder.of({"labels": FEATURES["labels"]}).decode(record)
    assert some["labels"].tolist() == [0, 1, 1]


def test_what_is_no_slice_of_the_record_is_left_to_tfds():
    with pytest.raises(ValueError, match="of several bytes"):
        ExampleDecoder.of(FEATURES).decode(serialize(labels=(0, 200, 1)))
    for feature in (
        tfds.features.Tensor(shape=(None,), dtype=np.uint8),
        tfds.features.Tensor(shape=(2,), dtype=np.float32, encoding="zlib"),
        tfds.features.Scalar(np.int64),
        tfds.features.Image(shape=(2, 2, 3)),
    ):
        assert ExampleDecoder.of({"field": feature}) is None


def test_damaged_bytes_are_refused_or_decoded_as_tfds_does():
    record, decoder = serialize(), ExampleDecoder.of(FEATURES)
    damaged = [record[:length] for length in range(len(record))]
    for place in range(len(record)):
        for value in (0, 1, 0x0A, 0x7F, 0x80, 0xFF):
            damaged.append(record[:place] + bytes([value]) + record[place + 1 :])
    decoded = 0
    for content in damaged:
        try:
            ours = decoder.decode(content)
        except (ValueError, IndexError):
            continue
        decoded += 1
        assert equal(ours, FEATURES.deserialize_example_np(content)), content
    assert 0 < decoded < len(damaged)  # values may be anything


class Serialized(list):
    """Records as a data source of TFDS returns them."""

    def __getitems__(self, rows):
        return [self[row] for row in rows]


def test_one_record_of_another_layout_does_no_harm():
    records = Serialized([serialize(), serialize(labels=(0, 200, 1)), serialize()])
    parse, decoder = FEATURES.deserialize_example_np, ExampleDecoder.of(FEATURES)
    source = RecordSource(records, None, "name", parse, decoder)
    assert read_rows(source, np.array([2, 1]))["labels"].tolist() == [[0, 1, 1], [0, 200, 1]]
    records[1] = b"\x0a\xff"
    with pytest.raises(InputError, match=r"name: record 1 cannot be read \(DecodeError"):
        read_rows(source, np.array([2, 1]))


@pytest.mark.parametrize("options", [ReadOptions(1, 0, 1), ReadOptions(3, 0, 7)])
def test_threads_do_not_change_the_batches(built, options):
    source = load_patch_dataset("bigearthnet_s1", built, "train", ("VH", "VV")).source
    order = ShuffleSampler(len(source), 3, seed=1)
    for step, batch in enumerate(batches(source, order, 0, 6, options=options)):
        expected = [source[row]["id"] for row in order.batch(step)]
        assert batch["id"].tolist() == expected
    assert step == 5


def test_reading_processes_do_not_change_the_batches(built, damaged):
    options, order = ReadOptions(1, 2, 2), ShuffleSampler(8, 2, seed=1)
    source = load_patch_dataset("bigearthnet_s1", built, "train", ("VV",)).source
    for ours, theirs in zip(
        batches(source, order, 1, 6, options=options), batches(source, order, 1, 6), strict=True
    ):
        assert ours["id"].tolist() == theirs["id"].tolist()
        assert ours["backscatter"].tobytes() == theirs["backscatter"].tobytes()
    source = load_patch_dataset("bigearthnet_s1", damaged, "train", ("VV",)).source
    with pytest.raises(InputError, match=r"train: record \d cannot be read"):
        list(batches(source, order, 0, 4, options=ReadOptions(1, 1, 2)))
