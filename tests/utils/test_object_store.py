"""Objects in buckets, against a real server that is killed, and one that answers with errors."""

import importlib.util
import logging
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sar_mixmae_jax.inference.scene_copies import copy_scenes
from sar_mixmae_jax.utils import bucket_errors, lease, object_store
from sar_mixmae_jax.utils.errors import InputError, StorageError
from sar_mixmae_jax.utils.lease import Lease, hold_lease
from sar_mixmae_jax.utils.object_store import StoredObject

S3_ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "user",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}
MESSAGES = {
    401: "Anonymous caller does not have storage.objects.list access to the bucket.",
    403: "a@b.iam.gserviceaccount.com does not have storage.objects.list access.",
    400: "User project specified in the request is invalid: unknown project id p-1.",
    404: "The specified bucket does not exist.",
}


@pytest.fixture(scope="module")
def s3(bucket_server):
    """Address of a bucket of another store."""
    for name in ("moto", "flask", "flask_cors", "s3fs"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"the package {name} is not installed")
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in S3_ACCOUNT.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        boto3.client("s3").create_bucket(Bucket="other")
        yield "s3://other"
    server.stop()


@pytest.fixture(params=["gs", "s3"])
def store(request, buckets):
    """Address of a bucket of both stores."""
    return "gs://runs" if request.param == "gs" else request.getfixturevalue("s3")


@pytest.fixture
def answers(monkeypatch):
    """A function that makes all buckets answer with a status, after so many with 503."""
    servers = []

    def answer(status: int, transient: int = 0) -> list[str]:
        seen: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                seen.append(self.path)
                code = 503 if len(seen) <= transient else status
                text = MESSAGES.get(code, "try later")
                body = f'{{"error": {{"code": {code}, "message": "{text}"}}}}'.encode()
                body = body if code != 200 else b'{"kind": "storage#objects"}'
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        return seen

    yield answer
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "found no valid credentials .*gcloud auth application-default login"),
        (403, "permission is denied .*grant roles/storage.objectUser on gs://other"),
        (400, "the project cannot be used .*gcloud config set project"),
        (404, "found no bucket gs://other"),
    ],
)
def test_refusals_of_a_store_name_the_remedy(buckets, answers, status, message):
    seen = answers(status)
    with pytest.raises(StorageError, match=message) as raised:
        object_store.check_bucket("gs://other/run")
    assert len(str(raised.value).splitlines()) == 1
    assert len(seen) == 1


def test_transient_errors_are_tried_again(buckets, answers, caplog):
    seen = answers(200, transient=1)
    object_store.check_bucket("gs://other/run")
    assert len(seen) == 2


def test_a_store_that_stays_away_is_given_up(buckets, monkeypatch, caplog):
    """The error is logged once, although it is tried several times."""
    tries, pauses = [], []
    monkeypatch.setattr(bucket_errors, "RETRY_SECONDS", 50.0)
    monkeypatch.setattr(bucket_errors.time, "monotonic", lambda: sum(pauses))
    monkeypatch.setattr(bucket_errors.time, "sleep", pauses.append)

    def refuse():
        tries.append(1)
        raise ConnectionRefusedError("nobody listens")

    with pytest.raises(StorageError, match="gs://b/r cannot be reached"):
        bucket_errors.call("gs://b/r", refuse)
    assert len(tries) == len(pauses) + 1 > 4
    assert sum(pauses) <= 50
    assert caplog.text.count("nobody listens") == 1


def test_libraries_that_are_missing_are_named():
    with pytest.raises(StorageError, match="nope:// is unknown"):
        object_store.file_system("nope")


def test_objects_are_listed_copied_and_removed(store, tmp_path):
    url = f"{store}/objects"
    object_store.check_bucket(url)
    with pytest.raises(StorageError, match="found no bucket"):
        object_store.check_bucket(f"{store}-missing/objects")
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/large").write_bytes(bytes(6_000_000))
    (tmp_path / "a/empty").touch()
    object_store.upload(tmp_path / "a", url, ["b/large", "empty"])
    object_store.write(f"{store}/objects-2/other", b"")
    stored = object_store.list_objects(url)
    assert {name: found.size for name, found in stored.items()} == {
        "b/large": 6_000_000,
        "empty": 0,
    }
    sizes: list[int] = []
    object_store.download(url, tmp_path / "c", stored, sizes.append)
    assert (tmp_path / "c/b/large").read_bytes() == bytes(6_000_000)
    assert sorted(sizes) == [0, 6_000_000]
    assert [path.name for path in (tmp_path / "c").iterdir() if path.is_file()] == ["empty"]
    object_store.remove(url, [*stored, "gone"])
    assert object_store.list_objects(url) == {}


