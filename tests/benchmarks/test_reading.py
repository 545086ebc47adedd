"""The benchmark of reading measures the same batches in all its ways."""

from pathlib import Path

import numpy as np

from benchmarks import reading
from sar_mixmae_jax.data.patch_dataset import load_patch_dataset


def test_all_ways_read_the_same_images(built, tmp_path, monkeypatch):
    source = load_patch_dataset("bigearthnet_s1", built, "train", ("VH", "VV")).source
    images = {}
    for name, start in reading.WAYS.items():
        if "processes" in name:  # tested with the reader; starting one takes seconds
            continue
        stream = start(source, 3, Path(tmp_path))
        batches = [next(stream) for _ in range(5)]
        parts = [part["backscatter"] for part in batches]
        images[name] = np.concatenate([np.asarray(part) for part in parts]).tobytes()
        stream.close()
    assert len(images) == 5
    assert len(set(images.values())) == 1


def test_the_table_compares_with_reading_one_by_one():
    ways = {
        name: {
            "images_per_second": 100.0 * rank,
            "cpu_seconds_per_image": 2e-6,
            "start_seconds": 1.5,
            "memory_bytes": 2**20,
        }
        for rank, name in enumerate(reading.WAYS, 1)
    }
    results = {
        "machine": {"processor": "CPU", "cores": 2},
        "records": 1000,
        "batch_size": 8,
        "dtype": "float16",
        "ways": ways,
    }
    lines = reading.table(results).splitlines()
    assert lines[0] == "CPU, 2 cores; 1,000 records of float16, batches of 8"
    assert lines[-len(ways)] == f"| {reading.BEFORE} | 100 | 1.0 | 2 | 1.50 | 1 |"
    assert lines[-len(ways) + 1] == "| none | 200 | 2.0 | 2 | 1.50 | 1 |"
