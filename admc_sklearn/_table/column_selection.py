"""Columns as users name them, and the modalities that columns make up."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress, islice
from numbers import Integral

import numpy as np
import pandas as pd

# An error lists so many names before it breaks off: blocks may have thousands.
_SHOWN = 20


def find_columns(columns, X, names, where):
    """Positions of the columns that a user means.

    Integers are positions, as in scikit-learn, even where the columns of a frame are
    named by integers.

    Parameters
    ----------
    columns : str, int, array-like, slice or callable
        A name or an index; several of them; a slice of indices, or of names, the last
        one included; a mask of d truth values, which as a pandas Series is aligned by
        its index if that holds the names; a function of X that returns any of these,
        such as `sklearn.compose.make_column_selector`. Negative indices count from
        the end; slices of indices may reach beyond it.
    X : frame or ndarray of shape (n, d)
    names : sequence of d str
        Generated for an array, x0, x1, ..., or its indices if it is to have no names.
    where : str
        The argument that the columns were given to, for errors.

    Returns
    -------
    int array
        Sorted positions, each once.

    Raises
    ------
    ValueError
        For a column that does not exist or whose name recurs; for a mask that does
        not have d entries.
    TypeError
        For what can be neither a name nor an index, and for mixed masks and slices.
    """
    if callable(columns):
        columns = columns(X)
    names = list(names)
    if isinstance(columns, slice):
        return np.sort(np.arange(len(names))[_indices_of(columns, X, names, where)])
    if isinstance(columns, pd.Series) and set(columns.index) == set(names):
        columns = _aligned(columns, names)
    columns = _listed(columns, names)
    is_truth = [isinstance(column, bool | np.bool_) for column in columns]
    if any(is_truth):
        if not all(is_truth):
            raise TypeError(
                f"{where}: a mask of columns must hold nothing but truth values, got "
                f"{quoted(compress(columns, np.logical_not(is_truth)))}."
            )
        if len(columns) != len(names):
            raise ValueError(
                f"{where}: a mask of columns must have {len(names)} entries, "
                f"got {len(columns)}."
            )
        return np.flatnonzero(columns)
    return np.unique(_positions(columns, X, names, where))


def _listed(columns, names):
    """List of columns, also where there is a single one."""
    # A tuple is a list of columns, unless it is the name of one.
    is_name = isinstance(columns, tuple) and columns in names
    if is_name or isinstance(columns, str | bytes):
        return [columns]
    try:
        return list(columns)
    except TypeError:
        return [columns]


def _aligned(columns, names):
    """Put a mask in the order of the columns, as pandas does; leave other series."""
    is_mask = all(isinstance(value, bool | np.bool_) for value in columns)
    return columns.loc[names] if is_mask and columns.index.is_unique else columns


def _positions(columns, X, names, where):
    """Positions of names and indices, in the order given, as an int array."""
    d = len(names)
    indices = [column for column in columns if isinstance(column, Integral)]
    if unknown := [index for index in indices if not -d <= index < d]:
        raise ValueError(
            f"{where}: there is no column {quoted(unknown)}: X has {d} columns, and "
            "integers are positions."
        )
    labels = [column for column in columns if not isinstance(column, Integral)]
    positions = {}
    for j, name in enumerate(names if labels else ()):
        if not isinstance(name, Integral):
            positions.setdefault(name, []).append(j)
    try:
        unknown = [label for label in labels if label not in positions]
    except TypeError as error:
        raise TypeError(
            f"{where}: columns must be names or indices, got {columns!r}."
        ) from error
    if unknown:
        raise ValueError(
            f"{where}: there is no column {quoted(unknown)}{_known_names(X, names)}."
        )
    if recurring := [label for label in labels if len(positions[label]) > 1]:
        raise ValueError(
            f"{where}: several columns are named {quoted(recurring)}; give indices."
        )
    found = [c % d if isinstance(c, Integral) else positions[c][0] for c in columns]
    return np.array(found, dtype=int)


def _indices_of(columns, X, names, where):
    """Slice of indices for a slice of indices or of names."""
    ends = [end for end in (columns.start, columns.stop) if end is not None]
    are_indices = [isinstance(end, Integral) for end in ends]
    if all(are_indices):
        return columns
    if any(are_indices):
        raise TypeError(
            f"{where}: a slice must be of indices or of names, got {columns!r}."
        )
    start, stop = (
        None if end is None else int(_positions([end], X, names, where)[0])
        for end in (columns.start, columns.stop)
    )
    if stop is not None:  # names include the last one
        stop += 1 if columns.step is None or columns.step > 0 else -1
        stop = None if stop < 0 else stop
    return slice(start, stop, columns.step)


def quoted(columns):
    """Columns as users wrote them."""
    plain = (c.item() if isinstance(c, np.generic) else c for c in columns)
    return ", ".join(map(repr, plain))


def _known_names(X, names):
    """End an error's sentence with the names that X has."""
    is_generated = all(
        isinstance(name, Integral) or name == f"x{j}" for j, name in enumerate(names)
    )
    if is_generated and not hasattr(X, "columns"):
        names = [name for name in names if isinstance(name, str)]
        generated = f", but for {names[0]}, ..., {names[-1]}" if names else ""
        return f": X has no column names{generated}"
    rest = ", ..." if len(names) > _SHOWN else ""
    return f"; there are {quoted(names[:_SHOWN])}{rest}"