def test_names_that_leave_the_folder_are_refused(s3):
    object_store.write(f"{s3}/names/a/../../b", b"")
    with pytest.raises(StorageError, match=r"holds 'a/../../b': rename this object"):
        object_store.list_objects(f"{s3}/names")


def test_a_copy_that_differs_from_the_object_is_refused(buckets, tmp_path, monkeypatch):
    monkeypatch.setattr(bucket_errors, "RETRY_SECONDS", 0.1)
    object_store.write("gs://runs/differs/x", b"12")
    wrong = {"x": StoredObject(2, "", "0" * 32)}
    with pytest.raises(StorageError, match="differs from what is stored"):
        object_store.download("gs://runs/differs", tmp_path, wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device without room")
def test_a_full_disk_is_told_from_a_store_that_cannot_be_used(tmp_path):
    object_store.write("memory://full/x", b"12")
    (tmp_path / f".x.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=f"{tmp_path}/x cannot be written .*No space"):
        object_store.download("memory://full", tmp_path, {"x": StoredObject(2, "", "")})
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/x cannot be written .*File exists"):
        object_store.download("memory://full", tmp_path / "file", {"x": StoredObject(2, "", "")})


def test_an_object_is_written_on_a_condition(store):
    url = f"{store}/conditions/x"
    assert object_store.read_version(url) is None
    first = object_store.write_if(url, b"1", None)
    assert object_store.write_if(url, b"1", None) == first  # the answer of a try was lost
    with pytest.raises(FileExistsError):
        object_store.write_if(url, b"2", None)
    second = object_store.write_if(url, b"2", first)
    with pytest.raises(FileExistsError):
        object_store.write_if(url, b"3", first)
    assert object_store.read_version(url) == (b"2", second)


# ---- leases


@pytest.fixture
def times(monkeypatch):
    """Short times of a lease; this machine looks like another to the next lease."""
    for name, value in {"BEAT": 0.05, "EXPIRY": 0.4, "POLL": 0.05}.items():
        monkeypatch.setattr(lease, f"{name}_SECONDS", value)
    monkeypatch.setattr(lease, "machine", lambda: None)


def test_one_process_holds_a_lease(buckets, times):
    url = "gs://runs/lease"
    with (
        hold_lease(url),
        pytest.raises(InputError, match=r"gs://runs/lease is in use by process \d+ on .+ since 20"),
    ):
        Lease(url).acquire()
    with hold_lease(url) as next_one:
        next_one.check()


def test_a_lease_expires_and_its_owner_notices(buckets, times, monkeypatch, caplog):
    dead, url = Lease("gs://runs/expired"), "gs://runs/expired"
    dead.acquire()
    with hold_lease(url) as heir:
        assert "has ended without releasing it" in caplog.text
        with pytest.raises(StorageError, match=r"was taken over by process .* this run ends"):
            dead.check()
        heir.check()


def test_a_dead_process_of_this_machine_is_not_waited_for(buckets, monkeypatch):
    owner = Lease("gs://runs/dead")
    monkeypatch.setattr(owner, "_owner", {**owner._owner, "process_start": "1"})
    owner.acquire()
    monkeypatch.setattr(lease.time, "sleep", lambda _: pytest.fail("waited"))
    Lease("gs://runs/dead").acquire()


# ---- scenes


def test_scenes_are_copied_on_request_only(buckets, tmp_path):
    url = "gs://runs/scenes/one"
    for name in ("s_VH.tif", "s_VV.TIF", "notes.txt"):
        object_store.write(f"{url}/{name}", name.encode())
    with pytest.raises(InputError, match=f"{url} is an address: give --copy_scenes"):
        copy_scenes(["here.tif", url], is_allowed=False)
    local, folder = copy_scenes(["here.tif", url], is_allowed=True)
    assert local == "here.tif"
    copies = {path.name for path in Path(folder).iterdir() if path.name[0] != "."}
    assert copies == {"s_VH.tif", "s_VV.TIF"}
    (file,) = copy_scenes([f"{url}/s_VH.tif"], is_allowed=True)
    assert (file, Path(file).read_text()) == (f"{folder}/s_VH.tif", "s_VH.tif")
    kept = Path(folder, "s_VV.TIF").stat().st_ino
    object_store.write(f"{url}/s_VH.tif", b"of VH 2.")
    copy_scenes([url], is_allowed=True)
    assert Path(file).read_text() == "of VH 2."
    assert Path(folder, "s_VV.TIF").stat().st_ino == kept
    with pytest.raises(InputError, match="found no GeoTIFF"):
        copy_scenes(["gs://runs/scenes/none"], is_allowed=True)
    with pytest.raises(StorageError, match="not this object"):
        copy_scenes([f"{url}/x.tif"], is_allowed=True)
    web = f"{buckets.address}/runs/scenes/one/s_VH.tif"
    assert Path(copy_scenes([web], is_allowed=True)[0]).read_text() == "of VH 2."
