"""Draws that can be trusted: quantiles, known posteriors, proper imputation."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist

from admc_sklearn import ADMCImputer
from admc_sklearn._cells import fit as _training
from admc_sklearn._cells.anchor.power_transform import PowerTransform
from admc_sklearn.pooling import pool_over_draws
from benchmarks.draws import coverage, crps
from benchmarks.pooled import DESIGNS, simulate, summary
from tests.conftest import ROOT, gaussian_table, hide, quick


@pytest.fixture(scope="module")
def gaussian():
    X, mean, cov = gaussian_table(8000, 4, 0)
    return ADMCImputer(max_epochs=0, random_state=0).fit(X), mean, cov


def test_quantiles_are_those_of_the_conditional(gaussian):
    imputer, mean, cov = gaussian
    row = mean + np.array([1.0, 0.0, -0.5, 0.0])
    row[[1, 3]] = np.nan
    levels = [0.05, 0.25, 0.5, 0.95]
    got = imputer.predict_quantiles(row[None], levels)
    assert got.shape == (4, 1, 4)
    o, u = [0, 2], [1, 3]
    gain = cov[np.ix_(u, o)] @ np.linalg.inv(cov[np.ix_(o, o)])
    center = mean[u] + gain @ (row[o] - mean[o])
    sd = np.sqrt(np.diag(cov[np.ix_(u, u)] - gain @ cov[np.ix_(o, u)]))
    expected = center + sd * stats.norm.ppf(levels)[:, None]
    scale = np.sqrt(np.diag(cov))[u]
    np.testing.assert_allclose(got[:, 0, u] / scale, expected / scale, atol=0.06)
    np.testing.assert_array_equal(got[:, 0, o], np.tile(row[o], (4, 1)))


def test_quantiles_of_frames_and_bad_levels():
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, None] * 9, "b": ["x", "y", None] * 12})
    imputer = quick(max_epochs=0).fit(frame)
    low, high = imputer.predict_quantiles(frame, (0.1, 0.9))
    assert low.dtypes.equals(frame.dtypes)
    assert (low["a"] <= high["a"]).all()
    assert low["a"][3] < high["a"][3]
    for levels in ((0.0, 0.5), (1.0,), 0.5):
        with pytest.raises(ValueError, match="between 0 and 1"):
            imputer.predict_quantiles(frame, levels)


def energy(a, b):
    """Energy distance of two samples, squared."""
    return 2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean()


def mixture(n, seed):
    """Three correlated Gaussians in two columns, and which one it was, in three."""
    rng = np.random.default_rng(seed)
    k = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    centers = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 4.0]])
    slopes = np.array([0.8, -0.7, 0.0])
    a = rng.normal(size=n)
    b = slopes[k] * a + np.sqrt(1 - slopes[k] ** 2) * rng.normal(size=n)
    xy = centers[k] + np.column_stack([a, b])
    return pd.DataFrame({"x": xy[:, 0], "y": xy[:, 1], "k": pd.Categorical(k)})


@pytest.mark.slow
def test_draws_of_a_mixture_are_exact_draws_up_to_noise():
    """Numbers and the category jointly, with nothing and with one column known."""
    imputer = ADMCImputer(random_state=0, n_steps=8).fit(mixture(5000, 0))
    n = 2000
    for known in ([], ["x"]):
        fresh = mixture(n, 1)
        lost = fresh.copy()
        lost[[c for c in lost if c not in known]] = np.nan
        drawn = imputer.sample(lost.astype({"k": fresh["k"].dtype}), 1)[0]

        def points(frame):
            codes = frame["k"].astype(int).to_numpy()
            return np.column_stack([frame[["x", "y"]], 3.0 * np.eye(3)[codes]])

        exact = points(fresh)
        noise = [energy(exact, points(mixture(n, 10 + i))) for i in range(8)]
        assert energy(exact, points(drawn)) < 1.5 * max(noise)


@pytest.mark.usefixtures("light_fits")
def test_bootstraps_widen_draws_by_the_doubt_about_the_model():
    """Variance between draws, over tables: the model's own doubt is a part of it."""
    between = {0: [], 20: []}

    def measure(imputer, X):
        pooled = pool_over_draws(imputer.sample(X, 20), DESIGNS["linear"].estimate)
        between[len(imputer.model_.replicas)].append(pooled.lambda_.mean())

    for seed in range(8):
        X, _, _ = gaussian_table(80, 3, seed)
        X = hide(X, 0.4, seed)
        imputer = quick(max_epochs=0, n_bootstraps=20).fit(X)
        measure(imputer, X)
        imputer.model_.replicas = torch.nn.ModuleList()  # as a fit without them
        measure(imputer, X)
    assert np.mean(between[20]) > 1.08 * np.mean(between[0])


