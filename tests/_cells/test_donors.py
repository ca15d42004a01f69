"""Donors: rows that repeat training rows take their values, others do not."""

import copy
import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.corrections import donor_weights, landmark_fit
from admc_sklearn._cells.corrections.donor_weights import Trial, hide_and_search
from admc_sklearn._cells.corrections.donors import (
    Donors,
    DonorSettings,
    _largest,
    fading,
    mixed,
    truncated,
)
from admc_sklearn._cells.network.held_out_cells import Validation
from admc_sklearn._cells.network.posterior import (
    LevelPosterior,
    NumericPosterior,
    PackedCells,
)
from admc_sklearn._cells.settings import CellSettings
from admc_sklearn._combined.settings import Settings
from admc_sklearn._shared.contract import Rows
from admc_sklearn._shared.held_out import is_gain
from tests.conftest import gaussian_table, hide

OPTIONS = {"max_epochs": 3, "random_state": 0, "self_masking": False}


def repeated(n, d, seed, n_distinct=300):
    """Rows of independent columns, each of which occurs several times."""
    rng = np.random.default_rng(seed)
    distinct = np.random.default_rng(0).normal(size=(n_distinct, d))
    return distinct[rng.integers(n_distinct, size=n)]


@pytest.fixture(scope="module")
def twins():
    X, new = repeated(1500, 6, 1), repeated(300, 6, 2)
    imputer = ADMCImputer(**OPTIONS).fit(hide(X, 0.3, 0))
    # A value that recurs determines its row, which exact relations would notice too.
    imputer._codec.relations_.rules_ = []
    return imputer, new, hide(new, 0.3, 1)


def without_donors(imputer):
    plain = copy.deepcopy(imputer)
    plain.model_.donors = None
    return plain


def test_rows_that_repeat_training_rows_take_their_values(twins):
    imputer, new, incomplete = twins
    hidden = np.isnan(incomplete)

    def error(imputer):
        return np.abs(imputer.transform(incomplete) - new)[hidden].mean()

    # These columns are independent but for the repeated rows.
    assert error(without_donors(imputer)) > 0.6
    assert error(imputer) < 0.13


def test_the_median_and_the_quantiles_come_from_donors_too(twins):
    imputer, new, incomplete = twins
    low, middle, high = imputer.predict_quantiles(incomplete, (0.1, 0.5, 0.9))
    hidden = np.isnan(incomplete)
    assert np.abs(middle - new)[hidden].mean() < 0.15
    assert np.mean((high - low)[hidden] < 0.2) > 0.7


def test_draws_copy_one_donor(twins):
    imputer, new, incomplete = twins
    draws = imputer.sample(incomplete, n_draws=4)
    gap = np.where(np.isnan(incomplete), np.abs(draws - new), 0.0)
    assert np.mean(gap.max(2) < 0.01) > 0.6
    one_by_one = np.concatenate(
        [imputer.sample(row[None], n_draws=4) for row in incomplete[:5]], axis=1
    )
    np.testing.assert_allclose(one_by_one, draws[:, :5], atol=1e-4)


def test_draws_copy_in_proportion_to_the_weights():
    x, o = mixed_rows(1, 1)
    rows = Donors(Columns, *mixed_rows(400, 0))
    rows.observed[:] = True
    rows.is_used[:] = True
    o[:] = False
    found = torch.tensor([[5, 3]])
    z = torch.log(torch.tensor([[[1.0, 2.0]], [[1.0, 2.0]]]))
    rows.concentration[:] = math.log(3.0)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(20_000, 1 + rows.settings.n_candidates, generator=generator)
    n = len(noise)
    drawn = rows.draw(
        Rows(x.expand(n, -1), o.expand(n, -1)),
        found.expand(n, -1),
        z.expand(-1, n, -1),
        noise,
    )
    values, copied = drawn.values, drawn.observed
    for row, share in ((5, 1 / 6), (3, 1 / 3)):
        same = copied.all(1) & (values == rows.values[row]).all(1)
        assert float(same.float().mean()) == pytest.approx(share, abs=0.02)
    assert (copied.all(1) | ~copied.any(1)).all()


