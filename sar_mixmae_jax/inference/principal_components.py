"""Principal components of the tokens of a scene, which may be larger than the memory."""

from collections.abc import Iterator

import numpy as np

from sar_mixmae_jax.utils.errors import InputError


def principal_components(tokens: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first principal components of the tokens of a scene.

    The largest weight of a component is positive.

    Args:
      tokens: (row, column, width) float32, NaN = nodata; may be memory-mapped.
      count: number of the components, at most `width`.

    Returns:
      (row, column, count) float32, and (count,) shares of the variance; NaN and 0 without tokens.

    Raises:
      InputError: there are fewer features or fewer tokens.
    """
    width = tokens.shape[-1]
    number, total, products = 0, np.zeros(width), np.zeros((width, width))
    for part in _measured_rows(tokens):
        number += len(part)
        total += part.sum(0)
        products += part.T @ part
    if not number:
        return np.full((*tokens.shape[:2], count), np.nan, np.float32), np.zeros(count)
    if not 1 <= count <= min(width, number - 1):
        raise InputError(
            f"found {count} components, expected from 1 to {max(1, min(width, number - 1))}: there "
            f"are {number} tokens of {width} features"
        )
    mean = total / number
    variances, vectors = np.linalg.eigh(products / number - np.outer(mean, mean))
    chosen = vectors[:, ::-1][:, :count]
    chosen *= np.sign(chosen[np.abs(chosen).argmax(0), np.arange(count)])
    values = np.empty((*tokens.shape[:2], count), np.float32)
    for row, part in zip(values, tokens, strict=True):
        row[:] = (part - mean) @ chosen
    return values, variances[::-1][:count] / variances.sum()


def _measured_rows(tokens: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the measured tokens of every row, (tokens, width) float64."""
    for row in tokens:
        yield row[np.isfinite(row[:, 0])].astype(np.float64)