def test_bootstraps_vary_as_other_samples_would():
    """Means, covariances and frequencies: by their standard errors, of 200 rows."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 2))).add_prefix("x")
    frame["k"] = pd.Categorical(np.where(rng.random(200) < 0.3, "a", "b"))
    model = quick(max_epochs=0, n_bootstraps=80).fit(frame).model_
    anchors = [replica[0].anchor for replica in model.replicas]
    means = np.array([anchor.gaussian.mean[:2].numpy() for anchor in anchors])
    covs = np.array([anchor.gaussian.cov[:2, :2].numpy() for anchor in anchors])
    p = model.network.anchor.coordinates.share[0, 0].item()
    shares = np.array([anchor.coordinates.share[0, 0].item() for anchor in anchors])
    # Of 80 replicas a standard deviation is known to a twelfth.
    for got, expected in [
        (means[:, 0].std(), (1 / 200) ** 0.5),
        (means[:, 1].std(), (1 / 200) ** 0.5),
        (covs[:, 0, 0].std(), (2 / 200) ** 0.5),
        (covs[:, 0, 1].std(), (1 / 200) ** 0.5),
        (shares.std(), (p * (1 - p) / 200) ** 0.5),
    ]:
        assert got == pytest.approx(expected, rel=0.4)
    assert shares.mean() == pytest.approx(p, abs=5 * shares.std() / 80**0.5)
    margins = torch.stack([replica[0].margin(0) for replica in model.replicas])
    assert (margins.std(0)[:, 0][model.network.heads[0].atoms.valid] > 0).all()


def test_draws_take_turns_with_the_bootstraps():
    X, _, _ = gaussian_table(100, 3, 0)
    X[::2, 1] = np.nan
    imputer = quick(max_epochs=0, n_bootstraps=2).fit(X)
    before = imputer.sample(X, 5)
    imputer.model_.replicas[1][0].anchor.gaussian.mean += 0.5
    after = imputer.sample(X, 5)
    changed = [not np.array_equal(a, b) for a, b in zip(after, before, strict=True)]
    assert changed == [False, True, False, True, False]


def test_bootstraps_take_the_weakest_ridge(monkeypatch):
    """The best one shrinks what is estimated from draws, here a correlation to half."""

    def choose(values, observed, coordinates, generator, **options):
        return PowerTransform.identity(values.shape[1]), 100.0, 0.01

    monkeypatch.setattr(_training, "choose_coordinates", choose)
    z = np.random.default_rng(0).normal(size=(100, 2))
    X = np.column_stack([z[:, 0], z[:, 0] + 0.1 * z[:, 1]])
    model = quick(max_epochs=0, n_bootstraps=5).fit(X).model_
    correlation = [
        float(prior.anchor.gaussian.cov[0, 1]) / float(prior.anchor.gaussian.cov[0, 0])
        for prior in (model.network.prior, *(replica[0] for replica in model.replicas))
    ]
    assert correlation[0] == pytest.approx(0.5, abs=0.02)
    assert min(correlation[1:]) > 0.9


def test_bootstraps_keep_rare_levels_and_pickle():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"k": ["rare"] + ["a", "b"] * 50, "x": rng.normal(size=101), "z": 1.0}
    )
    frame.loc[::7, "x"] = np.nan
    imputer = quick(n_bootstraps=5).fit(frame)
    again = pickle.loads(pickle.dumps(imputer))
    for a, b in zip(imputer.sample(frame, 5), again.sample(frame, 5), strict=True):
        pd.testing.assert_frame_equal(a, b)
    for (replica,) in imputer.model_.replicas:
        assert (replica.anchor.coordinates.share > 0).sum() == 3
    # Points and probabilities are those of the one anchor fitted to all rows.
    plain = quick(n_bootstraps=0).fit(frame)
    np.testing.assert_array_equal(
        plain.transform(frame)[:, 1], imputer.transform(frame)[:, 1]
    )


@pytest.mark.slow
def test_pooled_intervals_cover_where_complete_cases_do_not():
    """Twelve repeats of benchmarks/pooled.py's simulation, with its own seeds."""
    frame = pd.concat([simulate(seed, max_epochs=0) for seed in range(1000, 1012)])
    covers = frame.groupby("method")["covered"].mean()
    assert covers["pooled"] > 0.85  # of 36 intervals, 95 % less 2.7 standard errors
    assert covers["complete cases"] < 0.75
    bias = (
        frame[frame["method"] == "pooled"]
        .groupby("coefficient", sort=False)["estimate"]
        .mean()
    )
    np.testing.assert_allclose(bias, list(DESIGNS["linear"].truth.values()), atol=0.08)


