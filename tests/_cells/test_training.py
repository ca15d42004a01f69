"""Training: what it keeps, when it stops, what it shows."""

import math
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from admc_sklearn import ADMCImputer
from admc_sklearn._cells import fit as _training
from admc_sklearn._cells.anchor.column_anchor import fit_anchor
from admc_sklearn._cells.anchor.level_scores import Coordinates
from admc_sklearn._cells.anchor.power_transform import PowerTransform
from admc_sklearn._cells.fit import fit_cells
from admc_sklearn._cells.network import trainer as _trainer
from admc_sklearn._cells.network.network import build_network
from admc_sklearn._cells.settings import SIZES
from admc_sklearn._combined.settings import Settings
from admc_sklearn._shared import training as _epochs
from admc_sklearn._shared.contract import FitContext, Rows
from admc_sklearn._shared.devices import resolve_device
from admc_sklearn._shared.held_out import hold_out
from admc_sklearn._shared.optimizer import (
    ADAM_LENGTH,
    AdamW,
    Muon,
    WeightAverage,
    orthogonal,
)
from admc_sklearn._shared.training import TrainingPlan, deal
from tests.conftest import gaussian_table, hide, mixed_rings, quick, rings


def plan(**changes):
    fields = {
        "max_epochs": 3,
        "batch_size": 64,
        "learning_rate": 2e-3,
        "validation_fraction": 0.2,
        "n_iter_no_change": 10,
        "tol": 0.01,
        "deadline": math.inf,
        "show_progress": False,
    }
    return TrainingPlan(**{**fields, **changes})


def fit(values, observed, how, **options):
    """Model and history of a numeric table, by a plan."""
    context = FitContext(how, torch.device("cpu"), 0, Settings(), "small", **options)
    return fit_cells(Rows(values, observed), [0] * values.shape[1], context)


def anchor_alone(values, observed):
    """Network and history of a numeric table before any training."""
    model, history = fit(values, observed, plan(max_epochs=0))
    return model.network, history


def standardised(X):
    observed = ~np.isnan(X)
    values = (X - np.nanmean(X, 0)) / np.nanstd(X, 0)
    return np.where(observed, values, 0).astype(np.float32), observed


def test_learning_beats_the_anchor_where_rows_are_not_gaussian(ring_imputer):
    history = ring_imputer.history_
    assert history["epoch"].tolist() == list(range(len(history)))
    # Four tables have 0.91 to 0.98 of the anchor's: means lie inside the ring anyway.
    assert history["valid_rmse"].min() < 0.99 * history["valid_rmse"][0]
    assert history["valid_loss"].min() < history["valid_loss"][0] - 0.3
    assert ring_imputer.n_epochs_ == history["valid_rmse"].argmin() > 0


def test_the_kept_weights_are_those_of_the_best_epoch(monkeypatch):
    """Held-out error of the result is the lowest in the history, never the last."""
    kept = {}
    train = _training.run_epochs

    def spy(trainer, validation):
        history = train(trainer, validation)
        kept["rmse"] = validation.measure()[0]
        return history

    monkeypatch.setattr(_training, "run_epochs", spy)
    X, _, _ = gaussian_table(150, 4, 0)
    imputer = quick(max_epochs=12, learning_rate=0.05).fit(hide(X, 0.2, 0))
    assert kept["rmse"] == pytest.approx(imputer.history_["valid_rmse"].min(), rel=1e-5)


def test_gaussian_rows_lose_next_to_nothing_by_training():
    """The anchor is exact there; what training adds must stay small on new rows."""
    X, _, _ = gaussian_table(1300, 5, 1)
    train, test = hide(X[:300], 0.3, 0), hide(X[300:], 0.3, 1)
    errors = [
        np.nanstd(imputer.fit(train).transform(test)[np.isnan(test)] - truth)
        for imputer in (quick(max_epochs=10), quick(max_epochs=0))
        for truth in [X[300:][np.isnan(test)]]
    ]
    assert errors[0] < 1.05 * errors[1]


