"""Typed values from JSON and back: types are checked by msgspec, values by `__post_init__`."""

import json
import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

MISSING = re.compile(r"Object missing required field `(.*)`")
"""msgspec's message for a field without a default."""


def from_json(kind: type[T], content: Any) -> T:
    """Convert what `json.loads` returned; lists become tuples, unknown fields are ignored.

    Args:
      kind: a dataclass, or another annotation.
      content: dictionaries, lists, strings, numbers, booleans and None.

    Raises:
      ValueError: a value has another type, or was refused by its class; the message names the
        field.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        field = path.rstrip("`").lstrip(".")
        if absent := MISSING.fullmatch(reason):
            name = f"{field}.{absent[1]}".lstrip(".")
            raise ValueError(f"{name} is missing") from None
        if reason.startswith("Expected "):
            reason = reason.replace("`", "")
            reason = reason[0].lower() + reason[1:]
        raise ValueError(f"{field}: {reason}" if field else reason) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeError:
        raise ValueError("a string holds half of a surrogate pair") from None


def to_json(value: Any) -> Any:
    """Return a dataclass as `json.loads` would: dictionaries and lists, no tuples."""
    return json.loads(json.dumps(msgspec.to_builtins(value)))
