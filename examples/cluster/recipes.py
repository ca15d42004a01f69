"""A saved imputer in Spark, in Dask and under joblib's Ray backend.

The imputer is loaded once in every process, whichever engine started it. What is drawn
for a row follows from its observed cells; equal rows of different batches have the same
draws (`admc_sklearn.distributed` tells them apart by a key).
"""

from __future__ import annotations

import functools

import joblib

from admc_sklearn import ADMCImputer
from admc_sklearn.evaluation import compare_imputers


@functools.cache
def imputer_at(path):
    """Load an imputer, once in a process."""
    return ADMCImputer.load(path).set_output(transform="pandas")


def complete_frame(frame, path):
    """Complete one pandas frame; an empty one comes back as it is."""
    return imputer_at(path).transform(frame) if len(frame) else frame


def complete_frames(frames, path):
    """Complete a stream of pandas frames."""
    for frame in frames:
        yield complete_frame(frame, path)


def complete_in_spark(table, path):
    """Complete a DataFrame of Spark; ``path`` is there on all executors."""
    complete = functools.partial(complete_frames, path=path)
    return table.mapInPandas(complete, schema=table.schema)


def complete_in_dask(table, path):
    """Complete a DataFrame of Dask."""
    return table.map_partitions(complete_frame, path, meta=table._meta)


def compare_on_ray(imputers, X, **options):
    """Run `compare_imputers` with its fits on a cluster of Ray."""
    from ray.util.joblib import register_ray

    register_ray()
    with joblib.parallel_backend("ray"):
        return compare_imputers(imputers, X, n_jobs=-1, **options)
