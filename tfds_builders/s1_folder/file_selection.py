"""Metadata that the user gives, and the files of a folder that belong to scenes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sar_mixmae_jax.data.metadata import BANDS, POLARISATIONS
from tfds_builders.bad_files import BadFile
from tfds_builders.s1_folder.layer_names import BandPattern, without_layer_words
from tfds_builders.s1_folder.raster_files import RasterFile

MAX_NAMED = 20
"""Number of files left out for one reason that are named; all of them are in a table."""


@dataclasses.dataclass(frozen=True)
class UserMetadata:
    """Metadata that the user gives where the files do not state them.

    Attributes:
      bands: names of the bands of a file, in their order; the polarisations among them are the
        bands of the dataset; empty: not given.
      unit: "dB", "linear", or empty.
      quantity: "sigma0", "gamma0", or empty.
      band_pattern: pattern of the names of single-band files; None: polarisations are searched.
      use_gcps: warp images that have ground control points in place of a position by them.
    """

    bands: tuple[str, ...] = ()
    unit: str = ""
    quantity: str = ""
    band_pattern: BandPattern | None = None
    use_gcps: bool = False

    @property
    def dataset_bands(self) -> tuple[str, ...]:
        """Bands of the dataset, in the order of `POLARISATIONS`; without `bands`, `BANDS`."""
        return tuple(name for name in POLARISATIONS if name in self.bands) or BANDS


class SelectedFiles(NamedTuple):
    """Files of a folder.

    Attributes:
      used: metadata of the files that belong to scenes.
      unused: files that are left out, and the reason.
    """

    used: list[RasterFile]
    unused: list[BadFile]


def select_files(files: Sequence[RasterFile], user: UserMetadata) -> SelectedFiles:
    """Select the files that belong to scenes.

    If `--bands` names one band and no single-band file states a polarisation, all of them are of
    that band.

    Args:
      files: metadata of the files.
      user: metadata given by the user.
    """
    stated = any(len(file.bands) == 1 and file.bands[0] for file in files)
    if len(user.bands) == 1 and not stated and user.band_pattern is None:
        files = [
            dataclasses.replace(file, bands=user.bands)
            if len(file.bands) == 1 and not file.unusable
            else file
            for file in files
        ]
    images = {(file.image, file.bands): file for file in files if any(file.bands)}
    used, unused = [], []
    for file in files:
        if reason := _reason_to_leave_out(file, images, user):
            unused.append(BadFile(str(file.path), reason))
        else:
            used.append(file)
    return SelectedFiles(used, unused)


def _reason_to_leave_out(
    file: RasterFile,
    images: Mapping[tuple[str, tuple[str | None, ...]], RasterFile],
    user: UserMetadata,
) -> str:
    """Return the reason why a file belongs to no scene, details in brackets; "" if it may."""
    if file.unusable and (file.is_byte_image or not any(file.bands)):
        kind = "a picture, mask or map" if file.is_byte_image else "integers without scale tags"
        return f"{kind} ({file.unusable})"
    if len(file.bands) > 1:
        return ""
    band = file.bands[0]
    if band is None and user.band_pattern is not None:
        return f"a name that does not match --band_pattern={user.band_pattern.text}"
    if band is None:
        return "no polarisation in name and description, or several"
    if user.bands and band not in user.dataset_bands:
        return f"a band that --bands does not name ({band})"
    for image in without_layer_words(file.image) if user.band_pattern is None else ():
        if sibling := images.get((image, file.bands)):
            return f"a layer beside the image of the same name (of {sibling.path.name})"
    return ""


def describe_unused(unused: Sequence[BadFile]) -> list[str]:
    """Return a sentence for every reason, details left out, with the first files."""
    by_reason: dict[str, list[str]] = {}
    for file, reason in unused:
        by_reason.setdefault(reason.partition(" (")[0], []).append(file)
    return [
        f"{len(files)} files left out, {reason}: {', '.join(files[:MAX_NAMED])}"
        + (" …" if len(files) > MAX_NAMED else "")
        for reason, files in by_reason.items()
    ]
