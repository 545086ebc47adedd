"""Estimates against what the real model, automatic differentiation and the compiler say."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from configs import pretrain
from sar_mixmae_jax.cli import estimate
from sar_mixmae_jax.models import architecture
from sar_mixmae_jax.models.architecture import VARIANTS, Architecture
from sar_mixmae_jax.models.layers import PLAIN, REMAT
from sar_mixmae_jax.models.mixmae import MixMAE
from sar_mixmae_jax.objectives.preprocess import PreparedBatch
from sar_mixmae_jax.objectives.reconstruction import reconstruct
from sar_mixmae_jax.training import cost
from sar_mixmae_jax.training.accelerators import ACCELERATORS
from sar_mixmae_jax.training.config import KERNEL_FIELDS
from sar_mixmae_jax.training.cost import USABLE_MEMORY, largest_device_batch, step_times
from sar_mixmae_jax.training.device_memory import DeviceStep, activations, device_memory
from sar_mixmae_jax.training.scaling import estimate_all_scaling
from sar_mixmae_jax.utils.errors import InputError
from tests.launch import call
from tests.models.test_fused_attention import INTERPRETED
from tests.models.test_mixmae import PARAMETERS

SMALL = Architecture(
    embed_dim=32,
    num_heads=(1, 2),
    depths=(1, 1),
    window_sizes=(8, 8),
    image_size=64,
    decoder_embed_dim=64,
    decoder_depth=1,
    decoder_num_heads=2,
)
ONE_STAGE = dataclasses.replace(
    SMALL, num_heads=(2,), depths=(1,), window_sizes=(8,), image_size=32
)
DTYPES = (jnp.float32, jnp.bfloat16)
BOTH = frozenset(KERNEL_FIELDS)


def recipe(arguments: str = "", **changes) -> ConfigDict:
    config = pretrain.get_config(arguments)
    config.update(changes)
    return config


def abstract_loss(arch: Architecture, images: int, dtype, remat: str, kernels=PLAIN):
    """The loss of parameters and the shapes of all that it needs."""
    model = MixMAE(arch, dtype, remat, kernels)
    shape = (images, arch.image_size, arch.image_size, arch.bands)
    pixels = jax.ShapeDtypeStruct(shape, jnp.float32)
    mask = jax.ShapeDtypeStruct((arch.mask_grid, arch.mask_grid), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), pixels, mask)["params"]
    batch = PreparedBatch(pixels, pixels, jax.ShapeDtypeStruct(shape, bool), pixels)

    def loss(params, batch, mask):
        return reconstruct(model, params, batch, mask, norm_pix_loss=True).error.sum()

    return loss, (params, batch, mask)


def kept_by_autodiff(arch: Architecture, images: int, dtype, remat: str, kernels=PLAIN) -> int:
    """Bytes of all arrays that the backward pass holds on to, without computing one."""
    loss, shapes = abstract_loss(arch, images, dtype, remat, kernels)

    def backward(params, batch, mask):
        return jax.vjp(partial(loss, batch=batch, mask=mask), params)[1]

    leaves = jax.tree.leaves(jax.eval_shape(backward, *shapes))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


@pytest.mark.parametrize("remat", REMAT)
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_are_what_automatic_differentiation_keeps(dtype, remat):
    """The slope over the batch; small arrays such as a row's deviation are not counted."""
    measured = [kept_by_autodiff(SMALL, images, dtype, remat) for images in (2, 4)]
    counted = activations(SMALL, jnp.dtype(dtype).itemsize, remat=remat).kept
    assert counted == pytest.approx((measured[1] - measured[0]) / 2, rel=0.06)


@pytest.mark.parametrize("remat", REMAT)
def test_activations_of_fused_kernels(remat):
    measured = [
        kept_by_autodiff(SMALL, images, jnp.bfloat16, remat, INTERPRETED) for images in (2, 4)
    ]
    counted = activations(SMALL, 2, remat=remat, fused=BOTH).kept
    assert counted == pytest.approx((measured[1] - measured[0]) / 2, rel=0.06)
    assert counted < activations(SMALL, 2, remat=remat).kept or remat != "none"


@pytest.fixture(scope="module")
def compiled():
    """The compiled gradient of a small model, for 4 and for 12 images."""

    def compile_for(images: int):
        loss, shapes = abstract_loss(ONE_STAGE, images, jnp.float32, remat="none")
        lowered = jax.jit(jax.value_and_grad(loss)).lower(*shapes)
        # Level 0 makes slow code in half the time; buffers are assigned before it comes to that.
        return lowered.compile(compiler_options={"xla_backend_optimization_level": 0})

    return {images: compile_for(images) for images in (4, 12)}