def resolve_modalities(modalities, X, names):
    """Positions of each modality's columns.

    Parameters
    ----------
    modalities : dict or None
        Columns of each modality by its name, in any of the ways of `find_columns`;
        what `join_modalities` returns is such a dict.
    X : frame or ndarray of shape (n, d)
    names : sequence of d str
        As in `find_columns`.

    Returns
    -------
    dict of int arrays
        Sorted positions by the modality's name: the modalities in the order given,
        then the columns left out, each a modality of its own under its own name.

    Raises
    ------
    ValueError
        For an unknown column, one that two modalities share, a modality without
        columns, and one that is named like a column left out.
    TypeError
        If ``modalities`` is no dict, or as in `find_columns`.
    """
    if not isinstance(modalities, Mapping | None):
        raise TypeError(
            f"modalities must be a dict or None, got {type(modalities).__name__}."
        )
    names = list(names)
    blocks, owners = {}, {}
    for modality, columns in (modalities or {}).items():
        where = f"modalities[{modality!r}]"
        blocks[modality] = find_columns(columns, X, names, where)
        if not len(blocks[modality]):
            raise ValueError(f"{where}: a modality must have columns, got none.")
        for j in blocks[modality].tolist():
            owners.setdefault(j, []).append(modality)
    if shared := [j for j in sorted(owners) if len(owners[j]) > 1]:
        listed = (f"{names[j]!r} belongs to {quoted(owners[j])}" for j in shared)
        raise ValueError(
            "A column must belong to one modality, but "
            f"{'; '.join(islice(listed, _SHOWN))}."
        )
    for j in (j for j in range(len(names)) if j not in owners):
        if names[j] in blocks:
            is_modality = names[j] in (modalities or {})
            raise ValueError(
                f"The column {names[j]!r}, which is left out of the modalities, is "
                f"named like {'a modality' if is_modality else 'another column'}."
            )
        blocks[names[j]] = np.array([j])
    return blocks


def shared_positions(modalities, kept):
    """Positions, among the kept columns, of modalities with more than one of them.

    Parameters
    ----------
    modalities : dict
        Columns of every modality, int arrays.
    kept : int array of shape (n_kept,), sorted
    """
    own = {name: np.intersect1d(c, kept) for name, c in modalities.items()}
    return {name: np.searchsorted(kept, c) for name, c in own.items() if len(c) > 1}