def test_an_untrained_network_is_the_anchor():
    X, _, _ = gaussian_table(2000, 4, 0)
    values, observed = standardised(hide(X, 0.3, 0))
    network, history = anchor_alone(values, observed)
    assert len(history) == 1
    x, o = torch.tensor(values), torch.tensor(observed)
    with torch.no_grad():
        (posterior,) = network(x, o, ~o)
        mean = network.anchor.condition(x, o).mean
    error = posterior.mean() - posterior.cells.gather(mean)
    # Atoms have the frequencies of 2000 rows, not those of the Gaussian.
    assert error[posterior.cells.filled].abs().mean() < 0.02


def test_missing_cells_never_enter_a_loss():
    """What stands at missing cells changes nothing."""
    X = rings(400, 0)
    observed = np.random.default_rng(0).random(X.shape) < 0.7
    results = []
    for filler in (0.0, 1e3):
        values = np.where(observed, X, filler).astype(np.float32)
        _, history = fit(values, observed, plan())
        results.append([r["train_loss"] for r in history[1:]])
    assert results[0] == results[1]


def test_hidden_cells_follow_rates_and_the_patterns_of_the_table():
    """Columns 0 and 1 are only ever missing together: that must be practised."""
    observed = torch.ones(4000, 6, dtype=torch.bool)
    observed[:2000, :2] = False
    values = torch.zeros(4000, 6)
    network, _ = anchor_alone(
        *standardised(np.random.default_rng(0).normal(size=(60, 6)))
    )
    trainer = _trainer.CellTrainer(network, Rows(values, observed), plan(), 0)
    kept, hidden = trainer.hide(observed[2000:])
    assert torch.equal(kept | hidden, observed[2000:])
    assert not (kept & hidden).any()
    pair_alone = hidden[:, :2].all(1) & ~hidden[:, 2:].any(1)
    # By rates alone it would be 1 row in 50, by half of a quarter of patterns 1 in 8.
    assert trainer.borrows
    assert 0.1 < pair_alone.float().mean() < 0.2
    complete = _trainer.CellTrainer(network, Rows(values, observed | True), plan(), 0)
    assert not complete.borrows
    share = complete.hide(observed[2000:])[1].float().mean(1)
    # Of 2000 rows, whose rates are uniform on 0.1 to 0.4 and whose shares, of six cells
    # each, have a standard deviation of 0.2.
    assert share.mean().item() == pytest.approx(0.25, abs=0.02)
    assert 0.15 < share.std().item() < 0.25


def test_a_modality_of_few_columns_is_lost_as_a_whole_in_one_row_of_four():
    """Its cells alone would all three be lost in one row of fifty."""
    X = np.random.default_rng(0).normal(size=(4000, 6))
    values, observed = (torch.tensor(part) for part in standardised(X))
    network, _ = anchor_alone(*(part[:60].numpy() for part in (values, observed)))
    lost = {}
    for joint in ([], [np.array([0, 2, 5])]):
        trainer = _trainer.CellTrainer(
            network, Rows(values, observed), plan(), 0, joint
        )
        kept, hidden = trainer.hide(observed)
        assert torch.equal(kept | hidden, observed)
        assert not (kept & hidden).any()
        lost[len(joint)] = hidden[:, [0, 2, 5]].all(1).float().mean().item()
    # Five standard errors of a share of 4000 rows.
    assert lost[0] == pytest.approx(0.027, abs=0.015)
    assert lost[1] - lost[0] == pytest.approx(0.25, abs=0.035)


