"""Choice between plain and fused kernels, on descriptions of devices that are not here."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from configs import finetune, pretrain
from sar_mixmae_jax.models import fused_norm as fused_norm_module
from sar_mixmae_jax.models.architecture import VARIANTS, Architecture
from sar_mixmae_jax.models.layers import PLAIN, Kernels, add_norm, attend
from sar_mixmae_jax.training import kernel_choice
from sar_mixmae_jax.training.config import KERNEL_FIELDS, make_arch
from sar_mixmae_jax.training.kernel_choice import (
    attention_sizes,
    block_widths,
    compiler_options,
    kernel_names,
    select_kernels,
)
from sar_mixmae_jax.utils.errors import InputError
from tests.models.test_fused_attention import INTERPRETED
from tests.training.test_resume_check import BEFORE, changed, check

ARCH = Architecture(
    embed_dim=8,
    num_heads=(2,),
    depths=(1,),
    window_sizes=(2,),
    image_size=8,
    decoder_embed_dim=12,
    decoder_num_heads=3,
)
A100 = SimpleNamespace(platform="gpu", device_kind="NVIDIA A100", compute_capability="8.0")


def choose(name: str):
    config = pretrain.get_config()
    config.model.update(dict.fromkeys(KERNEL_FIELDS, name))
    config.dtype = "bfloat16"
    return select_kernels(config, ARCH, decoder=True)


@pytest.fixture
def pretend(monkeypatch):
    """Set the description of the device, and kernels by field in place of interpreted ones."""

    def set_device(device, **kernels):
        monkeypatch.setattr(fused_norm_module, "PROGRAMS", 2)  # rows of a trial
        monkeypatch.setattr(fused_norm_module, "TILE", 64)
        kernel_choice.kernel_obstacle.cache_clear()
        monkeypatch.setattr(jax, "local_devices", lambda: [device])
        chosen = dataclasses.replace(INTERPRETED, **kernels)
        monkeypatch.setattr(kernel_choice, "_import_kernel", lambda field: getattr(chosen, field))

    return set_device


def fails_to_compile(*arguments):
    raise NotImplementedError("unsupported shape\nand more")


def forgets_the_mask(qkv, tokens, heads, bias, mask):
    return attend(qkv, tokens, heads, bias)


def forgets_the_branch(x, change, scale, bias):
    return add_norm(x, None, scale, bias)


def leaves_out_tiles(x, change, scale, bias):
    """Only the first tile of a program adds to the gradients of scale and bias."""
    rows = jnp.arange(len(x)) % 16 < 8
    total, out = add_norm(x, change, scale, bias)
    without = add_norm(x, change, *map(jax.lax.stop_gradient, (scale, bias)))[1]
    return total, jnp.where(rows[:, None], out, without)


def has_a_nan_gradient(qkv, *arguments):
    return attend(qkv, *arguments) + 0 * jnp.sqrt(0 * qkv[:1, :1])


@pytest.mark.parametrize("name", ["auto", "fused"])
def test_fused_where_it_works(pretend, capsys, name):
    pretend(A100)
    assert choose(name) == INTERPRETED
    assert capsys.readouterr().out == "attention and norm: fused\n"


DEVICES = [
    (SimpleNamespace(platform="cpu", device_kind="cpu"), "the device is cpu"),
    (SimpleNamespace(platform="tpu", device_kind="TPU v5e"), "the device is TPU v5e"),
    (
        SimpleNamespace(platform="gpu", device_kind="MI300X", compute_capability="gfx942"),
        "the device is MI300X, the kernel is for NVIDIA GPUs",
    ),
    (
        SimpleNamespace(platform="gpu", device_kind="Tesla V100", compute_capability="7.0"),
        "Tesla V100 has compute capability 7.0, the kernel needs 8.0",
    ),
]
FAULTS = [
    ("attention", fails_to_compile, "does not run: NotImplementedError: unsupported shape"),
    ("attention", forgets_the_mask, "the kernel for 4 tokens and heads of 4 deviates by"),
    ("attention", has_a_nan_gradient, "deviates by nan from the plain form"),
    ("norm", fails_to_compile, "does not run: NotImplementedError: unsupported shape"),
    ("norm", leaves_out_tiles, "the kernel for 32 rows of 8 deviates by"),
    ("norm", forgets_the_branch, "the kernel for 32 rows of 8 deviates by"),
]


@pytest.mark.parametrize(("device", "reason"), DEVICES)
def test_plain_on_other_devices(pretend, capsys, device, reason):
    pretend(device)
    assert choose("auto") == PLAIN
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("attention and norm: plain (")
    assert reason in line
    with pytest.raises(InputError, match=r"model\.attention is 'fused', which cannot run") as error:
        choose("fused")
    assert reason in str(error.value)


@pytest.mark.parametrize(("field", "kernel", "reason"), FAULTS)
def test_a_kernel_that_does_not_work_is_left_out_alone(pretend, capsys, field, kernel, reason):
    pretend(A100, **{field: kernel})
    assert choose("auto") == dataclasses.replace(INTERPRETED, **{field: getattr(PLAIN, field)})
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}: plain ("))
    assert reason in line
    assert len(lines) == 2
    message = rf"model\.{field} is 'fused', which cannot run"
    with pytest.raises(InputError, match=message) as error:
        choose("fused")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_auto_is_plain_where_a_kernel_does_not_pay(pretend, capsys):
    pretend(A100)
    config = pretrain.get_config()
    config.dtype = "float32"
    assert select_kernels(config, ARCH) == PLAIN
    config.dtype = "bfloat16"
    large = dataclasses.replace(ARCH, image_size=64, window_sizes=(16,))
    assert select_kernels(config, large) == Kernels(norm=INTERPRETED.norm)
    assert capsys.readouterr().out.splitlines() == [
        "attention and norm: plain (the kernel is for bfloat16, the computation is in float32)",
        "attention: plain (windows of 256 tokens: the kernel is for up to 128)",
        "norm: fused",
    ]


def test_a_pallas_that_cannot_be_imported(monkeypatch):
    def fail(field):
        raise ImportError("cannot import name 'triton'")

    monkeypatch.setattr(jax, "local_devices", lambda: [A100])
    monkeypatch.setattr(kernel_choice, "_import_kernel", fail)
    kernel_choice.kernel_obstacle.cache_clear()
    with pytest.raises(InputError, match="cannot import name 'triton'"):
        choose("fused")


def test_plain_tries_nothing(pretend, capsys):
    pretend(A100, attention=fails_to_compile, norm=fails_to_compile)
    assert choose("plain") == PLAIN
    assert capsys.readouterr().out == "attention and norm: plain\n"


@pytest.mark.parametrize("name", ["flash", None])
def test_unknown_name(name):
    with pytest.raises(InputError, match=rf"unknown model\.attention {name!r}: "):
        choose(name)


def test_xla_accepts_the_options_of_a_step_with_kernels():
    assert compiler_options(PLAIN) == ()
    assert kernel_names(PLAIN) == {"attention": "plain", "norm": "plain"}
    assert kernel_names(Kernels(norm=INTERPRETED.norm)) == {"attention": "plain", "norm": "fused"}
    options = dict(compiler_options(Kernels(norm=INTERPRETED.norm)))
    compiled = jax.jit(jnp.sin).lower(1.0).compile(compiler_options=options)
    assert float(compiled(0.0)) == 0.0


def test_every_size_of_a_model_is_tried():
    assert attention_sizes(VARIANTS["base"], decoder=True) == {(64, 32): 16, (16, 32): 16}
    assert attention_sizes(ARCH, decoder=False) == {(4, 4): 2}
    wider = dataclasses.replace(ARCH, decoder_embed_dim=24, decoder_num_heads=1)
    assert attention_sizes(wider, decoder=True) == {(4, 4): 2, (4, 24): 1}
    assert block_widths(VARIANTS["base"], decoder=True) == [128, 256, 512, 1024]
    assert block_widths(wider, decoder=True) == [8, 24]
    assert block_widths(wider, decoder=False) == [8]


def test_the_architecture_is_that_without_the_fields():
    config = pretrain.get_config()
    assert make_arch(config) == VARIANTS["base"]
    for field in KERNEL_FIELDS:
        assert config.model[field] == finetune.get_config().model[field] == "auto"


@pytest.mark.parametrize("field", KERNEL_FIELDS)
def test_they_may_change_between_starts_of_a_run(field):
    (note,) = check(BEFORE, changed(BEFORE, f"config.model.{field}", "fused"))
    assert note.startswith(f"model.{field} was 'auto' and is now 'fused': results")


@pytest.mark.parametrize("field", KERNEL_FIELDS)
def test_a_run_without_the_field_was_plain(field):
    old = changed(BEFORE, f"config.model.{field}", None)
    del old["config"]["model"][field]
    assert check(old, changed(BEFORE, f"config.model.{field}", "plain")) == []
