"""Results of a comparison in a file that grows, and what they are results of."""

from __future__ import annotations

import os
import pickle
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from filelock import FileLock

from .._table.containers import contents, is_frame, series_of

KEY = ("imputer", "mechanism", "rate", "split")
FIGURES = ("rmse", "mae", "accuracy", "fit_time", "transform_time", "score")
# The fingerprint comes last: a line cut short by a crash does not have it whole.
STORED = (*KEY, *FIGURES, "error", "fingerprint")
TEXTS = ("imputer", "mechanism", "error", "fingerprint")


class ResultFile:
    """A CSV or parquet file with a row for every run that ever finished.

    Rows are only added: a run of another configuration, or one that failed, stays
    beside the one that replaces it. Several processes may add to one file: each
    holds a lock meanwhile, which the system takes back from a process that dies.

    Parameters
    ----------
    path : str or path-like
        Ends in ``.csv`` or ``.parquet``; need not exist, its folder must.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.is_csv = self.path.suffix == ".csv"
        if not self.is_csv and self.path.suffix != ".parquet":
            raise ValueError(f"path must end in .csv or .parquet, got {str(path)!r}.")
        if not self.path.absolute().parent.is_dir():
            raise ValueError(f"path must lie in a folder that exists, got {path!r}.")
        self.rows = self._read()
        lacking = [name for name in STORED if name not in self.rows.columns]
        if lacking:
            raise ValueError(
                f"{str(path)!r} holds no results of compare_imputers: it lacks the "
                f"columns {lacking}."
            )

    def _read(self):
        if not self.path.exists() or not self.path.stat().st_size:
            return pd.DataFrame(columns=list(STORED))
        if not self.is_csv:
            return pd.read_parquet(self.path)
        # Cells are read as text: an imputer may be named "NA", and figures come back to
        # the last bit.
        rows = pd.read_csv(self.path, dtype=object, keep_default_na=False)
        for name in {"rate", "split", *FIGURES} & set(rows.columns):
            rows[name] = [_number(text) for text in rows[name]]
        if "error" in rows:
            rows["error"] = rows["error"].replace("", None)
        return rows

    def find(self, keys, fingerprints):
        """Find the last results without an error of these runs.

        Parameters
        ----------
        keys : list of tuples, the values of `KEY`
        fingerprints : list of str

        Returns
        -------
        found : dict of position to dict of figures
        n_others : int
            How many runs without results have some of another configuration.
        """
        good = self.rows[self.rows["error"].isna()]
        stored = [tuple(row) for row in good[list(KEY)].itertuples(index=False)]
        positions = {
            (key, fingerprint): position
            for position, (key, fingerprint) in enumerate(
                zip(stored, good["fingerprint"], strict=True)
            )
        }
        found, known = {}, set(stored)
        for k, pair in enumerate(zip(keys, fingerprints, strict=True)):
            if pair in positions:
                row = good.iloc[positions[pair]]
                found[k] = {name: float(row[name]) for name in FIGURES}
                found[k]["error"] = None
        n_others = sum(key in known for k, key in enumerate(keys) if k not in found)
        return found, n_others

    def append(self, row):
        """Add a row, a dict with `STORED` as keys, before anything else can fail."""
        row = pd.DataFrame([row]).reindex(columns=self.rows.columns)
        with _locked(self.path):
            if self.is_csv:
                self._append_line(row)
            else:
                self._append_to_parquet(row)

    def _append_to_parquet(self, row):
        # Parquet cannot grow: the file is read again, since another process may have
        # added to it, and replaced at once, so that no process reads half a file.
        rows = self._read()
        parts = [rows, row] if len(rows) else [row]
        rows = pd.concat(
            [part.astype(dict.fromkeys(TEXTS, object)) for part in parts],
            ignore_index=True,
        )
        partial = self.path.with_name(self.path.name + ".partial")
        rows.to_parquet(partial, index=False)
        os.replace(partial, self.path)

    def _append_line(self, row):
        size = self.path.stat().st_size if self.path.exists() else 0
        text = row.to_csv(index=False, header=not size, lineterminator="\n")
        with self.path.open("ab+") as file:
            if size:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a line that a crash cut short
                    text = "\n" + text
            file.write(text.encode())


@contextmanager
def _locked(path):
    """Hold the lock of a path: on an empty file beside it, which goes with it."""
    lock = path.with_name(path.name + ".lock")
    with FileLock(lock):
        try:
            yield
        finally:
            with suppress(OSError):  # where an open file cannot be removed, it stays
                lock.unlink()


def _number(text):
    """Make a float of text, nan of what a crash cut short."""
    try:
        return float(text or "nan")
    except ValueError:
        return np.nan


def fingerprint(*parts):
    """Hash that is the same in every session; a new one if parts cannot be hashed."""
    try:
        return joblib.hash(parts)
    except (pickle.PicklingError, AttributeError, TypeError):  # a lambda, say
        return uuid.uuid4().hex


def describe(X):
    """Contents of a table or of labels, for a fingerprint: equal if these are."""
    if X is None:
        return None
    if not is_frame(X):
        X = np.asarray(X)
        return X.shape, str(X.dtype), _hashes(X.ravel())
    native = [str(dtype) for dtype in X.dtypes]
    return list(X.columns), native, [_hashes(*contents(s)) for s in series_of(X)]


def _hashes(values, null=None):
    """Hash numbers of cells; missing ones have the same whatever stands there."""
    null = pd.isna(values) if null is None else null
    if values.dtype.kind in "OUS":
        values = values.astype(object)
        values[null] = ""
    hashes = pd.util.hash_array(values, categorize=False)
    hashes[null] = 0
    return hashes
