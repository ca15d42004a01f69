"""Datasets of Ray: fit, transform and sample."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pandas as pd
from sklearn.utils.validation import check_is_fitted

from .._table.types import RandomState

if TYPE_CHECKING:
    from ray.data import Dataset
else:  # Ray need not be installed
    Dataset = Any

# An `ADMCImputer`: this folder takes imputers, and makes none.
Imputer: TypeAlias = Any


def fit(
    imputer: Imputer,
    dataset: Dataset,
    *,
    n_sample_rows: int = 100_000,
    key: str | Sequence[str] | None = None,
    train_workers: int = 0,
    anchor_passes: int = 0,
    storage_path: str | os.PathLike | None = None,
    batch_size: int = 65_536,
    **options: Any,
) -> Imputer:
    """Fit an imputer to a dataset.

    One pass over the dataset finds what the whole of it has to tell: types, levels,
    the smallest and the largest value of every column, which columns have missing cells
    or fractions; and it draws a sample of the rows, all rows being equally likely. To
    this sample, with a row added for every level and range that is not in it, the
    imputer is fitted as by `ADMCImputer.fit`: it is an ordinary imputer afterwards.

    Parameters
    ----------
    imputer : ADMCImputer
        It is fitted in place. With its ``device`` on a GPU the fit is on that of the
        calling process.
    dataset : ray.data.Dataset
        The columns to complete, and those of ``key``.
    n_sample_rows : int, default=100_000
        Rows of the sample. A dataset that has no more is fitted as a whole. The sample
        lies in the memory of the calling process: 100,000 rows of 20 numbers take about
        a GB while the network is trained.
    key : str, sequence of str or None, default=None
        Columns that name a row, which are no features. With a key that no two rows
        share, the sample is the same however the dataset is divided.
    train_workers : int, default=0
        Workers of Ray Train that train the network on all rows, each on the CPU and
        on a shard of its own. With 0 it is trained on the sample, in the calling
        process, or on its GPU.
    anchor_passes : int, default=0
        Iterations of the anchor's expectation-maximisation over all rows, after those
        over the sample. Each is a pass over the dataset.
    storage_path : str, path or None, default=None
        Directory for the checkpoints of training, which all machines have to see. None
        takes a temporary one, which is enough on a single machine.
    batch_size : int, default=65_536
        Rows that a task looks through at once.
    **options
        Further options of ``ray.data.Dataset.map_batches``: ``num_cpus``, ``memory``.

    Returns
    -------
    ADMCImputer
        The imputer.

    Raises
    ------
    ImportError
        If Ray is not installed.
    ValueError
        If the dataset is empty, or as `ADMCImputer.fit`.

    Notes
    -----
    *What is learnt from the sample alone*: coordinates and power transforms, values of
    columns with few of them, donors, landmarks, regressions of patterns, self-masking,
    modalities that are blocks and columns beside these; and without ``train_workers``
    and ``anchor_passes`` the network and the anchor. Most of these are limited in
    `ADMCImputer.fit`, too: the anchor to 20,000 rows, donors to 16,384.

    *Training by several workers.* The batches of all workers together are one batch of
    `ADMCImputer.fit`. An epoch is as many rows as the sample has, but as long as the
    dataset has more, they are other rows in every epoch. Rows are taken in the order of
    the dataset: shuffle its files if they are sorted. Held-out rows are part of the
    sample, and are left out of training. The first worker measures their error after
    every epoch, and all stop together. When a worker dies, training goes on from the
    last epoch that was finished. ``max_time`` does not limit it.

    *The size of the dataset* has to be known, for the share of the rows that tasks send
    back. For Parquet it is in the files' metadata; other datasets are counted, which is
    another pass over them.
    """
    check_ray()
    _check_counts(1, n_sample_rows=n_sample_rows)
    _check_counts(0, train_workers=train_workers, anchor_passes=anchor_passes)
    from ._fit import Effort, Source, fit_dataset

    schema = schema_of(dataset)
    source = Source(dataset, schema, names_of(key), dataset.count())
    effort = Effort(train_workers, anchor_passes, storage_path)
    return fit_dataset(imputer, source, int(n_sample_rows), batch_size, options, effort)


def transform(
    imputer: Imputer,
    dataset: Dataset,
    *,
    key: str | Sequence[str] | None = None,
    batch_size: int = 4096,
    n_workers: int | None = None,
    **options: Any,
) -> Dataset:
    """Complete a dataset by actors, each of which holds the imputer once.

    Nothing is computed until the result is read. Batches stream through: neither the
    dataset nor the result is ever in memory as a whole.

    Parameters
    ----------
    imputer : ADMCImputer
        Fitted. If it is on a GPU, every actor takes one.
    dataset : ray.data.Dataset
        Columns of `fit`, and those of ``key``.
    key : str, sequence of str or None, default=None
        Columns that name a row, such as a customer's number, or the ``row_hash`` of
        ``ray.data.read_parquet(include_row_hash=True)``. They are no features, come
        back in front, and seed the draws of ``strategy="sample"``: see Notes.
    batch_size : int, default=4096
        Rows that are completed at once. It changes neither values nor dtypes, but
        for the last bits of float32 products.
    n_workers : int or None, default=None
        Largest number of actors; None for as many as the cluster has CPUs, or GPUs.
        Ray starts with one, and adds others while CPUs are idle.
    **options
        Further options of ``ray.data.Dataset.map_batches``: ``num_cpus``,
        ``num_gpus``, ``memory``.

    Returns
    -------
    ray.data.Dataset
        The columns of ``key``, and what `ADMCImputer.transform` gives of the others, in
        the types of the dataset. A column that the dataset has no type for (Arrow's
        ``null``) has that of `fit`. Ray returns blocks in the order in which they are
        done, unless ``DataContext.execution_options.preserve_order`` is set.

    Raises
    ------
    ImportError
        If Ray is not installed.
    ValueError
        If the columns are not those of `fit`. The same from a batch, as the cause of
        Ray's error, if a column's values do not fit the dataset's schema.

    Notes
    -----
    *Draws.* What is drawn for a row follows from the imputer's seed, the observed cells
    of the row and its ``key``. With a key that no two rows share, draws are the same
    for every batch size, order, number of workers and after every repeated task. Rows
    without a key that are equal are told apart by how many of them came before in the
    same batch, where one call of `ADMCImputer.transform` counts them in the whole
    table: equal rows of different batches have the same draws. That is harmless where
    columns are continuous; in a dataset with many equal rows, give a key.

    *Faults.* Ray starts an actor that died anew and repeats its batches. Every row is
    there once, and equals what it would have been.
    """
    completer = _completer(imputer, dataset, key, None, None)
    return _mapped(dataset, completer, batch_size, n_workers, options)


def sample(
    imputer: Imputer,
    dataset: Dataset,
    n_draws: int = 5,
    random_state: RandomState = None,
    *,
    key: str | Sequence[str] | None = None,
    batch_size: int = 4096,
    n_workers: int | None = None,
    **options: Any,
) -> Dataset:
    """Draw the missing cells of a dataset, as `ADMCImputer.sample` does.

    Parameters
    ----------
    imputer : ADMCImputer
        Fitted.
    dataset : ray.data.Dataset
    n_draws : int, default=5
        Number of completed versions of every row.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws. None takes the seed drawn in `fit`.
    key, batch_size, n_workers, **options
        As in `transform`. Without a ``key`` rows that are equal, and lie in different
        batches, have the same draws.

    Returns
    -------
    ray.data.Dataset
        ``n_draws`` rows for every row: ``.imp``, the number of the draw from 1, as in
        :func:`~admc_sklearn.pooling.to_long`, then the columns of `transform`.

    Raises
    ------
    ImportError, ValueError
        As in `transform`; and if ``n_draws`` is not a positive int.
    """
    _check_counts(1, n_draws=n_draws)
    completer = _completer(imputer, dataset, key, n_draws, random_state)
    return _mapped(dataset, completer, batch_size, n_workers, options)


def complete_parquet(
    imputer: Imputer,
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    n_draws: int | None = None,
    random_state: RandomState = None,
    key: str | Sequence[str] | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    batch_size: int = 32_768,
    n_workers: int | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Complete a directory of Parquet files, a file out for a file in.

    The order of the rows is kept, and every row has draws of its own: they are seeded
    by the file's name and the place of the row in it, or by the ``key``. Files that are
    in the target already are left as they are, so that a run that was broken off is
    gone on with by the same call.

    Parameters
    ----------
    imputer : ADMCImputer
        Fitted.
    source, target : str or path
        Directories that all workers see. Files in subdirectories are completed too.
    n_draws : int or None, default=None
        Number of draws of every row, as in `sample`; None for one completed row, by
        the imputer's ``strategy``.
    random_state : int, RandomState instance or None, default=None
        As in `sample`.
    key : str, sequence of str or None, default=None
        As in `transform`.
    on_error : {"raise", "skip"}, default="raise"
        What happens at a file that cannot be read, or whose values do not fit: an error
        that names it, or the other files are completed and the report has the error.
    batch_size : int, default=32_768
        Rows that are completed at once, and rows of a group of the files.
    n_workers, **options
        As in `transform`.

    Returns
    -------
    DataFrame
        A line for each file: ``file``, ``n_rows``, ``seconds``, ``peak_mb`` of its
        worker's memory, ``fault``. ``seconds`` is missing for files that were there.

    Raises
    ------
    ImportError
        If Ray is not installed.
    ValueError
        As in `transform`; if there are no files; and for a faulty file, by the cause
        of Ray's error.
    """
    check_ray()
    check_is_fitted(imputer)
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}.")
    if n_draws is not None:
        _check_counts(1, n_draws=n_draws)
    from ._files import complete_files

    settings = {
        "n_draws": n_draws,
        "random_state": random_state,
        "key": names_of(key),
        "on_error": on_error,
        "batch_size": batch_size,
        "n_workers": n_workers,
        "options": options,
    }
    return complete_files(imputer, source, target, settings)