def test_activations_are_what_the_compiler_allocates(compiled):
    """Within 30 %: XLA keeps copies of query, key and value in other layouts, and fuses others.

    Without remat only: on CPU it computes blocks again without freeing what they had kept.
    """
    used = {
        images: program.memory_analysis().temp_size_in_bytes for images, program in compiled.items()
    }
    each = (used[12] - used[4]) / 8
    counted = activations(ONE_STAGE, 4).kept
    assert each / 1.3 < counted < 1.3 * each


def test_operations_are_what_the_compiler_counts(compiled):
    """XLA counts elementwise work too: up to a fifth more in a small model."""
    counted = architecture.train_step_flops(ONE_STAGE, 4)
    assert counted < compiled[4].cost_analysis()["flops"] < 1.2 * counted


def test_remat_adds_the_forward_pass_of_the_blocks():
    """Blocks are nearly the whole model, so a step of three passes becomes one of nearly four."""
    arch = VARIANTS["base"]
    assert (
        1.3
        < architecture.train_step_flops(arch, 8, remat="full")
        / architecture.train_step_flops(arch, 8)
        < 4 / 3
    )


def test_parameters_are_those_of_the_real_model():
    """`PARAMETERS` are the published numbers, and what initialisation makes."""
    count = cost.count_parameters(MixMAE(VARIANTS["base"]))
    assert count == PARAMETERS["base"][0]
    parts = device_memory(DeviceStep(VARIANTS["base"], count, images=2, side=120), itemsize=4)
    assert parts["parameters, float32"] == 4 * count
    assert parts["AdamW moments"] == 2 * parts["parameters, float32"]


def test_accumulating_and_remat_need_less_memory():
    def total(**changes) -> int:
        step = DeviceStep(VARIANTS["base"], PARAMETERS["base"][0], 64, side=120, **changes)
        return sum(device_memory(step, 2).values())

    assert total(remat="full") < total(grad_accum_steps=4) < total()
    assert total(remat="full") < total(remat="dots") < 0.6 * total()


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_largest_batch_fits_and_the_next_does_not(accumulate):
    device, count = ACCELERATORS["A100 80GB"], PARAMETERS["base"][0]

    def step(images: int) -> DeviceStep:
        return DeviceStep(VARIANTS["base"], count, images, side=120, grad_accum_steps=accumulate)

    most = largest_device_batch(device, step(8), "bfloat16")
    assert most % (2 * accumulate) == 0
    assert sum(device_memory(step(most), 2).values()) <= USABLE_MEMORY * device.memory
    more = step(most + 2 * accumulate)
    assert sum(device_memory(more, 2).values()) > USABLE_MEMORY * device.memory


def test_the_measured_step_of_the_documented_machine():
    """docs/results.md: 2.64 s for 8 images of `base`; the utilisation is from this very run."""
    step = DeviceStep(VARIANTS["base"], PARAMETERS["base"][0], 8, side=120)
    times = step_times(ACCELERATORS["CPU, 2 cores"], step, "float32")
    assert times.seconds == pytest.approx(2.64, rel=0.01)


def test_the_measured_step_on_the_h200():
    """docs/results.md: 119.2 ms for 1,024 images of `base`, in 41.9 GB; memory is not fitted."""
    step = DeviceStep(VARIANTS["base"], PARAMETERS["base"][0], 1024, side=120, fused=BOTH)
    times = step_times(ACCELERATORS["H200"], step, "bfloat16")
    assert times.seconds == times.products == pytest.approx(0.1192, rel=0.01)
    assert sum(device_memory(step, 2).values()) == pytest.approx(41.9e9, rel=0.12)


@pytest.mark.parametrize(
    ("value", "text"),
    [(10237, "10,000"), (99.6, "100"), (9.96, "10"), (2.04, "2.0"), (0.0251, "0.025"), (0, "0")],
)
def test_estimates_have_two_digits(value, text):
    assert estimate.two_digits(value) == text


@pytest.fixture(scope="module")
def results() -> dict:
    config = recipe("variant=tiny")
    scaling = {"scaling": estimate_all_scaling(config, devices=8)}
    return cost.estimate(config, records=100_000, devices=8) | scaling