def test_levels_are_donated():
    def table(n, seed):
        codes = np.random.default_rng(0).integers(5, size=(200, 8))
        rows = codes[np.random.default_rng(seed).integers(200, size=n)]
        frame = pd.DataFrame(rows).astype(str).astype("category")
        return frame.rename(columns=lambda j: f"c{j}")

    X, new = table(1500, 1), table(300, 2)
    keep = np.random.default_rng(3).random(X.shape) > 0.3
    imputer = ADMCImputer(**OPTIONS).fit(X.where(keep))
    incomplete = new.assign(c0=np.nan)

    def accuracy(imputer):
        imputer = copy.copy(imputer).set_output(transform="pandas")
        return np.mean(imputer.transform(incomplete)["c0"] == new["c0"])

    assert accuracy(without_donors(imputer)) < 0.6
    assert accuracy(imputer) > 0.9
    right = imputer.predict_proba(incomplete, "c0").max(axis=1)
    assert right.mean() > 0.85


def test_rows_without_donors_leave_the_network_alone():
    X = gaussian_table(1100, 5, 0)[0]
    imputer = ADMCImputer(**OPTIONS).fit(hide(X[:800], 0.3, 0))
    new = hide(X[800:], 0.3, 1)
    plain = without_donors(imputer)
    gap = imputer.transform(new) - plain.transform(new)
    assert np.sqrt(np.mean(gap**2)) < 0.05


def test_transform_of_a_training_row_does_not_reveal_hidden_cells():
    X = np.random.default_rng(0).normal(size=(600, 5))  # nothing depends on anything
    incomplete = hide(X, 0.3, 0)
    imputer = ADMCImputer(**OPTIONS).fit(incomplete)
    assert imputer.model_.donors is None
    # Donors that are kept nevertheless.
    values = torch.tensor(X, dtype=torch.float32)
    observed = torch.tensor(~np.isnan(incomplete))
    imputer.model_.donors = Donors(imputer.model_.network, values, observed)
    imputer.model_.donors.is_used[:] = True
    hidden = np.isnan(incomplete)
    assert np.abs(imputer.transform(incomplete) - X)[hidden].mean() > 0.7


def test_rows_do_not_depend_on_their_companions(twins):
    imputer, _, incomplete = twins
    together = imputer.transform(incomplete[:6])
    alone = np.vstack([imputer.transform(row[None]) for row in incomplete[:6]])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_pickles_hold_donors(twins):
    imputer, _, incomplete = twins
    again = pickle.loads(pickle.dumps(imputer))
    np.testing.assert_array_equal(
        again.transform(incomplete), imputer.transform(incomplete)
    )


def test_warm_start_finds_donors_anew(twins):
    X = hide(repeated(1200, 6, 1), 0.3, 0)
    imputer = ADMCImputer(**OPTIONS, warm_start=True).fit(X)
    first = imputer.model_.donors
    assert imputer.fit(X).model_.donors is not first


@pytest.fixture(scope="module")
def partly_repeated():
    """Four columns that recur together and three, the last, that are independent."""
    distinct = np.random.default_rng(0).normal(size=(120, 4))
    rng = np.random.default_rng(1)
    rows = rng.integers(120, size=800)
    X = np.column_stack([distinct[rows], rng.normal(size=(800, 3))])
    incomplete = hide(X[:500], 0.2, 0)
    return with_landmarks().fit(incomplete), X[500:], incomplete


def with_landmarks():
    imputer = ADMCImputer(**OPTIONS)
    imputer._settings = Settings(cells=CellSettings(forests=None))
    return imputer


