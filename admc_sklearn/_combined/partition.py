"""Which modalities are completed as blocks, and by whose encoders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._blocks.encoders import TransformerEncoder
from .._table.validation import check_encoder

# A modality of fewer columns, or with more rows that hold a part of it, is cells.
MIN_COLUMNS = 5
MAX_PARTIAL = 0.2


@dataclass(frozen=True)
class Partition:
    """Which columns are cells and which are blocks.

    Attributes
    ----------
    cells : int array
        Columns that are completed cell by cell.
    blocks : list of int array
        Columns of every block.
    names : list of str
        Of the blocks.
    joint_columns : list of int array
        Places among ``cells`` of modalities that are lost as a whole.
    """

    cells: np.ndarray
    blocks: list
    names: list
    joint_columns: list


def divide(modalities, observed, n_levels, encoded=()):
    """Decide which modalities are blocks.

    Parameters
    ----------
    modalities : dict
        Columns of every modality of more than one column, int arrays.
    observed : bool array of shape (n, d)
    n_levels : int array of shape (d,)
    encoded : collection of str
        Names of modalities that have an encoder: they are blocks.

    Returns
    -------
    Partition
    """
    blocks, small = {}, []
    for name, columns in modalities.items():
        seen = observed[:, columns]
        there = seen.any(axis=1)
        partial = (there & ~seen.all(axis=1)).sum() / max(1, there.sum())
        numeric = not n_levels[columns].any()
        whole = numeric and len(columns) >= MIN_COLUMNS and partial <= MAX_PARTIAL
        if whole or name in encoded:
            blocks[name] = columns
        else:
            small.append(columns)
    taken = np.concatenate(list(blocks.values())) if blocks else np.empty(0, dtype=int)
    cells = np.setdiff1d(np.arange(observed.shape[1]), taken)
    joint = [np.searchsorted(cells, columns) for columns in small]
    return Partition(cells, list(blocks.values()), list(blocks), joint)


def given_encoders(encoders, modalities, shared, codec):
    """Users' encoders, told of the units of their columns.

    Parameters
    ----------
    encoders : dict or None
        Transformers by the names of modalities, fitted or not.
    modalities, shared : dicts
        Columns of all modalities, and places among the kept columns of those that have
        several.
    codec : TableCodec

    Raises
    ------
    ValueError
        Naming modalities that are not there or cannot be encoded.
    TypeError
        If one has no `transform` or no `inverse_transform`.
    """
    if unknown := [name for name in encoders or {} if name not in modalities]:
        raise ValueError(
            f"encoders name {unknown}, which are not among the modalities "
            f"{list(modalities)}."
        )
    scaling, out = codec.scaling_, {}
    n_levels = codec.n_levels_[scaling.kept_]
    for name, encoder in (encoders or {}).items():
        columns = shared.get(name, np.empty(0, dtype=int))
        if len(columns) < len(modalities[name]) or n_levels[columns].any():
            raise ValueError(
                f"encoders: modality {name!r} must have several columns, all of them "
                "numbers, and none empty."
            )
        units = scaling.mean_[columns], scaling.scale_[columns]
        label, learn = check_encoder(encoder, name, len(columns))
        out[name] = TransformerEncoder(encoder, learn, label, *units)
    return out
