"""Narrow blocks: completed as blocks or cell by cell, as held-out rows decide."""

import numpy as np
import pytest

from admc_sklearn import ADMCImputer
from admc_sklearn._blocks import fit as block_fit
from admc_sklearn._blocks.cross_fit import CrossFit
from admc_sklearn._cells.model import CellModel
from admc_sklearn._combined.model import CombinedModel
from admc_sklearn._combined.settings import Settings
from tests.conftest import FIRST_SEED

MODALITIES = {"a": range(5), "b": range(5, 10)}


class Choosing(ADMCImputer):
    """With the settings that users have."""

    _settings = Settings()


def fitted(kind, X, **parameters):
    return kind(modalities=MODALITIES, random_state=0, **parameters).fit(X)


def lose_blocks(X, share, seed):
    """Each block lost in half of the share of the rows, never both."""
    X, lost = X.copy(), np.random.default_rng(seed).random(len(X))
    X[np.ix_(lost < share / 2, MODALITIES["a"])] = np.nan
    X[np.ix_(lost > 1 - share / 2, MODALITIES["b"])] = np.nan
    return X


def steps(n, seed):
    """Rows of whole numbers: block b mostly has the sizes of a, column by column."""
    rng = np.random.default_rng(FIRST_SEED + seed)
    a = rng.integers(-4, 5, size=(n, 5)).astype(float)
    off = (rng.random(a.shape) < 0.1) * rng.integers(1, 3, size=a.shape)
    return np.column_stack([a, np.abs(a) + off])


@pytest.fixture(scope="module")
def chosen():
    return fitted(Choosing, lose_blocks(steps(800, 0), 0.5, 1))


def error(imputer, X):
    """Error of block b in rows that lack it."""
    incomplete = X.copy()
    incomplete[:, 5:] = np.nan
    return np.sqrt(np.square(imputer.transform(incomplete) - X)[:, 5:].mean())


def test_cells_are_chosen_where_they_are_better(chosen):
    assert isinstance(chosen.model_, CellModel)
    blocks = fitted(ADMCImputer, lose_blocks(steps(800, 0), 0.5, 1))
    assert isinstance(blocks.model_, CombinedModel)
    fresh = steps(500, 2)
    assert error(chosen, fresh) < 0.9 * error(blocks, fresh)


def gaussian(n, seed):
    """Block b is a straight function of a, and some noise."""
    rng = np.random.default_rng(FIRST_SEED + seed)
    a = rng.normal(size=(n, 5))
    return np.column_stack([a, a @ rng.normal(size=(5, 5)) + rng.normal(size=(n, 5))])


def shuffled(n, seed):
    """Block b holds other names of the levels of a, which are in no order."""
    rng = np.random.default_rng(FIRST_SEED + seed)
    a = rng.integers(0, 9, size=(n, 5))
    return np.column_stack([a, np.array([4, 0, 7, 2, 8, 1, 5, 3, 6])[a]]).astype(float)


@pytest.mark.parametrize(("table", "trained"), [(shuffled, False), (gaussian, True)])
def test_blocks_are_trained_where_there_is_hope_for_them(monkeypatch, table, trained):
    fits, run_epochs = [], block_fit.run_epochs
    monkeypatch.setattr(
        block_fit, "run_epochs", lambda *a: fits.append(a) or run_epochs(*a)
    )
    epochs = 2 if trained else 40
    X = lose_blocks(table(400, 0), 0.5, 1)
    imputer = fitted(Choosing, X, max_epochs=epochs)
    assert bool(fits) == trained
    if not trained:
        assert isinstance(imputer.model_, CellModel)


def test_the_choice_is_by_the_error_of_lost_blocks(monkeypatch):
    X = lose_blocks(steps(300, 3), 0.5, 1)
    monkeypatch.setattr(CellModel, "judge_wholes", lambda self, *_: None)
    imputer = fitted(Choosing, X, max_epochs=0)
    assert isinstance(imputer.model_, CombinedModel)  # nothing was measured of cells


def test_what_was_measured_is_chosen_where_time_ran_out(monkeypatch):
    """Without time for left-out folds nothing is known of the blocks."""
    X = lose_blocks(steps(300, 3), 0.5, 1)
    monkeypatch.setattr(CrossFit, "_is_late", lambda *_: True)
    imputer = fitted(Choosing, X, max_epochs=1, max_time=20)
    assert isinstance(imputer.model_, CellModel)
    assert np.isfinite(imputer.model_.lost_error)


def test_errors_in_held_out_rows_are_those_of_unseen_ones(chosen):
    """In units of the columns' spread; half of the lost cells are of either block."""
    fresh = steps(3000, 4)
    scale = np.nanstd(lose_blocks(steps(800, 0), 0.5, 1), axis=0)
    squared = []
    for columns in MODALITIES.values():
        incomplete = fresh.copy()
        incomplete[:, columns] = np.nan
        found = (chosen.transform(incomplete) - fresh) / scale
        squared.append(np.square(found[:, columns]).mean())
    # A quarter of the held-out rows lacks either block, and then loses the other.
    expected = np.sqrt((0.5 * sum(squared) / 2 + 0.25 * 1.0) / 0.75)
    assert chosen.model_.lost_error == pytest.approx(expected, rel=0.25)


def test_modalities_tell_of_each_other(chosen):
    """What a says of b: all; what b says of a: its size and not its sign."""
    found = chosen.dependence_
    assert list(found) == list(found.index) == ["a", "b"]
    assert found.loc["b", "a"] > 0.5
    assert found.loc["a", "b"] < 0.2
    assert (np.diag(found) == 1).all()


def test_attention_is_between_modalities(chosen):
    weights = chosen.attention(lose_blocks(steps(50, 5), 1.0, 0))
    assert list(weights) == list(weights.index) == ["a", "b"]
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-5)
    assert (weights > 0).all(axis=None)


def test_draws_of_a_lost_block_follow_the_other(chosen):
    """More than twice as often as draws that would not; 0.9 is the law's own share."""
    complete = steps(300, 6)
    incomplete = complete.copy()
    incomplete[:, 5:] = np.nan
    (drawn,) = chosen.sample(incomplete, 1)
    size = np.abs(complete[:, :5])
    follows, chance = (drawn[:, 5:] == size).mean(), (drawn[::-1, 5:] == size).mean()
    assert follows > max(0.5, 2 * chance)


def test_training_goes_on_from_the_cells_that_were_chosen(chosen):
    X = lose_blocks(steps(800, 0), 0.5, 1)
    imputer = fitted(Choosing, X, max_epochs=2, warm_start=True)
    first = type(imputer.model_)
    assert type(imputer.fit(X).model_) is first
    assert imputer.dependence_ is not None
