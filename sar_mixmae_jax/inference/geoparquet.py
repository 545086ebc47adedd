"""GeoParquet files: one row a window, with its footprint, CRS, time and features.

Version 1.1.0 of the format: geometries as WKB, the CRS as PROJJSON in the metadata of the file.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from sar_mixmae_jax.utils.files import atomic_path, report_write_errors

VERSION = "1.1.0"
GEOMETRY = "geometry"
WKB_POLYGON = np.dtype(
    [
        ("little_endian", "u1"),
        ("type", "<u4"),
        ("rings", "<u4"),
        ("points", "<u4"),
        ("xy", "<f8", (5, 2)),
    ]
)
"""A polygon of four corners: the first one is repeated."""
LONGITUDE_LATITUDE = "OGC:CRS84"


def footprints(transforms: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Return the corners of images, (images, 4, 2) x and y, counter-clockwise.

    Args:
      transforms: (images, 6) a to f of x = a·column + b·row + c, y = d·column + e·row + f.
      heights: (images,) rows.
      widths: (images,) columns.
    """
    zeros = np.zeros(len(transforms))
    columns = np.stack([zeros, zeros, widths, widths], axis=1)
    rows = np.stack([zeros, heights, heights, zeros], axis=1)
    a, b, c, d, e, f = (transforms[:, number, None] for number in range(6))
    corners = np.stack([a * columns + b * rows + c, d * columns + e * rows + f], axis=-1)
    mirrored = (a * e - b * d)[:, 0] > 0  # rows upwards, or columns to the left
    corners[mirrored] = corners[mirrored, ::-1]
    return corners


def common_crs(corners: np.ndarray, systems: Sequence[str]) -> tuple[np.ndarray, str]:
    """Return the corners of images in one CRS, and that CRS.

    Args:
      corners: (images, 4, 2) in the CRS of each image.
      systems: authority code or WKT of each image; "" where unknown.

    Returns:
      The corners as they are where all images have one CRS, else longitudes and latitudes, NaN of
      images without CRS; "" if no CRS is known.
    """
    names = set(systems)
    if len(names) == 1:
        return corners, names.pop()
    together, all_systems = np.full_like(corners, np.nan), np.array(systems)
    for name in names - {""}:
        rows = all_systems == name
        x, y = corners[rows].reshape(-1, 2).T
        points = transform_points(CRS.from_string(name), CRS.from_string(LONGITUDE_LATITUDE), x, y)
        together[rows] = np.stack(points[:2], axis=-1).reshape(-1, 4, 2)
    return together, LONGITUDE_LATITUDE


def write_geoparquet(
    path: Path,
    corners: np.ndarray,
    crs: str,
    columns: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
) -> None:
    """Write rows with a polygon each.

    Args:
      path: path of the file.
      corners: (rows, 4, 2) x and y of the corners; not finite: no geometry.
      crs: authority code or WKT; "" where unknown.
      columns: (rows,) or (rows, values) by name.
      metadata: facts about the file, by name.

    Raises:
      InputError: it cannot be written.
    """
    known = np.isfinite(corners).all((1, 2))
    polygons = np.zeros(len(corners), WKB_POLYGON)
    polygons["little_endian"], polygons["type"] = 1, 3
    polygons["rings"], polygons["points"] = 1, 5
    polygons["xy"] = np.concatenate([corners, corners[:, :1]], axis=1)
    shapes = [row.tobytes() if valid else None for row, valid in zip(polygons, known, strict=True)]
    geometry: dict[str, object] = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "orientation": "counterclockwise",
        "crs": CRS.from_string(crs).to_dict(projjson=True) if crs else None,
    }
    if known.any():
        box = corners[known].reshape(-1, 2)
        geometry["bbox"] = [*box.min(0).tolist(), *box.max(0).tolist()]
    geo = {"version": VERSION, "primary_column": GEOMETRY, "columns": {GEOMETRY: geometry}}
    table = pa.table(
        {
            **{name: _to_arrow(values) for name, values in columns.items()},
            GEOMETRY: pa.array(shapes, pa.binary()),
        }
    ).replace_schema_metadata({**metadata, "geo": json.dumps(geo)})
    with report_write_errors(path), atomic_path(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def _to_arrow(values: np.ndarray) -> pa.Array:
    """Return (rows,) or (rows, values) as a column; the latter as lists of a fixed length."""
    text = values.dtype.kind == "U"
    if values.ndim == 1:
        return pa.array(values.tolist(), pa.string()) if text else pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
