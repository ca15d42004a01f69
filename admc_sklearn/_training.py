"""The training loop: absorb cells, predict them, keep what held-out rows approve of."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from ._anchor import Anchored, fit_anchor
from ._bootstrap import bootstrap_prior
from ._capture import Replayed
from ._coordinates import MAX_FOLDED, MAX_FOLDED_AT_RANDOM, choose_coordinates
from ._diffusion import absorb, absorb_like
from ._epochs import (
    AdamW,
    WeightAverage,
    count_step,
    current_rate,
    descend,
    move,
    run_epochs,
)
from ._linkage import fit_retrieval
from ._memory import fit_memory
from ._network import NetworkSize, Prior, build_network
from ._runtime import seeded
from ._scores import score_levels
from ._selection import find_selection, is_suspected
from ._validation import Validation, hold_out

SIZES = {
    "small": NetworkSize(width=16, hidden=128, n_attention=1, n_layers=2, dropout=0.1),
    "medium": NetworkSize(width=16, hidden=256, n_attention=1, n_layers=2, dropout=0.0),
    "large": NetworkSize(width=16, hidden=512, n_attention=1, n_layers=3, dropout=0.0),
}
WEIGHT_DECAY = 0.01
EMA_DECAY = 0.99
# Of the time there is, for coordinates and anchor; of what is left then, for training.
START_SHARE, TRAINING_SHARE = 0.5, 0.85
# Rows are absorbed in blocks of so many bytes: with many rows at once, those that
# miss like numbers of cells share a factorisation's cost.
BLOCK_BYTES = 32_000_000
# Devices where a step is replayed instead of run, and how many more cells of a column
# it has room for than any batch of the first block has.
REPLAYING, ROOM = ("cuda",), 1.25
# Share of a row's observed cells that a step hides.
HIDE_RATES = (0.1, 0.4)
# What the place within an atom counts beside the atom.
INNER_WEIGHT = 1.0
# Share of the rows whose hidden cells follow another row's missing pattern instead.
BORROWED_SHARE = 0.25
# Share of the rows that lose one modality as a whole, where modalities are given.
UNIT_SHARE = 0.25
MIN_VALIDATION_CELLS = 20


@dataclass(frozen=True)
class Absorbed:
    """Rows with cells hidden, and what the anchor says of them.

    Shape of ``values``, their ``outcome``, ``kept`` and ``targets``: (B, d).
    """

    values: torch.Tensor
    outcome: torch.Tensor
    kept: torch.Tensor
    targets: torch.Tensor
    anchored: Anchored

    def __getitem__(self, rows):
        """Take a slice of the rows."""
        parts = (self.values, self.outcome, self.kept, self.targets, self.anchored)
        return Absorbed(*(part[rows] for part in parts))

    def tensors(self):
        """All tensors that there are, in a fixed order."""
        anchored = vars(self.anchored).values()
        cells = self.values, self.outcome, self.kept, self.targets
        return [*cells, *(part for part in anchored if part is not None)]

    @classmethod
    def of(cls, values, outcome, kept, targets, *anchored):
        """Put together what `tensors` took apart."""
        missing = (None,) * (4 - len(anchored))
        return cls(values, outcome, kept, targets, Anchored(*anchored, *missing))


class Trainer:
    """Trains a network on rows; the state of one training run.

    Parameters
    ----------
    network : CompletionNetwork
    values : float32 tensor of shape (n, d), standardised, on the network's device
    observed : bool tensor of shape (n, d)
    plan : TrainingPlan
    seed : int
    units : sequence of int array
        Columns that are often missing together.
    """

    def __init__(self, network, values, observed, plan, seed, units=()):
        self.network, self.observed = network, observed
        self.values = network.warp(values)
        self.outcome = network.index(self.values)
        self.borrows = has_structured_patterns(observed)
        self.units = torch.zeros(
            len(units), values.shape[1], dtype=torch.bool, device=values.device
        )
        for unit, columns in zip(self.units, units, strict=True):
            unit[columns] = True
        self.plan = plan
        self.generator = torch.Generator(values.device).manual_seed(seed)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = AdamW(self.parameters, WEIGHT_DECAY)
        self.average = WeightAverage(self.parameters, EMA_DECAY)
        n_batches = BLOCK_BYTES // _row_bytes(network) // plan.batch_size
        self.block = plan.batch_size * max(1, n_batches)
        self.replayed, self.n_cells = None, None
        if values.device.type in REPLAYING:
            self.replayed = Replayed(self._fixed_step, values.device)
            self.rate = torch.zeros((), device=values.device)
        self.n_steps = 0
        self.total_steps = plan.max_epochs * math.ceil(len(values) / plan.batch_size)
        self.started = time.monotonic()

    def hide(self, observed):
        """Absorb cells at random rates, or by the missing pattern of another row.

        The patterns that a table has are those that it will have to complete.
        """
        n, d = observed.shape
        options = {"generator": self.generator, "device": observed.device}
        uniform = torch.rand(n, d + 1, **options)
        low, high = HIDE_RATES
        rates = low + (high - low) * uniform[:, :1]
        kept, absorbed = absorb(observed, rates, uniform[:, 1:])
        if len(self.units):
            unit = torch.randint(len(self.units), (n,), **options)
            lost = self.units[unit] & (torch.rand(n, 1, **options) < UNIT_SHARE)
            absorbed = absorbed | (lost & observed)
            kept = kept & ~lost
        if not self.borrows:
            return kept, absorbed
        other = torch.randint(len(self.observed), (n,), **options)
        like_kept, like_absorbed = absorb_like(observed, self.observed[other])
        borrow = torch.rand(n, 1, **options) < BORROWED_SHARE
        borrow = borrow & like_absorbed.any(1, keepdim=True)
        return (
            torch.where(borrow, like_kept, kept),
            torch.where(borrow, like_absorbed, absorbed),
        )

    @torch.no_grad()
    def absorb(self, rows):
        """Hide cells of rows, and ask the anchor about them."""
        kept, targets = self.hide(self.observed[rows])
        values = self.values[rows]
        anchored = self.network.anchored(values, kept)
        return Absorbed(values, self.outcome[rows], kept, targets, anchored)

    def loss(self, batch, n_cells=None):
        """Mean loss over the targets of absorbed rows, in nats."""
        losses = []
        rows = batch.values, batch.kept, batch.targets, batch.anchored
        for posterior in self.network(*rows, n_cells=n_cells):
            cells = posterior.cells
            atom, value = cells.gather(batch.outcome), cells.gather(batch.values)
            nll = posterior.nll(atom) + INNER_WEIGHT * posterior.inner_nll(atom, value)
            losses.append(cells.total(nll))
        return sum(losses) / batch.targets.sum().clamp_min(1)

    def step(self, batch, n_cells):
        """One training step on absorbed rows; their loss.

        ``n_cells`` is the largest number of targets of a column, or None.
        """
        is_whole = len(batch.values) == self.plan.batch_size
        if self.replayed is None or not is_whole or n_cells > self.n_cells:
            return descend(self, self.loss(batch))
        self.rate.fill_(current_rate(self))
        loss = self.replayed(self.rate, *batch.tensors())
        count_step(self)
        return loss

    def _fixed_step(self, rate, *tensors):
        """One training step, the shapes of which are always the same."""
        for p in self.parameters:
            p.grad = None  # what an attempt left that failed
        loss = self.loss(Absorbed.of(*tensors), self.n_cells)
        return move(self, loss, rate)

    def _most_cells(self, absorbed):
        """Largest number of targets of a column, of every batch: one wait a block."""
        parts = absorbed.targets.split(self.plan.batch_size)
        if self.replayed is None:
            return [None] * len(parts)
        most = torch.stack([part.sum(0).max() for part in parts]).tolist()
        if self.n_cells is None:
            room = math.ceil(ROOM * max(most))
            self.n_cells = min(self.plan.batch_size, room)
        return most

    def epoch(self):
        """Every row once, or as many as the deadline allows; the mean loss in nats."""
        self.network.train()
        losses = []
        order = torch.randperm(
            len(self.values), generator=self.generator, device=self.values.device
        )
        for block in order.split(self.block):
            absorbed = self.absorb(block)
            size = self.plan.batch_size
            for k, n_cells in enumerate(self._most_cells(absorbed)):
                batch = absorbed[k * size : (k + 1) * size]
                losses.append(self.step(batch, n_cells))
                if time.monotonic() > self.plan.deadline:
                    return float(torch.stack(losses).mean())
        return float(torch.stack(losses).mean())


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
    """Bytes that a row takes once it is absorbed."""
    c = network.anchor.coordinates
    scores = 0 if c.is_plain else c.used.numel() * (c.used.shape[1] + 1)
    return 10 * network.n_columns + 8 * scores


def place(network, device):
    """Move a network to a device; the anchor's float64 stays on the CPU for MPS."""
    if torch.device(device).type != "mps":
        return network.to(device)
    priors = [network.prior, *network.replicas]
    anchors = [prior.anchor for prior in priors]
    for prior in priors:
        prior.anchor = None
    network.to(device)
    for prior, anchor in zip(priors, anchors, strict=True):
        prior.anchor = anchor.to("cpu")
    return network