def test_training_practises_the_loss_of_the_modalities_that_it_is_given(monkeypatch):
    hide_cells, groups = _trainer.CellTrainer.hide, []

    def spy(self, observed):
        groups.append(self.joint)
        return hide_cells(self, observed)

    monkeypatch.setattr(_trainer.CellTrainer, "hide", spy)
    X, _, _ = gaussian_table(120, 6, 0)
    quick(max_epochs=1, modalities={"a": [0, 2], "b": [3, 4, 5]}).fit(X)
    expected = [[1, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]
    assert groups[0].int().tolist() == expected


def test_the_loss_is_the_log_likelihood_of_values_not_of_their_atoms_alone():
    """Of the place within an atom too, against a flat density there."""
    X = np.random.default_rng(0).normal(size=(100, 1)) * np.ones(3)
    X += 0.4 * np.random.default_rng(1).normal(size=X.shape)
    values, observed = standardised(X)
    network, _ = anchor_alone(values, observed)  # a dozen wide atoms a column
    network.others = torch.nn.ModuleList()
    head, network.mean_head = network.mean_head, None
    x, o = torch.tensor(values), torch.tensor(observed)
    trainer = _trainer.CellTrainer(network, Rows(x, o), plan(), 0)
    batch = trainer.absorb(torch.arange(100))
    n_targets = batch.targets.sum()
    with torch.no_grad():
        got = float(trainer.loss(batch) / n_targets)
        network.mean_head = head
        whole = float(trainer.loss(batch) / n_targets)
        (posterior,) = network(batch.values, batch.kept, batch.targets)
    cells, atoms = posterior.cells, posterior.atoms
    share = torch.softmax(posterior.logits, -1)
    atom = cells.gather(batch.outcome)
    low, high = (a.gather(1, atom) for a in (atoms.low, atoms.high))
    value = cells.gather(batch.values).clamp(low, high)
    mean, sd = posterior.inner_mean, posterior.inner_sd
    inside = stats.truncnorm((low - mean) / sd, (high - mean) / sd, mean, sd)
    density = torch.tensor(inside.pdf(value)) * (high - low)
    density = torch.where(
        high > low, density, 1.0
    )  # an atom of one value has no inside
    likelihood = share.gather(-1, atom[..., None])[..., 0] * density
    expected = -likelihood[cells.filled].log().mean()
    assert got == pytest.approx(float(expected), abs=2e-3)
    at_atoms = -share.gather(-1, atom[..., None])[..., 0][cells.filled].log().mean()
    assert abs(got - float(at_atoms)) > 5e-3  # more than the tolerance
    # The mean head, which starts as the anchor, adds its squared error in own units.
    own = network.warp.inverse(torch.where(batch.kept, batch.values, mean_of(batch)))
    error = (own - network.warp.inverse(batch.values))[batch.targets]
    squared = float(error.square().sum() / n_targets)
    assert squared > 0.02
    assert whole - got == pytest.approx(squared, rel=1e-3)


def mean_of(batch):
    """Means of the anchor for hidden cells of a batch."""
    return batch.anchored.mean.to(batch.values.dtype)


def test_an_epoch_moves_every_part_of_a_network():
    frame = mixed_rings(400, 0)
    imputer = quick(max_epochs=0).fit(frame)
    network, cells = imputer.model_.network, imputer._codec.read(frame)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    x, o = torch.tensor(cells.values), torch.tensor(cells.observed)
    _trainer.CellTrainer(network, Rows(x, o), plan(), 0).epoch()
    for name, weights in network.named_parameters():
        assert not torch.equal(weights, before[name]), name
    # Every level has learnt a vector of its own.
    assert (network.levels.weight != 0).any(1).all()


class Line:
    """A trainer of one weight, its error being its distance from 1.

    ``jumps`` are the weights after every epoch.
    """

    def __init__(self, plan, decay, jumps=(1.0,) * 9):
        self.plan, self.jumps = plan, iter(jumps)
        self.parameters = [torch.zeros(1)]
        self.average = WeightAverage(self.parameters, decay)
        self.n_steps, self.total_steps, self.started = 0, 10**6, time.monotonic()

    def epoch(self):
        self.parameters[0].fill_(next(self.jumps))
        self.average.update()
        self.n_steps += 1
        return 0.0

    def measure(self):
        return abs(1.0 - float(self.parameters[0])), 0.0


def test_weights_are_judged_and_kept_as_their_average():
    """A young average follows quickly, an old one by its decay."""
    trainer = Line(plan(max_epochs=3, tol=0.0), decay=0.99)
    history = _epochs.run_epochs(trainer, trainer)
    # What is left of the first weights: 1/11, then times 2/12, then times 3/13.
    left = [1.0, 1 / 11, 1 / 11 * 2 / 12, 1 / 11 * 2 / 12 * 3 / 13]
    assert [r["valid_rmse"] for r in history] == pytest.approx(left, abs=1e-6)
    assert float(trainer.parameters[0]) == pytest.approx(1 - left[-1], abs=1e-6)
    old = WeightAverage([torch.zeros(1)], 0.9)
    old.n_updates = 10**6
    old.parameters[0].fill_(1.0)
    old.update()
    assert float(old.average[0]) == pytest.approx(0.1)


def test_the_weights_of_the_best_epoch_are_kept_not_the_last():
    jumps = [0.2, 0.9, 3.0, 5.0, 0.0]
    trainer = Line(plan(max_epochs=5, tol=0.0), decay=0.0, jumps=jumps)
    history = _epochs.run_epochs(trainer, trainer)
    errors = [1.0, 0.8, 0.1, 2.0, 4.0, 1.0]
    assert [r["valid_rmse"] for r in history] == pytest.approx(errors, abs=1e-6)
    assert float(trainer.parameters[0]) == pytest.approx(0.9)
    trainer = Line(plan(max_epochs=2, tol=0.0), decay=0.0, jumps=[-1.0, 3.0])
    _epochs.run_epochs(trainer, trainer)
    assert float(trainer.parameters[0]) == 0.0  # no epoch was better than none


@pytest.mark.parametrize("grouped", [False, True])
def test_what_decides_has_not_been_learnt_from(monkeypatch, grouped):
    """Rows that stop the training, weigh the memory and approve of a retrieval."""
    seen = {}

    def spy_on(name, values, validation):
        function = getattr(_training, name)

        def spy(*arguments):
            rows = values(arguments).numpy().tolist()
            held = arguments[validation].rows.numpy().tolist()
            seen[name] = [{tuple(row) for row in part} for part in (rows, held)]
            return function(*arguments)

        monkeypatch.setattr(_training, name, spy)

    spy_on("run_epochs", lambda a: a[0].values, 1)
    for name in ("fit_landmarks", "fit_donors"):
        spy_on(name, lambda a: a[1].values, 2)
    X, _, _ = gaussian_table(200, 3, 0)
    video = np.arange(200) // 10
    imputer = quick(max_epochs=1)
    cells = replace(imputer._settings.cells, forests=None)  # these judge all rows
    imputer._settings = replace(imputer._settings, cells=cells)
    imputer.fit(X, groups=video if grouped else None)
    scaled = standardised(X)[0]
    place = {tuple(row): k for k, row in enumerate(scaled.tolist())}
    assert len(seen) == 3
    for rows, held in seen.values():
        assert len(rows) == 180
        assert len(held) == 20
        assert not rows & held
        if grouped:
            names = [{video[place[row]] for row in part} for part in (rows, held)]
            assert not names[0] & names[1]


def test_the_final_anchor_is_that_of_all_rows():
    """It decides while training goes on as the anchor of the rows that are kept."""
    X, _, _ = gaussian_table(150, 3, 0)
    values, observed = standardised(X)
    model, _ = fit(values, observed, plan(max_epochs=0))
    network, (ridge, _) = model.network, model.ridges[0]
    gaussian = network.anchor.gaussian
    x = network.warp(torch.tensor(values)).double()
    # Four of five rows are kept; their mean is off by 0.04 standard deviations.
    torch.testing.assert_close(gaussian.mean[:3], x.mean(0), atol=1e-3, rtol=0)
    expected = torch.cov(x.T, correction=0) * 150 + ridge * torch.eye(3)
    found = gaussian.cov[:3, :3]
    torch.testing.assert_close(found, expected / (150 + ridge), atol=2e-3, rtol=0)


@pytest.mark.parametrize("n_rows", [1, 2, 31, 32, 33, 63, 97, 450, 1000])
@pytest.mark.parametrize("batch_size", [1, 3, 32, 512])
def test_rows_left_over_are_no_batch_of_their_own(n_rows, batch_size):
    starts, size = deal(n_rows, batch_size)
    assert len(starts) == -(-n_rows // batch_size)
    assert min(batch_size, n_rows) / 2 <= size <= batch_size
    rows = [row for start in starts for row in range(start, start + size)]
    assert set(rows) == set(range(n_rows))
    assert len(rows) < n_rows + len(starts)  # hardly any row comes twice


@pytest.mark.usefixtures("light_fits")
@pytest.mark.parametrize("n", [108, 250])
@pytest.mark.parametrize("rate", [0.7, 0.97])
def test_a_batch_with_nothing_hidden_is_no_crash(n, rate):
    """Two kinds of columns: a network of one head predicts padding at least."""
    X = pd.DataFrame(hide(rings(n, 0), rate, 0), columns=["x", "y", "product"])
    X["level"] = np.where(X["x"] > 0, "right", "left")
    X["level"] = X["level"].mask(X["x"].isna())
    for batch_size in ("auto", 1):
        imputer = quick(max_epochs=1, batch_size=batch_size).fit(X)
        assert imputer.history_["train_loss"][1:].notna().all()
        assert imputer.transform(X).shape == X.shape


def test_every_row_is_absorbed_once_an_epoch(monkeypatch):
    X = np.random.default_rng(0).normal(size=(160, 6))
    values, observed = standardised(np.where(X > 1.5, np.nan, X))
    network, _ = anchor_alone(values, observed)
    monkeypatch.setattr(_trainer, "BLOCK_BYTES", 40 * 22 * 6)
    x, o = torch.tensor(values), torch.tensor(observed)
    trainer = _trainer.CellTrainer(network, Rows(x, o), plan(batch_size=16), 0)
    assert trainer.n_batches == 2
    blocks, steps = [], []
    absorb, step = trainer.absorb, trainer.step
    trainer.absorb = lambda rows: blocks.append((rows, absorb(rows))) or blocks[-1][1]
    trainer.step = lambda *batch: steps.append(batch[0]) or step(*batch)
    trainer.epoch()
    assert [len(rows) for rows, _ in blocks] == [32, 32, 32, 32, 32]
    order = torch.cat([rows for rows, _ in blocks])
    assert sorted(order.tolist()) == list(range(160))
    assert {len(batch.values) for batch in steps} == {16}
    stepped = torch.cat([batch.values for batch in steps])
    assert torch.equal(stepped, trainer.values[order])
    outcome = torch.cat([batch.outcome for batch in steps])
    assert torch.equal(outcome, trainer.outcome[order])
    rows, block = blocks[1]
    assert torch.equal(block.kept | block.targets, o[rows])
    told = network.anchor.condition(trainer.values[rows], block.kept)
    torch.testing.assert_close(block.anchored.mean, told.mean)
    torch.testing.assert_close(block.anchored[2:5].sd, told.sd[2:5])


@pytest.mark.parametrize("table", [lambda: hide(rings(200, 0), 0.2, 0), None])
def test_blocks_of_rows_take_the_bytes_that_they_may(monkeypatch, table):
    """Of numbers and of levels, whose scores have a covariance."""
    sizes, absorb = [], _trainer.CellTrainer.absorb

    def spy(self, rows):
        absorbed = absorb(self, rows)
        anchored = [
            part for part in vars(absorbed.anchored).values() if part is not None
        ]
        cells = absorbed.values, absorbed.outcome, absorbed.kept, absorbed.targets
        n_bytes = sum(tensor.nbytes for tensor in (*cells, *anchored))
        sizes.append((n_bytes, len(rows) * _trainer._row_bytes(self.network)))
        return absorbed

    monkeypatch.setattr(_trainer.CellTrainer, "absorb", spy)
    quick(max_epochs=1).fit(mixed_rings(200, 0) if table is None else table())
    assert sizes
    for n_bytes, expected in sizes:
        assert n_bytes == expected


@pytest.mark.parametrize("n_columns", [6, 300])
def test_late_is_little_work(n_columns):
    """After the deadline nothing is begun, and what there is completes rows."""
    rng = np.random.default_rng(0)
    X = np.exp(rng.normal(size=(300, 3)) @ rng.normal(size=(3, n_columns)))
    values, observed = standardised(hide(X, 0.2, 0))
    model, history = fit(values, observed, plan(deadline=-1.0), n_bootstraps=1)
    network = model.network
    assert history == []  # nothing is measured either
    assert model.landmarks is None
    assert model.donors is None
    assert network.anchor.coordinates.distances is None
    x, o = torch.tensor(values), torch.tensor(observed)
    with torch.no_grad():
        for posterior in network(network.warp(x), o, ~o):
            assert torch.isfinite(posterior.mean()).all()


def test_independent_missing_cells_are_no_structure():
    generator = torch.Generator().manual_seed(0)
    rates = torch.tensor([0.05, 0.3, 0.6, 0.0, 0.3, 0.2])
    for n in (50, 500, 5000):
        observed = torch.rand(n, 6, generator=generator) > rates
        assert not _trainer.has_structured_patterns(observed)
    blocks = torch.rand(500, 2, generator=generator).repeat_interleave(3, 1) > 0.3
    assert _trainer.has_structured_patterns(blocks)


def test_max_time_stops_and_brings_the_learning_rate_down(monkeypatch):
    rates = []
    rate = _epochs.learning_rate

    def spy(*arguments):
        rates.append(rate(*arguments))
        return rates[-1]

    monkeypatch.setattr(_epochs, "learning_rate", spy)
    # The time of this process: on a busy machine it is still that of some epochs.
    monkeypatch.setattr(time, "monotonic", time.process_time)
    X = hide(rings(6000, 0), 0.2, 0)
    started = time.monotonic()
    imputer = ADMCImputer(max_epochs=10_000, max_time=3, random_state=0).fit(X)
    assert time.monotonic() - started < 9
    assert len(imputer.history_) < 1000
    assert rates[-1] < 0.2 * max(rates)
    assert imputer.n_epochs_ > 0


def test_the_learning_rate_is_level_and_then_falls_to_nothing():
    soon = plan(deadline=time.monotonic() + 1e6)
    rates = [
        _epochs.learning_rate(soon, step, 1000, time.monotonic())
        for step in (0, 100, 499, 750, 1000)
    ]
    assert rates[0] < 0.1 * soon.learning_rate
    assert rates[1] == rates[2] == pytest.approx(soon.learning_rate, rel=1e-4)
    assert rates[3] == pytest.approx(soon.learning_rate / 2, rel=1e-2)
    assert rates[4] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("batch_size", "shape", "rows", "rate"),
    [
        ("auto", (100, 3), 32, 1.0),
        ("auto", (3200, 3), 200, 1.0),
        ("auto", (10**6, 3), 512, 2**0.5),
        ("auto", (10**6, 20), 409, (409 / 256) ** 0.5),
        ("auto", (10**6, 1000), 256, 1.0),
        (64, (10**6, 3), 64, 1.0),
        (1024, (100, 3), 1024, 2.0),
    ],
)
def test_large_batches_take_larger_steps(batch_size, shape, rows, rate):
    imputer = ADMCImputer(batch_size=batch_size, learning_rate=1e-3)
    found = TrainingPlan.of(imputer, shape, time.monotonic())
    assert found.batch_size == rows
    assert found.learning_rate == pytest.approx(1e-3 * rate)


def test_an_error_is_level_when_a_window_gains_little():
    falling = list(0.99 ** np.arange(20))
    assert not _epochs.has_flattened(falling, 50, 0.01)
    assert _epochs.has_flattened(falling, 50, 0.05)
    assert _epochs.has_flattened([*falling, *[falling[-1]] * 3], 50, 0.01)
    # So many steps, however many epochs: not before two windows have passed.
    assert not _epochs.has_flattened([1.0] * 10, 20, 0.01)
    assert _epochs.has_flattened([1.0] * 11, 20, 0.01)
    assert not _epochs.has_flattened([1.0] * 11, 10, 0.01)
    assert not _epochs.has_flattened([1.0] * 6, 5000, 0.01)
    assert _epochs.has_flattened([1.0] * 7, 5000, 0.01)


def test_a_level_error_ends_training_after_the_fall(monkeypatch):
    """Epochs after the level is seen are as many as before."""
    monkeypatch.setattr(_epochs, "WINDOW_STEPS", 1)
    monkeypatch.setattr(_epochs, "WINDOW_EPOCHS", 2)
    X, _, _ = gaussian_table(200, 4, 0)
    imputer = quick(max_epochs=30, n_iter_no_change=50, tol=0.999)  # nothing will do
    imputer.fit(hide(X, 0.2, 0))
    assert len(imputer.history_) - 1 == 8  # level after the fourth
    imputer.set_params(tol=0.0).fit(hide(X, 0.2, 0))
    assert len(imputer.history_) - 1 == 30


def test_steps_are_those_of_torch():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Linear(5, 3) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    mine = AdamW(ours.parameters(), 0.1)
    reference = torch.optim.AdamW(
        theirs.parameters(), lr=0.01, betas=mine.betas, weight_decay=0.1
    )
    for k in range(5):
        x = torch.randn(20, 5)
        for layer in (ours, theirs):
            out = layer(x)
            if k == 2:  # a parameter without a gradient stays
                out = torch.nn.functional.linear(x, layer.weight)
            out.square().mean().backward()
        mine.step(0.01)
        assert ours.weight.grad is None
        reference.step()
        reference.zero_grad()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_matrices_become_nearly_orthogonal(shape):
    """Their singular vectors stay, and their singular values become alike."""
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape) * torch.tensor([1e-6, 1.0, 1e6])[:, None, None]
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    diagonal = u.mT @ orthogonal(matrices, 7) @ v.mT
    values = diagonal.diagonal(dim1=1, dim2=2)
    assert 0.6 < values.min()
    assert values.max() < 1.25
    off = diagonal - torch.diag_embed(values)
    torch.testing.assert_close(off, torch.zeros_like(off), atol=1e-4, rtol=0)
    assert not orthogonal(torch.zeros(1, *shape), 3).any()


