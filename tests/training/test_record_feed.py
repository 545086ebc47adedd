"""Batches of a run, the same from disk, host memory and device memory; and the choice of `auto`."""

import hashlib
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sar_mixmae_jax.data.record_source import Subset
from sar_mixmae_jax.training import pretrain
from sar_mixmae_jax.training import setup as run_setup
from sar_mixmae_jax.training.setup import choose_cache, open_feed
from sar_mixmae_jax.training.sharding import (
    IndexedBatch,
    replicate,
    replicate_records,
    shard_batch,
)
from sar_mixmae_jax.training.train_step import (
    by_pmap,
    by_shard_map,
    gather_records,
    init_state,
    train_step,
)
from sar_mixmae_jax.utils.errors import InputError
from tests.shrink import SMALLEST_MODEL, small_config

pytestmark = pytest.mark.usefixtures("no_drawing_in_module")


@pytest.fixture(scope="module")
def setup(built, tmp_path_factory):
    """Ten records in batches of four on two devices, bands turned round, for five epochs."""
    folder = tmp_path_factory.mktemp("setup")
    config = small_config(built, total_steps=10, bands=("VV", "VH"))
    return pretrain.set_up(config, folder)


def with_data(setup, **changes):
    """The same set-up with other fields of `config.data`."""
    config = setup.config.copy_and_resolve_references()
    config.update_from_flattened_dict({f"data.{name}": changes[name] for name in changes})
    return type(setup)(**{**vars(setup), "config": config})


def contents(setup, start: int) -> list[tuple[list[bytes], str]]:
    """Ids and SHA-256 of the images of every batch as the devices have them."""
    feed = open_feed(setup, start)
    seen = []
    for ids, batch in feed.batches:
        if isinstance(batch, IndexedBatch):
            rows = np.asarray(batch.rows)
            parts = [gather_records(part, batch.records, feed.record_shapes) for part in rows]
            images = np.stack([part["backscatter"] for part in parts])
            assert {len(array.addressable_shards) for array in batch.records.values()} == {2}
        else:
            images = np.asarray(batch["backscatter"])
        seen.append((ids.tolist(), hashlib.sha256(images.tobytes()).hexdigest()))
    return seen


@pytest.mark.parametrize(
    "changes",
    [
        {"cache": "host"},
        {"cache": "host", "cache_dir": "FOLDER"},
        {"cache": "device"},
        {"cache": "device", "cache_dir": "FOLDER"},
        {"cache": "auto"},
        {"cache": "none", "read_threads": 1, "prefetch": 1},
    ],
)
def test_batches_are_the_same_wherever_the_records_are(setup, tmp_path, changes):
    if "cache_dir" in changes:
        changes = {**changes, "cache_dir": str(tmp_path / "cache")}
    expected = contents(with_data(setup, cache="none"), 0)
    assert len({digest for _, digest in expected}) == 10
    assert contents(with_data(setup, **changes), 0) == expected
    assert contents(with_data(setup, **changes), 7) == expected[7:]