def fit_network(
    values,
    observed,
    n_levels,
    size,
    plan,
    device,
    seed,
    *,
    n_bootstraps=0,
    groups=None,
    units=(),
    start=None,
    self_masking=False,
):
    """Fit anchor and network to an incomplete table.

    Parameters
    ----------
    values : float32 array of shape (n, d)
        Standardised numbers, codes of levels.
    observed : bool array of shape (n, d)
    n_levels : int array of shape (d,)
        Levels of categorical columns, 0 for numeric ones.
    size : NetworkSize
    plan : TrainingPlan
    device : torch.device
    seed : int
    n_bootstraps : int
        Priors fitted to resampled rows, for draws that know that it is estimated.
    groups : array of shape (n,), optional
        Rows of one group are held out together.
    units : sequence of int array
        Columns that are often missing together.
    start : CompletionNetwork, optional
        Whose training is continued, in its coordinates; it is left as it is.
    self_masking : bool or "auto"
        Whether a cell's value may decide if it is missing; see `_selection`.

    Returns
    -------
    network : CompletionNetwork
        On ``device``, with the best weights seen on held-out cells.
    history : list of dict
        One record an epoch; epoch 0 is the anchor.
    """
    with seeded(seed, device), torch.inference_mode(False), torch.enable_grad():
        generator = torch.Generator().manual_seed(seed)
        held, kept = hold_out(len(values), plan.validation_fraction, groups, generator)
        home = torch.device("cpu") if device.type == "mps" else device
        deadline, now = plan.deadline, time.monotonic()
        start_deadline = now + START_SHARE * (deadline - now)
        x, o = (torch.tensor(array, device=device) for array in (values, observed))
        if start is None:
            table = values, observed, n_levels
            network = _begin(
                table,
                x.to(home),
                o.to(home),
                size,
                kept,
                generator,
                self_masking,
                start_deadline,
            )
        else:
            network = _go_on(
                start, x.to(home), o.to(home), kept, generator, start_deadline
            )
        place(network, device)
        history = []
        validation = None
        if len(held):
            validation = Validation(network, x[held], o[held], generator)
        if validation and validation.hidden.sum() >= MIN_VALIDATION_CELLS:
            # The rest of the time is for what comes after the epochs.
            now = time.monotonic()
            end = now + TRAINING_SHARE * (plan.deadline - now)
            plan = replace(plan, deadline=end)
            trainer = Trainer(network, x[kept], o[kept], plan, seed, units)
            history = run_epochs(trainer, validation)
            trainer.replayed = None  # a graph holds memory
            if plan.max_epochs:  # else the anchor alone
                warped = network.warp(x[kept])
                told = warped, o[kept], validation, generator
                fit_memory(network, *told, deadline)
                fit_retrieval(network, *told, deadline)
        # Every row for the final anchor; the correction learnt on top of it stays.
        warped, o = network.warp(x).to(home), o.to(home)
        ridge, weakest = network.ridges
        network.prior = _prior(network, warped, o, ridge, generator, deadline)
        for _ in range(n_bootstraps):
            replica = bootstrap_prior(network, warped, o, weakest, generator, deadline)
            network.replicas.append(replica)
        network.slopes = np.zeros(values.shape[1])
        if self_masking:
            _tilt(network, network.warp(x), o.to(device), self_masking, generator)
        network.zero_grad(set_to_none=True)
        network.eval()
        return network, history


