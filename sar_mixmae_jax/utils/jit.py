"""Functions with their settings given, equal where these are: so that programs can be shared."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class CacheablePartial:
    """As `functools.partial(function, …)` with the last argument, but two equal ones are equal.

    Runs of one process that differ in nothing but their seed then share what they compile.

    Attributes:
      function: of a module.
      settings: its last argument, hashable.
    """

    function: Callable[..., Any]
    settings: Any

    def __call__(self, *arguments: Any) -> Any:
        """The function of the arguments and the settings."""
        return self.function(*arguments, self.settings)
