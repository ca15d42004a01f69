"""Held-out rows with hidden cells, which decide on what is kept of a training."""

from __future__ import annotations

import math

import numpy as np
import torch

from ._diffusion import absorb
from ._runtime import in_threads

# Share of a row's observed cells that is hidden.
VALIDATION_RATE = 0.3
# Masks laid over each row, so that a few rows still give a steady figure.
VALIDATION_CELLS = 4000
# What is added to the network has to gain so many standard errors on held-out rows.
MIN_STANDARD_ERRORS = 1.5
# More would cost time and tell nothing.
MAX_HELD_ROWS = 10_000


class Validation:
    """Fixed hidden cells of held-out rows.

    The anchor does not change during training, so it is computed once.
    """

    def __init__(self, network, values, observed, generator):
        n_cells = max(1, int(observed.sum()) * VALIDATION_RATE)
        repeats = int(np.clip(math.ceil(VALIDATION_CELLS / n_cells), 1, 8))
        self.truth = values.repeat(repeats, 1)
        self.values = network.warp(self.truth)
        self.rows, self.known = self.values[: len(values)], observed
        observed = observed.repeat(repeats, 1)
        rates = torch.full((len(self.values), 1), VALIDATION_RATE)
        noise = torch.rand(self.values.shape, generator=generator)
        self.kept, self.hidden = absorb(
            observed, rates.to(values.device), noise.to(values.device)
        )
        self.network = network
        self.outcome = network.index(self.values)
        self.parts = network.row_batches(len(self.values))
        with torch.no_grad():
            self.anchored = in_threads(
                lambda part: network.anchored(self.values[part], self.kept[part]),
                self.parts,
                network.device,
            )

    @torch.no_grad()
    def measure(self):
        """Root mean squared error of the cells, and nats per cell.

        Numbers are told by their posterior mean in standardised units, levels by the
        Brier score in units of that of their frequencies.
        """
        self.network.eval()

        def errors(place):
            part, anchored = self.parts[place], self.anchored[place]
            values, hidden = self.values[part], self.hidden[part]
            squared, nats = 0.0, 0.0
            for posterior in self.network(values, self.kept[part], hidden, anchored):
                cells = posterior.cells
                error = posterior.error(cells.gather(self.truth[part]))
                nll = posterior.nll(cells.gather(self.outcome[part]))
                squared += float(cells.total(error))
                nats += float(cells.total(nll))
            return squared, nats

        found = in_threads(errors, range(len(self.parts)), self.network.device)
        count = max(1, int(self.hidden.sum()))
        squared, nats = (sum(part) / count for part in zip(*found, strict=True))
        return math.sqrt(squared), nats


def is_gain(gains, n_errors=MIN_STANDARD_ERRORS):
    """Whether gains, (..., n), one a row, are more than so many standard errors, (...).

    Cells of one row go wrong together, the more so where it takes turns with several
    masks: rows are the units, not cells.
    """
    n = gains.shape[-1]
    if n < 2:
        return torch.zeros(gains.shape[:-1], dtype=torch.bool)
    noise = gains.std(-1) * math.sqrt(n)
    return gains.sum(-1) > n_errors * noise


def hold_out(n, fraction, groups, generator):
    """Rows held out and rows kept; rows of one group stay together."""
    n_held = min(n // 2, math.ceil(fraction * n), MAX_HELD_ROWS)
    order = torch.randperm(n, generator=generator).numpy()
    if groups is None:
        return order[:n_held], order[n_held:]
    _, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    chosen = torch.randperm(len(sizes), generator=generator).numpy()
    n_groups = max(1, np.searchsorted(np.cumsum(sizes[chosen]), n_held, side="right"))
    is_held = np.isin(member[order], chosen[:n_groups]) & (n_held > 0)
    if is_held.all():  # a single group: nothing to hold out
        is_held[:] = False
    return order[is_held], order[~is_held]
