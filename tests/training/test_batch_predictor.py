"""Predicting a whole split: every record once, in its order, whatever the sizes."""

import jax.numpy as jnp
import numpy as np
import pytest

from sar_mixmae_jax.training.batch_predictor import BatchPredictor
from sar_mixmae_jax.training.sharding import replicate

PARAMS = {"scale": np.float32(3)}


def numbered(count: int) -> list[dict]:
    return [
        {"id": f"{row}".encode(), "number": np.int32(row), "image": np.full((2, 3), row, "f4")}
        for row in range(count)
    ]


def scaled(params, batch):
    """The number of a record, its scaled pixels, and how many records a device has at a time."""
    together = jnp.broadcast_to(len(batch["number"]), batch["number"].shape)
    return {"number": batch["number"], "image": params["scale"] * batch["image"], "of": together}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 8])
def test_every_record_once_in_order(batch_size):
    predict, params = BatchPredictor(scaled, batch_size), replicate(PARAMS)
    for count in (1, 2, 3, 5, 7, 8):
        made = predict(params, numbered(count))
        assert made["number"].tolist() == list(range(count))
        expected = np.stack([3 * record["image"] for record in numbered(count)])
        np.testing.assert_array_equal(made["image"], expected)
        per_device = -(-min(batch_size, count) // 2)
        assert made["of"].tolist() == [per_device] * count  # no more than there is room for


def test_records_are_read_once_and_few_at_a_time():
    """But for the last one, which fills up the last batch."""

    class Watched(list):
        read: list[int]

        def __getitem__(self, index):
            self.read.append(int(index))
            return super().__getitem__(index)

    source = Watched(numbered(50))
    source.read = []
    together = []

    def function(params, batch):
        together.append(batch["number"].shape)
        return scaled(params, batch)

    BatchPredictor(function, 8)(replicate(PARAMS), source)
    assert sorted(source.read) == [*range(50), *[49] * 6]
    assert set(together) == {(4,)}
