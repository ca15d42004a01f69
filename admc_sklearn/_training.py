"""The training loop: absorb cells, predict them, keep what held-out rows approve of."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from ._anchor import fit_anchor
from ._bootstrap import bootstrap_prior
from ._coordinates import choose_coordinates
from ._diffusion import absorb, absorb_like
from ._network import NetworkSize, Prior, build_network
from ._runtime import seeded
from ._scores import score_levels

SIZES = {
    "small": NetworkSize(width=16, hidden=128, n_attention=1, n_layers=2, dropout=0.1),
    "medium": NetworkSize(width=16, hidden=256, n_attention=1, n_layers=2, dropout=0.0),
    "large": NetworkSize(width=16, hidden=512, n_attention=1, n_layers=3, dropout=0.0),
}
WEIGHT_DECAY = 0.01
WARM_UP_STEPS = 50
EMA_DECAY = 0.99
MAX_GRADIENT = 1.0
# Share of a row's observed cells that a step hides, and that validation hides.
HIDE_RATES = (0.1, 0.4)
VALIDATION_RATE = 0.3
# What the place within an atom counts beside the atom.
INNER_WEIGHT = 1.0
# Share of the rows whose hidden cells follow another row's missing pattern instead.
BORROWED_SHARE = 0.25
# Masks laid over each validation row, so that a few rows still give a steady figure.
MIN_VALIDATION_CELLS = 20
VALIDATION_CELLS = 4000


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how to train; the estimator's parameters of the same names."""

    max_epochs: int
    batch_size: int
    learning_rate: float
    validation_fraction: float
    n_iter_no_change: int
    deadline: float  # of time.monotonic
    show_progress: bool


class WeightAverage:
    """Exponential moving average of parameters, exchangeable with them."""

    def __init__(self, parameters, decay):
        self.parameters = list(parameters)
        self.average = [p.detach().clone() for p in self.parameters]
        self.decay = decay
        self.n_updates = 0

    @torch.no_grad()
    def update(self):
        """Move the average towards the parameters; faster while it is young."""
        self.n_updates += 1
        decay = min(self.decay, self.n_updates / (self.n_updates + 10))
        torch._foreach_lerp_(self.average, self.parameters, 1 - decay)

    @torch.no_grad()
    def exchange(self):
        """Put the average into the parameters and keep theirs."""
        for parameter, average in zip(self.parameters, self.average, strict=True):
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)


class Trainer:
    """Trains a network on rows; the state of one training run.

    Parameters
    ----------
    network : CompletionNetwork
    values : float32 tensor of shape (n, d), standardised, on the network's device
    observed : bool tensor of shape (n, d)
    plan : TrainingPlan
    seed : int
    """

    def __init__(self, network, values, observed, plan, seed):
        self.network, self.observed = network, observed
        self.values = network.warp(values)
        self.outcome = network.index(self.values)
        self.borrows = has_structured_patterns(observed)
        self.plan = plan
        self.generator = torch.Generator(values.device).manual_seed(seed)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=plan.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=WEIGHT_DECAY,
            fused=values.device.type in ("cpu", "cuda"),
        )
        self.average = WeightAverage(self.parameters, EMA_DECAY)
        self.n_steps = 0
        self.total_steps = plan.max_epochs * math.ceil(len(values) / plan.batch_size)
        self.started = time.monotonic()

    def rate(self):
        """Learning rate now: warm-up, then a cosine to zero at the budget's end."""
        spent = time.monotonic() - self.started
        whole = max(self.plan.deadline - self.started, 1e-9)
        progress = min(1.0, max(self.n_steps / self.total_steps, spent / whole))
        warm = min(1.0, (self.n_steps + 1) / WARM_UP_STEPS)
        return self.plan.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * progress))

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

    def step(self, rows):
        """One training step on the given rows; the mean loss over its targets."""
        kept, targets = self.hide(self.observed[rows])
        outcome = self.outcome[rows]
        values = self.values[rows]
        losses = []
        for part in self.network(values, kept, targets):
            atom, value = part.cells.gather(outcome), part.cells.gather(values)
            nll = part.nll(atom) + INNER_WEIGHT * part.inner_nll(atom, value)
            losses.append(part.cells.total(nll))
        loss = sum(losses) / targets.sum().clamp_min(1)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRADIENT)
        self.optimizer.step()
        self.average.update()
        self.n_steps += 1
        return loss.detach()

    def epoch(self):
        """Every row once, or as many as the deadline allows; the mean loss in nats."""
        self.network.train()
        order = torch.randperm(
            len(self.values), generator=self.generator, device=self.values.device
        )
        losses = []
        for rows in order.split(self.plan.batch_size):
            losses.append(self.step(rows))
            if time.monotonic() > self.plan.deadline:
                break
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


