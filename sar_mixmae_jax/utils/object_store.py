"""Objects in buckets (gs://, s3:// and other stores of fsspec): transfers and conditional writes.

Nothing is listed unless a function says so, and listings are not cached. Every request is retried
as `bucket_errors.call` does.
"""

import base64
import errno
import hashlib
import json
import logging as standard_logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from sar_mixmae_jax.utils.bucket_errors import call, explain, scheme_of
from sar_mixmae_jax.utils.errors import StorageError, first_line

TRANSFERS = 16
"""Objects that are transferred at the same time."""
EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3"}
"""Extra of this package that a scheme needs."""
SILENCE_SECONDS = 60.0
"""Seconds without a response before a request is retried."""
WEB = frozenset({"http", "https"})
"""Schemes of single files without buckets."""
LOCAL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES})
"""Errors of the disk that objects are copied to; those of stores have no number, or another."""
BOUNDARY = "part-of-an-object"
"""Separator of the parts of an upload; no content that is uploaded so holds it."""


class StoredObject(NamedTuple):
    """An object in a listing.

    Attributes:
      size: bytes.
      version: differs after every write; "" where the store has none.
      md5: MD5 of the content, hexadecimal; "" where the store has none.
    """

    size: int
    version: str
    md5: str


@cache
def file_system(scheme: str) -> Any:
    """Return the file system of a scheme.

    Raises:
      StorageError: its library is not installed, or the scheme is unknown.
    """
    # Buckets of the usual kind need no request for their layout before every first access.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    for name in ("gcsfs", "google.auth", "s3fs"):  # each error is reported below, once
        standard_logging.getLogger(name).setLevel(standard_logging.CRITICAL)
    options: dict[str, Any] = {} if scheme in WEB else {"use_listings_cache": False}
    if scheme in ("gs", "gcs") and os.environ.get("STORAGE_EMULATOR_HOST"):
        options["token"] = "anon"
    try:
        import fsspec

        if scheme in ("gs", "gcs"):
            import aiohttp

            options["requests_timeout"] = aiohttp.ClientTimeout(
                sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS
            )
        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        install = f"sar-mixmae-jax[{extra}]" if extra else f"the package of fsspec for {scheme}"
        raise StorageError(
            f"{scheme}:// needs a library that is not installed: pip install '{install}'"
        ) from error
    except ValueError as error:
        raise StorageError(f"{scheme}:// is unknown: expected gs://BUCKET/FOLDER") from error


def check_bucket(url: str) -> None:
    """Check that a bucket exists and may be listed, with one request.

    Raises:
      StorageError: it does not, or may not.
    """
    fs, (bucket, key) = file_system(scheme_of(url)), _split(url)
    try:
        if hasattr(fs, "call_s3"):
            call(url, fs.call_s3, "list_objects_v2", Bucket=bucket, MaxKeys=1, Prefix=key)
        elif hasattr(fs, "call"):
            call(url, fs.call, "GET", "b/{}/o", bucket, maxResults=1, prefix=key)
    except FileNotFoundError as error:
        raise explain(error, url) from error


def _split(url: str) -> tuple[str, str]:
    bucket, _, key = url.partition("://")[2].strip("/").partition("/")
    return bucket, key


def list_objects(url: str) -> dict[str, StoredObject]:
    """Return all objects below an address, by their names relative to it; a request a thousand.

    Raises:
      StorageError: they cannot be listed, or a name is no path below the address.
    """
    fs, root = file_system(scheme_of(url)), "/".join(filter(None, _split(url)))
    try:
        infos = call(url, fs.find, root, detail=True)
    except FileNotFoundError:
        return {}
    objects = {}
    for name, info in infos.items():
        relative = name.strip("/").removeprefix(root).strip("/")
        if ".." in relative.split("/"):  # would leave the folder that it is copied to
            raise StorageError(f"{url} holds {relative[:100]!r}: rename this object")
        if relative and info.get("type") != "directory" and not name.endswith("/"):
            objects[relative] = _describe(info)
    return objects


def find_object(url: str) -> StoredObject:
    """Return one object, also of an https:// address.

    Raises:
      StorageError: there is none.
    """
    try:
        return _describe(call(url, file_system(scheme_of(url)).info, url))
    except FileNotFoundError as error:
        raise explain(error, url) from error


def _describe(info: Mapping[str, Any]) -> StoredObject:
    names = ("generation", "ETag", "created", "Last-Modified")
    version = next((info[name] for name in names if info.get(name)), "")
    md5 = base64.b64decode(info.get("md5Hash", "")).hex()
    return StoredObject(int(info["size"]), str(version), md5)


def read(url: str) -> bytes:
    """Return the content of an object.

    Raises:
      FileNotFoundError: there is none.
    """
    return call(url, file_system(scheme_of(url)).cat_file, url)


def write(url: str, content: bytes) -> None:
    """Write an object; it appears as a whole."""
    call(url, file_system(scheme_of(url)).pipe_file, url, content)


