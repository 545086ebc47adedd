"""Mirrors of folders in a bucket, against a real server."""

import time

import pytest

from sar_mixmae_jax.utils import files, mirror, object_store
from sar_mixmae_jax.utils.errors import InputError, name_buckets
from sar_mixmae_jax.utils.files import find_mirror, local_path, stored_path
from sar_mixmae_jax.utils.lease import LEASE


def write(folder, *names: str, text: str = "x") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def stored(url: str) -> set[str]:
    return set(object_store.list_objects(url)) - {LEASE}


def checkpoint(step: int) -> list[str]:
    names = ("_CHECKPOINT_METADATA", "metadata/metadata", "state/d/arrays")
    return [f"checkpoints/{step}/{name}" for name in names]


def test_what_is_written_is_published_and_found_again(buckets):
    url = "gs://runs/mirror"
    workdir = local_path(url)
    bucket = find_mirror(workdir / "metrics.jsonl")
    assert bucket is not None
    with bucket.hold(0.05):
        write(workdir, "metrics.jsonl", "lock", ".run.json.1.partial", "sub/.x.partial/y")
        deadline = time.monotonic() + 20
        while stored(url) != {"metrics.jsonl"}:
            assert time.monotonic() < deadline
        for step in (1, 2):
            write(workdir, *checkpoint(step))
            bucket.publish_checkpoint(workdir / f"checkpoints/{step}").result()
        assert stored(url) == {"metrics.jsonl", *checkpoint(1), *checkpoint(2)}
        for name in checkpoint(1):
            (workdir / name).unlink()
        for folder in ("state/d", "state", "metadata", ""):
            (workdir / "checkpoints/1" / folder).rmdir()
        write(workdir, *checkpoint(3))
        bucket.publish_checkpoint(workdir / "checkpoints/3").result()
        with bucket.hold(60):  # of a run in a comparison: the same lease
            write(workdir, "run.json", "tensorboard/events", "metrics.jsonl", text="longer")
    kept = {"metrics.jsonl", "run.json", "tensorboard/events", *checkpoint(2), *checkpoint(3)}
    assert stored(url) == kept
    assert object_store.read(f"{url}/metrics.jsonl") == b"longer"

    files.MIRRORS.clear()
    object_store.write(f"{url}/checkpoints/4/state/d/arrays", b"of a killed upload")
    path = local_path(f"{url}/checkpoints/3/")
    again = path.parents[1]
    assert path == again / "checkpoints/3"
    assert again != workdir
    found = {file.relative_to(again).as_posix() for file in again.rglob("*") if file.is_file()}
    assert found == kept - {
        "tensorboard/events",
        "checkpoints/2/state/d/arrays",
        "checkpoints/3/state/d/arrays",
    }
    bucket = find_mirror(path)
    assert bucket is not None
    bucket.fetch(path)
    assert (path / "state/d/arrays").read_text() == "x"
    with bucket.hold(60):
        assert stored(url) == kept


def test_folders_that_are_removed_meanwhile_are_passed_over(tmp_path):
    write(tmp_path, "kept/x")
    (tmp_path / "removed").mkdir()

    def enter(path):
        if path.name == "removed":
            path.rmdir()
        return True

    assert list(mirror._walk(tmp_path, enter)) == [tmp_path / "kept/x"]


def test_messages_and_results_name_the_bucket(buckets):
    workdir = local_path("gs://runs/named/")
    assert workdir == local_path("gs://runs/named")
    assert stored_path(workdir / "checkpoints/3") == "gs://runs/named/checkpoints/3"
    assert local_path("gs://runs/named/runs/a") == workdir / "runs/a"
    assert name_buckets(f"{workdir}/x is bad") == "gs://runs/named/x is bad"
    assert stored_path(workdir.parent) == str(workdir.parent)


@pytest.mark.parametrize("path", ["", "runs", "runs/", "runs/checkpoints/4", "runs/a/../../b"])
def test_an_address_names_a_bucket_and_a_folder(path):
    with pytest.raises(InputError, match=f"^gs://{path}: expected a bucket and a folder"):
        local_path(f"gs://{path}")


def test_mirrors_of_killed_processes_are_removed(buckets):
    left = mirror.cache_folder() / "runs/1-killed"
    write(left, "metrics.jsonl")
    left.with_suffix(".lock").touch()
    used = local_path("gs://runs/used")
    local_path("gs://runs/new")
    assert not left.exists()
    assert used.exists()