def test_the_run_is_counted(results):
    assert results["steps"] == 64 * (100_000 // 2048)
    assert results["run_flops"] == results["steps"] * architecture.train_step_flops(
        VARIANTS["tiny"], 2048
    )
    assert results["record_bytes"] == {"float32": 115_200, "float16": 57_600}
    gpu = results["accelerators"]["H100 SXM"]
    assert gpu["dtype"] == "bfloat16"
    assert results["gradient_bytes"] == 4 * PARAMETERS["tiny"][0]
    sent = 2 * 7 / 8 * results["gradient_bytes"]
    assert gpu["exchange_seconds"] == pytest.approx(sent / 450e9)  # NVLink 4, one direction
    longer = max(gpu["products_seconds"], gpu["traffic_seconds"])
    assert gpu["step_seconds"] == longer + gpu["exchange_seconds"]
    assert gpu["images_per_second_and_host"] == gpu["images_per_second"]
    tpu = results["accelerators"]["TPU v5e"]
    assert tpu["images_per_second_and_host"] == tpu["images_per_second"] / 2
    assert gpu["run_seconds"] == pytest.approx(results["steps"] * 2048 / gpu["images_per_second"])
    assert gpu["reading_bytes_per_second"]["float16"] == gpu["images_per_second"] * 57_600


def test_tables_have_a_column_for_every_heading(results):
    for table in estimate.tables(results).split("\n\n"):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "40%, assumed" in estimate.tables(results)
    assert "31%, measured with `base`" in estimate.tables(results)
    assert "| images/s, batch of 2,048 | 1 | 8 | 64 | 512 |" in estimate.tables(results)
    assert "| images/s, 256 images on a device | 1 | 8 | 64 | 512 |" in estimate.tables(results)
    json.dumps(results)


def test_kernels_are_counted_where_a_run_takes_them():
    config = recipe("variant=base")
    config.model.norm = "plain"
    columns = cost.estimate(config)["memory"]
    assert "bfloat16, fused attention" in columns
    config.model.window_sizes = (16, 16, 8, 4)  # of 256 tokens, for which attention is plain
    assert list(cost.estimate(config)["memory"]) == ["float32", "bfloat16"]
    config.model.norm = "fsued"
    with pytest.raises(InputError, match=r"unknown model\.norm 'fsued': did you mean 'fused'"):
        cost.estimate(config)


def test_what_is_not_known_is_a_dash():
    """Nobody measured bfloat16 on the CPU."""
    results = cost.estimate(recipe("variant=tiny", dtype="bfloat16"))
    assert list(results["memory"]) == ["bfloat16", "bfloat16, fused attention and norm"]
    assert results["accelerators"]["CPU, 2 cores"]["step_seconds"] is None
    assert "| CPU, 2 cores | bfloat16 | - |" in estimate.accelerator_table(results)


def test_a_given_utilisation_is_no_measurement():
    half, full = (
        cost.estimate(recipe("variant=tiny"), utilisation=share)["accelerators"]["CPU, 2 cores"]
        for share in (0.5, 1.0)
    )
    assert half["step_seconds"] == 2 * full["step_seconds"]
    assert not half["utilisation_measured"]


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"batch_size": 16}, {"records": 8}, "found 8 records, expected at least a batch of 16"),
        ({"batch_size": 16}, {"devices": 3}, "16 on 3 device"),
        ({"batch_size": 12, "grad_accum_steps": 4}, {}, "grad_accum_steps=4, which is 3 each"),
        ({"dtype": "float64"}, {}, "unknown dtype"),
    ],
)
def test_what_cannot_run_is_refused(changes, options, message):
    config = recipe("variant=tiny")
    with config.unlocked():
        config.update(changes)
    with pytest.raises(InputError, match=message):
        cost.estimate(config, **options)


def test_patches_are_those_of_the_built_dataset_or_published(built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = f"--config={pretrain.__file__}:variant=tiny"
    ours = [f"{shipped},dataset=bigearthnet_s1", f"--config.data_dir={built}"]
    status, output, errors = call(estimate.main, *ours, "--config.batch_size=2")
    assert status == 0, errors
    assert "patches: 10 of 120 px (bigearthnet_s1, train+validation in" in output
    assert "of 2 of 10 patches |" in output
    status, _, errors = call(estimate.main, *ours, "--config.split=trian")
    assert status == 2
    assert "unknown split of bigearthnet_s1 'trian': did you mean 'train'?" in errors
    status, output, _ = call(estimate.main, f"{shipped},dataset=bigearthnet_s1/v2")
    assert status == 0
    assert "patches: 360,213 of 120 px (bigearthnet_s1/v2, as published; not built here)" in output
    status, _, errors = call(estimate.main, f"{shipped},dataset=s1_folder/elbe")
    assert status == 2
    assert "found no dataset 's1_folder/elbe'" in errors
    assert "or give --records and --side" in errors


def test_the_command_prints_tables_and_writes_json(tmp_path):
    shipped = f"--config={pretrain.__file__}"
    settings = ["--config.batch_size=256", "--devices=2", "--records=1000", "--config.epochs=2"]
    out = tmp_path / "estimate.json"
    status, output, errors = call(estimate.main, shipped, *settings, f"--out={out}")
    assert status == 0, errors
    assert "| run | 6 steps of 256 of 1,000 patches |" in output
    assert "128 images on a device" in output
    written = json.loads(out.read_text())
    assert written["variant"] == "base"
    weak = written["scaling"]["H200"]["fixed share"]
    assert [rate["batch_size"] for rate in weak] == [128, 1024, 8192, 65536]
    status, _, errors = call(estimate.main, "--config=finetune")
    assert status == 2
    assert "found a configuration of finetune, expected one of pretraining" in errors
