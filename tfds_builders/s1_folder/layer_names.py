"""Polarisation, unit and quantity in names, descriptions and tags; patterns given by the user."""

import re
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from sar_mixmae_jax.data.metadata import POLARISATIONS
from sar_mixmae_jax.utils.errors import InputError

ANY = "|".join(POLARISATIONS)
MEASURES = "int|intensity|amp|amplitude|power|pow|db|lin|linear|band|pol"
QUANTITIES = "sigma|sig|gamma|gam|beta|nrcs|backscatter"
IN_WORDS = (
    re.compile(
        rf"(?<![A-Za-z])(?:{QUANTITIES}|{MEASURES})?({ANY})(?:{MEASURES})?(?![A-Za-z])",
        re.IGNORECASE,
    ),
    re.compile(rf"(?<![A-Za-z])(?:[A-Z]|[A-Za-z]*[a-z])({ANY})(?![A-Za-z])"),
)
"""Polarisations in words: "gammavh_db", "VVdB"; and, in this case only, "IVV", "flattenedVV"."""


def find_polarisation(text: str) -> str | None:
    """Return the only polarisation in a text; None if there is none, or several.

    A word of its own counts, in either case ("Sigma0_VV_db"), and without one, a part of a word
    that `IN_WORDS` matches. "valley_VVX" and "Bhv" have none.
    """
    names = {name for name in POLARISATIONS if _has_word(text, name)}
    if not names:
        names = {match[1].upper() for form in IN_WORDS for match in form.finditer(text)}
    return names.pop() if len(names) == 1 else None


def remove_polarisation(name: str, band: str) -> str:
    """Return a name without its polarisation: it is the same for all bands of an image."""
    word = re.compile(rf"[-_. ]?{_word(band)}", re.IGNORECASE)
    if word.search(name):
        return word.sub("", name)
    for form in IN_WORDS:
        if match := next((m for m in form.finditer(name) if m[1].upper() == band), None):
            return name[: match.start(1)] + name[match.end(1) :]
    return name


class BandPattern(NamedTuple):
    """Pattern of the names of single-band files, given by the user.

    Attributes:
      text: the pattern as given.
      forms: band, and regular expression of the path without suffix; the first that matches counts.
    """

    text: str
    forms: tuple[tuple[str, re.Pattern[str]], ...]

    def match(self, path: Path) -> tuple[str, str] | None:
        """Return the band of a file and the name of its image; None if no form matches.

        Args:
          path: path relative to the folder of the files.
        """
        name = str(path.with_suffix("")) if "/" in self.text else path.stem
        for band, form in self.forms:
            if match := form.fullmatch(name):
                image = "_".join(filter(None, (group.strip("-_. ") for group in match.groups())))
                return band, image if "/" in self.text else str(path.parent / image)
        return None


def parse_band_pattern(text: str) -> BandPattern:
    """Return the pattern of --band_pattern: "*_I{band}_*", or "VV=*_co.tif,VH=*_cross.tif".

    Raises:
      InputError: it has neither form.
    """
    if "{band}" in text:
        globs = [(band, text.replace("{band}", band)) for band in POLARISATIONS]
    else:
        parts = [part.strip().partition("=") for part in text.split(",")]
        globs = [(band.strip().upper(), glob.strip()) for band, _, glob in parts]
    if not all(band in POLARISATIONS and glob for band, glob in globs):
        raise InputError(
            f"--band_pattern={text}: expected {{band}} in place of the polarisation, such as "
            "*_I{band}_*, or a pattern for each, such as VV=*_co.tif,VH=*_cross.tif"
        )
    return BandPattern(text, tuple((band, _to_expression(glob)) for band, glob in globs))


def _to_expression(glob: str) -> re.Pattern[str]:
    """Return the expression of a pattern: * is any text of the image, ? any other character."""
    stem = re.escape(re.sub(r"\.tiff?$", "", glob, flags=re.IGNORECASE))
    return re.compile(stem.replace(r"\*", "(.*)").replace(r"\?", "."), re.IGNORECASE)


LAYER_WORDS = {
    *("local", "incidence", "inc", "angle", "lia", "noise", "nesz", "np", "mask", "layover"),
    *("shadow", "ls", "coherence", "coh", "ratio", "weight", "std", "var", "cov", "count"),
    *("looks", "enl"),
}
"""Words that name a layer beside backscatter where the same name without them exists too."""

MAX_REMOVED = 4
"""Largest number of layer words that are removed from a name."""


def without_layer_words(name: str) -> list[str]:
    """Return the paths that an image could have without one or more `LAYER_WORDS` of its name."""
    folder, slash, stem = name.rpartition("/")
    words = re.findall(r"[-_. ]*[^-_. ]+", stem)  # with the separators before them
    layers = [n for n, word in enumerate(words) if word.lstrip("-_. ").lower() in LAYER_WORDS]
    shorter = []
    for count in range(1, 1 + min(len(layers), MAX_REMOVED)):
        for removed in combinations(layers, count):
            rest = "".join(word for n, word in enumerate(words) if n not in removed)
            shorter.append(folder + slash + (rest if 0 not in removed else rest.lstrip("-_. ")))
    return shorter


UNIT_WORDS = {
    "dB": ("dB", "decibels?"),
    "linear": ("linear", "linear[-_ ]power"),
    "amplitude": ("amplitude",),
}


def find_unit(texts: Iterable[str]) -> str | None:
    """Return the only unit in some texts, "dB", "linear" or "amplitude", or None.

    It may stand behind a polarisation: "VVdB".
    """
    units = {
        name
        for text in texts
        for name, words in UNIT_WORDS.items()
        if any(_has_word(text, f"(?:{ANY})?{word}") for word in words)
    }
    return units.pop() if len(units) == 1 else None


def find_quantity(texts: Iterable[str]) -> str | None:
    """Return the only quantity in some texts, "sigma0", "gamma0" or "beta0", or None."""
    quantities = set()
    for text in texts:
        for name in ("sigma", "gamma", "beta"):
            if re.search(rf"{name}[-_ ]?(0|nought|naught|zero)", text, re.IGNORECASE):
                quantities.add(f"{name}0")
    return quantities.pop() if len(quantities) == 1 else None


class Product(NamedTuple):
    """Quantity and unit of a product, encoded in its name.

    Attributes:
      quantity: "sigma0" or "gamma0".
      unit: "dB", "linear", or "amplitude".
    """

    quantity: str
    unit: str


HYP3 = re.compile(r"_RTC\d+_[A-Z]_([gs])([pda])[a-z]{4}_", re.IGNORECASE)


def parse_hyp3_name(name: str) -> Product | None:
    """Return what the name of a product of ASF's HyP3 encodes, or None for other names.

    Example: `RTC30_G_gpuned` is gamma0 in linear power.
    """
    match = HYP3.search(name)
    if not match:
        return None
    quantity = {"g": "gamma0", "s": "sigma0"}[match[1].lower()]
    return Product(quantity, {"p": "linear", "d": "dB", "a": "amplitude"}[match[2].lower()])


def _has_word(text: str, word: str) -> bool:
    return re.search(_word(word), text, re.IGNORECASE) is not None


def _word(word: str) -> str:
    return rf"(?<![A-Za-z]){word}(?![A-Za-z])"
