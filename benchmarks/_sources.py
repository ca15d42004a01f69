"""The ten tables of the report, from a folder or downloaded by scikit-learn."""

from __future__ import annotations

import pandas as pd
from sklearn import datasets

from benchmarks._protocol import BUNDLED, load_frame

TABLES = (
    "california letter magic bean adult default shoppers gesture wine_red concrete"
).split()
# Where OpenML has them, and how many columns they have there besides the target.
OPENML = {
    "letter": ({"data_id": 6}, 16),
    "magic": ({"data_id": 1120}, 10),
    "bean": ({"name": "DryBeanDataset", "version": 1}, 16),
    "adult": ({"data_id": 1590}, 14),
    "default": ({"data_id": 42477}, 23),
    "shoppers": ({"name": "online_shoppers_intention", "version": 1}, 17),
    "gesture": ({"data_id": 4538}, 32),
    "wine_red": ({"data_id": 40691}, 11),
    "concrete": ({"data_id": 44959}, 8),
}


def load_table(name, data=None):
    """All columns of a table but its target.

    Parameters
    ----------
    name : str
    data : str or Path or None
        Folder that holds ``tabular/<name>.parquet``. None downloads. Tables that
        scikit-learn bundles need neither.

    Returns
    -------
    DataFrame
        Numbers as float64, everything else as categories.

    Raises
    ------
    FileNotFoundError
        If the folder has no such table.
    ValueError
        If there is none of that name to download, or its columns are others.

    Notes
    -----
    What is downloaded is not always the same: scikit-learn's california has averages
    per household and no ocean_proximity, OpenML's adult has more rows, and its default
    has numbers only.
    """
    if data is None and name not in BUNDLED:
        return _typed(_fetched(name))
    frame = load_frame(name, data)
    if frame is None:
        raise FileNotFoundError(f"tabular/{name}.parquet is not in the data folder")
    return _typed(frame)


def _fetched(name):
    if name == "california":
        return datasets.fetch_california_housing(as_frame=True).data
    if name not in OPENML:
        raise ValueError(f"{name!r} is none of {TABLES}")
    where, n_columns = OPENML[name]
    frame = datasets.fetch_openml(**where, as_frame=True).data
    if frame.shape[1] != n_columns:
        raise ValueError(
            f"OpenML's {name} has {frame.shape[1]} columns besides the target, not "
            f"{n_columns}: it is another table."
        )
    return frame


def _typed(frame):
    numeric = frame.select_dtypes("number").columns
    kinds = {c: "float64" if c in numeric else "category" for c in frame}
    frame = frame.astype(kinds)
    # Positions as labels: rows are sampled and split by them.
    return frame.set_axis(pd.RangeIndex(len(frame)))
