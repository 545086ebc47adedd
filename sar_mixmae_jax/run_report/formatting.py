"""Numbers, times and values of files as people read them."""

import math
import re
from datetime import datetime
from typing import Any


def number(value: float) -> str:
    """Four digits, thousands apart."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 3 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(0, digits)}f}" if -9 < digits < 8 else f"{value:.3e}"


def step(value: float) -> str:
    """A step."""
    return f"{value:,.0f}"


def steps(values: Any) -> str:
    """Steps, the first five of many."""
    return ", ".join(map(step, values[:5])) + (" …" if len(values) > 5 else "")


def metric(name: str) -> str:
    """A metric without what all of its kind begin with: "average precision macro"."""
    short = name.removeprefix("validation/").replace("_", " ")
    return re.sub(r"\bf1\b", "F1", short)


def value(found: Any) -> str:
    """A value of a file: counts with their thousands apart, a list with commas."""
    if found is None:
        return "none"
    if isinstance(found, str):
        return found
    if isinstance(found, int) and not isinstance(found, bool):
        return f"{found:,}"
    if isinstance(found, list):
        return ", ".join(map(value, found)) or "none"
    return exact(found)


def exact(found: Any) -> str:
    """A value as it is typed in a configuration."""
    return found if isinstance(found, str) else repr(found)


def time(found: Any) -> str:
    """A time of ISO 8601 to the minute; anything else as it is."""
    try:
        return datetime.fromisoformat(found).strftime("%Y-%m-%d %H:%M %Z").strip()
    except (TypeError, ValueError):
        return "at an unknown time" if found is None else value(found)


def devices(start: dict[str, Any]) -> str:
    """How many devices of which kind."""
    return f"{value(start.get('devices', '?'))} × {value(start.get('device', 'unknown device'))}"
