"""Errors of buckets: which are tried again, and the line that names the remedy of the others.

The libraries of the stores raise various types, few of them documented.
"""

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from absl import logging

from sar_mixmae_jax.utils.errors import LONGEST, StorageError

RETRY_SECONDS = 300.0
"""Time for which transient errors are retried, besides the retries of the store's library."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two tries."""
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
TRANSIENT_MODULES = frozenset({"aiohttp", "requests", "urllib3"})
"""Libraries whose exceptions without a status are failures of a connection."""
TRANSIENT_NAMES = frozenset({"ChecksumError", "TransportError", "HTTPClientError"})
PROJECT_ERRORS = ("billing", "user project", "userproject", "project id", "unknown project")
"""Parts of messages about the project of a request."""

T = TypeVar("T")


def scheme_of(url: str) -> str:
    """Return the part of an address before "://"."""
    return url.partition("://")[0]


def call(url: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function of a store's library, again after transient errors.

    Args:
      url: what it accesses, for messages.
      function: to call.
      *args: of the function.
      **kwargs: of the function.

    Raises:
      FileNotFoundError: there is no such object.
      FileExistsError: a condition does not hold.
      StorageError: any other error.
    """
    deadline, pause = time.monotonic() + RETRY_SECONDS, FIRST_PAUSE
    while True:
        try:
            return function(*args, **kwargs)
        except (FileNotFoundError, FileExistsError, StorageError):
            raise
        except Exception as error:
            if _status(error) == 412:
                raise FileExistsError(url) from error
            if not is_transient(error) or time.monotonic() + pause > deadline:
                raise explain(error, url) from error
            if pause == FIRST_PAUSE:
                logging.warning(
                    "%s: %s: trying again for up to %.0f s", url, _text(error), RETRY_SECONDS
                )
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE)


def is_transient(error: BaseException | None) -> bool:
    """Return True if a request may succeed when it is repeated."""
    while error is not None:
        names = {kind.__name__ for kind in type(error).__mro__}
        if (
            _status(error) in TRANSIENT_STATUS
            or isinstance(error, ConnectionError | TimeoutError)
            or type(error).__module__.partition(".")[0] in TRANSIENT_MODULES
            or names & TRANSIENT_NAMES
        ):
            return True
        error = error.__cause__
    return False


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of an error of gcsfs or botocore."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = getattr(error, "code", None) or getattr(error, "status", None)
    return int(str(code)) if str(code).isdigit() else None


def _text(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def explain(error: BaseException, url: str) -> StorageError:
    """Return an error of one line for an error of a store's library."""
    text, status = _text(error), _status(error)
    lower, names = text.lower(), {kind.__name__ for kind in type(error).__mro__}
    is_google = scheme_of(url) in ("gs", "gcs")
    bucket = "/".join(url.split("/")[:3])
    if status == 401 or "anonymous caller" in lower or "Credentials" in "".join(names):
        remedy = (
            "run `gcloud auth application-default login`, or use a machine with a service account"
            if is_google
            else "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        )
        return StorageError(f"{url}: found no valid credentials ({text}): {remedy}")
    if isinstance(error, FileNotFoundError):
        return StorageError(
            f"{url}: found no bucket {bucket}, or not this object: create it, or correct the name"
        )
    if any(part in lower for part in PROJECT_ERRORS):
        return StorageError(
            f"{url}: the project cannot be used ({text}): choose the one of the bucket, with "
            "`gcloud config set project` or GOOGLE_CLOUD_PROJECT"
        )
    if status == 403 or isinstance(error, PermissionError) or "forbidden" in lower:
        role = "roles/storage.objectUser" if is_google else "reading, writing and listing"
        return StorageError(f"{url}: permission is denied ({text}): grant {role} on {bucket}")
    if is_transient(error):
        return StorageError(
            f"{url} cannot be reached ({text}): see that the store answers and start again"
        )
    return StorageError(f"{url} cannot be used ({text}): check the address and the bucket")