def upload(folder: Path, url: str, names: Iterable[str]) -> None:
    """Copy files that do not change into a bucket, in parallel; MD5 sums are compared.

    Args:
      folder: folder of the files.
      url: address of the folder in the bucket.
      names: names of the files, relative to the folder.
    """
    fs = file_system(scheme_of(url))
    check = {"consistency": "md5"} if hasattr(fs, "consistency") else {}

    def copy(name: str) -> None:
        call(f"{url}/{name}", fs.put_file, str(folder / name), f"{url}/{name}", **check)

    in_parallel(copy, names)


def download(
    url: str,
    folder: Path,
    objects: Mapping[str, StoredObject],
    note: Callable[[int], object] = lambda size: None,
) -> None:
    """Copy objects into a folder, in parallel; each file appears as a whole.

    Args:
      url: address of the folder in the bucket.
      folder: to copy into.
      objects: what to copy, by name.
      note: called with the size of every file that was copied.

    Raises:
      StorageError: an object is gone, or cannot be read.
    """
    fs = file_system(scheme_of(url))

    def copy(item: tuple[str, StoredObject]) -> None:
        name, stored = item
        target = folder / name
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")

        def get() -> None:
            try:
                fs.get_file(f"{url}/{name}", str(partial))
            except OSError as error:
                if error.errno in LOCAL_ERRORS:
                    raise _unwritable(target, error) from error
                raise
            if partial.stat().st_size != stored.size or (
                stored.md5 and _md5(partial) != stored.md5
            ):
                raise ConnectionError(f"{url}/{name} differs from what is stored")

        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            call(f"{url}/{name}", get)
            partial.replace(target)
        except FileNotFoundError as error:
            raise StorageError(f"{url}/{name} has gone meanwhile: start again") from error
        except OSError as error:
            raise _unwritable(target, error) from error
        finally:
            with suppress(OSError):
                partial.unlink()
        note(stored.size)

    in_parallel(copy, objects.items())


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path} cannot be written ({first_line(error)}): make room on this disk, or allow writing"
    )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def remove(url: str, names: Iterable[str]) -> None:
    """Remove objects, in parallel; those that are gone already do not matter."""
    fs = file_system(scheme_of(url))

    def remove_one(name: str) -> None:
        with suppress(FileNotFoundError):
            call(f"{url}/{name}", fs.rm_file, f"{url}/{name}")

    in_parallel(remove_one, names)


def in_parallel(function: Callable[[Any], None], items: Iterable[Any]) -> None:
    """Call a function with every item, `TRANSFERS` at a time; the first error is raised."""
    with ThreadPoolExecutor(TRANSFERS) as threads:
        for _ in threads.map(function, items):
            pass


# ---- conditions


def read_version(url: str) -> tuple[bytes, str] | None:
    """Return content and version of an object, for `write_if`; None if there is none.

    The version is read first, so that the content is never older.
    """
    fs = file_system(scheme_of(url))
    try:
        info = call(url, fs.info, url)
        content = read(url)
    except FileNotFoundError:
        return None
    return content, str(info.get("generation") or info.get("ETag") or _digest(content))


def write_if(url: str, content: bytes, version: str | None) -> str:
    """Write an object if it still has a version, in one atomic step on gs:// and s3://.

    Args:
      url: address of the object.
      content: of it, different from all before.
      version: from `read_version`; None: there must be no object.

    Returns:
      The new version.

    Raises:
      FileExistsError: the object has another version.
    """
    fs, (bucket, key) = file_system(scheme_of(url)), _split(url)
    try:
        if hasattr(fs, "call_s3"):
            condition = {"IfMatch": version} if version else {"IfNoneMatch": "*"}
            target = {"Bucket": bucket, "Key": key, "Body": content}
            return call(url, fs.call_s3, "put_object", **target, **condition)["ETag"]
        if hasattr(fs, "call"):
            place = f"{fs._location}/upload/storage/v1/b/{quote(bucket)}/o"
            body = _multipart({"name": key}, content)
            answer = call(
                url,
                fs.call,
                "POST",
                place,
                uploadType="multipart",
                ifGenerationMatch=version or "0",
                headers={"Content-Type": f"multipart/related; boundary={BOUNDARY}"},
                data=body,
                json_out=True,
            )
            return answer["generation"]
    except FileExistsError:
        stored = read_version(url)
        if stored and stored[0] == content:  # written by a try whose answer was lost
            return stored[1]
        raise
    if version is None:
        call(url, fs.pipe_file, url, content, mode="create")
    else:
        stored = read_version(url)
        if stored is None or stored[1] != version:
            raise FileExistsError(url)
        write(url, content)
    return _digest(content)


def _multipart(metadata: dict[str, str], content: bytes) -> bytes:
    """Return the body of an upload of an object with its metadata."""
    parts = (json.dumps(metadata).encode(), content)
    body = b"".join(
        b"--%s\r\nContent-Type: application/json\r\n\r\n%s\r\n" % (BOUNDARY.encode(), part)
        for part in parts
    )
    return body + b"--%s--\r\n" % BOUNDARY.encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
