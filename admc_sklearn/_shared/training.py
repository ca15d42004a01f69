"""The loop over epochs, for any trainer: its budget, its schedule, what it keeps."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import pandas as pd
import torch

from .caller_warnings import warn_caller
from .optimizer import Muon, WeightAverage
from .progress import tqdm

WARM_UP_STEPS = 50
# Share of the training, its end, in which the learning rate falls to zero. (NOTES,
# "Muon".)
FALL_SHARE = 0.5
# Steps and epochs, at least, over which the gain is compared with `tol`.
WINDOW_STEPS, WINDOW_EPOCHS = 85, 3
MAX_GRADIENT = 1.0
# The learning rate is that of batches up to so many rows; larger ones, with less noise
# in their gradients, take it times the root of their share (Malladi et al., 2022,
# arXiv:2205.10287).
USUAL_BATCH = 256
# Half of the time of a narrow table's step does not depend on its rows: then a step
# takes so many cells, but no more rows than these.
BATCH_CELLS, MAX_BATCH = 8192, 512


# Seconds within which a second Ctrl-C is not caught, whichever fit it meets.
TWICE = 10.0


class Interruption:
    """Whether Ctrl-C has ended the epochs of a fit; what follows is cut short then.

    Where it comes twice, in one fit or in two that follow each other, as those of a
    grid search do, the second one is no longer caught.
    """

    last = -math.inf  # of all fits, by time.monotonic

    def __init__(self):
        self.happened = False

    def is_second(self):
        """Note an interrupt; whether it is the second one."""
        now = time.monotonic()
        is_second = self.happened or now - Interruption.last < TWICE
        self.happened, Interruption.last = True, now
        return is_second


class Task:
    """A step of a fit; one that tells callbacks of its parts is passed in instead."""

    def begin(self, name, n_parts=0):
        """Begin a part of this step, of at most ``n_parts`` parts itself."""
        return self

    def end(self, fitted=None):
        """End the step, of the ``fitted`` estimator; whether training is to stop."""
        return False


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how to train; the estimator's parameters of the same names."""

    max_epochs: int
    batch_size: int
    learning_rate: float
    validation_fraction: float
    n_iter_no_change: int
    tol: float
    deadline: float  # of time.monotonic
    show_progress: bool
    # Shared by all parts of one fit.
    interruption: Interruption = field(default_factory=Interruption)
    task: Task = field(default_factory=Task)  # the whole fit

    @property
    def end(self):
        """Time (`time.monotonic`) by which a fit has to end; the past after Ctrl-C."""
        return -math.inf if self.interruption.happened else self.deadline

    @classmethod
    def of(cls, estimator, shape, started, task=None):
        """Plan for a table's shape, from an estimator's parameters and its start."""
        batch_size, max_time = estimator.batch_size, estimator.max_time
        if batch_size == "auto":
            n_samples, n_columns = shape
            limit = max(USUAL_BATCH, min(MAX_BATCH, BATCH_CELLS // max(1, n_columns)))
            batch_size = min(max(n_samples // 16, 32), limit)
        return cls(
            max_epochs=estimator.max_epochs,
            batch_size=batch_size,
            learning_rate=estimator.learning_rate
            * math.sqrt(max(1.0, batch_size / USUAL_BATCH)),
            validation_fraction=estimator.validation_fraction,
            n_iter_no_change=estimator.n_iter_no_change,
            tol=estimator.tol,
            deadline=math.inf if max_time is None else started + max_time,
            show_progress=bool(estimator.verbose),
            task=Task() if task is None else task,
        )


def deal(n_rows, batch_size):
    """Deal the rows of an epoch into as few batches of one size as hold them.

    Where they do not come out even, neighbouring batches share some rows: no step is
    left to the last row or two, and all steps have the same shapes.

    Returns
    -------
    starts : list of int
        Where each batch begins.
    size : int
        Of every batch, ``batch_size`` at most.
    """
    n_batches = max(1, math.ceil(n_rows / batch_size))
    size = math.ceil(n_rows / n_batches)
    last = max(1, n_batches - 1)
    return [k * (n_rows - size) // last for k in range(n_batches)], size


def learning_rate(plan, n_steps, total_steps, started):
    """Learning rate after so many steps: warm-up, constant, then by a cosine to zero.

    The end is that of the steps or of the time, whichever comes first.
    """
    spent = time.monotonic() - started
    whole = max(plan.deadline - started, 1e-9)
    progress = min(1.0, max(n_steps / total_steps, spent / whole))
    warm = min(1.0, (n_steps + 1) / WARM_UP_STEPS)
    fall = max(0.0, 1 - (1 - progress) / FALL_SHARE)
    return plan.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * fall))


class Trainer:
    """One training run: parameters, optimiser, average of the weights, budget, noise.

    A family of models adds `batches`, and `loss` or `backward`.

    Parameters
    ----------
    network : nn.Module
        Whose parameters are trained, its ``hidden_matrices`` by orthogonal steps.
    n_rows : int
    plan : TrainingPlan
    seed : int
    device : torch.device
        Of the rows and of the noise.
    weight_decay, average_decay : float
        Of `Muon` and of `WeightAverage`.
    """

    def __init__(
        self, network, n_rows, plan, seed, device, *, weight_decay, average_decay
    ):
        self.network, self.plan = network, plan
        self.n_rows, self.device = n_rows, device
        self.generator = torch.Generator(device).manual_seed(seed)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        matrices = network.hidden_matrices
        self.optimizer = Muon(self.parameters, matrices, weight_decay)
        self.average = WeightAverage(self.parameters, average_decay)
        self.starts, self.size = deal(n_rows, plan.batch_size)
        self.n_steps, self.total_steps = 0, plan.max_epochs * len(self.starts)
        self.started = time.monotonic()

    def batches(self, order):
        """Yield the batches of an epoch that takes the rows in this order."""
        for start in self.starts:
            yield order[start : start + self.size]

    def loss(self, batch):
        """Mean loss of a batch."""
        raise NotImplementedError

    def backward(self, batch):
        """Set the parameters' gradients; the loss.

        They have none where nothing is hidden in a batch: its loss is constant.
        """
        loss = self.loss(batch)
        if loss.requires_grad:
            loss.backward()
        return loss.detach()

    def step(self, batch):
        """One training step; the loss before it."""
        loss = self.backward(batch)
        if any(parameter.grad is not None for parameter in self.parameters):
            torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRADIENT)
            rate = learning_rate(
                self.plan, self.n_steps, self.total_steps, self.started
            )
            self.optimizer.step(rate)
        self.average.update()
        self.n_steps += 1
        return loss

    def epoch(self):
        """Every row once, or as many as the deadline allows; the mean loss."""
        order = torch.randperm(
            self.n_rows, generator=self.generator, device=self.device
        )
        losses = []
        for batch in self.batches(order):
            losses.append(self.step(batch))
            if time.monotonic() > self.plan.deadline:
                break
        return float(torch.stack(losses).mean())


def has_flattened(curve, steps_per_epoch, tol):
    """Whether validation errors, one an epoch, no longer fall by a share of ``tol``.

    The best error of the last window of epochs is compared with the best before it.
    Training does not end then: the fall of the learning rate begins, and with its end
    training ends.
    """
    window = max(WINDOW_EPOCHS, math.ceil(WINDOW_STEPS / steps_per_epoch))
    if len(curve) <= 2 * window:
        return False
    return min(curve[-window:]) > (1 - tol) * min(curve[:-window])


class Course:
    """The epochs of one training so far: their records, and the best weights.

    Parameters
    ----------
    trainer : Trainer
    validation : object
        Whose ``measure()`` gives an error and nats per cell.

    Attributes
    ----------
    history : list of dict
        One record an epoch.
    is_over : bool
        Whether the budget has ended, or held-out cells no longer improve.
    """

    def __init__(self, trainer, validation):
        self.trainer, self.validation = trainer, validation
        rmse, nats = validation.measure()
        self.history = [_record(0, math.nan, rmse, nats, 0.0)]
        self.best, self.best_epoch = rmse, 0
        self.best_weights = [p.detach().clone() for p in trainer.parameters]
        self.is_over = not trainer.plan.max_epochs

    def run_epoch(self):
        """Train for an epoch, and judge it."""
        trainer, plan, average = self.trainer, self.trainer.plan, self.trainer.average
        epoch = len(self.history)
        loss = trainer.epoch()
        average.exchange()
        rmse, nats = self.validation.measure()
        if rmse < self.best:
            self.best_weights = [p.detach().clone() for p in trainer.parameters]
            self.best, self.best_epoch = rmse, epoch
        average.exchange()
        seconds = time.monotonic() - trainer.started
        self.history.append(_record(epoch, loss, rmse, nats, seconds))
        steps_per_epoch = trainer.n_steps / epoch
        curve = [record["valid_rmse"] for record in self.history]
        if plan.tol and has_flattened(curve, steps_per_epoch, plan.tol):
            end = round(math.ceil(epoch / (1 - FALL_SHARE)) * steps_per_epoch)
            trainer.total_steps = min(trainer.total_steps, end)
        is_last = epoch >= plan.max_epochs or trainer.n_steps >= trainer.total_steps
        self.is_over = is_last or epoch - self.best_epoch >= plan.n_iter_no_change

    def keep_best(self):
        """Put the best weights into the network."""
        with torch.no_grad():
            parameters = self.trainer.parameters
            for parameter, weight in zip(parameters, self.best_weights, strict=True):
                parameter.copy_(weight)


def run_epochs(trainer, validation):
    """Epochs until the budget ends or held-out cells stop improving; the history."""
    plan, course = trainer.plan, Course(trainer, validation)
    bar = tqdm(
        total=plan.max_epochs,
        desc="ADMCImputer",
        unit="epoch",
        disable=not plan.show_progress,
    )
    run = plan.task.begin("training", plan.max_epochs)
    try:
        while not course.is_over and time.monotonic() <= plan.end:
            task = run.begin("epoch")
            course.run_epoch()
            course.is_over |= bool(task.end())
            bar.set_postfix_str(
                f"validation RMSE {course.history[-1]['valid_rmse']:.4f}, "
                f"best {course.best:.4f}, anchor {course.history[0]['valid_rmse']:.4f}"
            )
            bar.update()
    except KeyboardInterrupt:
        if plan.interruption.is_second():
            raise
        warn_caller(
            f"Training was interrupted; the weights of epoch {course.best_epoch} are "
            f"kept. Ctrl-C again within {TWICE:.0f} seconds ends all."
        )
    finally:
        bar.close()
    course.keep_best()
    run.end()
    return course.history


def _record(epoch, loss, rmse, nats, seconds):
    return {
        "epoch": epoch,
        "train_loss": loss,
        "valid_loss": nats,
        "valid_rmse": rmse,
        "seconds": seconds,
    }


def summarise_history(history):
    """Frame of the epochs' records, and the epoch whose weights are kept."""
    columns = ["epoch", "train_loss", "valid_loss", "valid_rmse", "seconds"]
    if not history:
        return pd.DataFrame(columns=columns), 0
    part = history[-1].get("part")
    if part is not None:
        columns.insert(0, "part")
    last = [record for record in history if record.get("part") == part]
    best = min(last, key=lambda record: record["valid_rmse"])
    return pd.DataFrame(history, columns=columns), best["epoch"]
