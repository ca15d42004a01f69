"""Steps of training: absorb cells of rows, predict them from the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..._shared.devices import in_threads
from ..._shared.training import Trainer
from ..._shared.trunk import dropout_factors
from ..._shared.weights import some_weights, weighted
from ..anchor.column_anchor import Anchored
from .masked_diffusion import absorb, absorb_like
from .mean_head import REACH

# Rows are absorbed in blocks of so many bytes: with many rows at once, those that
# miss like numbers of cells share a factorisation's cost.
BLOCK_BYTES = 70_400_000
# A step of at least so many rows and cells is shared by two threads. Half a step takes
# 0.55 to 0.6 of the time of a whole one, that of a smaller batch more.
SHARED_ROWS, SHARED_CELLS = 128, 5000


@dataclass(frozen=True)
class TrainingSettings:
    """How the network of cells is trained. "NOTES" is benchmarks/NOTES.md.

    Parameters
    ----------
    hide_rates : tuple of two floats
        Share of a row's observed cells that a step hides, drawn between them. (NOTES,
        "Hide rates 0.1 to 0.4".)
    inner_weight : float
        Weight of the loss of positions within atoms beside that of atoms. (NOTES, the
        ablation of cells.)
    borrowed_share : float
        Share of the rows whose hidden cells follow another row's missing pattern,
        where patterns have a structure. (Not measured.)
    joint_share, whole_share : float
        Share of the rows that lose a group of joint columns together; the second where
        modalities are lost as a whole. (NOTES, "Narrow modalities".)
    weight_decay, average_decay : float
        Of AdamW and of the moving average of the weights. (Not measured.)
    """

    hide_rates: tuple[float, float] = (0.1, 0.4)
    inner_weight: float = 1.0
    borrowed_share: float = 0.25
    joint_share: float = 0.25
    whole_share: float = 0.75
    weight_decay: float = 0.01
    average_decay: float = 0.99


@dataclass(frozen=True)
class Absorbed:
    """Rows with cells hidden, and the anchor's moments of them.

    Shape of ``values``, their ``outcome``, ``kept`` and ``targets``: (B, d); of
    ``weight``, that of the rows: (B,), or None.
    """

    values: torch.Tensor
    outcome: torch.Tensor
    kept: torch.Tensor
    targets: torch.Tensor
    anchored: Anchored
    weight: torch.Tensor | None = None

    def __getitem__(self, rows):
        """Take a slice of the rows."""
        parts = (self.values, self.outcome, self.kept, self.targets, self.anchored)
        own = some_weights(self.weight, rows)
        return Absorbed(*(part[rows] for part in parts), own)


class CellTrainer(Trainer):
    """Trains a network on rows whose cells it hides.

    Parameters
    ----------
    network : CompletionNetwork
    rows : Rows
        Standardised tensors on the network's device.
    plan : TrainingPlan
    seed : int
    joint_columns : sequence of int array
        Groups of columns that are often missing together.
    settings : TrainingSettings
    """

    def __init__(self, network, rows, plan, seed, joint_columns=(), settings=None):
        settings = settings or TrainingSettings()
        super().__init__(
            network,
            len(rows),
            plan,
            seed,
            rows.values.device,
            weight_decay=settings.weight_decay,
            average_decay=settings.average_decay,
        )
        self.settings = settings
        self.take(rows)
        self.borrows = has_structured_patterns(rows.observed)
        self.joint = torch.zeros(
            len(joint_columns), network.n_columns, dtype=torch.bool, device=self.device
        )
        for group, columns in zip(self.joint, joint_columns, strict=True):
            group[columns] = True
        # Batches of a block.
        self.n_batches = max(1, BLOCK_BYTES // _row_bytes(network) // self.size)

    def take(self, rows):
        """Train on these rows from now on."""
        self.observed, self.weight = rows.observed, rows.weight
        self.values = self.network.warp(rows.values)
        self.outcome = self.network.index(self.values)

    def hide(self, observed):
        """Absorb cells at random rates, or by the missing pattern of another row.

        The patterns that a table has are those that it will have to complete.
        """
        n, d = observed.shape
        options = {"generator": self.generator, "device": observed.device}
        uniform = torch.rand(n, d + 1, **options)
        low, high = self.settings.hide_rates
        rates = low + (high - low) * uniform[:, :1]
        kept, absorbed = absorb(observed, rates, uniform[:, 1:])
        if len(self.joint):
            group = torch.randint(len(self.joint), (n,), **options)
            loses = torch.rand(n, 1, **options) < self.settings.joint_share
            lost = self.joint[group] & loses
            absorbed = absorbed | (lost & observed)
            kept = kept & ~lost
        if not self.borrows:
            return kept, absorbed
        other = torch.randint(len(self.observed), (n,), **options)
        like_kept, like_absorbed = absorb_like(observed, self.observed[other])
        borrow = torch.rand(n, 1, **options) < self.settings.borrowed_share
        borrow = borrow & like_absorbed.any(1, keepdim=True)
        return (
            torch.where(borrow, like_kept, kept),
            torch.where(borrow, like_absorbed, absorbed),
        )

    @torch.no_grad()
    def absorb(self, rows):
        """Hide cells of rows, and condition the anchor on the others."""
        kept, targets = self.hide(self.observed[rows])
        values = self.values[rows]
        # Masks at random are hardly ever shared.
        anchored = self.network.anchored(values, kept, shared=False)
        own = some_weights(self.weight, rows)
        return Absorbed(values, self.outcome[rows], kept, targets, anchored, own)

    def batches(self, order):
        """Yield batches with cells hidden; the anchor conditions many rows at once."""
        for k in range(0, len(self.starts), self.n_batches):
            starts = self.starts[k : k + self.n_batches]
            absorbed = self.absorb(order[starts[0] : starts[-1] + self.size])
            for start in starts:
                yield absorbed[start - starts[0] : start - starts[0] + self.size]

    def loss(self, batch, factors=None):
        """Sum of the losses over the targets of absorbed rows.

        They are nats, and squared errors of the mean head in standardised units.
        """
        losses, network = [], self.network
        rows = batch.values, batch.kept, batch.anchored
        summaries = network.summarise(*rows, factors)
        posteriors = network.by_likelihood(
            summaries, batch.targets, batch.anchored, network.prior
        )
        for posterior in posteriors:
            cells = posterior.cells
            atom, value = cells.gather(batch.outcome), cells.gather(batch.values)
            inner = posterior.inner_nll(atom, value)
            nll = posterior.nll(atom) + self.settings.inner_weight * inner
            losses.append(cells.total(nll, batch.weight))
        if network.mean_head is not None:
            truth = network.warp.inverse(batch.values).clamp(-REACH, REACH)
            error = network.means(summaries, *rows) - truth
            are_numbers = batch.targets.index_fill(1, network.categorical, False)
            square = torch.where(are_numbers, error, 0.0).square()
            losses.append(weighted(square, batch.weight).sum())
        return sum(losses)

    def _factors(self, n_rows):
        """Draw dropout's factors of a step, or None."""
        denoiser, rate = self.network.denoiser, self.network.dropout
        if not rate:
            return None
        shape = len(denoiser.layers), n_rows, denoiser.hidden
        return dropout_factors(rate, shape, self.generator, self.values.device)

    def backward(self, batch):
        """Set the gradient, the sum of those of parts of the rows; the mean loss.

        Parts are a matter of the batch alone: a sum in another order is another
        network in the end.
        """
        factors = self._factors(len(batch.values))
        n_targets = batch.targets.sum().clamp_min(1)

        def gradient(rows):
            noise = None if factors is None else factors[:, rows]
            loss = self.loss(batch[rows], factors=noise) / n_targets
            if not loss.requires_grad:  # nothing is hidden in these rows
                return loss.detach(), [None] * len(self.parameters)
            own = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            return loss.detach(), own

        found = in_threads(gradient, self._parts(len(batch.values)))
        losses, gradients = zip(*found, strict=True)
        for parameter, *own in zip(self.parameters, *gradients, strict=True):
            own = [part for part in own if part is not None]
            parameter.grad = sum(own) if own else None
        return sum(losses)

    def _parts(self, n_rows):
        """Slices of a batch's rows, worth a thread each."""
        half = n_rows // 2
        n_cells = n_rows * self.network.n_columns
        is_large = n_rows >= SHARED_ROWS and n_cells >= SHARED_CELLS
        if not is_large or self.values.device.type != "cpu":
            half = 0
        return [slice(lo, hi) for lo, hi in ((0, half), (half, n_rows)) if hi > lo]


def has_structured_patterns(observed):
    """Whether a table's cells go missing together, or instead of each other.

    Where they go missing independently, another row's pattern is but another random
    mask. Then the number of missing cells in a row has the variance of a sum of
    independent indicators.

    Shape: (n, d), bool tensor.
    """
    rate = 1.0 - observed.float().mean(0)
    independent = float((rate * (1.0 - rate)).sum())
    if independent == 0 or len(observed) < 2:
        return False
    ratio = float((~observed).sum(1).float().var()) / independent
    noise = 4 * math.sqrt(2 / len(observed))
    return abs(math.log(max(ratio, 1e-6))) > max(0.2, noise)


def _row_bytes(network):
    """Bytes that a row takes once it is absorbed; see `Absorbed`."""
    c = network.anchor.coordinates
    scores = 0 if c.is_plain else c.used.numel() * (c.used.shape[1] + 1)
    # Value, outcome, two flags and two moments.
    cell = 4 + 8 + 2 + 8
    return cell * network.n_columns + 8 * scores
