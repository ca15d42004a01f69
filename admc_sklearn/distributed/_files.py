"""Directories of Parquet files: a file in, a file out.

A task is a file. It is written beside its place and moved there when it is whole, so
that whatever is killed can be started again, and keeps the files that are done.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .._shared.noise import seeds_of
from ._arrow import Layout
from ._complete import Completer, Worker, options_of
from ._fit import Source

# Rows of a batch of the pass of fit.
BATCH_ROWS = 65_536


def parquet_files(folder):
    """Sorted paths of a folder's Parquet files, relative to it, as str.

    Raises
    ------
    ValueError
        If there are none.
    """
    folder = Path(folder)
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.parquet"))
    found = [name for name in found if not Path(name).name.startswith((".", "_"))]
    if not found:
        raise ValueError(f"There are no Parquet files in {folder}.")
    return found


def _named(path, error):
    return ValueError(f"{path}: {error}")


def read_file(path, batch_size):
    """Yield a file's tables of so many rows; ValueError names a file with a fault."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size):
                yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException) as error:
        raise _named(path, error) from error


class FileReader:
    """Reads the files that a batch names; a task of Ray Data.

    Parameters
    ----------
    folder : str
    batch_size : int
    skip : bool
        Whether files with a fault are left out.
    """

    def __init__(self, folder, batch_size, skip):
        self.folder, self.batch_size, self.skip = folder, batch_size, skip

    def __call__(self, batch):
        """Yield the tables of all files."""
        for name in batch.column("file").to_pylist():
            try:
                yield from read_file(os.path.join(self.folder, name), self.batch_size)
            except ValueError:
                if not self.skip:
                    raise


class FileWorker(Worker):
    """Completes files; an actor of Ray Data that holds the imputer.

    Parameters
    ----------
    completer : Completer
    source, target : str
        Folders.
    batch_size : int
    skip : bool
    """

    def __init__(self, completer, source, target, batch_size, skip):
        super().__init__(completer)
        self.source, self.target = source, target
        self.batch_size, self.skip = batch_size, skip

    def __call__(self, batch):
        """Complete the files that a batch names, and report on each."""
        return pa.Table.from_pylist(
            [self.complete(name) for name in batch.column("file").to_pylist()],
            schema=REPORT,
        )

    def complete(self, name):
        """Complete one file: a dict of the fields of `REPORT`."""
        started, n_rows, fault = time.monotonic(), 0, None
        path = Path(self.target) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        try:
            n_rows = self._write(name, part)
            os.replace(part, path)
        except ValueError as error:
            part.unlink(missing_ok=True)
            if not self.skip:
                raise
            fault = str(error)
        return {
            "file": name,
            "n_rows": n_rows,
            "seconds": time.monotonic() - started,
            "peak_mb": peak_mb(),
            "fault": fault,
        }

    def _write(self, name, path):
        n_rows, source = 0, os.path.join(self.source, name)
        (place,) = pd.util.hash_array(np.array([name], dtype=object))
        with pq.ParquetWriter(path, self.completer.schema) as writer:
            for table in read_file(source, self.batch_size):
                # A row's name is where it stands.
                rows = np.arange(n_rows, n_rows + len(table), dtype=np.uint64)
                try:
                    completed = self.completer(table, seeds_of(int(place) >> 1, rows))
                except ValueError as error:
                    raise _named(source, error) from error
                writer.write_table(completed)
                n_rows += len(table)
        return n_rows


REPORT = pa.schema(
    [
        ("file", pa.string()),
        ("n_rows", pa.int64()),
        ("seconds", pa.float64()),
        ("peak_mb", pa.float64()),
        ("fault", pa.string()),
    ]
)


def peak_mb():
    """Peak resident memory of this process, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def _dataset(names):
    """Make a dataset of files' names, a block each."""
    import ray

    rows = pa.table({"file": names})
    return ray.data.from_arrow([rows.slice(k, 1) for k in range(len(names))])


def schema_of_files(folder, names, skip):
    """Read the schema of the first file and count all rows, from metadata alone.

    Raises
    ------
    ValueError
        If a file cannot be opened, unless it may be skipped, or has other columns than
        the first.
    """
    schema, n_rows = None, 0
    for name in names:
        path = os.path.join(folder, name)
        try:
            with pq.ParquetFile(path) as file:
                own, n_own = file.schema_arrow, file.metadata.num_rows
        except (OSError, pa.ArrowException) as error:
            if skip:
                continue
            raise _named(path, error) from error
        schema = own if schema is None else schema
        if set(own.names) != set(schema.names):
            (other, *_) = set(own.names) ^ set(schema.names)
            raise ValueError(
                f"{path} has other columns than the first file: {other!r} is in one "
                "of them only."
            )
        n_rows += n_own
    if schema is None:
        raise ValueError(f"No Parquet file in {folder} can be read.")
    return schema, n_rows


def source_of(folder, key, skip):
    """Make the `Source` of a folder of Parquet files."""
    names = parquet_files(folder)
    schema, n_rows = schema_of_files(folder, names, skip)
    reader = FileReader(os.path.abspath(folder), BATCH_ROWS, skip)
    dataset = _dataset(names).map_batches(
        reader.__call__, batch_size=1, batch_format="pyarrow"
    )
    return Source(dataset, schema, key, n_rows)


def complete_files(imputer, source, target, settings):
    """Complete a folder; see `distributed.complete_parquet`.

    ``settings`` is a dict of its other arguments.
    """
    skip = settings["on_error"] == "skip"
    names = parquet_files(source)
    schema, _ = schema_of_files(source, names, skip)
    layout = Layout.of(imputer, schema, settings["key"])
    seed = imputer._seed_of(settings["random_state"])
    completer = Completer(imputer, layout, settings["n_draws"], seed)
    have = [name for name in names if (Path(target) / name).exists()]
    left = [name for name in names if name not in set(have)]
    reports = [pd.DataFrame({"file": have, "n_rows": 0})]
    if left:
        options = options_of(imputer, settings["n_workers"], settings["options"])
        worker = {
            "completer": completer,
            "source": os.path.abspath(source),
            "target": os.path.abspath(target),
            "batch_size": settings["batch_size"],
            "skip": skip,
        }
        done = _dataset(left).map_batches(
            FileWorker,
            fn_constructor_kwargs=worker,
            batch_size=1,
            batch_format="pyarrow",
            **options,
        )
        parts = done.iter_batches(batch_size=None, batch_format="pyarrow")
        reports += [part.to_pandas() for part in parts]
    columns = REPORT.names
    found = pd.concat(reports, ignore_index=True).reindex(columns=columns)
    return found.sort_values("file", ignore_index=True)
