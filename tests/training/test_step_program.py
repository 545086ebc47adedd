"""A step compiled for TPUs, what would make one fit, and refused topologies."""

import importlib.util
import json
import re

import jax
import pytest

from configs import pretrain
from sar_mixmae_jax.cli import estimate
from sar_mixmae_jax.cli.estimate import compiled_table
from sar_mixmae_jax.models.architecture import VARIANTS
from sar_mixmae_jax.training import compiled_cost, step_program
from sar_mixmae_jax.training.compiled_cost import (
    changes_to_fit,
    count_loops,
    device_of,
    estimate_compiled,
)
from sar_mixmae_jax.training.cost import make_device_step
from sar_mixmae_jax.training.device_memory import DeviceStep
from sar_mixmae_jax.training.step_program import (
    StepProgram,
    all_reduced_bytes,
    open_topology,
    parse_sizes,
)
from sar_mixmae_jax.utils.errors import InputError
from tests.launch import call

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, of the extra tpu, is not installed"
)
GIB = 2**30


def small_recipe():
    """One stage at 16 px: compiles in seconds."""
    config = pretrain.get_config("variant=tiny")
    config.batch_size = 16
    sizes = {"depths": (1,), "num_heads": (1,), "window_sizes": (4,), "image_size": 16}
    decoder = {"decoder_embed_dim": 8, "decoder_depth": 1, "decoder_num_heads": 1}
    config.model.update({"embed_dim": 8, **sizes, **decoder})
    return config


@pytest.fixture(scope="module")
def results():
    return estimate_compiled(small_recipe(), "v5e:2x2", records=1000, side=16)


@needs_libtpu
def test_the_program_sums_all_gradients_loss_and_count(results):
    parameters = make_device_step(small_recipe(), 4, 16).parameters
    assert results["exchanged"] == 4 * (parameters + 2)
    state = 4 * (3 * parameters + 2 + 3)  # moments, steps of two counters, key
    batch = 4 * 16 * 16 * 2 * 4
    assert results["memory"]["state and batch"] >= state + batch


@needs_libtpu
def test_the_program_is_described(results):
    assert (results["devices"], results["chips"], results["kind"]) == (4, 4, "TPU v5 lite")
    assert results["fits"]
    assert results["dtype"] == "bfloat16"
    assert results["flops"] > results["estimated_flops"]
    assert results["required"] == sum(results["memory"].values()) < GIB
    bound = results["bound_seconds"]
    assert bound["traffic"] == pytest.approx(results["traffic"] / 819e9)
    shown = compiled_table(results)
    assert "4 x TPU v5 lite, 4 chips" in shown
    assert "memory needed (fits), GiB" in shown
    assert len({line.count("|") for line in shown.splitlines()}) == 1
    json.dumps(results)


@needs_libtpu
@pytest.mark.parametrize(
    ("topology", "reason"),
    [
        ("v5e", "not of this form"),
        ("v5e:3x5", "not divisible"),
        ("v99:2x2", "Invalid TPU external name"),
    ],
)
def test_unknown_topologies_are_refused_in_one_line(topology, reason):
    with pytest.raises(InputError, match=f"unknown TPU topology '{topology}' .*{reason}.*v5e:2x2"):
        open_topology(topology)


@needs_libtpu
def test_one_chip_is_a_topology():
    assert len(open_topology("v6e:1x1")) == 1


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(step_program.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"found no libtpu.*extra tpu"):
        open_topology("v5e:2x2")


def test_number_of_devices_and_topology_exclude_each_other():
    both = ("--devices=2", "--compile=v5e:2x2")
    status, _, errors = call(estimate.main, "--config=pretrain", *both)
    assert status == 2
    assert errors == (
        "error: found --devices=2 and --compile=v5e:2x2, which sets the number of devices: give "
        "one of them\n"
    )


PARAMETERS, IMAGE = 10**6, 3_000_000
"""Parameters of a made-up model, and bytes of an image of its microbatch."""


def memory(images: int, microbatches: int) -> int:
    """Bytes of the made-up step: state, gradients, raw batch, images of a microbatch."""
    copies = 4 if microbatches == 1 else 5
    return 4 * copies * PARAMETERS + 4 * 2 * 120**2 * images + IMAGE * images // microbatches


