"""Batches completed by actors that hold the imputer."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import torch

from .._shared.noise import seeds_of
from .._storing import settle
from ._arrow import cast, frame_of, hashes_of, names_allowed, table_of

# Number of a row's draw, as in `pooling.to_long`.
DRAW = ".imp"


class Completer:
    """Completes or draws batches; an actor holds one.

    Parameters
    ----------
    imputer : ADMCImputer
        Fitted.
    layout : Layout
    n_draws : int or None
        None for the statistic of the imputer's strategy.
    seed : int
        Of the draws.
    """

    def __init__(self, imputer, layout, n_draws, seed):
        self.imputer, self.layout = imputer, layout
        self.n_draws, self.seed = n_draws, seed

    @property
    def schema(self):
        """Schema of the batches that come out, a `pyarrow.Schema`."""
        fields = [*self.layout.key, *self.layout.completed]
        if self.n_draws is not None:
            fields.insert(0, pa.field(DRAW, pa.int32()))
        return pa.schema(fields, self.layout.completed.metadata)

    def __call__(self, table, names=None):
        """Complete a `pyarrow.Table`, which may be empty.

        ``names``, uint64 (n,), tell its rows apart where there is no key.
        """
        if not len(table):
            return self.schema.empty_table()
        key = cast(table, self.layout.key)
        frame = frame_of(cast(table, self.layout.given))
        seeds = self.seed
        if len(self.layout.key):
            names = hashes_of(key)
        if names is not None:
            seeds = seeds_of(self.seed, names)
        with names_allowed():
            if self.n_draws is None:
                return self._written(self.imputer._transform(frame, seed=seeds), key)
            drawn = self.imputer._sample(frame, self.n_draws, seeds)
        return pa.concat_tables(
            self._written(draw, key, k + 1) for k, draw in enumerate(drawn)
        )

    def _written(self, frame, key, number=None):
        completed = cast(table_of(frame), self.layout.completed)
        columns = [*key.columns, *completed.columns]
        if number is not None:
            columns.insert(0, pa.array(np.full(len(frame), number, dtype=np.int32)))
        return pa.table(columns, schema=self.schema)


class Worker:
    """Actor of Ray Data: a `Completer`, on the GPU that Ray gives it if any."""

    def __init__(self, completer):
        self.completer = completer
        # Ray hides the GPUs that an actor does not get.
        if torch.cuda.is_available():
            settle(completer.imputer, "cuda")

    def __call__(self, table):
        """Complete a `pyarrow.Table`."""
        return self.completer(table)


def map_completed(dataset, completer, batch_size, n_workers, options):
    """Dataset that `Worker` completes, batch by batch.

    Parameters
    ----------
    dataset : ray.data.Dataset
    completer : Completer
    batch_size : int
    n_workers : int or None
        The most actors; None for as many as there are CPUs or GPUs.
    options : dict
        Of `ray.data.Dataset.map_batches`.
    """
    return dataset.map_batches(
        Worker,
        fn_constructor_kwargs={"completer": completer},
        batch_size=batch_size,
        batch_format="pyarrow",
        zero_copy_batch=True,
        **options_of(completer.imputer, n_workers, options),
    )


def options_of(imputer, n_workers, options):
    """Options of `map_batches`, with the pool of actors: a dict."""
    import ray

    on_gpu = imputer.device_.type == "cuda"
    options = {"num_gpus": 1} | options if on_gpu else options
    on_gpu = bool(options.get("num_gpus"))
    if n_workers is None:
        total = ray.cluster_resources().get("GPU" if on_gpu else "CPU", 1)
        share = options.get("num_gpus" if on_gpu else "num_cpus") or 1
        n_workers = max(1, math.floor(total / share))
    # One actor at first: were all CPUs taken by actors, nothing would be read.
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=n_workers)
    return {**options, "compute": pool}
