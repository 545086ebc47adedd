"""How scores are read from metrics: what the kinds of predictions have in common."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Metrics = Mapping[str, Any]
"""As reports have them: values by name, in groups by name."""

Scores = Mapping[str, Callable[[Metrics], float | None]]
"""What reads a value, by the name of the score."""


class Lead(NamedTuple):
    """The first numbers of a report.

    Attributes:
      of: what they are the mean of, or about.
      values: by name; None where undefined.
      intervals: by name, {"low", "high"}.
    """

    of: str
    values: Mapping[str, Any]
    intervals: Mapping[str, Any]