def test_a_run_goes_on_with_the_same_bits_wherever_the_records_are(built, tmp_path):
    """Six steps from disk; and two each from host memory, the devices, and a folder."""
    small = {**SMALLEST_MODEL, "grad_accum_steps": 1, "checkpoint_every": 1}
    whole = pretrain.train(small_config(built, **small, **{"data.cache": "none"}), tmp_path / "a")
    for steps, changes in (
        (2, {"data.cache": "host"}),
        (4, {"data.cache": "device"}),
        (6, {"data.cache_dir": str(tmp_path / "cache")}),
    ):
        config = small_config(built, **{**small, **changes, "total_steps": steps})
        parts = pretrain.train(config, tmp_path / "b")
    for ours, theirs in zip(*map(jax.tree.leaves, (parts.state, whole.state)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in "ab"]
    losses = [[line["loss"] for line in map(json.loads, log) if "loss" in line] for log in logs]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


@pytest.mark.parametrize(
    ("host", "device", "start", "chosen", "reason"),
    [
        (10**9, None, 0, "host", "1.2 MB, at most 50% of 1.0 GB available host memory"),
        (10**9, 10**9, 0, "device", "at most 25% of 1.0 GB device memory"),
        (10**9, 4_000_000, 0, "host", "available host memory"),
        (2_000_000, 10**9, 0, "none", "available host memory"),
        (None, None, 0, "host", "an unknown amount of available host memory"),
        (10**9, 10**9, 8, "none", "8 of 10 records are read"),
    ],
)
def test_auto_takes_the_fastest_place_with_room(
    setup, monkeypatch, capsys, host, device, start, chosen, reason
):
    monkeypatch.setattr(run_setup, "available_memory", lambda: host)
    monkeypatch.setattr(run_setup, "device_memory_limit", lambda: device)
    assert choose_cache(with_data(setup, cache="auto"), start) == chosen
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"records: data.cache=auto is {chosen}: ")
    assert reason in line


def test_what_does_not_fit_is_refused(setup, monkeypatch):
    with pytest.raises(InputError, match=r"unknown data\.cache 'disk'"):
        choose_cache(with_data(setup, cache="disk"), 0)
    subset = with_data(setup, cache="device")
    vars(subset)["source"] = Subset(setup.source, np.arange(8))
    with pytest.raises(InputError, match=r"a subset: set --config\.data\.cache=host"):
        choose_cache(subset, 0)
    monkeypatch.setattr(run_setup, "device_memory_limit", lambda: 10**6)
    with pytest.raises(InputError, match=r"take 1\.2 MB of a device of 1\.0 MB"):
        choose_cache(with_data(setup, cache="device"), 0)
    assert choose_cache(with_data(setup, cache="host"), 0) == "host"
    monkeypatch.setattr(run_setup, "available_memory", lambda: 10**6)
    with pytest.raises(InputError, match=r"1\.0 MB of host memory are available: set"):
        choose_cache(with_data(setup, cache="host"), 0)


def noisy_loss(params, batch, key):
    """Sum of squares of a scaled image with noise, and its parts by record."""
    images = batch["backscatter"].astype(jnp.float32)
    errors = params["scale"] * images + jax.random.normal(key, images.shape)
    errors = jnp.sum(errors**2, axis=(1, 2))
    return errors.sum(), (jnp.float32(images.size), errors)


@pytest.mark.parametrize("mapped", [by_pmap, by_shard_map])
def test_a_step_on_numbers_of_records_is_the_step_on_their_images(mapped):
    """Two devices with two microbatches each, over two steps; the records outlive both."""
    images = np.random.default_rng(0).normal(size=(9, 3, 2)).astype(np.float16)
    rows, optimizer = np.array([8, 0, 3, 3, 5, 1, 2, 7]), optax.adam(0.1)
    settings = (noisy_loss, optimizer, 2)

    def on_rows(state, batch):
        gather = partial(gather_records, records=batch.records, shapes=(("backscatter", (3, 2)),))
        return train_step(state, batch.rows, *settings, gather)

    by_images = mapped(lambda state, batch: train_step(state, batch, *settings))
    by_rows = mapped(on_rows, indexed=True)
    indexed = IndexedBatch(
        shard_batch(rows.astype(np.int32)), replicate_records({"backscatter": images})
    )
    results = []
    for step, batch in (
        (by_images, {"backscatter": shard_batch(images[rows])}),
        (by_rows, indexed),
    ):
        state = init_state(lambda key: {"scale": jnp.ones((3, 2))}, optimizer, jax.random.key(1))
        state = replicate(state)
        for _ in range(2):
            state, *rest = step(state, batch)
        results.append([np.asarray(leaf) for leaf in jax.tree.leaves((state, rest))])
    assert not (results[0][1] == 1).any()
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)
