"""JSON descriptions stored with runs and checkpoints, and their validation."""

from typing import Any


def check_source_description(description: Any) -> None:
    """Refuses a `Pretrained.description` that is none, or one of those it names as its own origin.

    Args:
      description: as a file has it; None where there is none.

    Raises:
      TypeError: names the field.
    """
    where = "model.pretrained"
    while description is not None:
        _of_type(description, dict, where)
        for name, kind in {"checkpoint": str, "step": int, "dataset": str}.items():
            _of_type(description.get(name), kind, f"{where}.{name}")
        if description.get("dataset_checksum") is not None:
            _of_type(description["dataset_checksum"], str, f"{where}.dataset_checksum")
        if description.get("weighting") is not None:
            weighting = _of_type(description["weighting"], dict, f"{where}.weighting")
            _of_type(weighting.get("name"), str, f"{where}.weighting.name")
        description, where = description.get("pretrained"), f"{where}.pretrained"


def _of_type(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"its {what} is {str(value)[:50]!r}, expected a {kind.__name__}")
    return value