class Validation:
    """Fixed hidden cells of held-out rows.

    The anchor does not change during training, so it is computed once.
    """

    def __init__(self, network, values, observed, generator):
        n_cells = max(1, int(observed.sum()) * VALIDATION_RATE)
        repeats = int(np.clip(math.ceil(VALIDATION_CELLS / n_cells), 1, 8))
        self.truth = values.repeat(repeats, 1)
        self.values = network.warp(self.truth)
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
            self.anchored = [
                network.anchored(self.values[part], self.kept[part])
                for part in self.parts
            ]

    @torch.no_grad()
    def measure(self):
        """Root mean squared error of the cells, and nats per cell.

        Numbers are told by their posterior mean in standardised units, levels by the
        Brier score in units of that of their frequencies.
        """
        self.network.eval()
        squared, nats = 0.0, 0.0
        for part, anchored in zip(self.parts, self.anchored, strict=True):
            values, hidden = self.values[part], self.hidden[part]
            for posterior in self.network(values, self.kept[part], hidden, anchored):
                cells = posterior.cells
                error = posterior.error(cells.gather(self.truth[part]))
                nll = posterior.nll(cells.gather(self.outcome[part]))
                squared += float(cells.total(error))
                nats += float(cells.total(nll))
        count = max(1, int(self.hidden.sum()))
        return math.sqrt(squared / count), nats / count


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


def fit_network(values, observed, n_levels, size, plan, device, seed, n_bootstraps=0):
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

    Returns
    -------
    network : CompletionNetwork
        On ``device``, with the best weights seen on held-out cells.
    history : list of dict
        One record an epoch; epoch 0 is the anchor.
    """
    with seeded(seed, device), torch.inference_mode(False), torch.enable_grad():
        return _fit_network(
            values, observed, n_levels, size, plan, device, seed, n_bootstraps
        )


def _fit_network(values, observed, n_levels, size, plan, device, seed, n_bootstraps):
    generator = torch.Generator().manual_seed(seed)
    n_held = min(len(values) // 2, math.ceil(plan.validation_fraction * len(values)))
    order = torch.randperm(len(values), generator=generator)
    held, kept = order[:n_held].numpy(), order[n_held:].numpy()
    home = torch.device("cpu") if device.type == "mps" else device
    x = torch.tensor(values, device=device)
    o = torch.tensor(observed, device=device)
    x_home, o_home = x.to(home), o.to(home)
    scores = score_levels(x_home, o_home, n_levels, kept)
    warp, ridge, weakest = choose_coordinates(
        x_home[kept], o_home[kept], scores, generator
    )
    warped = warp(x_home)
    anchor = fit_anchor(warped[kept], o_home[kept], scores, ridge, generator)
    network = build_network(values, observed, warp, anchor, size)
    place(network, device)
    history = []
    validation = Validation(network, x[held], o[held], generator) if n_held else None
    if validation and validation.hidden.sum() >= MIN_VALIDATION_CELLS:
        trainer = Trainer(network, x[kept], o[kept], plan, seed)
        history = _train(trainer, validation)
    # Every row for the final anchor; the correction learnt on top of it stays.
    anchor = fit_anchor(warped, o_home, scores, ridge, generator, start=anchor)
    network.prior = Prior(anchor, [h.margin(anchor) for h in network.heads])
    for _ in range(n_bootstraps):
        replica = bootstrap_prior(network, warped, o_home, weakest, generator)
        network.replicas.append(replica)
    network.zero_grad(set_to_none=True)
    network.eval()
    return network, history


def _train(trainer, validation):
    """Epochs until the budget ends or held-out cells stop improving; the history."""
    plan, average = trainer.plan, trainer.average
    rmse, nats = validation.measure()
    history = [_record(0, math.nan, rmse, nats, 0.0)]
    best, best_epoch = rmse, 0
    best_weights = [p.detach().clone() for p in trainer.parameters]
    bar = tqdm(
        total=plan.max_epochs,
        desc="ADMCImputer",
        unit="epoch",
        disable=not plan.show_progress,
    )
    try:
        for epoch in range(1, plan.max_epochs + 1):
            if time.monotonic() > plan.deadline:
                break
            loss = trainer.epoch()
            average.exchange()
            rmse, nats = validation.measure()
            if rmse < best:
                best, best_epoch = rmse, epoch
                best_weights = [p.detach().clone() for p in trainer.parameters]
            average.exchange()
            seconds = time.monotonic() - trainer.started
            history.append(_record(epoch, loss, rmse, nats, seconds))
            bar.set_postfix_str(
                f"validation RMSE {rmse:.4f}, best {best:.4f}, "
                f"anchor {history[0]['valid_rmse']:.4f}"
            )
            bar.update()
            if epoch - best_epoch >= plan.n_iter_no_change:
                break
    except KeyboardInterrupt:
        warnings.warn(
            f"Training was interrupted; the weights of epoch {best_epoch} are kept.",
            UserWarning,
            stacklevel=2,
        )
    finally:
        bar.close()
    with torch.no_grad():
        for parameter, weight in zip(trainer.parameters, best_weights, strict=True):
            parameter.copy_(weight)
    return history


def _record(epoch, loss, rmse, nats, seconds):
    return {
        "epoch": epoch,
        "train_loss": loss,
        "valid_loss": nats,
        "valid_rmse": rmse,
        "seconds": seconds,
    }


def automatic_size(name, observed):
    """`NetworkSize` of a name; ``"auto"`` chooses by the number of observed cells."""
    if name == "auto":
        name = "medium" if observed.sum() > 60_000 else "small"
    return SIZES[name]
