"""Missing cells that are known to lie within limits, such as below a detection limit.

Given the other observed cells of its row, such a cell has its posterior cut to its
interval. The rest of the row is completed given that: the cell is filled in many times,
and what follows for other cells is averaged. Several such cells of a row are filled one
after another, and then anew given each other (Gibbs sampling), since the interval of
one says something of the next.
"""

from __future__ import annotations

import torch

from .._shared.contract import Rows
from .network.posterior import mixed

# Sweeps over a row's limited cells, and fillings over which summaries are averaged.
N_SWEEPS, N_FILLS = 3, 20


def limited_cells(rows):
    """Missing cells of tensors that have limits, bool (B, d)."""
    return ~rows.observed & rows.limits.isfinite().any(-1)


def fill(model, rows, noise, priors=None):
    """Rows whose limited cells are drawn, without limits.

    Parameters
    ----------
    model : CellModel
    rows : Rows
        Tensors in the network's coordinates, with limits.
    noise : sequence of N_SWEEPS float tensors of shape (B, d), uniform on (0, 1)
    priors : sequence of Prior, optional
        Instead of the networks' own.
    """
    values, seen, limited = rows.values.clone(), rows.observed.clone(), _ranks(rows)
    several = limited.amax(1) > 0
    for sweep, clock in enumerate(noise):
        for rank in range(int(limited.max()) + 1):
            targets = limited == rank
            if sweep:
                targets = targets & several[:, None]
            take = targets.any(1).nonzero()[:, 0]
            if not len(take):
                continue
            own, targets = values[take], targets[take]
            known = Rows(own, seen[take] & ~targets, rows.limits[take])
            for part in model.posteriors(known, targets, priors):
                level = part.cells.gather(clock[take])
                part.cells.scatter_into(own, part.quantile(level))
            values[take] = own
            seen[take] |= targets
    return Rows(values, seen)


def posteriors(model, rows, fills):
    """Posteriors of all missing cells of rows with limits.

    Parameters
    ----------
    model : CellModel
    rows : Rows
    fills : list of Rows
        The same rows, as `fill` makes them.

    Returns
    -------
    list of CellPosterior
        Mixtures, over the fillings, of what follows from each.
    """
    ranks = _ranks(rows)
    others = ~rows.observed & (ranks < 0)
    found = []
    if bool(others.any()):
        each = [model.posteriors(filled, others) for filled in fills]
        found += [mixed(parts) for parts in zip(*each, strict=True)]
    for rank in range(int(ranks.max()) + 1):
        targets = ranks == rank
        # What follows for the only limited cell of a row does not depend on its value.
        some = fills if bool((ranks > 0).any()) else fills[:1]
        each = [
            model.posteriors(
                Rows(filled.values, filled.observed & ~targets, rows.limits), targets
            )
            for filled in some
        ]
        found += [mixed(parts) for parts in zip(*each, strict=True)]
    return found


def _ranks(rows):
    """Place of every limited cell among those of its row, -1 elsewhere, (B, d)."""
    limited = limited_cells(rows)
    return torch.where(limited, limited.cumsum(1) - 1, -1)