def test_columns_that_recur_together_have_the_larger_weights(partly_repeated):
    imputer, new, _ = partly_repeated
    donors = imputer.model_.donors
    weight = donors.weight[0].sum(1)
    # Weights of single columns are noisy: 0.4 to 1.0, and 0 to 0.4, by the seed.
    assert weight[:4].mean() > 1.5 * weight[4:].mean()
    # Columns that recur are copied, the others are left to the network.
    assert donors.concentration[:4].max() < donors.concentration[4:].min()
    incomplete = new.copy()
    incomplete[:, [0, 6]] = np.nan
    error = np.abs(imputer.transform(incomplete) - new)
    assert error[:, 0].mean() < 0.5 * error[:, 6].mean()


def test_held_out_rows_are_searched_too_once_they_have_judged(partly_repeated):
    imputer, _, incomplete = partly_repeated
    donors = imputer.model_.donors
    assert len(donors.values) == len(incomplete)
    scaling = imputer._codec.scaling_
    held = (incomplete - scaling.mean_) / scaling.scale_
    expected = np.sort(held[~np.isnan(held[:, 0]), 0])
    stored = imputer.model_.network.warp.inverse(donors.values)
    found = stored[donors.observed[:, 0], 0]
    np.testing.assert_allclose(np.sort(found.numpy()), expected, atol=1e-3)


def test_corrections_without_a_gain_on_held_out_rows_are_left_out(
    partly_repeated, monkeypatch
):
    imputer, _, incomplete = partly_repeated
    assert imputer.model_.landmarks is not None
    weight = imputer.model_.landmarks.weight
    assert ((weight > 0.05) & (weight < 0.95)).any()  # cells choose it
    refuse = lambda gains, *n_errors: torch.zeros(gains.shape[:-1]).bool()  # noqa: E731
    for module in (landmark_fit, donor_weights):
        monkeypatch.setattr(module, "is_gain", refuse)
    model = with_landmarks().fit(incomplete).model_
    assert model.landmarks is None
    assert model.donors is None


# The search, against its definition.


def mixed_rows(n, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 5))
    values[:, 1] = values[:, 1].round()
    values[:, 3] = rng.integers(4, size=n)
    values[:, 4] = rng.integers(2, size=n)
    return (
        torch.tensor(values, dtype=torch.float32),
        torch.tensor(rng.random((n, 5)) > 0.3),
    )


class Columns:
    """The part of a network that donors need."""

    n_columns = 5
    numeric, categorical = torch.tensor([0, 1, 2]), torch.tensor([3, 4])

    @staticmethod
    def index(values):
        return values.round().long() + 10


@pytest.fixture
def rows():
    return Donors(Columns, *mixed_rows(400, 0))


def test_the_search_finds_the_nearest_rows(rows):
    x, o = mixed_rows(20, 1)
    expected = torch.zeros(20, 400)
    scaled = rows._scaled(x.clone())
    chance, settings = rows._chance(scaled)[-1], rows.settings
    rarity = rows.level_rarity(x)
    for j in range(5):
        both = o[:, None, j] & rows.observed[None, :, j]
        if j < 3:
            gap = (scaled[:, None, j] - rows.scaled_values[None, :, j]).abs()
            evidence = -gap / settings.search_width - chance[:, None, j]
        else:
            same = x[:, None, j] == rows.scaled_values[None, :, j]
            disagreeing = math.log(settings.differing)
            evidence = torch.where(same, rarity[:, None, j - 3], disagreeing)
        expected += torch.where(both, evidence, 0.0)
    found, _ = rows.search(x, o)
    best = expected.topk(found.shape[1], 1).values
    kept = expected.gather(1, found).sort(1, descending=True).values
    torch.testing.assert_close(kept, best, atol=2e-3, rtol=1e-3)


def test_the_largest_by_blocks_are_the_largest():
    score = torch.randn(5, 9001, generator=torch.Generator().manual_seed(0))
    score[0, 8990:9001] = 10.0  # beyond the last block
    score[1, ::140] = 10.0  # many in one block
    found = _largest(score, 32).sort(1).values
    assert all(len(row.unique()) == 32 for row in found)
    kept = score.gather(1, found).sort(1, descending=True).values
    torch.testing.assert_close(kept, score.topk(32, 1).values)


