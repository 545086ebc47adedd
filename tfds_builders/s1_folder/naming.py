"""What file names, band descriptions and tags say: polarisation, unit, sigma0 or gamma0."""

import re
from collections.abc import Iterable
from typing import NamedTuple

POLARISATIONS = ("VV", "VH", "HH", "HV")


def polarisation(text: str) -> str | None:
    """The one polarisation that a text names, in either case; None if none or several.

    Letters around it make another word: "Sigma0_VV_db" names VV, "valley_VVX" does not.
    """
    found = {p for p in POLARISATIONS if _has_word(text, p)}
    return found.pop() if len(found) == 1 else None


UNIT_WORDS = {
    "dB": ("dB", "decibels?"),
    "linear": ("linear", "linear[-_ ]power"),
    "amplitude": ("amplitude",),
}


def unit(texts: Iterable[str]) -> str | None:
    """The unit, "dB", "linear" or "amplitude", if the texts say so, and agree."""
    says = {
        name
        for text in texts
        for name, words in UNIT_WORDS.items()
        if any(_has_word(text, word) for word in words)
    }
    return says.pop() if len(says) == 1 else None


def quantity(texts: Iterable[str]) -> str | None:
    """The quantity, sigma0, gamma0 or beta0, if the texts say so, and agree."""
    says = set()
    for text in texts:
        for name in ("sigma", "gamma", "beta"):
            if re.search(rf"{name}[-_ ]?(0|nought|naught|zero)", text, re.IGNORECASE):
                says.add(f"{name}0")
    return says.pop() if len(says) == 1 else None


def without_polarisation(name: str, band: str) -> str:
    """A path without the polarisation in it: the same for all bands of an image."""
    return re.sub(rf"[-_. ]?{_word(band)}", "", name, flags=re.IGNORECASE)


BESIDE = ("incidence", "inc", "angle", "noise", "nesz", "np", "mask", "coherence", "coh", "ratio")


def is_no_backscatter(name: str) -> bool:
    """Whether a file name says that the file is of something delivered beside backscatter."""
    return any(_has_word(name, word) for word in BESIDE)


class Product(NamedTuple):
    """What a product's name says by letters.

    Attributes:
      quantity: "sigma0" or "gamma0".
      unit: "dB", "linear", or "amplitude".
    """

    quantity: str
    unit: str


HYP3 = re.compile(r"_RTC\d+_[A-Z]_([gs])([pda])[a-z]{4}_", re.IGNORECASE)


def hyp3(name: str) -> Product | None:
    """The letters in a name that ASF's HyP3 gave, such as `RTC30_G_gpuned`: gamma0, power."""
    found = HYP3.search(name)
    if not found:
        return None
    letters = found[1].lower(), found[2].lower()
    quantity = {"g": "gamma0", "s": "sigma0"}[letters[0]]
    return Product(quantity, {"p": "linear", "d": "dB", "a": "amplitude"}[letters[1]])


def _has_word(text: str, word: str) -> bool:
    return re.search(_word(word), text, re.IGNORECASE) is not None


def _word(word: str) -> str:
    return rf"(?<![A-Za-z]){word}(?![A-Za-z])"
