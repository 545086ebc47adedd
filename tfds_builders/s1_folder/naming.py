"""What file names, band descriptions and tags say: polarisation, unit, sigma0 or gamma0."""

import re
from collections.abc import Iterable

POLARISATIONS = ("VV", "VH", "HH", "HV")


def polarisation(text: str) -> str | None:
    """The one polarisation that a text names, in either case; None if none or several.

    Letters around it make another word: "Sigma0_VV_db" names VV, "valley_VVX" does not.
    """
    found = {p for p in POLARISATIONS if _has_word(text, p)}
    return found.pop() if len(found) == 1 else None


UNIT_WORDS = {"dB": ("dB", "decibels?"), "linear": ("linear", "linear[-_ ]power")}


def unit(texts: Iterable[str]) -> str | None:
    """The unit, dB or linear power, if the texts say so, and agree."""
    says = {
        name
        for text in texts
        for name, words in UNIT_WORDS.items()
        if any(_has_word(text, word) for word in words)
    }
    return says.pop() if len(says) == 1 else None


def quantity(texts: Iterable[str]) -> str | None:
    """The quantity, sigma0 or gamma0, if the texts say so, and agree."""
    says = set()
    for text in texts:
        for name in ("sigma", "gamma"):
            if re.search(rf"{name}[-_ ]?(0|nought|naught|zero)", text, re.IGNORECASE):
                says.add(f"{name}0")
    return says.pop() if len(says) == 1 else None


def without_polarisation(name: str, band: str) -> str:
    """A file name without the polarisation in it: the same for all bands of an image."""
    return re.sub(rf"[-_. ]?{_word(band)}", "", name, count=1, flags=re.IGNORECASE)


def _has_word(text: str, word: str) -> bool:
    return re.search(_word(word), text, re.IGNORECASE) is not None


def _word(word: str) -> str:
    return rf"(?<![A-Za-z]){word}(?![A-Za-z])"
