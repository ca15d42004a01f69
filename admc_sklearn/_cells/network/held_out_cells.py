"""Held-out rows with hidden cells, by which the best epoch is chosen."""

from __future__ import annotations

import math

import numpy as np
import torch

from ..._shared.devices import in_threads
from .masked_diffusion import absorb

# Share of a row's observed cells that is hidden.
VALIDATION_RATE = 0.3
# Masks laid over each row, so that a few rows still give a steady figure.
VALIDATION_CELLS = 4000


class Validation:
    """Fixed hidden cells of held-out rows.

    The anchor does not change during training, so it is computed once. Columns of one
    ``unit``, an int tensor of shape (d,), are hidden together.
    """

    def __init__(self, network, values, observed, generator, unit):
        self.unit = unit
        n_cells = max(1, int(observed.sum()) * VALIDATION_RATE)
        repeats = int(np.clip(math.ceil(VALIDATION_CELLS / n_cells), 1, 8))
        self.truth = values.repeat(repeats, 1)
        self.values = network.warp(self.truth)
        self.rows, self.known = self.values[: len(values)], observed
        observed = observed.repeat(repeats, 1)
        rates = torch.full((len(self.values), 1), VALIDATION_RATE)
        noise = torch.rand(self.values.shape, generator=generator)[:, unit]
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

        Numbers count by their posterior mean in standardised units, levels by the
        Brier score in units of that of their frequencies.
        """
        self.network.eval()

        def errors(index):
            part, anchored = self.parts[index], self.anchored[index]
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