def _begin(table, x, o, size, kept, generator, self_masking, deadline):
    """Make an untrained network where ``x`` and ``o`` are, the table's tensors."""
    for n_folded in (MAX_FOLDED_AT_RANDOM, MAX_FOLDED):
        network = _untrained(table, x, o, size, kept, generator, n_folded, deadline)
        coordinates = network.anchor.coordinates
        is_wide = coordinates.folds is not None and coordinates.n_all > MAX_FOLDED
        if not is_wide or not self_masking:
            break
        if self_masking == "auto" and not is_suspected(
            network, network.warp(x), o, generator
        ):
            break
    return network


def _untrained(table, x, o, size, kept, generator, n_folded, deadline):
    values, observed, n_levels = table
    scores = score_levels(x, o, n_levels, kept)
    warp, ridge, weakest = choose_coordinates(
        x[kept], o[kept], scores, generator, n_folded=n_folded, deadline=deadline
    )
    anchor = fit_anchor(
        warp(x)[kept], o[kept], scores, ridge, generator, deadline=deadline
    )
    network = build_network(values, observed, warp, anchor, size)
    network.ridges = ridge, weakest
    return network


def _go_on(start, x, o, kept, generator, deadline):
    """Copy a network, its anchor fitted to the rows kept."""
    network = place(copy.deepcopy(start), x.device)
    network.replicas = nn.ModuleList()
    network.is_tilted = False
    network.memory = network.retrieval = None
    ridge, _ = network.ridges
    warped = network.warp(x)[kept]
    network.prior = _prior(network, warped, o[kept], ridge, generator, deadline)
    return network


def _prior(network, warped, observed, ridge, generator, deadline):
    """Fit the anchor anew, from where it is, and the margins on top of it."""
    coordinates = network.anchor.coordinates
    anchor = fit_anchor(
        warped,
        observed,
        coordinates,
        ridge,
        generator,
        start=network.anchor,
        deadline=deadline,
    )
    return Prior(anchor, [head.margin(anchor) for head in network.heads])


def _tilt(network, warped, observed, self_masking, generator):
    """Tilt posteriors by what the missing cells' own values seem to have decided."""
    decide = self_masking == "auto"
    found = find_selection(network, warped, observed, generator, decide=decide)
    if found is not None:
        network.slopes = found.slopes
        network.tilt(found.tilts)


def automatic_size(name, observed):
    """`NetworkSize` of a name; ``"auto"`` chooses by the number of observed cells."""
    if name == "auto":
        name = "medium" if observed.sum() > 60_000 else "small"
    return SIZES[name]
