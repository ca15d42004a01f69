"""Missing cells that are drawn before the rest of their row, since more is known.

A cell that lies within limits, such as below a detection limit, has its posterior cut
to its interval. A draw that departs from missing at random on purpose moves the cells
of some columns by a stated amount. The rest of the row is completed given these cells;
a summary averages what follows from many fillings of them. Several limited cells of a
row are filled one after another, and then anew given each other (Gibbs sampling),
since the interval of one says something of the next.
"""

from __future__ import annotations

import torch

from .._shared.contract import Rows
from .network.posterior import LEVELS, NUMBERS, mixed

# Sweeps over a row's limited cells, and fillings over which summaries are averaged.
N_SWEEPS, N_FILLS = 3, 20


def fill(model, rows, noise, priors=None, delta=None):
    """Rows in which limited cells, and those of shifted columns, are drawn.

    Parameters
    ----------
    model : CellModel
    rows : Rows
        Tensors in the network's coordinates, with limits or without.
    noise : sequence of N_SWEEPS float tensors of shape (B, d), uniform on (0, 1)
    priors : sequence of Prior, optional
        Instead of the networks' own.
    delta : dict, optional
        By column: what is added to its draws, (B,) in standardised units, or to the
        log-odds of its levels, (B, K). Limited cells are not moved.

    Returns
    -------
    Rows
        Without limits.
    moved : float tensor of shape (B, d)
        Values of moved numbers in own units, NaN elsewhere. Far from the training range
        the network's coordinates would not hold them.
    """
    moved = torch.full_like(rows.values, torch.nan)
    filled = Rows(rows.values.clone(), rows.observed.clone(), limits=rows.limits)
    ranks = _ranks(rows)
    several = ranks.amax(1) > 0
    for sweep, clock in enumerate(noise):
        for rank in range(int(ranks.max()) + 1):
            targets = ranks == rank
            if sweep:
                targets = targets & several[:, None]
            _draw_into(model, filled, targets, clock, priors)
    filled = Rows(filled.values, filled.observed)
    for column, amount in (delta or {}).items():
        targets = torch.zeros_like(filled.observed)
        targets[:, column] = ~filled.observed[:, column]
        own = _draw_into(model, filled, targets, noise[0], priors, amount)
        moved = moved if own is None else torch.where(targets, own, moved)
    return filled, moved


def _draw_into(model, rows, targets, noise, priors, amount=None):
    """Draw target cells of rows, of a column where they are moved, in place.

    Shapes: (B, d) twice; of ``amount`` (B,) or (B, K). Returns moved numbers in own
    units, (B, d), or None where there are none.
    """
    take = targets.any(1).nonzero()[:, 0]
    if not len(take):
        return None
    values = None
    own, targets, network = rows.values[take], targets[take], model.network
    limits = None if rows.limits is None else rows.limits[take]
    known = Rows(own, rows.observed[take] & ~targets, limits=limits)
    for part in model.posteriors(known, targets, priors):
        if amount is not None and part.kind == LEVELS:
            own_amount = amount[take][part.cells.rows]  # (g, T, K of the column)
            room = part.logits.shape[-1] - own_amount.shape[-1]
            own_amount = torch.nn.functional.pad(own_amount, (0, room))
            part = part.with_logits(part.logits + own_amount)
        drawn = part.quantile(part.cells.gather(noise[take]))
        part.cells.scatter_into(own, drawn)
        if amount is not None and part.kind == NUMBERS:
            moved = network.warp.inverse(own) + amount[take][:, None]
            own = torch.where(targets, network.coordinates(moved), own)
            values = torch.full_like(rows.values, torch.nan)
            values[take] = moved
    rows.values[take] = own
    rows.observed[take] |= targets
    return values


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
                Rows(filled.values, filled.observed & ~targets, limits=rows.limits),
                targets,
            )
            for filled in some
        ]
        found += [mixed(parts) for parts in zip(*each, strict=True)]
    return found


def _ranks(rows):
    """Place of every limited cell among those of its row, -1 elsewhere, (B, d)."""
    limited = torch.zeros_like(rows.observed)
    if rows.limits is not None:
        limited = rows.limited
    return torch.where(limited, limited.cumsum(1) - 1, -1)
