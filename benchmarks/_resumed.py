"""A CSV of measurements that grows line by line: what is there is not made again."""

from __future__ import annotations

import pandas as pd

from benchmarks._mice import has_mice
from benchmarks._peers import is_available


def measured(path, keys):
    """Keys of the lines that are there: a set of tuples."""
    if not path.exists():
        return set()
    return set(map(tuple, pd.read_csv(path)[keys].to_numpy().tolist()))


def append(path, record, columns):
    """Add a line."""
    frame = pd.DataFrame([record]).reindex(columns=columns)
    frame.to_csv(path, mode="a", header=not path.exists(), index=False)


def available(names):
    """Names of the imputers that are installed, of those that are asked for."""
    names = [name for name in names if is_available(name)]
    if has_mice() or not any(name.startswith("mice_") for name in names):
        return names
    print("R's mice is not installed: it is left out.")
    return [name for name in names if not name.startswith("mice_")]
