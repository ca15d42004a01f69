"""What a caller asks for: rows, and which of their cells, within which limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._shared.contract import Rows
from .codec import Cells


def rows_of(cells, limits=None, weight=None):
    """Give the model's part of a table's cells, and of the columns beside them.

    ``limits``, (n, n_kept, 2), are standardised; ``weight`` is that of rows, (n,).
    """
    values, observed = cells.values, cells.observed
    if cells.beside is not None:
        values = np.concatenate([values, cells.beside[0]], 1)
        observed = np.concatenate([observed, cells.beside[1]], 1)
        if limits is not None:
            shape = *cells.beside[0].shape, 2
            limits = np.concatenate([limits, np.full(shape, np.inf)], 1)
    return Rows(values, observed, weight, limits)


@dataclass(frozen=True)
class Query:
    """Rows to complete, and what is known and wanted of their missing cells.

    Parameters
    ----------
    X : table
        As `check_table` returns it.
    cells : Cells
    stays : bool array of shape (n, d) or None
        Missing cells that are not to be completed.
    limits : float array of shape (n, d, 2) or None
        Between which missing cells lie, in the columns' units.
    rows : Rows
        The same as the model takes it.
    """

    X: Any
    cells: Cells
    stays: np.ndarray | None
    limits: np.ndarray | None
    rows: Rows

    def with_what_stays(self, numbers):
        """Put back cells that stay: numbers (n, d), and cells of which none stays."""
        cells = self.cells
        if self.stays is None:
            return numbers, cells
        numbers = np.where(cells.missing & self.stays, cells.numbers, numbers)
        return numbers, replace(cells, missing=cells.missing & ~self.stays)
