"""Masked diffusion over cells: how cells are absorbed, and how they are revealed.

The forward process absorbs a row's cells one after another; a cell that is missing in
the data is one already absorbed. The reverse process reveals them in rounds (Austin et
al., 2021, arXiv:2107.03006; Sahoo et al., 2024, arXiv:2406.07524). Functions of any
``posterior(values, observed, targets)``; noise is an argument.
"""

from __future__ import annotations

import torch


def absorb(observed, rates, noise):
    """Cells that remain after absorbing each row's observed cells at a rate.

    Parameters
    ----------
    observed : bool tensor of shape (B, d)
    rates : float or tensor of shape (B, 1) or (d,)
        Share of the observed cells to absorb.
    noise : float tensor of shape (B, d), uniform on (0, 1)

    Returns
    -------
    kept, absorbed : bool tensors of shape (B, d)
        Together they are ``observed``.
    """
    absorbed = observed & (noise < rates)
    return observed & ~absorbed, absorbed


def absorb_like(observed, pattern):
    """Cells that remain where another row's missing pattern is laid over each row.

    Shapes: (B, d) twice; ``pattern`` is True where the other row is observed.
    """
    return observed & pattern, observed & ~pattern


def reveal_rounds(missing, noise, n_steps):
    """Deal missing cells into rounds: their round, from 0; -1 elsewhere.

    A row's missing cells, in the order of their noise, are dealt into at most
    ``n_steps`` rounds of nearly equal size. With as many rounds as missing cells every
    cell is drawn given all before it: the chain rule.

    Shapes: (B, d) twice; out: int64 (B, d).
    """
    order = torch.where(missing, noise, torch.inf).argsort(1)
    rank = torch.empty_like(order)
    rank.scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    count = missing.sum(1, keepdim=True)
    rounds = torch.where(count > n_steps, rank * n_steps // count.clamp_min(1), rank)
    return torch.where(missing, rounds, -1)


def reverse(posterior, values, observed, rounds, noise):
    """Draw all missing cells of every row, round by round.

    Parameters
    ----------
    posterior : callable
        ``posterior(values, observed, targets)`` returns distributions that share out
        the target cells, each with ``quantile(level)``, ``cells.gather`` and
        ``cells.scatter_into``, as `CellPosterior` has.
    values : tensor of shape (B, d)
        What stands at missing cells is ignored.
    observed : bool tensor of shape (B, d)
    rounds : int tensor of shape (B, d), from `reveal_rounds`
    noise : tensor of shape (B, d), uniform on (0, 1)

    Returns
    -------
    tensor of shape (B, d)
    """
    values, observed = values.clone(), observed.clone()
    for step in range(int(rounds.max()) + 1):
        # Rows with few missing cells are complete after fewer rounds.
        rows = (rounds == step).any(1).nonzero()[:, 0]
        targets, own, clock = rounds[rows] == step, values[rows], noise[rows]
        for part in posterior(own, observed[rows], targets):
            part.cells.scatter_into(own, part.quantile(part.cells.gather(clock)))
        values[rows] = own
        observed |= rounds == step
    return values