def test_no_more_candidates_are_found_than_the_settings_allow(rows):
    few = Donors(Columns, *mixed_rows(400, 0), DonorSettings(n_candidates=5))
    x, o = mixed_rows(20, 1)
    found, _ = few.search(x, o)
    assert found.shape == (20, 5)
    more, _ = rows.search(x, o)
    assert (found[:, :, None] == more[:, None]).any(-1).all()


def test_chances_are_means_of_the_kernels(rows):
    scaled, settings = rows.scaled_values, rows.settings
    column = scaled[rows.observed[:, 1], 1]
    chance = rows._chance(scaled[:30])
    for k, width in enumerate(settings.widths):
        gap = (scaled[:30, None, 1] - column).abs().clamp_max(settings.reach)
        expected = torch.exp(-gap / width).mean(1).log()
        torch.testing.assert_close(chance[k][:, 1], expected, atol=1e-3, rtol=1e-3)


def test_cells_missing_in_either_row_are_no_evidence(rows):
    x, o = mixed_rows(20, 1)
    found, _ = rows.search(x, o)
    evidence = rows.evidence(x, o, found)
    missing = ~(o[:, None] & rows.observed[found])
    assert (evidence[missing] == 0).all()
    assert (evidence[~missing].abs().sum(-1) > 0).all()
    assert evidence.min() >= math.log(rows.settings.differing) - 1e-5


def test_agreeing_in_a_rare_value_is_more_evidence():
    values = torch.zeros(1000, 5)
    values[:10, 0] = 3.0
    values[:10, 3] = 1.0
    rows = Donors(Columns, values, torch.ones(1000, 5, dtype=torch.bool))
    found = torch.tensor([[0], [999]])
    evidence = rows.evidence(values[[0, 999]], rows.observed[[0, 999]], found)
    assert (evidence[0, 0, [0, 3], 0] > evidence[1, 0, [0, 3], 0] + 2).all()


def test_search_without_numbers_or_levels():
    x, o = mixed_rows(50, 0)
    for numeric, categorical in (([0, 1, 2, 3, 4], []), ([], [3, 4])):

        class Some(Columns):
            pass

        Some.numeric, Some.categorical = (
            torch.tensor(part, dtype=torch.long) for part in (numeric, categorical)
        )
        rows = Donors(Some, x, o)
        found, z = rows.find(Rows(x[:7], o[:7]))
        assert found.shape == z.shape[1:] == (7, rows.settings.n_candidates)
        assert z.isfinite().all()


def test_mixed_is_the_mixture_of_both():
    logits = torch.log(torch.tensor([[[0.5, 0.3, 0.2]]]))
    outcome = torch.tensor([[[2, 2, 0, -1]]])
    z = torch.log(torch.tensor([[[1.0, 2.0, 1.0, 50.0]]]))
    share = torch.softmax(
        mixed(logits, outcome, z, torch.tensor([[math.log(4.0)]])), -1
    )
    expected = torch.tensor([[[4 * 0.5 + 1, 4 * 0.3, 4 * 0.2 + 3]]]) / 8
    torch.testing.assert_close(share, expected)


def test_a_candidate_that_is_about_to_be_replaced_has_no_weight(rows):
    x, o = mixed_rows(200, 1)
    step = torch.zeros_like(x)
    step[:, :3] = 1e-3
    n_replaced = 0
    found = [rows.find(Rows(own, o)) for own in (x, x + step)]
    weights = [
        torch.zeros(len(x), len(rows.values)).scatter(1, candidates, z[0].exp())
        for candidates, z in found
    ]
    for one, other in zip(found[0][0], found[1][0], strict=True):
        n_replaced += len(set(one.tolist()) ^ set(other.tolist()))
    assert n_replaced > 20
    apart = (weights[0] - weights[1]).abs().sum(1) / (1 + weights[0].sum(1))
    assert apart.max() < 0.1


