"""Fine-tuning and evaluation from end to end, and what is said to what does not fit."""

import json
import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sar_mixmae_jax.cli import evaluate as evaluate_command
from sar_mixmae_jax.cli import train
from sar_mixmae_jax.data.metadata import BANDS, Statistics
from sar_mixmae_jax.evaluation.predictions import load_predictions
from sar_mixmae_jax.inference.encoder import inference_preprocessing, load_encoder
from sar_mixmae_jax.inference.evaluator import evaluate, load_model, prediction_provenance
from sar_mixmae_jax.inference.map_model import ModelChoice, load_map_model
from sar_mixmae_jax.inference.raster_output import Grid
from sar_mixmae_jax.inference.scene_pipeline import MapScene, predict_rows
from sar_mixmae_jax.objectives.speckle_filter import SpeckleFilter, reduce_speckle
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.supervised import param_shapes, predict_outputs
from sar_mixmae_jax.tasks.task_dataset import load_task_dataset
from sar_mixmae_jax.training import downstream, encoder_loading, finetune
from sar_mixmae_jax.training.checkpoint import checkpoint_steps, read_metadata, select_step
from sar_mixmae_jax.training.finetune import ValidationEvaluator
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.training.run_description import ModelDescription
from sar_mixmae_jax.training.source_checkpoint import encoder_param_shapes, find_source_checkpoint
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.hashing import pack_ids
from sar_mixmae_jax.utils.typed_json import from_json, to_json
from tests.launch import call, finish, start_together
from tests.rewrite import copy_without_split, rewrite
from tests.shrink import probe_config, small_tuning, tuning_flags

V1 = "bigearthnet_s1/v1/2.0.0"
FLOODS = "task=flood,dataset=flood_pairs/own"


def metrics(workdir, name: str) -> dict[int, float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line[name] for line in lines if name in line}


def leaves(tree) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def equal(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(leaves(one), leaves(other), strict=True))


SCORED = {
    "total_steps": 5,
    "checkpoint_every": 1,
    "max_to_keep": 1,
    "best_metric": "validation/loss",
    "optimizer.base_learning_rate": 300.0,  # at which the loss rises
}


@pytest.fixture(scope="module")
def blind(built, tmp_path_factory):
    """The data folder without the files of the test split: whoever opens them fails."""
    return copy_without_split(built, "test", tmp_path_factory.mktemp("blind") / "data")


@pytest.fixture(scope="module")
def tuned(blind, encoder_run, tmp_path_factory):
    """Five steps of land cover on a pretrained encoder, without a test split."""
    workdir = tmp_path_factory.mktemp("tuned")
    config = small_tuning(blind, f"init={encoder_run}", **SCORED)
    return finetune.train(config, workdir), workdir


@pytest.fixture(scope="module")
def detector(floods, encoder_run, tmp_path_factory):
    """Two steps of floods in four tiles an image, half the size that the encoder was trained at."""
    workdir = tmp_path_factory.mktemp("detector")
    config = small_tuning(
        floods, f"{FLOODS},init={encoder_run}", total_steps=2, **{"model.image_size": 64}
    )
    return finetune.train(config, workdir), workdir


@pytest.fixture
def job(tmp_path):
    """Set-up of a run: (configuration) -> RunSetup, without a step."""
    return lambda config, workdir=tmp_path / "new": finetune.set_up(config, workdir)


def first_params(job):
    return job.load_weights(job.init_state()).params


def logits(job, rows=(0, 1)) -> np.ndarray:
    """Return logits of the first records with the parameters before the first step."""
    objective = job.loss_fn.settings
    records = [job.source[row] for row in rows]
    batch = {name: np.stack([r[name] for r in records]) for name in records[0] if name != "id"}
    made = jax.jit(partial(predict_outputs, objective=objective))(visible(first_params(job)), batch)
    return np.asarray(made["logits"])


def visible(params):
    """With a head that is not nearly nothing."""
    kernel = np.random.default_rng(0).normal(size=params["head"]["kernel"].shape)
    return {**params, "head": {**params["head"], "kernel": kernel.astype(np.float32)}}


