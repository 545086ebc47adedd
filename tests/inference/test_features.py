"""Features in a file: in the order of the records, equal to the network, with provenance."""

import dataclasses
import json

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from rasterio.warp import transform

from sar_mixmae_jax.cli import embed as cli_embed
from sar_mixmae_jax.inference import features
from sar_mixmae_jax.models.heads import Classifier
from sar_mixmae_jax.objectives.preprocess import Preprocessing, preprocess
from sar_mixmae_jax.training import encoder_loading
from sar_mixmae_jax.training.source_checkpoint import find_source_checkpoint
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import check_writable
from tests.launch import call


def test_the_command_writes_what_the_encoder_makes(encoder_run, built, tmp_path):
    out = tmp_path / "features.npz"
    status, output, errors = call(
        cli_embed.main,
        f"--checkpoint={encoder_run}",
        "--dataset=bigearthnet_s1",
        f"--data_dir={built}",
        "--split=train+test",
        f"--out={out}",
        "--batch_size=4",
    )
    assert (status, errors.count("Error")) == (0, 0), errors
    assert "10 records of 16 features" in output
    encoder = find_source_checkpoint(encoder_run)
    patches = features.load_embedding_dataset(encoder, "bigearthnet_s1", str(built), "train+test")
    model = Classifier(encoder.arch, 1)
    settings = Preprocessing(
        128, encoder.statistics.mean, encoder.statistics.std, random_flip=False
    )
    params = {"encoder": encoder_loading.load_encoder_params(encoder, encoder.arch)}

    @jax.jit
    def expected_features(params, db):
        images = preprocess(db, jax.random.key(0), settings).images
        return model.apply({"params": params}, images, method="features")

    with np.load(out, allow_pickle=False) as written:
        assert written["ids"].tolist() == patches.ids()
        assert written["features"].shape == (10, encoder.arch.feature_width)
        assert written["labels"].shape == (10, 19)
        about = json.loads(str(written["about"]))
        for row in (0, 9):
            image = patches.source[row]["backscatter"][None]
            expected = expected_features(params, image)
            np.testing.assert_allclose(written["features"][row], expected[0], atol=1e-5)
            assert patches.source[row]["id"].decode() == written["ids"][row]
    assert about["encoder"]["checkpoint"] == str(encoder.path)
    assert about["dataset"]["records"] == 10


def test_a_dataset_without_labels_has_none(encoder_run, floods):
    encoder = find_source_checkpoint(encoder_run)
    patches = features.load_embedding_dataset(encoder, "flood_pairs/own", str(floods), "test")
    outputs = features.embed(encoder, patches, batch_size=4)
    assert outputs["features"].shape == (8, encoder.arch.feature_width)  # images, not pairs
    assert np.isfinite(outputs["features"]).all()


def test_a_parquet_file_holds_features_and_places(encoder_run, built, tmp_path):
    encoder = find_source_checkpoint(encoder_run)
    patches = features.load_embedding_dataset(encoder, "bigearthnet_s1", str(built), "train+test")
    path, rng = tmp_path / "features.parquet", np.random.default_rng(0)
    arrays = {
        "ids": np.array(patches.ids()),
        "features": rng.normal(size=(10, 16)).astype(np.float32),
        "labels": np.zeros((10, 19), np.uint8),
        "about": np.array("{}"),
    }
    features.write_features(path, arrays, patches)
    table = pq.read_table(path)
    assert table["id"].to_pylist() == patches.ids()
    np.testing.assert_array_equal(np.stack(table["features"].to_pylist()), arrays["features"])
    geo = json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]
    record = patches.read(("crs", "transform", "time"))[3]
    assert table["crs"].to_pylist()[3] == record["crs"].decode()
    assert table["time"].to_pylist()[3] == record["time"].decode()
    left, top = record["transform"][[2, 5]]
    corner = np.frombuffer(table["geometry"].to_pylist()[3], "<f8", 2, offset=13)
    if geo["crs"].get("id", {}).get("code") == "CRS84":
        left, top = (
            values[0] for values in transform(record["crs"].decode(), "OGC:CRS84", [left], [top])
        )
    np.testing.assert_allclose(corner, [left, top], rtol=1e-9)
    with pytest.raises(InputError, match="has no time and no crs"):
        features.check_table(path, dataclasses.replace(patches, fields=("id", "transform")))


def test_bad_input_is_one_line(encoder_run, built, tmp_path):
    with pytest.raises(InputError, match="holds no checkpoint"):
        find_source_checkpoint(tmp_path)
    encoder = find_source_checkpoint(encoder_run)
    with pytest.raises(InputError, match="found no dataset"):
        features.load_embedding_dataset(encoder, "nothing", str(built), "train")


def test_a_place_that_cannot_be_written_is_refused_first(tmp_path):
    for place in (tmp_path, tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"--out .* cannot be written \("):
            check_writable(place, "--out")
    check_writable(tmp_path / "new" / "features.npz", "--out")
    assert not [*(tmp_path / "new").iterdir()]
