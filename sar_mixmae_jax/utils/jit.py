"""A hashable `functools.partial`, so that equal settings share one compiled program."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class CacheablePartial:
    """Function with its last argument bound; instances with equal fields are equal.

    Runs of one process that differ only in their seed then hit the same entry of the jit cache.

    Attributes:
      function: Function of a module.
      settings: Last argument of the function, hashable.
    """

    function: Callable[..., Any]
    settings: Any

    def __call__(self, *arguments: Any) -> Any:
        """Call the function with the arguments and the settings."""
        return self.function(*arguments, self.settings)