@pytest.mark.parametrize("design", DESIGNS)
def test_complete_data_estimate_what_a_design_says(design):
    frames = []
    for seed in range(40):
        rows, lost = DESIGNS[design].table(400, seed)
        assert 0.25 < lost.mean() < 0.75
        estimate, variance, _ = DESIGNS[design].estimate(rows)
        truth = np.array(list(DESIGNS[design].truth.values()))
        frames.append((estimate - truth) / np.sqrt(variance))
    z = np.array(frames)
    assert np.abs(z.mean(0)).max() < 4 / np.sqrt(40)
    np.testing.assert_allclose(z.std(0), 1.0, atol=0.35)


@pytest.mark.slow
def test_the_command_runs_in_two_processes(tmp_path):
    words = "--rows 60 --repeats 2 --draws 2 --epochs 0 --jobs 2 --mice --csv"
    command = [sys.executable, "-m", "benchmarks.pooled", *words.split()]
    subprocess.run([*command, str(tmp_path / "csv")], check=True, cwd=ROOT)
    found = pd.read_csv(tmp_path / "csv")
    assert found["seed"].nunique() == 2
    assert np.isfinite(found["estimate"]).all()


def test_the_summary_of_repeats_says_how_often_intervals_cover():
    repeats = [(0.4, True), (0.6, True), (0.9, False)]
    keys = {"method": "pooled", "coefficient": "a", "design": "linear", "rows": 300}
    fixed = keys | {"truth": 0.5, "error": 0.1, "width": 0.4}
    frame = pd.DataFrame([fixed | {"estimate": e, "covered": c} for e, c in repeats])
    found = summary(frame).iloc[0]
    assert found["coverage"] == pytest.approx(2 / 3)
    assert found["bias / sd"] == pytest.approx((1.9 / 3 - 0.5) / found["sd"])


def test_crps_and_coverage_of_draws_that_are_right():
    rng = np.random.default_rng(0)
    truth, draws = rng.normal(size=4000), rng.normal(size=(50, 4000))
    expected = 1 / np.sqrt(np.pi)  # of a standard normal against itself
    assert crps(draws, truth).mean() == pytest.approx(expected, abs=0.02)
    assert crps(draws + 1, truth).mean() > 1.3 * expected
    for level in (0.5, 0.8, 0.95):
        assert coverage(draws, truth, level) == pytest.approx(level, abs=0.02)
        assert coverage(2 * draws, truth, level) > level + 0.02
    coins = rng.integers(0, 2, (50, 4000)), rng.integers(0, 2, 4000)
    for level in (0.5, 0.8, 0.95):  # all ties
        assert coverage(*coins, level) == pytest.approx(level, abs=0.02)