def test_matrices_go_as_far_as_by_adam_and_all_else_by_adam():
    torch.manual_seed(0)
    matrix, tall, still = (
        torch.nn.Parameter(torch.randn(n, 16)) for n in (16, 256, 16)
    )
    vector, twin = (torch.nn.Parameter(torch.ones(5)) for _ in range(2))
    parameters = [matrix, tall, still, vector]
    muon = Muon(parameters, parameters[:3], weight_decay=0.1)
    adam = AdamW([twin], 0.1)
    before = [p.detach().clone() for p in parameters]
    matrix.grad, tall.grad = torch.randn(16, 16), torch.randn(256, 16)
    vector.grad, twin.grad = (torch.arange(5.0) for _ in range(2))
    muon.step(0.01)
    adam.step(0.01)
    assert torch.equal(vector, twin)
    assert torch.equal(still, before[2])  # it had no gradient
    for p, start in ((matrix, before[0]), (tall, before[1])):
        moved = (p.detach() - (1 - 0.1 * 0.01) * start).square().mean().sqrt()
        assert 0.7 < moved / (ADAM_LENGTH * 0.01) < 1.2
        assert p.grad is None


def test_an_optimiser_goes_on_from_its_state():
    torch.manual_seed(0)
    start, gradients = torch.randn(8, 8), torch.randn(5, 8, 8)

    def steps(optimizer, p, some):
        for gradient in some:
            p.grad = gradient.clone()
            optimizer.step(0.01)

    whole, first, second = (torch.nn.Parameter(start.clone()) for _ in range(3))
    steps(Muon([whole], [whole], 0.0), whole, gradients)
    optimizer = Muon([first], [first], 0.0)
    steps(optimizer, first, gradients[:3])
    resumed = Muon([second], [second], 0.0)
    second.data.copy_(first.data)
    for mine, theirs in zip(resumed.state, optimizer.state, strict=True):
        mine.copy_(theirs)
    steps(resumed, second, gradients[3:])
    assert torch.equal(second, whole)