def test_candidates_do_not_depend_on_the_rows_searched_for_beside(rows):
    x, o = mixed_rows(60, 1)
    o[:40] = o[:1]  # many rows of one pattern, which are searched by themselves
    found, faded = rows.search(x, o)
    for k in (0, 39, 59):
        alone, own = rows.search(x[k : k + 1], o[k : k + 1])
        order, other = alone.sort(1).indices, found[k : k + 1].sort(1).indices
        assert alone.gather(1, order).equal(found[k : k + 1].gather(1, other))
        assert own.gather(1, order).equal(faded[k : k + 1].gather(1, other))


def test_truncated_weights_end_at_the_least_candidate():
    z = torch.log(torch.tensor([[1.0, 3.0, 2.0]]))
    torch.testing.assert_close(
        truncated(z).exp(), torch.tensor([[0.0, 2.0, 1.0]]), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("weigh", [fading, truncated])
def test_of_rows_as_good_as_each_other_none_is_a_donor(weigh):
    assert weigh(torch.full((1, 32), 5.0)).exp().sum() < 1e-20


# Scores by which donors are judged.


def test_scores_are_lowest_for_the_truth(twins):
    """Both scores are proper: a distribution expects no other to do better."""
    atoms = twins[0].model_.network.heads[0].atoms
    g, k = atoms.center.shape
    cells = PackedCells(
        torch.zeros(g, 1, dtype=torch.long),
        torch.ones(g, 1, dtype=torch.bool),
        torch.arange(g)[:, None],
    )
    generator = torch.Generator().manual_seed(0)
    truth, other = (torch.randn(g, 1, k, generator=generator) for _ in range(2))
    share = torch.softmax(truth, -1)
    zero = torch.zeros(g, 1)
    numeric = NumericPosterior(cells, truth, atoms, zero, zero + 1)
    level = LevelPosterior(cells, truth, torch.full((g, k), 1 / k))

    def expected(posterior, logits, name):
        posterior.logits = logits
        score = getattr(posterior, name)
        scores = [score(torch.full((g, 1), i)) for i in range(k)]
        return (torch.stack(scores, -1) * share).sum(-1)

    for posterior in (numeric, level):
        for name in ("score", "point_error"):
            own = expected(posterior, truth, name)
            assert (own < expected(posterior, other, name) + 1e-6).all()


def test_the_ranked_score_is_the_integral_over_all_thresholds(twins):
    atoms = twins[0].model_.network.heads[0].atoms
    g, k = atoms.center.shape
    logits = torch.randn(g, 1, k, generator=torch.Generator().manual_seed(1))
    zero = torch.zeros(g, 1)
    posterior = NumericPosterior(None, logits, atoms, zero, zero + 1)
    atom = torch.full((g, 1), k // 3)
    share = torch.softmax(logits[:, 0], -1)
    center = atoms.center
    gap = (center[:, :, None] - center[:, None]).abs()
    # E|X - y| - E|X - X'| / 2 (Gneiting and Raftery, 2007).
    expected = (share * (center - center[:, k // 3, None]).abs()).sum(1)
    expected -= torch.einsum("gi,gij,gj->g", share, gap, share) / 2
    torch.testing.assert_close(
        posterior.score(atom)[:, 0], expected, atol=1e-4, rtol=1e-3
    )


def test_hidden_cells_are_those_of_their_held_out_rows(twins):
    """However often a row takes turns, and whichever half it is in."""
    imputer, new, _ = twins
    model = imputer.model_
    network = model.network
    values = torch.tensor((new - new.mean(0)) / new.std(0), dtype=torch.float32)[:80]
    generator = torch.Generator().manual_seed(0)
    observed = torch.rand(values.shape, generator=generator) < 0.8
    unit = torch.arange(values.shape[1])
    validation = Validation(network, values, observed, generator, unit)
    outcome = network.index(validation.rows)
    seen = set()
    for hidden in hide_and_search(model, model.donors, validation, generator)[0]:
        rows, cells = hidden.rows(), hidden.posterior.cells
        columns = cells.columns.expand_as(cells.rows)[cells.filled]
        assert (rows % 2 == hidden.half).all()
        assert observed[rows, columns].all()
        assert (hidden.truth[cells.filled] == outcome[rows, columns]).all()
        assert hidden.errors().shape == (2, len(rows))
        seen.update(rows.tolist())
    assert len(seen) > 70


def test_a_gain_exceeds_the_noise_of_its_rows():
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0))
    noise = noise - noise.mean()
    share = torch.tensor([-1.0, 0.0, 0.05, 0.1, 1.0])[:, None]
    gains = is_gain(noise / noise.std() + share).tolist()
    assert gains == [False, False, False, True, True]
    # The same rows once more are no more evidence: they are summed first.
    assert not is_gain((2 * (noise / noise.std() + 0.05))[None]).any()
    assert not is_gain(torch.ones(1))  # the noise of a single row has no estimate


def test_the_fewer_cells_there_are_the_larger_share_is_hidden(twins):
    """Enough cells of every kind are hidden, but no more than the limit."""
    network = twins[0].model_.network
    settings = DonorSettings(hide_rate=0.1, max_hide_rate=0.4, n_kind_cells=3000)
    few, some, many = (
        float(donor_weights._hide_rates(network, observed, settings)[0])
        for observed in (torch.ones(n, 6, dtype=torch.bool) for n in (10, 2000, 10_000))
    )
    assert few == pytest.approx(0.4)
    assert some == pytest.approx(3000 / 12_000)
    assert many == pytest.approx(0.1)


# A search of 10,000 rows has to gain 4 %, a search of any number at least 0.5 %.
SEARCH = DonorSettings(max_rows=10_000, min_gain=5e-3, min_gain_of_max_rows=4e-2)


class Offered(Trial):
    """A trial with given gains of the weights, in the score and the point's error."""

    def __init__(self, n_rows, score, point):
        row = torch.arange(1000)
        self.cells = [Cells(half, row[row % 2 == half]) for half in (0, 1)]
        self.start, self.settings = torch.zeros(()), SEARCH
        self.n_rows, self.gains = n_rows, (score, point)

    def learn(self, freedom, half=None):
        return self.gains, None

    def errors(self, half, weight=None, concentration=None):
        if weight is None:
            return torch.ones(2, 500)
        # Rows gain unequally, but far more than their noise.
        noise = torch.randn(2, 500, generator=torch.Generator().manual_seed(half))
        return 1 - torch.tensor(weight)[:, None] * (1 + noise)


class Cells:
    """Rows of the cells of one half."""

    def __init__(self, half, rows):
        self.half, self._rows = half, rows

    def rows(self):
        return self._rows


class Overfitted(Offered):
    """Weights that gain in the half that learnt them, and lose in the other."""

    def learn(self, freedom, half=None):
        return half, None

    def errors(self, half, weight=None, concentration=None):
        if weight is None:
            return torch.ones(2, 500)
        noise = torch.randn(2, 500, generator=torch.Generator().manual_seed(half))
        return 1 - (0.1 if weight == half else -0.05) * (1 + noise)


def test_weights_are_judged_by_the_half_that_has_not_learnt_them():
    assert Overfitted(1000, 0.1, 0.1).best_freedom() is None
    assert Offered(1000, 0.1, 0.1).best_freedom() is not None


@pytest.mark.parametrize(
    ("n_rows", "score", "point", "helps"),
    [
        (1000, 0.01, 0.01, True),
        (1000, 0.002, 0.002, False),  # not worth a search
        (10_000, 0.01, 0.01, False),  # of so many rows
        (10_000, 0.03, 0.03, True),
        (1000, 0.02, -0.001, False),  # the point gets worse
        (1000, -0.001, 0.02, False),
    ],
)
def test_the_more_rows_are_searched_the_more_has_to_be_gained(
    n_rows, score, point, helps
):
    assert (Offered(n_rows, score, point).best_freedom() is not None) == helps