def _check_counts(least, **counts):
    """Raise ValueError for an argument that is no int, or less than the least."""
    for name, count in counts.items():
        if not isinstance(count, Integral) or count < least:
            raise ValueError(
                f"{name} must be an int of at least {least}, got {count!r}."
            )


def _completer(imputer, dataset, key, n_draws, random_state):
    """Make the `Completer` of a dataset."""
    check_is_fitted(imputer)
    check_ray()
    from ._arrow import Layout
    from ._complete import Completer

    layout = Layout.of(imputer, schema_of(dataset), names_of(key))
    return Completer(imputer, layout, n_draws, imputer._seed_of(random_state))


def _mapped(dataset, completer, batch_size, n_workers, options):
    from ._complete import map_completed

    return map_completed(dataset, completer, batch_size, n_workers, options)


def check_ray():
    """Raise ImportError, with the way to install it, where Ray is absent."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'admc_sklearn.distributed needs Ray: pip install "admc_sklearn[ray]".'
        ) from error


def names_of(key):
    """List of the columns of a key."""
    if key is None:
        return []
    return [key] if isinstance(key, str) else list(key)


def schema_of(dataset):
    """Arrow schema of a dataset, a `pyarrow.Schema`.

    Raises
    ------
    ValueError
        If the dataset has no columns.
    """
    import pyarrow as pa

    schema = dataset.schema()
    if schema is None or not schema.names:
        raise ValueError("The dataset has no columns.")
    base = schema.base_schema
    if isinstance(base, pa.Schema):
        return base
    # Blocks of pandas: a row says what Arrow makes of them.
    return dataset.take_batch(1, batch_format="pyarrow").schema