def test_layers_that_read_and_predict_are_no_hidden_matrices():
    X, _, _ = gaussian_table(60, 4, 0)
    network = quick(max_epochs=1).fit(hide(X, 0.2, 0)).model_.network
    names = {id(p): name for name, p in network.named_parameters()}
    found = [names[id(p)] for p in network.hidden_matrices]
    assert {"denoiser.mix.weight", "mean_head.first.weight"} <= set(found)
    assert "mean_head.last.weight" not in found
    assert not any("embedding" in name or "heads" in name for name in found)


def test_training_does_not_load_the_compiler():
    """It takes longer than many a table's training."""
    code = (
        "import sys, numpy as np; from admc_sklearn import ADMCImputer; "
        "X = np.random.default_rng(0).normal(size=(60, 3)); X[::4, 1] = np.nan; "
        "ADMCImputer(max_epochs=1).fit(X); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_large_table_holds_out_no_more_than_tells():
    generator = torch.Generator().manual_seed(0)
    for n, expected in ((500, 50), (200_000, 10_000)):
        held, kept = hold_out(n, 0.1, None, generator)
        assert len(held) == expected
        assert set(held).isdisjoint(kept)
        assert len(held) + len(kept) == n


def test_n_iter_no_change_stops():
    X, _, _ = gaussian_table(200, 4, 0)
    imputer = quick(max_epochs=500, n_iter_no_change=4).fit(hide(X, 0.2, 0))
    assert len(imputer.history_) - 1 == imputer.n_epochs_ + 4


def test_ctrl_c_keeps_the_best_weights_and_warns(monkeypatch):
    epoch = _trainer.CellTrainer.epoch
    done = []

    def interrupted(self):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(epoch(self))
        return done[-1]

    monkeypatch.setattr(_trainer.CellTrainer, "epoch", interrupted)
    X = hide(rings(500, 0), 0.2, 0)
    with pytest.warns(UserWarning, match="interrupted"):
        imputer = ADMCImputer(max_epochs=50, random_state=0).fit(X)
    assert len(imputer.history_) == 4
    assert np.isfinite(imputer.transform(X)).all()


def test_progress_shows_the_validation_figure_and_silence_is_silent(capfd):
    X = hide(rings(200, 0), 0.2, 0)
    quick(verbose=0).fit(X)
    assert capfd.readouterr() == ("", "")
    imputer = quick(verbose=1).fit(X)
    shown = capfd.readouterr().err
    assert f"{imputer.history_['valid_rmse'].iloc[-1]:.4f}" in shown


def test_an_odd_last_batch_and_rows_without_cells_train():
    X = hide(rings(97, 0), 0.2, 0)
    X[::3] = np.nan
    imputer = quick(batch_size=32).fit(X)
    assert imputer.history_["train_loss"][1:].notna().all()


def test_network_sizes_and_wide_tables_share_tokens():
    X = np.random.default_rng(0).normal(size=(30, 150)).astype(np.float32)
    observed = np.ones(X.shape, dtype=bool)
    generator = torch.Generator().manual_seed(0)
    anchor = fit_anchor(
        torch.tensor(X), torch.tensor(observed), Coordinates(150, {}), 10.0, generator
    )
    network = build_network(
        Rows(X, observed),
        PowerTransform.identity(150),
        anchor,
        SIZES["small"],
        generator,
    )
    assert network.denoiser.embedding.n_tokens == 50
    targets = torch.tensor(np.random.default_rng(0).random(X.shape) < 0.3)
    for posterior in network(torch.tensor(X), ~targets, targets):
        assert torch.isfinite(posterior.mean()).all()


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "mps"])
def test_unusable_devices_are_named(device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has MPS")
    if device == "cuda:99" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ValueError, match=device):
        resolve_device(device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("table", [lambda: hide(rings(2000, 0), 0.2, 0), None])
def test_training_stays_on_the_gpu(monkeypatch, table):
    X = mixed_rings(2000, 0) if table is None else table()
    step, seen = _trainer.CellTrainer.step, set()

    def spy(self, batch):
        loss = step(self, batch)
        seen.add((self.values.device.type, batch.targets.device.type, loss.device.type))
        return loss

    monkeypatch.setattr(_trainer.CellTrainer, "step", spy)
    imputer = ADMCImputer(max_epochs=30, device="cuda", random_state=0).fit(X)
    assert seen == {("cuda", "cuda", "cuda")}
    cpu = ADMCImputer(max_epochs=30, device="cpu", random_state=0).fit(X)
    got, expected = (i.history_["valid_rmse"].min() for i in (imputer, cpu))
    assert got == pytest.approx(expected, rel=0.1)


def test_warm_start_goes_on_where_a_cold_one_begins_anew():
    X = hide(rings(1500, 0), 0.25, 1)
    imputer = ADMCImputer(max_epochs=5, warm_start=True, random_state=0).fit(X)
    assert imputer.n_epochs_ > 0
    kept = [p.detach().clone() for p in imputer.model_.network.denoiser.parameters()]
    imputer.set_params(max_epochs=0).fit(X)
    for before, after in zip(
        kept, imputer.model_.network.denoiser.parameters(), strict=True
    ):
        assert torch.equal(before, after)
    imputer.set_params(warm_start=False).fit(X)
    assert not all(
        torch.equal(before, after)
        for before, after in zip(
            kept, imputer.model_.network.denoiser.parameters(), strict=True
        )
    )
    with pytest.raises(ValueError, match="features"):
        imputer.set_params(warm_start=True).fit(X[:, :2])
