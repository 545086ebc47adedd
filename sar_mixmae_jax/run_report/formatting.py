"""Formatting of numbers, times and JSON values for readers."""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

UNKNOWN = "unknown"


def format_number(value: float) -> str:
    """Format a number with four significant digits and thousands separators."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 3 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(0, digits)}f}" if -9 < digits < 8 else f"{value:.3e}"


def format_step(value: float) -> str:
    """Format a step with thousands separators."""
    return f"{value:,.0f}"


def format_steps(values: Any) -> str:
    """Format an array of steps, the first five if there are more."""
    return ", ".join(map(format_step, values[:5])) + (" …" if len(values) > 5 else "")


def format_metric(name: str) -> str:
    """Format the name of a metric without its prefix: "average precision macro"."""
    short = name.removeprefix("validation/").replace("_", " ")
    return re.sub(r"\bf1\b", "F1", short)


def format_value(value: Any) -> str:
    """Format a JSON value: integers with thousands separators, lists with commas."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value)) or "none"
    return format_literal(value)


def format_known(fields: Mapping[str, Any], name: str) -> str:
    """Format a field of a JSON object; "unknown" where it is missing or null."""
    return UNKNOWN if fields.get(name) is None else format_value(fields[name])


def format_literal(value: Any) -> str:
    """Format a value as it is typed in a configuration."""
    return value if isinstance(value, str) else repr(value)


def format_time(value: Any) -> str:
    """Format an ISO 8601 time to the minute; anything else is shown as it is."""
    try:
        return datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M %Z").strip()
    except (TypeError, ValueError):
        return "at an unknown time" if value is None else format_value(value)


def format_devices(start: Mapping[str, Any]) -> str:
    """Format number and kind of the devices of a start: "8 × NVIDIA H200"."""
    number, kind = start.get("devices", "?"), start.get("device", "unknown device")
    return f"{format_value(number)} × {format_value(kind)}"


def as_list(value: Any) -> list[Any]:
    """Return a JSON value as a list: empty for null or "", one item for anything but a list."""
    if not value:
        return []
    return [*value] if isinstance(value, list | tuple) else [value]
