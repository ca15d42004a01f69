"""scikit-learn's callbacks are told of fits, networks and epochs."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from admc_sklearn.evaluation import make_imputation_scorer
from tests.conftest import gaussian_table, hide, quick

callback = pytest.importorskip("sklearn.callback")
X = hide(gaussian_table(80, 3, 0)[0], 0.2, 1)


class Recorder:
    """Notes every hook; asks to stop at an epoch. It reaches inner estimators."""

    max_propagation_depth = None

    def __init__(self, stop_at=None):
        self.stop_at, self.events = stop_at, []

    def setup(self, estimator, context):
        self.events.append(("setup", context.task_name))

    def teardown(self, estimator, context):
        self.events.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator, context, *, X):
        self.events.append(("begin", context.task_name))
        self.shape = np.shape(X)

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        self.events.append(("end", context.task_name))
        if context.task_name == "fit" and type(estimator).__name__ == "ADMCImputer":
            self.fitted = fitted_estimator
        return context.task_name == "epoch" and context.task_id == self.stop_at


def test_a_fit_its_trainings_and_its_epochs_begin_and_end():
    imputer, recorder = quick(max_epochs=3, tol=0), Recorder()
    assert imputer.set_callbacks(recorder) is imputer
    imputer.fit(X)
    epochs = [("begin", "epoch"), ("end", "epoch")] * (len(imputer.history_) - 1)
    assert recorder.events == [
        ("setup", "fit"),
        ("begin", "fit"),
        ("begin", "training"),
        *epochs,
        ("end", "training"),
        ("end", "fit"),
        ("teardown", "fit"),
    ]
    assert len(imputer.history_) == 4
    assert recorder.shape == X.shape
    # It only listens: the fit is that of an imputer without callbacks.
    plain = quick(max_epochs=3, tol=0).fit(X)
    np.testing.assert_array_equal(imputer.transform(X), plain.transform(X))
    np.testing.assert_array_equal(recorder.fitted.transform(X), plain.transform(X))
    assert not [name for name in vars(imputer) if "ctx" in name or "teardown" in name]


def test_a_callback_ends_training():
    imputer = quick(max_epochs=9, tol=0).set_callbacks(Recorder(stop_at=1)).fit(X)
    assert imputer.history_["epoch"].max() == 2
    assert np.isfinite(imputer.transform(X)).all()


def test_a_fit_that_fails_tears_its_callbacks_down_and_stays_as_it_was():
    imputer, recorder = quick(), Recorder()
    imputer.set_callbacks(recorder)
    with pytest.raises(ValueError, match="infinity"):
        imputer.fit(np.full((5, 2), np.inf))
    assert recorder.events[0] == ("setup", "fit")
    assert recorder.events[-1] == ("teardown", "fit")
    assert not hasattr(imputer, "model_")
    assert not hasattr(imputer, "_callback_fit_ctx")


def test_callbacks_survive_clones_pickles_and_are_no_parameters(tmp_path):
    imputer, recorder = quick(), Recorder()
    imputer.set_callbacks(recorder)
    assert clone(imputer).get_params() == quick().get_params()
    assert clone(imputer)._skl_callbacks == [recorder]
    imputer.fit(X)
    again = pickle.loads(pickle.dumps(imputer))
    np.testing.assert_array_equal(again.transform(X), imputer.transform(X))
    imputer.save(tmp_path / "imputer.safetensors")
    loaded = type(imputer).load(tmp_path / "imputer.safetensors")
    np.testing.assert_array_equal(loaded.transform(X), imputer.transform(X))
    assert not hasattr(loaded, "_skl_callbacks")
    assert not hasattr(imputer.set_callbacks(), "_skl_callbacks")


@pytest.mark.usefixtures("light_fits")
def test_a_grid_search_hands_its_callbacks_on():
    recorder = Recorder()
    search = GridSearchCV(
        quick(max_epochs=1), {"strategy": ["mean", "median"]},
        scoring=make_imputation_scorer(), cv=2,
    )  # fmt: skip
    search.set_callbacks(recorder).fit(np.tile(X, (4, 1)))
    n_fits = 5  # two candidates in two splits, and the best one anew
    assert recorder.events.count(("begin", "training")) == n_fits
    assert recorder.events.count(("end", "epoch")) == n_fits
    assert recorder.events.count(("setup", "fit")) == 1
    assert np.isfinite(search.best_score_)


def test_progress_bar(capsys):
    pytest.importorskip("rich")
    quick(max_epochs=2).set_callbacks(callback.ProgressBar()).fit(X)
    shown = capsys.readouterr().out
    assert "ADMCImputer - fit" in shown
    assert "ADMCImputer - training" in shown