def chequered(n, seed):
    """A third column that jumps between cells of a board, and rows that repeat."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(0, 4, (n, 3))
    X[n // 2 :] = X[: n - n // 2]
    X[:, 2] = (X[:, 0].astype(int) + X[:, 1].astype(int)) % 2 + 0.1 * X[:, 2]
    return X


def test_summaries_and_draws_read_one_distribution():
    """With every correction on: means, quantiles and shares, to Monte-Carlo error."""
    X = chequered(1400, 0)
    incomplete = X.copy()
    incomplete[::4, 2] = np.nan
    incomplete[1::4, 0] = np.nan
    frame = pd.DataFrame(incomplete, columns=["a", "b", "c"])
    frame["side"] = pd.Categorical(np.where(X[:, 1] > 2, "up", "down"))
    frame.loc[2::4, "side"] = None
    imputer = ADMCImputer(max_epochs=3, self_masking=True, random_state=1).fit(frame)
    model = imputer.model_
    assert model.forests is not None
    assert model.donors is not None
    assert model.patterns is not None
    assert model.self_masking is not None
    some, n_draws = frame[:600], 200
    draws = imputer.sample(some, n_draws)
    numbers = np.stack([draw[["a", "b", "c"]].to_numpy(float) for draw in draws])
    lost = some[["a", "b", "c"]].isna().to_numpy()
    drawn = numbers[:, lost]
    mean = np.asarray(imputer.transform(some))[:, :3].astype(float)[lost]
    # Within a bin, 0.06 wide, a copy of a donor's value is where that lies.
    _agree(drawn.mean(0), mean, drawn.std(0), n_draws, width=0.05)
    levels = 0.2, 0.7
    for level, table in zip(
        levels, imputer.predict_quantiles(some, levels), strict=True
    ):
        bound = table[["a", "b", "c"]].to_numpy(float)[lost]
        below = (drawn < bound - 0.06).mean(0), (drawn < bound + 0.06).mean(0)
        expected = np.clip(level, *below)
        _agree(expected, level, np.sqrt(level * (1 - level)), n_draws)
    unknown = some["side"].isna().to_numpy()
    share = np.mean([draw["side"].eq("up")[unknown] for draw in draws], axis=0)
    proba = imputer.predict_proba(some, "side")[unknown, 1]
    _agree(share, proba, np.sqrt(proba * (1 - proba)), n_draws)


def test_draws_copy_the_donors_whose_values_hide_themselves(recurring):
    """Self-masking tilts the mixture of donors and network, in draws as in means."""
    imputer, incomplete = recurring
    lost = np.isnan(incomplete)
    n_draws = 300
    mean = imputer.transform(incomplete)[lost]
    drawn = imputer.sample(incomplete, n_draws)[:, lost]
    _agree(drawn.mean(0), mean, drawn.std(0), n_draws, width=0.03)


@pytest.fixture(scope="module")
def recurring():
    """Rows that recur and whose first cell hides itself, with a strong tilt."""
    rng = np.random.default_rng(0)
    distinct = rng.normal(size=(300, 3))
    distinct[:, 0] += distinct[:, 1]
    X = distinct[rng.integers(300, size=1200)]
    X[X[:, 0] + 0.5 * rng.normal(size=1200) > 1, 0] = np.nan
    imputer = ADMCImputer(max_epochs=2, self_masking=True, random_state=0).fit(X)
    model = imputer.model_
    assert model.donors is not None
    assert np.abs(model.self_masking.slopes[0]) > 0.5
    incomplete = distinct[:150].copy()
    incomplete[:, 0] = np.nan
    return imputer, incomplete


def _agree(drawn, expected, spread, n_draws, width=0.0):
    """Require errors as large as those of so many draws, on average over cells."""
    noise = np.square(spread / np.sqrt(n_draws) + width)
    assert np.mean((drawn - expected) ** 2) < 1.2 * np.mean(noise)
