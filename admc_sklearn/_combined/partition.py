"""Partition of the columns into cells and blocks, and users' encoders of blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._blocks.encoders import TransformerEncoder
from .._table.validation import check_encoder


@dataclass(frozen=True)
class PartitionSettings:
    """Which columns are completed as blocks. "NOTES" is benchmarks/NOTES.md.

    Parameters
    ----------
    min_columns : int
        A modality of fewer columns is completed cell by cell. (Not measured.)
    max_partial : float
        So is one that is partly observed in a greater share of its rows. (Not
        measured.)
    max_cell_columns : int
        A table of so many columns is completed cell by cell, too, and held-out rows
        choose between both. (NOTES, "Narrow modalities".)
    n_leads : int
        Leading latents of each block that the cells beside it see. (NOTES, "Leading
        latents beside cells".)
    """

    min_columns: int = 5
    max_partial: float = 0.2
    max_cell_columns: int = 64
    n_leads: int = 8


DEFAULT = PartitionSettings()


@dataclass(frozen=True)
class Partition:
    """Partition of the columns into cells and blocks.

    Attributes
    ----------
    cells : int array
        Columns that are completed cell by cell.
    blocks : list of int array
        Columns of every block.
    names : list of str
        Names of the blocks.
    joint_columns : list of int array
        Positions, among ``cells``, of modalities that are lost as a whole.
    n_leads : int
        Leading latents of each block that the cells see.
    """

    cells: np.ndarray
    blocks: list
    names: list
    joint_columns: list
    n_leads: int = 8

    def all_joint_columns(self):
        """Joint columns where blocks are cells too, as positions in the table."""
        return [*(self.cells[own] for own in self.joint_columns), *self.blocks]


def divide(modalities, observed, n_levels, encoded=(), settings=DEFAULT):
    """Divide the columns into cells and blocks.

    Parameters
    ----------
    modalities : dict
        Columns of every modality of more than one column, int arrays.
    observed : bool array of shape (n, d)
    n_levels : int array of shape (d,)
    encoded : collection of str
        Names of modalities that have an encoder: they are blocks.
    settings : PartitionSettings

    Returns
    -------
    Partition
    """
    blocks, small = {}, []
    for name, columns in modalities.items():
        seen = observed[:, columns]
        any_seen = seen.any(axis=1)
        partial = (any_seen & ~seen.all(axis=1)).sum() / max(1, any_seen.sum())
        numeric = not n_levels[columns].any()
        is_wide = len(columns) >= settings.min_columns
        is_whole = numeric and is_wide and partial <= settings.max_partial
        if is_whole or name in encoded:
            blocks[name] = columns
        else:
            small.append(columns)
    taken = np.concatenate(list(blocks.values())) if blocks else np.empty(0, dtype=int)
    cells = np.setdiff1d(np.arange(observed.shape[1]), taken)
    joint = [np.searchsorted(cells, columns) for columns in small]
    own = list(blocks.values()), list(blocks)
    return Partition(cells, *own, joint, settings.n_leads)


def given_encoders(encoders, modalities, shared, codec):
    """Users' encoders, with the mean and scale of their columns.

    Parameters
    ----------
    encoders : dict or None
        Transformers by the names of modalities, fitted or not.
    modalities, shared : dicts
        Columns of all modalities, and positions among the kept columns of modalities
        that have several.
    codec : TableCodec

    Raises
    ------
    ValueError
        If modalities do not exist or cannot be encoded. The message names them.
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
        scale = scaling.mean_[columns], scaling.scale_[columns]
        label, learn = check_encoder(encoder, name, len(columns))
        out[name] = TransformerEncoder(encoder, learn, label, *scale)
    return out
