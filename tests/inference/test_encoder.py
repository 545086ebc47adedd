"""Python interface: equal to the command, tokens, checkpoints, input sizes, unusable arrays."""

import dataclasses

import jax
import numpy as np
import pytest

import sar_mixmae_jax
from sar_mixmae_jax.inference import features
from sar_mixmae_jax.inference.encoder import FrozenEncoder, freeze_encoder
from sar_mixmae_jax.inference.map_model import ModelChoice, load_map_model
from sar_mixmae_jax.inference.raster_output import Grid
from sar_mixmae_jax.inference.scene_pipeline import MapScene, predict_rows
from sar_mixmae_jax.models.heads import Classifier
from sar_mixmae_jax.objectives.preprocess import Preprocessing, preprocess
from sar_mixmae_jax.training import encoder_loading
from sar_mixmae_jax.training.source_checkpoint import find_source_checkpoint
from sar_mixmae_jax.utils.errors import InputError


@pytest.fixture(scope="module")
def encoder(encoder_run) -> FrozenEncoder:
    return sar_mixmae_jax.load_encoder(encoder_run)


def backscatter(images: int = 3, side: int = 120) -> np.ndarray:
    rng = np.random.default_rng(0)
    db = rng.normal(-15, 4, (images, side, side, 2)).astype(np.float32)
    db[0, :40, :, 1] = np.nan
    return db


def test_the_package_has_the_interface():
    assert "load_encoder" in sar_mixmae_jax.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sar_mixmae_jax.nothing


def test_features_equal_those_that_the_command_writes(encoder, encoder_run, built):
    source = find_source_checkpoint(encoder_run)
    assert repr(encoder).startswith(f"FrozenEncoder({encoder_run}/checkpoints/2, variant='tiny'")
    patches = features.load_embedding_dataset(source, "bigearthnet_s1", str(built), "train+test")
    written = features.embed(source, patches, batch_size=4)
    images = np.stack([patches.source[row]["backscatter"] for row in range(10)])
    np.testing.assert_array_equal(encoder.embed(images, batch_size=4), written["features"])
    np.testing.assert_allclose(
        encoder.embed(images.astype(np.float64)), written["features"], atol=1e-5
    )


def test_tokens_are_those_of_the_network_and_features_are_their_mean(encoder):
    db = backscatter()
    tokens = encoder.tokens(db)
    assert tokens.shape == (3, encoder.grid, encoder.grid, encoder.width)
    assert (tokens.dtype, encoder.bands, encoder.image_size) == (np.float32, ("VH", "VV"), 128)
    np.testing.assert_allclose(encoder.embed(db), tokens.mean((1, 2)), atol=1e-5)
    source = encoder.source_checkpoint
    settings = Preprocessing(128, source.statistics.mean, source.statistics.std, random_flip=False)
    params = {"encoder": encoder_loading.load_encoder_params(source, source.arch)}

    @jax.jit
    def expected_tokens(params, db):
        images = preprocess(db, jax.random.key(0), settings).images
        return Classifier(source.arch, 1).apply({"params": params}, images, method="tokens")

    expected = expected_tokens(params, db)
    np.testing.assert_allclose(tokens, expected, atol=1e-5)


def test_a_checkpoint_is_named_by_a_path_or_in_its_run(encoder_run):
    folder = encoder_run / "checkpoints"
    load = sar_mixmae_jax.load_encoder
    assert load(encoder_run).source_checkpoint.path == folder / "2"
    assert load(str(encoder_run), checkpoint="latest").source_checkpoint.path == folder / "2"
    assert load(encoder_run, checkpoint=1).source_checkpoint.path == folder / "1"
    assert load(folder / "1").source_checkpoint.path == folder / "1"
    assert load(encoder_run, checkpoint="best").source_checkpoint.path.parent == folder
    with pytest.raises(InputError, match="no checkpoint '7': expected best, latest, or one of"):
        load(encoder_run, checkpoint=7)
    with pytest.raises(InputError, match="is a checkpoint, and the choice 'best' is for"):
        load(folder / "1", checkpoint="best")
    with pytest.raises(InputError, match="unknown resize_mode 'crop'"):
        load(encoder_run, resize_mode="crop")


