"""The encoder of a checkpoint: found, described, read, resized, and refused where it is damaged."""

import dataclasses
import hashlib
import json
import shutil

import jax
import numpy as np
import pytest

from sar_mixmae_jax.models.resize import bicubic_resize
from sar_mixmae_jax.training import encoder_loading
from sar_mixmae_jax.training.checkpoint import checkpoint_steps
from sar_mixmae_jax.training.source_checkpoint import find_source_checkpoint
from sar_mixmae_jax.utils import hashing
from sar_mixmae_jax.utils.errors import InputError


@pytest.fixture
def copy(encoder_run, tmp_path):
    """A copy of the run, to be damaged; its folder's name is a number, as a step's is."""
    return shutil.copytree(encoder_run, tmp_path / "2024")


def damage(step, pattern: str) -> None:
    """Change every hundredth byte of the second half of files of a checkpoint."""
    paths = [path for path in step.glob(pattern) if path.is_file()]
    assert paths
    for path in paths:
        content = np.frombuffer(path.read_bytes(), np.uint8).copy()
        content[len(content) // 2 :: 100] ^= 0xFF
        path.write_bytes(content.tobytes())


def test_the_newest_checkpoint_says_what_its_encoder_expects(encoder_run):
    found = find_source_checkpoint(encoder_run)
    record = json.loads((encoder_run / "run.json").read_text())
    assert found.path == encoder_run / "checkpoints/2"
    assert found.variant == "tiny"
    assert found.arch.embed_dim == 8
    assert found.arch.depths == (1, 1)
    assert found.bands == ("VH", "VV")
    assert list(found.statistics.mean) == record["dataset"]["statistics"]["mean"]
    assert list(found.statistics.std) == record["dataset"]["statistics"]["std"]
    assert found.description.step == 2
    assert found.description.trainer == "pretrain"
    assert found.description.dataset_checksum == record["dataset"]["checksum"]
    assert found.description.weighting.name == "per_channel"


def test_a_run_and_its_step_may_be_named_and_folders_may_have_numbers(copy):
    assert find_source_checkpoint(copy).path == copy / "checkpoints/2"
    assert find_source_checkpoint(copy / "checkpoints/1").description.step == 1


def test_its_parameters_are_those_of_the_checkpoint(encoder_run):
    """By the checksums that were made of the state before it was written."""
    found = find_source_checkpoint(encoder_run)
    params = encoder_loading.load_encoder_params(found, found.arch)
    metadata = json.loads((found.path / "metadata/metadata").read_text())
    leaves = jax.tree_util.tree_leaves_with_path(params)
    names = [name for name in metadata["arrays"] if name.startswith("params/encoder/")]
    assert len(leaves) == len(names) > 20
    for where, leaf in leaves:
        name = "params/encoder/" + jax.tree_util.keystr(where, simple=True, separator="/")
        assert hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest() == metadata["arrays"][name]


def test_at_another_input_size_tables_are_resized_and_nothing_else(encoder_run):
    found = find_source_checkpoint(encoder_run)
    arch = dataclasses.replace(
        found.arch, image_size=64, window_sizes=(4, 4), pretrain_image_size=128
    )
    as_it_was, resized = (encoder_loading.load_encoder_params(found, s) for s in (found.arch, arch))
    changed = 0
    for (where, old), new in zip(
        jax.tree_util.tree_leaves_with_path(as_it_was), jax.tree.leaves(resized), strict=True
    ):
        if "bias_table" in jax.tree_util.keystr(where):
            changed += 1
            expected = bicubic_resize(np.asarray(old).reshape(15, 15, -1), 7).reshape(49, -1)
            np.testing.assert_array_equal(new, expected)
        else:
            np.testing.assert_array_equal(new, old)
    assert changed == 2


def test_metadata_that_are_damaged_leave_the_checkpoint_before(copy):
    damage(copy / "checkpoints/2", "metadata/metadata")
    assert find_source_checkpoint(copy).description.step == 1
    damage(copy / "checkpoints/1", "metadata/metadata")
    with pytest.raises(InputError, match=r"no checkpoint can be used \(2: .*; 1: "):
        find_source_checkpoint(copy)


def test_arrays_that_are_damaged_are_refused(copy):
    found = find_source_checkpoint(copy)
    damage(found.path / "state", "**/d/*")
    with pytest.raises(InputError, match=r"checkpoints/2: its arrays .*choose another checkpoint"):
        encoder_loading.load_encoder_params(found, found.arch)


def test_an_encoder_of_other_sizes_is_refused(encoder_run):
    found = find_source_checkpoint(encoder_run)
    wider = dataclasses.replace(found.arch, embed_dim=16)
    with pytest.raises(InputError, match=r"of the encoder is \(.*expected .*of another model"):
        encoder_loading.load_encoder_params(found, wider)


@pytest.mark.parametrize("name", ["", "nowhere", "checkpoints"])
def test_where_there_is_none_it_says_where_it_looked(encoder_run, tmp_path, name):
    place = encoder_run / name if name == "checkpoints" else tmp_path / name
    with pytest.raises(InputError, match=r"holds no checkpoint \(looked in .*name the workdir"):
        find_source_checkpoint(place)
    assert checkpoint_steps(encoder_run)


NAN = float("nan")
WRONG = [
    *(("model.architecture", value) for value in (None, 5, "x", [])),
    *(
        ("model.architecture." + name, None)
        for name in ("bands", "embed_dim", "num_heads", "mlp_ratio")
    ),
    *(("model.weighting", value) for value in (5, "x", {})),
    *(("model.bands", value) for value in ([], [1, 2], ["VH"], ["VH", "VH"], "ab")),
    *(("model.statistics.mean", value) for value in (["a", "b"], [NAN, 0.0], [0.0], None)),
    *(("model.statistics.std", value) for value in ([0, 0], [1], [1, 1, 1], [-1.0, 1.0])),
    *(("model.statistics.of", value) for value in (None, 5)),
    *(("model", None), ("model.statistics", 5), ("model.variant", 5), ("model.unit", [1])),
    *(("seen", value) for value in (5, None, "?!", "é", "QQ==")),
    *(("dataset", []), ("dataset.name", 5), ("dataset.caveats", "x"), ("dataset.checksum", 5)),
    *(("config", 5), ("config.trainer", None), ("step", "2"), ("arrays", [])),
    *(("model.pretrained", value) for value in ([{}], {}, 1)),
]


@pytest.mark.parametrize(("field", "value"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_under_a_right_checksum_is_refused(encoder_run, tmp_path, field, value):
    stored = (encoder_run / "checkpoints/2/metadata/metadata").read_text()
    metadata = hashing.verify_checksum(json.loads(stored))
    *inside, last = field.split(".")
    content = metadata
    for name in inside:
        content = content[name]
    content[last] = value
    path = tmp_path / "checkpoints/2/metadata/metadata"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(hashing.add_checksum(metadata)))
    with pytest.raises(InputError, match=r"no checkpoint can be used \(2: ") as refused:
        find_source_checkpoint(tmp_path)
    assert "do not have their checksum" not in str(refused.value)
    assert {"seen": "train_ids"}.get(last, last) in str(refused.value) or inside[-1] in str(
        refused.value
    )


@pytest.mark.parametrize("name", ["", "a" * 5000, "a\0b"])
def test_what_is_no_name_of_a_run_is_refused(name):
    with pytest.raises(InputError, match="the workdir of a run") as refused:
        find_source_checkpoint(name)
    assert len(str(refused.value)) < 400