@pytest.mark.parametrize(("microbatches", "available"), [(1, 1.0), (2, 0.8)])
def test_each_change_makes_the_step_fit(microbatches, available):
    """4 x 512 images; the smallest of the changes is named."""
    room = int(available * GIB)
    step = DeviceStep(VARIANTS["tiny"], PARAMETERS, 512, side=120, grad_accum_steps=microbatches)
    required = memory(512, microbatches)
    assert required > room or microbatches > 1
    program = StepProgram("TPU v5 lite", 4, 4, required=required, available=min(room, required - 1))
    changes = list(changes_to_fit(step, program, 2))
    batch = int(re.search(r"batch_size=([\d,]+)", changes[0])[1].replace(",", ""))
    assert memory(batch // 4, microbatches) <= program.available
    more = int(re.search(r"grad_accum_steps=(\d+)", changes[1])[1])
    assert 512 % (2 * more) == 0
    assert memory(512, more) <= program.available
    assert memory(512, more // 2) > program.available
    devices = int(changes[2].removesuffix(" devices"))
    assert devices == 8
    assert memory(2048 // devices, microbatches) <= program.available
    assert changes[3] == "--config.remat=dots"


def test_nothing_helps_where_the_state_alone_is_too_large():
    step = DeviceStep(VARIANTS["tiny"], 10**9, 512, side=120)
    program = StepProgram("TPU v5 lite", 4, 4, required=18 * GIB, available=14 * GIB)
    assert list(changes_to_fit(step, program, 2)) == []


def test_a_step_that_does_not_fit_is_said_so(monkeypatch):
    program = StepProgram("TPU v5 lite", 4, 4, required=20 * GIB, available=15 * GIB)
    monkeypatch.setattr(compiled_cost, "compile_step", lambda *_, **__: program)
    config = pretrain.get_config("variant=tiny")
    shown = compiled_table(estimate_compiled(config, "v5e:2x2", records=10_000, side=120))
    assert "memory needed (does not fit), GiB | 20 |" in shown
    assert "found 20 GiB, expected at most 15 GiB" in shown
    assert "--config.grad_accum_steps=2" in shown


def test_another_objective_is_refused_before_compilation(monkeypatch):
    monkeypatch.delattr(compiled_cost, "compile_step")
    config = pretrain.get_config("variant=tiny")
    config.objective = "simmim"
    with pytest.raises(InputError, match="objective is simmim, expected mixmae"):
        estimate_compiled(config, "v5e:2x2", records=1000, side=16)


def test_sizes_are_read_from_the_messages_of_the_compiler():
    first = "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
    first += "temporaries (56.40G) exceeds available HBM (15.75G)."
    assert parse_sizes(jax.errors.JaxRuntimeError(first)) == (int(56.4 * GIB), int(15.75 * GIB))
    with pytest.raises(InputError, match="refuses the step: JaxRuntimeError: INTERNAL: broken"):
        parse_sizes(jax.errors.JaxRuntimeError("INTERNAL: broken"))


def test_all_reduces_are_found_in_a_program():
    program = """
      %a = f32[] all-reduce(%x), channel_id=1
      %b = (f32[2,3]{1,0:T(8,128)}, f32[5]{0}) all-reduce(%y, %z), channel_id=2
      %c = f32[7]{0} all-reduce-start(%w), channel_id=3
      %d = f32[7]{0} all-reduce-done(%c)
    """
    assert all_reduced_bytes(program) == 4 * (1 + 6 + 5 + 7)


def test_loops_are_counted_as_often_as_they_run():
    """XLA counts one of four microbatches; a loop over blocks is scaled to the products."""
    step = DeviceStep(VARIANTS["tiny"], 10**6, 64, side=120, grad_accum_steps=4)
    products = compiled_cost.train_step_flops(step)
    update = 7 * 4 * 10**6
    assert count_loops(products / 4, 100e6, step) == (
        pytest.approx(products),
        pytest.approx(4 * (100e6 - update) + update),
    )
    flops, traffic = count_loops(products / 8, 100e6, step)
    assert flops == pytest.approx(products)
    assert traffic == pytest.approx(2 * (4 * (100e6 - update) + update))


def test_two_devices_of_a_chip_share_it():
    """A v4 chip appears as two devices."""
    whole, half = (device_of(StepProgram("TPU v4", devices, 4, required=1)) for devices in (4, 8))
    assert (half.memory, half.bandwidth) == (whole.memory / 2, whole.bandwidth / 2)
    assert device_of(StepProgram("TPU v99", 4, 4)) is None