def test_another_input_size_and_padding(encoder, encoder_run):
    larger = sar_mixmae_jax.load_encoder(encoder_run, image_size=256)
    assert larger.tokens(backscatter(1, 256)).shape == (1, 2 * encoder.grid, 2 * encoder.grid, 16)
    padded = sar_mixmae_jax.load_encoder(encoder_run, resize_mode="pad")
    db = backscatter()
    framed = np.pad(db, ((0, 0), (4, 4), (4, 4), (0, 0)), constant_values=np.nan)
    np.testing.assert_array_equal(padded.embed(db), padded.embed(framed))
    np.testing.assert_array_equal(padded.embed(db), encoder.embed(framed))
    with pytest.raises(InputError, match="image_size is 100: expected a multiple"):
        sar_mixmae_jax.load_encoder(encoder_run, image_size=100)


def test_a_run_keeps_its_resize_mode(encoder):
    config = {**encoder.source_checkpoint.metadata.config, "resize_mode": "pad"}
    metadata = dataclasses.replace(encoder.source_checkpoint.metadata, config=config)
    source = dataclasses.replace(encoder.source_checkpoint, metadata=metadata)
    assert freeze_encoder(source).resize_mode == "pad"
    assert encoder.resize_mode == "resize"


def test_nodata_is_the_mean_and_an_empty_batch_has_no_features(encoder):
    mean = np.tile(np.float32(encoder.source_checkpoint.statistics.mean), (1, 120, 120, 1))
    nearly_nothing = mean.copy()
    nearly_nothing[:, 1:] = np.nan
    np.testing.assert_allclose(encoder.embed(nearly_nothing), encoder.embed(mean), atol=1e-4)
    assert encoder.embed(np.zeros((0, 120, 120, 2))).shape == (0, encoder.width)
    assert encoder.tokens(np.zeros((0, 120, 120, 2))).shape[1:3] == (encoder.grid, encoder.grid)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda db: db[0], r"shape \(120, 120, 2\): .*a single image is backscatter_db\[None\]"),
        (lambda db: db.transpose(0, 3, 1, 2), r"move the bands last: .*transpose\(0, 2, 3, 1\)"),
        (lambda db: db[..., :1], r"shape \(3, 120, 120, 1\): expected .* the bands VH, VV"),
        (
            lambda db: np.where(np.arange(3)[:, None, None, None] == 1, np.nan, db),
            r"backscatter_db\[1\] is NaN in all pixels: .*; leave out 1 of 3 images",
        ),
        (lambda db: db[:, :0], r"shape \(3, 0, 120, 2\)"),
        (lambda db: db[:, :80], "images of 80x120 px, expected square ones"),
        (lambda db: np.where(db > -15, db, -np.inf), "infinite values"),
        (lambda db: 10 ** (db / 10), "almost none below -1, as linear power has"),
        (
            lambda db: 10 ** (db / 10) - np.eye(120)[..., None],
            "as linear power has",
        ),  # noise removed
        (lambda db: np.where(db > -15, db, -9999), "values from -9999 to .* expected dB within"),
        (lambda db: 100 * db, "expected dB within -90 to 50"),
        (lambda db: db.astype(str), "no array of numbers"),
        (lambda db: [[1.0], [1.0, 2.0]], "no array of numbers"),
        (lambda db: db.astype(np.complex64), "no array of numbers"),
    ],
)
def test_unusable_arrays_are_refused(encoder, change, message):
    with pytest.raises(InputError, match=message):
        encoder.embed(change(backscatter()))


def test_a_map_of_features_holds_the_tokens_of_every_window(encoder, encoder_run):
    db = np.random.default_rng(1).normal(-15, 4, (256, 200, 2)).astype(np.float32)
    read = (lambda first, last: db[first:last],)
    scene = MapScene("scene", Grid((256, 200), "", (1, 0, 0, 0, 1, 0)), ("",), read)
    model = load_map_model(ModelChoice(encoder_run, "latest", features=True, batch_size=2))
    strips = list(predict_rows(scene, model.predictor, model.overlap))
    side = 128 // encoder.grid
    assert model.predictor.cell == side
    assert [strip.shape for strip in strips] == [(encoder.grid, -(-200 // side), 16)] * 2
    expected = encoder.tokens(db[None, 128:, :128], batch_size=1)[0]
    alone = 72 // side  # columns that the other window does not hold
    np.testing.assert_allclose(strips[1][:, :alone], expected[:, :alone], atol=1e-5)
    with pytest.raises(InputError, match="found windows of 100 px, expected a multiple of 16"):
        load_map_model(ModelChoice(encoder_run, "latest", features=True, window=100))