# ---- a run


def test_a_run_writes_what_it_names_and_never_needs_the_test_split(tuned):
    outcome, workdir = tuned
    assert outcome.finished
    assert outcome.title.startswith(
        "classification: tiny of step 2, weighting per_channel (standardised) on "
    )
    assert "spatially dependent split" in outcome.title
    assert all(path.exists() for path in outcome.files.values())
    assert list(metrics(workdir, "loss")) == [1, 2, 3, 4, 5]
    assert (workdir / "validation.png").stat().st_size > 10_000
    text = (workdir / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "null" not in text


def test_without_validation_the_last_step_is_kept(blind, encoder_run, tmp_path, job):
    arguments = f"init={encoder_run}"
    with pytest.raises(
        InputError, match=r"unknown split of .*'dev'.*--config\.validation=none trains"
    ):
        job(small_tuning(blind, arguments, validation_split="dev"))
    settings = {**SCORED, "total_steps": 2, "validation": "none", "validation_split": "dev"}
    workdir = tmp_path / "unvalidated"
    outcome = finetune.train(small_tuning(blind, arguments, **settings), workdir)
    assert outcome.finished
    (checkpoint,) = checkpoint_steps(workdir)
    assert not [name for name in read_metadata(checkpoint).metrics if "validation" in name]
    model = load_model(workdir, "best")
    split = load_task_dataset(
        get_task("classification"), "bigearthnet_s1", str(blind), "train", ("VH", "VV")
    )
    provenance = prediction_provenance(model, split, "train", "best")
    assert provenance["chosen on"] == "nothing: a run without validation, its latest step"
    with pytest.raises(InputError, match="linear_probe is fitted by its scores on a validation"):
        downstream.complete_config(
            probe_config(blind, "task=linear_probe", validation="none"), get_task("classification")
        )


def test_its_checkpoint_says_where_it_is_from_and_what_was_seen(tuned, encoder_run):
    metadata = read_metadata(checkpoint_steps(tuned[1])[-1])
    before = read_metadata(checkpoint_steps(encoder_run)[-1])
    assert metadata.model.pretrained.checkpoint == str(encoder_run / "checkpoints/2")
    assert metadata.model.pretrained.dataset == before.dataset.name
    assert metadata.model.statistics.mean == before.dataset.statistics.mean
    assert metadata.model.task == "classification"
    assert len(metadata.model.classes) == 19
    assert metadata.dataset.records == 8
    assert before.train_ids != ""
    assert metadata.train_ids == before.train_ids  # on the same eight, and two more, it is tuned


def test_it_starts_from_the_encoder_of_the_checkpoint_and_from_no_opinion(job, blind, encoder_run):
    started = job(small_tuning(blind, f"init={encoder_run}"))
    params = first_params(started)
    found = find_source_checkpoint(encoder_run)
    stored = read_subtree(found.path, {"params": {"encoder": encoder_param_shapes(found.arch)}})
    assert equal(params["encoder"], stored["params"]["encoder"])
    assert not equal(params["encoder"], started.init_state().params["encoder"])
    assert 1.5e-5 < params["head"]["kernel"].std() < 2.5e-5
    assert not params["head"]["bias"].any()
    random = first_params(job(small_tuning(blind)))
    assert random["head"]["kernel"].std() > 0.1
    assert not equal(random["encoder"], params["encoder"])


def test_the_recipe_is_the_published_one_unless_it_is_told(job, blind, encoder_run):
    pretrained_one = job(small_tuning(blind, f"init={encoder_run}", validate_every=None))
    config = pretrained_one.description.config
    assert config["best_metric"] == "validation/average_precision_macro"
    assert config["optimizer"]["layer_decay"] == 0.7
    assert config["drop_path"] == 0.1
    assert pretrained_one.eval_every is pretrained_one.config.checkpoint_every is None  # an epoch
    random = job(small_tuning(blind)).description.config
    assert random["optimizer"]["layer_decay"] == 1.0  # or its first layers would hardly learn


def test_the_best_checkpoint_is_the_one_that_the_log_says(tuned):
    """All of them were scored, and one is kept besides the latest."""
    _, workdir = tuned
    losses = metrics(workdir, "validation/loss")
    assert list(losses) == [1, 2, 3, 4, 5]
    best = min(losses, key=lambda step: losses[step])
    assert best != 5
    assert {path.name for path in checkpoint_steps(workdir)} == {str(best), "5"}
    assert select_step(workdir, "best").name == str(best)
    assert select_step(workdir, "latest").name == "5"
    assert read_metadata(select_step(workdir, "best")).metrics["validation/loss"] == losses[best]


def test_no_other_checkpoint_passes_for_a_damaged_best_one(tuned, tmp_path):
    copy = shutil.copytree(tuned[1], tmp_path / "copy")
    (select_step(copy, "best") / "metadata" / "metadata").write_text("{")
    with pytest.raises(InputError, match=r"metadata cannot be read.*the best checkpoint is unk"):
        select_step(copy, "best")
    assert select_step(copy, "latest").name == "5"


@pytest.mark.usefixtures("no_drawing")
def test_stopped_and_started_again_it_is_bitwise_the_same(tuned, blind, encoder_run, tmp_path):
    """Though pretraining, which went on meanwhile, has removed the checkpoint it began with."""
    outcome, workdir = tuned
    moved = shutil.copytree(encoder_run, tmp_path / "pretraining")
    config = small_tuning(blind, f"init={moved}", **SCORED)
    stopped = finetune.train(config, tmp_path / "run", stop=lambda: True)
    assert not stopped.finished
    assert [path.name for path in checkpoint_steps(tmp_path / "run")] == ["1"]
    shutil.rmtree(moved / "checkpoints")
    again = finetune.train(config, tmp_path / "run")
    assert again.finished
    assert equal(again.state, outcome.state)
    assert metrics(tmp_path / "run", "loss") == metrics(workdir, "loss")
    assert select_step(tmp_path / "run", "best").name == select_step(workdir, "best").name
    assert len(json.loads((tmp_path / "run/run.json").read_text())["starts"]) == 2


@pytest.mark.usefixtures("no_drawing")
def test_a_preempted_step_is_no_candidate_for_the_best(blind, encoder_run, tmp_path):
    """An uninterrupted run would not have saved it, though its loss is the lowest."""
    config = small_tuning(blind, f"init={encoder_run}", **{**SCORED, "checkpoint_every": 3})
    finetune.train(config, tmp_path, stop=lambda: True)
    (preempted,) = checkpoint_steps(tmp_path)
    assert (preempted.name, read_metadata(preempted).metrics) == ("1", {})
    finetune.train(config, tmp_path)
    assert select_step(tmp_path, "best").name != "1"


@pytest.mark.parametrize("meanwhile", ["gone", "exchanged", "damaged"])
def test_a_run_goes_on_with_the_encoder_it_began_with(
    tuned, blind, encoder_run, meanwhile, tmp_path
):
    """Also where its source checkpoint is gone, exchanged or damaged."""
    moved = shutil.copytree(encoder_run, tmp_path / "pretraining")
    workdir = shutil.copytree(tuned[1], tmp_path / "run")
    text = (workdir / "run.json").read_text().replace(str(encoder_run), str(moved))
    (workdir / "run.json").write_text(text)
    before = json.loads(text)["model"]["pretrained"]
    step = moved / "checkpoints/2"
    shutil.rmtree(step / "state")
    if meanwhile == "gone":
        shutil.rmtree(step)
    if meanwhile == "exchanged":
        shutil.rmtree(step)
        (moved / "checkpoints/1").rename(step)
    found = encoder_loading.resolve_encoder(small_tuning(blind, f"init={moved}"), workdir)
    assert to_json(found.description) == before
    assert found.path.parents[1] == workdir
    assert found.train_ids == read_metadata(encoder_run / "checkpoints/2").train_ids

    shutil.rmtree(workdir / "checkpoints")
    if meanwhile == "gone":
        with pytest.raises(InputError, match=r"which is gone, and saved nothing: restore it, or"):
            encoder_loading.resolve_encoder(small_tuning(blind, f"init={moved}"), workdir)


def test_named_statistics_replace_those_of_an_encoder(monkeypatch):
    named = SimpleNamespace(statistics=Statistics((-20.0, -10.0), (3.0, 4.0), "another"))
    monkeypatch.setattr(downstream, "load_patch_dataset", lambda *_: named)
    encoder, patches = SimpleNamespace(bands=BANDS), SimpleNamespace(bands=BANDS, unit="dB")
    config = small_tuning("none", statistics="another")
    assert downstream.input_statistics(config, encoder, patches) is named.statistics


def test_an_encoder_of_one_band_takes_that_band_of_two(job, blind, encoder_run, monkeypatch):
    """Standardised as it was in training."""
    found = find_source_checkpoint(encoder_run)
    model = replace(
        found.metadata.model,
        bands=("VV",),
        architecture=replace(found.arch, bands=1),
        statistics=found.statistics.select([1]),
    )
    one = replace(found, metadata=replace(found.metadata, model=model))
    monkeypatch.setattr(finetune, "resolve_encoder", lambda *_: one)
    single = job(small_tuning(blind, f"init={encoder_run}"))
    assert single.description.model.bands == ("VV",)
    assert single.description.model.architecture.bands == 1
    assert single.loss_fn.settings.preprocessing.mean == (-12.5951,)
    stored = load_task_dataset(
        get_task("classification"), "bigearthnet_s1", str(blind), "train", ("VH", "VV")
    )
    np.testing.assert_array_equal(
        single.source[0]["backscatter"], stored.patches.source[0]["backscatter"][..., 1:]
    )


def test_an_encoder_of_filtered_images_gets_filtered_images(job, blind, encoder_run, monkeypatch):
    """In fine-tuning, in what is stored, and in features."""
    found = find_source_checkpoint(encoder_run)
    speckle = SpeckleFilter("lee", window=5, apply_to="input_and_target")
    stored = to_json(replace(found.metadata.model, speckle=speckle))
    model = from_json(ModelDescription, json.loads(json.dumps(stored)))
    source = replace(found, metadata=replace(found.metadata, model=model))
    assert source.input_filter == speckle
    monkeypatch.setattr(finetune, "resolve_encoder", lambda *_: source)
    tuning = job(small_tuning(blind, f"init={encoder_run}"))
    assert tuning.loss_fn.settings.preprocessing.speckle == speckle
    assert tuning.description.model.speckle == speckle
    assert inference_preprocessing(source, 128, "pad").speckle == speckle  # of maps, too
    plain = load_encoder(encoder_run)
    db = np.stack([tuning.source[row]["backscatter"] for row in range(4)])
    filtered = np.asarray(reduce_speckle(jnp.asarray(db), speckle))
    seen = replace(plain, source_checkpoint=source).embed(db, batch_size=4)
    np.testing.assert_allclose(seen, plain.embed(filtered, batch_size=4), atol=1e-5)
    assert np.abs(seen - plain.embed(db, batch_size=4)).max() > 1e-3


# ---- floods


@pytest.mark.usefixtures("no_drawing")
def test_floods_in_tiles(detector, floods, tmp_path):
    """The evidence of the tiles is that of the image; all pairs are predicted, each once."""
    outcome, workdir = detector
    assert outcome.finished
    assert "validation/f1" in (workdir / "metrics.jsonl").read_text()
    arch = read_metadata(checkpoint_steps(workdir)[-1]).model.architecture
    assert (arch.image_size, arch.pretrain_image_size, arch.window_sizes) == (64, 128, (4, 4))
    files = evaluate(workdir, out=tmp_path / "report")
    predicted = load_predictions(files["predictions.npz"])
    ids = (floods / "flood_pairs/own/1.1.0/ids-test.txt").read_text().split()
    assert sorted(name for pair in predicted.ids for name in pair.split(" > ")) == sorted(ids)
    assert sorted(predicted.labels) == [0, 0, 1, 1]
    evidence = np.load(files["evidence.npz"])
    assert evidence["evidence"].shape == (4, 2, 2)
    assert evidence["ids"].tolist() == predicted.ids.tolist()
    of_images = predicted.logits[:, 1] - predicted.logits[:, 0]
    np.testing.assert_allclose(evidence["evidence"].mean((1, 2)), of_images, atol=1e-5)
    assert predicted.provenance["overlap with training"].startswith("0 of 8 images")
    mapped = map_pair(workdir, floods, 1)
    np.testing.assert_allclose(mapped[..., 2], evidence["evidence"][1], atol=1e-4)
    np.testing.assert_allclose(mapped[..., 1], 1 / (1 + np.exp(-mapped[..., 2])), atol=1e-5)


def map_pair(workdir, floods, row):
    """Return the map of a pair of the test split: (tile row, tile column, dry, flood, evidence)."""
    split = load_task_dataset(get_task("flood"), "flood_pairs/own", str(floods), "test", BANDS)
    record = split.patches.source[row]
    readers = tuple(lambda a, b, db=record[date]: db[a:b] for date in ("before", "after"))
    scene = MapScene("pair", Grid((128, 128), "", (1, 0, 0, 0, 1, 0)), ("", ""), readers)
    model = load_map_model(ModelChoice(workdir, "best", batch_size=4))
    assert (model.kind, model.dates, model.predictor.window) == ("windows", ("before", "after"), 64)
    return np.concatenate(list(predict_rows(scene, model.predictor, model.overlap)))


def test_a_split_without_floods_has_undefined_scores_and_no_zeros(detector, floods):
    """They are not logged, and nothing is chosen by them."""
    _, workdir = detector
    found = find_source_checkpoint(workdir)
    config = small_tuning(floods, f"{FLOODS},init={workdir}", **{"model.image_size": 64})
    split = load_task_dataset(
        get_task("flood"), "flood_pairs/own", str(floods), "validation", found.bands
    )
    dry = np.flatnonzero(split.patches.pairs["flooded"] == 0)
    assert len(dry) == 1
    split = split.subset(dry)
    objective = downstream.make_finetune_objective(config, found, split)
    params = read_subtree(found.path, {"params": param_shapes(objective)})["params"]
    look = ValidationEvaluator(objective, split, 4).evaluate(params)
    assert "validation/average_precision" not in look.scalars
    assert "validation/recall" not in look.scalars
    assert look.scalars["validation/accuracy"] in (0.0, 1.0)
    assert look.scalars["validation/loss"] > 0
    assert "average precision undefined on 1 images in 1 of 1 pairs" in look.headline


@pytest.mark.usefixtures("no_drawing")
def test_where_no_score_is_defined_the_latest_is_taken_and_says_so(tuned, built, tmp_path):
    """A class that is in no record of the split has no average precision, and others do."""
    workdir = shutil.copytree(tuned[1], tmp_path / "run")
    files = evaluate(workdir, data_dir=str(built), which="latest", out=tmp_path / "latest")
    about = load_predictions(files["predictions.npz"]).provenance
    assert about["chosen on"] == "by hand: --checkpoint=latest"
    report = files["report.md"].read_text()
    assert "undefined" in report  # 16 of the 19 classes of the imitation are nowhere
    found = json.loads(files["metrics.json"].read_text())
    assert "NaN" not in json.dumps(found)


def test_pictures_of_pairs_show_the_bands_of_the_dataset(floods, tmp_path, caplog):
    other = rewrite(floods, "flood_pairs/own/1.1.0", tmp_path, {"bands": ["HV", "HH"]})
    example_pictures = get_task("flood").example_pictures
    ours, usual = (
        example_pictures("flood_pairs/own", str(folder), "test", {})(0)
        for folder in (other, floods)
    )
    assert (ours.bands, usual.bands) == (("HV", "HH"), ("VH", "VV"))
    np.testing.assert_array_equal(ours.after, usual.after)
    assert example_pictures("flood_pairs/none", str(floods), "test", {}) is None
    assert "no pictures of pairs: found no dataset" in caplog.text
    assert example_pictures("flood_pairs/own", str(floods), "test", {})(0).water.any()


# ---- other data


def turned(record):
    return {**record, "backscatter": record["backscatter"][..., ::-1]}


def linear(record):
    return {**record, "backscatter": np.float32(10) ** (record["backscatter"] / 10)}


def test_data_in_another_band_order_or_unit_gives_the_same_logits(
    job, built, encoder_run, tmp_path
):
    reference = logits(job(small_tuning(built, f"init={encoder_run}")))
    assert np.abs(reference[0] - reference[1]).max() > 1e-3
    statistics = json.loads((built / V1 / "metadata.json").read_text())["statistics"]
    statistics |= {name: statistics[name][::-1] for name in ("mean", "std")}
    bands = {"bands": ["VV", "VH"], "statistics": statistics}
    other = rewrite(built, V1, tmp_path / "turned", bands, turned)
    config = small_tuning(other, f"init={encoder_run}")
    np.testing.assert_array_equal(logits(job(config)), reference)

    power = rewrite(built, V1, tmp_path / "linear", {"unit": "linear"}, linear)
    as_power = job(small_tuning(power, f"init={encoder_run}"))
    assert as_power.source[0]["backscatter"].min() >= 0
    assert as_power.description.model.unit == "dB"
    np.testing.assert_allclose(logits(as_power), reference, atol=1e-4)


def test_statistics_are_those_of_the_checkpoint(job, built, encoder_run, tmp_path):
    """Not those of the data that it is tuned on."""
    statistics = {"mean": [0.0, 0.0], "std": [1.0, 1.0], "of": "elsewhere"}
    other = rewrite(built, V1, tmp_path, {"statistics": statistics})
    tuned = job(small_tuning(other, f"init={encoder_run}"))
    assert tuned.loss_fn.settings.preprocessing.mean == (-19.2309, -12.5951)
    assert tuned.description.model.statistics.mean == (-19.2309, -12.5951)
    random = job(small_tuning(other))
    assert random.loss_fn.settings.preprocessing.mean == (0.0, 0.0)


def test_both_splits_are_reduced(job, floods, encoder_run):
    arguments = f"{FLOODS},init={encoder_run}"
    settings = {"label_fraction": 0.6, "batch_size": 2, "model.image_size": 64}
    reduced = job(small_tuning(floods, arguments, **settings))
    assert len(reduced.source) == 4
    assert reduced.description.dataset.records == 4
    splits = {"train_split": "validation", "validation_split": "train"}  # the larger one
    assert len(job(small_tuning(floods, arguments, **settings, **splits)).evaluator._split) == 4
    with pytest.raises(InputError, match=r"found 4 records, expected at least a batch of 8"):
        job(small_tuning(floods, arguments, **{**settings, "batch_size": 8}))


# ---- what is refused


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        ("variant=base", {}, "holds the variant 'tiny', and model.variant is 'base': leave it"),
        ("", {"model.embed_dim": 16}, "model.embed_dim is 16, and .* has 8: leave it out"),
        ("", {"model.image_size": 100}, "image_size is 100: expected a multiple"),
        ("task=flood", {}, "has no pairs of dates: choose a dataset that has"),
        ("task=flod", {}, "unknown task 'flod': did you mean 'flood'"),
        ("init=nowhere", {}, "nowhere holds no checkpoint"),
        ("", {"batch_size": 5}, "batch_size is 5 on 2 device.*choose a multiple of 2"),
        ("", {"batch_size": 16}, "found 8 records, expected at least a batch of 16"),
        ("", {"drop_path": 1.0}, "drop_path is 1.0: expected zero or a number below 1"),
        ("", {"label_fraction": 0.0}, "label_fraction is 0.0: expected a number above 0"),
        ("", {"tiling": "spacial"}, "unknown tiling 'spacial': did you mean 'spatial'"),
        ("", {"pooling": "median"}, "unknown pooling 'median'"),
        ("", {"best_metric": "loss"}, "unknown best_metric 'loss': .*validation/loss"),
        ("", {"best_metric": "validation/accuracy"}, "unknown best_metric"),
        (
            "",
            {"validation_split": "test"},
            "validation_split is 'test': a model must not be trained",
        ),
        ("", {"train_split": "train+test"}, r"train_split is 'train\+test': a model must not"),
        ("", {"train_split": "trian"}, "unknown split.*did you mean 'train'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    built, encoder_run, tmp_path, arguments, changes, message
):
    config = small_tuning(built, f"init={encoder_run},{arguments}", **changes)
    with pytest.raises(InputError, match=message) as refused:
        finetune.train(config, tmp_path / "run")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_data_that_cannot_be_used_is_refused(built, floods, encoder_run, tmp_path):
    def train(data, arguments="", **changes):
        config = small_tuning(data, f"init={encoder_run},{arguments}", **changes)
        return finetune.train(config, tmp_path / "run")

    no_labels = rewrite(built, V1, tmp_path / "a", {"classes": []})
    with pytest.raises(InputError, match="has no labels: choose a labelled dataset"):
        train(no_labels)
    other_bands = rewrite(built, V1, tmp_path / "b", {"bands": ["HH", "VV"]})
    with pytest.raises(InputError, match=r"unknown band of .* 'VH'.*known are HH, VV: choose "):
        train(other_bands)
    amplitude = rewrite(built, V1, tmp_path / "c", {"unit": "amplitude"})
    with pytest.raises(InputError, match="holds amplitude, expected dB or linear"):
        train(amplitude)
    in_power = rewrite(built, V1, tmp_path / "d", {"unit": "linear"})
    with pytest.raises(InputError, match="a random encoder needs statistics in dB"):
        train(in_power, "init=random")
    with pytest.raises(InputError, match=r"images of 128x128 px and tiles of 96 px"):
        train(floods, FLOODS, **{"model.image_size": 96})
    listed = rewrite(built, V1, tmp_path / "e", {})
    ids = listed / V1 / "ids-train.txt"
    ids.write_text("\n".join(ids.read_text().split()[:-1]) + "\n")
    with pytest.raises(InputError, match=r"holds 8 records and lists 7 ids in .*build it again"):
        train(listed)
    assert not (tmp_path / "run").exists()


def test_records_that_are_trained_on_and_validated_on_are_counted(job, built, encoder_run, caplog):
    job(small_tuning(built, f"init={encoder_run}", train_split="train+validation"))
    assert "2 of 2 records of validation are also training records" in caplog.text


@pytest.mark.parametrize(
    ("dataset", "validation", "warned"),
    [
        ("s1_folder/elbe", "train[80%:]", True),
        ("s1_folder/elbe", "other", False),
        ("bigearthnet_s1/v2", "train[80%:]", False),
    ],
)
def test_parts_of_one_folder_of_scenes_are_neighbours(
    dataset, validation, warned, monkeypatch, caplog
):
    class Split(list):
        ids = property(lambda split: split)

    monkeypatch.setattr(downstream, "load_task_dataset", lambda *_: Split([len(caplog.records)]))
    rows = iter([Split(["a"]), Split(["b"])])
    monkeypatch.setattr(downstream, "take_label_fraction", lambda *_, **__: next(rows))
    config = small_tuning("none", train_split="train[:80%]", validation_split=validation)
    config.dataset = dataset
    downstream.load_splits(config, get_task("classification"))
    assert ("are parts of train of s1_folder/elbe, which are neighbours" in caplog.text) == warned


def test_a_damaged_encoder_is_refused(built, encoder_run, tmp_path):
    moved = shutil.copytree(encoder_run, tmp_path / "pretraining")
    for path in (moved / "checkpoints/2/state").glob("**/d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"checkpoints/2: its arrays .*choose another checkpoint"):
        finetune.train(small_tuning(built, f"init={moved}"), tmp_path / "run")
    assert not (tmp_path / "run/run.json").exists()


def test_what_cannot_be_evaluated_is_refused(tuned, built, blind, floods, encoder_run, tmp_path):
    _, workdir = tuned
    data = str(built)
    with pytest.raises(InputError, match=r"cannot be evaluated .*expected a run of configs/finetu"):
        evaluate(encoder_run, data_dir=data)
    with pytest.raises(InputError, match="holds no checkpoint: expected the workdir of a run"):
        evaluate(tmp_path, data_dir=data)
    with pytest.raises(InputError, match="has no checkpoint '3': expected best, latest, or one of"):
        evaluate(workdir, data_dir=data, which="3")
    classes = json.loads((built / V1 / "metadata.json").read_text())["classes"]
    other = rewrite(built, V1, tmp_path / "a", {"classes": classes[::-1]})
    with pytest.raises(InputError, match=r"was trained on .*the same ones in the same order"):
        evaluate(workdir, data_dir=str(other))
    copy = shutil.copytree(workdir, tmp_path / "copy")
    for path in select_step(copy, "best").glob("state/**/d/*"):
        path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(InputError, match=r"its arrays .*choose another --checkpoint"):
        evaluate(copy, data_dir=data)
    with pytest.raises(InputError):  # which shows that its files are gone
        evaluate(workdir, data_dir=str(blind))


def test_a_damaged_record_is_refused_before_predicting(tuned, tmp_path):
    workdir = shutil.copytree(tuned[1], tmp_path / "copy")
    record = workdir / "run.json"
    record.write_text(record.read_text()[:-20])
    shutil.rmtree(workdir / "evaluation", ignore_errors=True)
    status, output, errors = call(evaluate_command.main, f"--workdir={workdir}")
    assert (status, output) == (2, "")
    assert f"error: {record}" in errors
    assert not (workdir / "evaluation").exists()


# ---- the commands, and several processes


@pytest.mark.usefixtures("no_drawing")
def test_the_commands_and_two_processes(tuned, built, tmp_path):
    """From scratch; ten records, eight at a time, by two processes, and by one."""
    workdir = tmp_path / "run"
    same = {name: SCORED[name] for name in SCORED if "optimizer" in name}  # compiled already
    same["optimizer.layer_decay"] = 0.7
    settings = tuning_flags(built, "task=classification", total_steps=1, **same)
    status, output, errors = call(train.main, *settings, f"--workdir={workdir}")
    assert status == 0, errors
    assert "done: 1 steps of classification: a random encoder on bigearthnet_s1/v1" in output
    listed = (built / V1 / "ids-train.txt").read_text().split()
    assert read_metadata(workdir / "checkpoints/1").train_ids == pack_ids(listed)

    arguments = (
        f"--workdir={tuned[1]}",
        f"--data_dir={built}",
        "--split=train+validation",
        "--checkpoint=latest",
        "--batch_size=8",
        f"--out={tmp_path / 'two'}",
    )
    processes = start_together(2, *arguments, module="sar_mixmae_jax.cli.evaluate")
    results = [finish(process) for process in processes]
    assert [status for status, *_ in results] == [0, 0], results
    assert "10 of 10 images" in results[0][1]
    assert "predictions.npz" not in results[1][1]
    alone = evaluate(
        tuned[1],
        data_dir=str(built),
        split="train+validation",
        which="latest",
        batch_size=3,
        out=tmp_path / "one",
    )
    two, one = (
        load_predictions(tmp_path / "two/predictions.npz"),
        load_predictions(alone["predictions.npz"]),
    )
    listed = [(built / V1 / f"ids-{name}.txt").read_text() for name in ("train", "validation")]
    assert two.ids.tolist() == one.ids.tolist() == "".join(listed).split()
    np.testing.assert_array_equal(two.labels, one.labels)
    scale = np.abs(one.logits).max()
    assert np.ptp(one.logits, axis=0).max() > 1e-3 * scale
    np.testing.assert_allclose(two.logits, one.logits, atol=1e-6 * scale)
