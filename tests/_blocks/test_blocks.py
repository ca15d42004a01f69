"""Parts of the model of modalities, each by itself."""

import pickle

import numpy as np
import pytest
import torch

from admc_sklearn._blocks import anchor as _anchor
from admc_sklearn._blocks.anchor import AnchorSettings, BlockAnchor, fit_moments
from admc_sklearn._blocks.cross_fit import CrossFit, LatentRows
from admc_sklearn._blocks.denoiser import DenoiserSize, ModalityDenoiser
from admc_sklearn._blocks.encoders import EncoderSettings, LinearEncoder
from admc_sklearn._blocks.gaussian_diffusion import (
    DiffusionSettings,
    coefficients,
    reverse,
    sampler_sigmas,
)
from admc_sklearn._blocks.kernel_features import (
    KernelFeatures,
    KernelSettings,
    _learn_metric,
    _squared_distances,
)
from admc_sklearn._blocks.trainer import BlockValidation, affordable
from admc_sklearn._combined.partition import divide
from admc_sklearn._shared.held_out import N_FOLDS, deal_folds, hold_out
from admc_sklearn._shared.patterns import choose_patterns
from tests.conftest import gaussian_table

RIDGES = AnchorSettings().ridges


def rng(seed=0):
    return np.random.default_rng(seed)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def encoded(x, seen=None):
    seen = np.ones(x.shape, dtype=bool) if seen is None else seen
    return LinearEncoder().fit(x, seen, rng())


# Encoder


def test_round_trip_within_the_explained_variance():
    x = rng().normal(size=(300, 4)) @ rng(1).normal(size=(4, 20))
    x += 0.01 * rng(2).normal(size=x.shape)
    x -= x.mean(axis=0)
    encoder, limits = encoded(x), EncoderSettings()
    assert encoder.n_latents == 4
    latents, available = encoder.encode(x, np.ones(x.shape, dtype=bool))
    assert available.all()
    error = encoder.decode(latents) - x
    assert (error**2).sum() <= (1 - limits.explained) * (x**2).sum()
    np.testing.assert_allclose(
        encoder.noise_, np.maximum((error**2).mean(axis=0), limits.min_noise)
    )
    np.testing.assert_allclose((latents**2).mean(axis=0), encoder.variance_)
    np.testing.assert_allclose(
        encoder.components_ @ encoder.components_.T, np.eye(4), atol=1e-12
    )


@pytest.mark.parametrize("shape", [(100, 6), (8, 30), (50, 1), (1, 5), (2, 3)])
def test_round_trip_is_exact_where_all_components_are_kept(shape):
    x = rng().normal(size=shape)
    encoder = encoded(x)
    assert encoder.n_latents <= min(shape)
    latents, _ = encoder.encode(x, np.ones(shape, dtype=bool))
    np.testing.assert_allclose(encoder.decode(latents), x, atol=1e-10)


def test_constant_columns_come_back_as_they_are():
    x = rng().normal(size=(60, 5))
    x[:, [1, 3]] = 2.5
    encoder = encoded(x)
    latents, _ = encoder.encode(x, np.ones(x.shape, dtype=bool))
    np.testing.assert_allclose(encoder.decode(latents), x, atol=1e-10)
    np.testing.assert_allclose(encoder.decode(0 * latents)[:, [1, 3]], 2.5)


def test_a_constant_block_has_one_latent():
    """It had as many latents of nothing as it has columns."""
    assert encoded(np.full((60, 9), 3.0)).n_latents == 1


def test_update_is_the_gaussian_conditional_by_hand():
    x = rng().normal(size=(200, 3)) @ rng(1).normal(size=(3, 7))
    x += 0.3 * rng(2).normal(size=x.shape)
    encoder = encoded(x)
    k = encoder.n_latents
    root = rng(3).normal(size=(k, k))
    cov, mean = root @ root.T + 0.1 * np.eye(k), rng(4).normal(size=(1, k))
    seen = np.array([[True, False, True, True, False, False, True]])
    got, got_root = encoder.update(mean, cov, x[:1], seen)
    w = encoder.components_[:, seen[0]].T  # (o, k)
    among = w @ cov @ w.T + np.diag(encoder.noise_[seen[0]])
    gain = cov @ w.T @ np.linalg.inv(among)
    residual = x[0, seen[0]] - encoder.mean_[seen[0]] - w @ mean[0]
    np.testing.assert_allclose(got[0], mean[0] + gain @ residual, atol=1e-8)
    np.testing.assert_allclose(
        got_root[0] @ got_root[0].T, cov - gain @ w @ cov, atol=1e-8
    )


def test_refills_recover_the_components_of_partly_observed_rows():
    x = rng().normal(size=(400, 2)) @ rng(1).normal(size=(2, 10))
    x += 0.05 * rng(2).normal(size=x.shape)
    seen = rng(3).random(x.shape) > 0.2
    encoder, truth = encoded(np.where(seen, x, 1e9), seen), encoded(x)
    angles = np.linalg.svd(encoder.components_[:2] @ truth.components_[:2].T)[1]
    assert angles.min() > 0.99
    latents, available = encoder.encode(np.where(seen, x, np.nan), seen)
    assert np.isfinite(latents).all()
    error = (encoder.decode(latents) - x)[~seen & available[:, None]]
    assert error.std() < 0.2 * x.std()


def test_a_modality_is_available_where_half_of_its_variance_is():
    x = rng().normal(size=(200, 4))
    x[:, 3] = 0.0  # a column without variance
    encoder = encoded(x)
    seen = np.array([[1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
    latents, available = encoder.encode(x[:4], seen)
    assert available.tolist() == [True, False, False, False]
    np.testing.assert_array_equal(latents[3], 0)


# Diffusion


def test_sigmas_of_the_sampler_fall_to_zero():
    settings = DiffusionSettings(sigma_min=0.05, sigma_max=30.0)
    for n_steps in (2, 3, 8, 50):
        sigmas = sampler_sigmas(n_steps, settings)
        assert sigmas.shape == (n_steps,)
        assert sigmas[0] == pytest.approx(30.0, rel=1e-4)
        assert sigmas[-1] == 0
        assert (sigmas.diff() < 0).all()
    assert sigmas[-2] == pytest.approx(0.05, rel=1e-4)


def test_coefficients_at_the_ends():
    c_skip, c_out, c_in = coefficients(torch.tensor([1e-8, 1.0, torch.inf]))
    half = 0.5**0.5
    torch.testing.assert_close(c_skip, torch.tensor([1.0, 0.5, 0.0]))
    torch.testing.assert_close(c_out, torch.tensor([1e-8, half, 1.0]))
    torch.testing.assert_close(c_in, torch.tensor([1.0, half, 0.0]))


@pytest.mark.parametrize("n_steps", [1, 2, 3, 8, 40])
def test_without_a_network_a_draw_is_the_anchors_own(n_steps):
    noise = torch.randn(50, 3, generator=generator(), dtype=torch.float64)

    def denoise(deviation, sigma):
        assert torch.isfinite(deviation).all()
        return torch.where(sigma.isinf(), 0.0, coefficients(sigma)[0] * deviation)

    torch.testing.assert_close(reverse(denoise, noise, n_steps), noise)


def test_a_posterior_of_two_modes_is_drawn_well_in_sixteen_steps():
    modes, weight, sd = torch.tensor([-1.0, 1.0]), torch.tensor([0.3, 0.7]), 0.2
    modes = modes - (modes * weight).sum()  # variance close to one, as the noise

    def denoise(x, sigma):
        if sigma.isinf():
            return torch.zeros_like(x)
        variance = sd**2 + sigma**2
        share = torch.softmax(weight.log() - (x - modes) ** 2 / (2 * variance), 1)
        means = modes + sd**2 / variance * (x - modes)
        return (share * means).sum(1, keepdim=True)

    noise = torch.randn(4000, 1, generator=generator())
    drawn = reverse(denoise, noise, 16)[:, 0]
    upper = drawn > modes.mean()
    assert upper.double().mean().item() == pytest.approx(0.7, abs=0.03)
    for side, mode in ((~upper, modes[0]), (upper, modes[1])):
        assert drawn[side].mean().item() == pytest.approx(mode.item(), abs=0.1)
        # A sampler of first order leaves modes wide: 0.29.
        assert drawn[side].std().item() == pytest.approx(sd, abs=0.05)
    assert reverse(denoise, noise, 1).std() > 0.9  # one step has no modes


# Anchor


def gaussian_blocks(n, seed=0):
    """Latents of three modalities, and as features the latents themselves."""
    x, mean, cov = gaussian_table(n, 7, seed)
    owner = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    return torch.tensor(x), torch.tensor(mean), torch.tensor(cov), owner


def test_linear_features_give_the_conditional_of_a_gaussian():
    x, mean, cov, owner = gaussian_blocks(20_000)
    available = torch.ones(len(x), 3, dtype=torch.bool)
    anchor = fit_moments(x, x, available, owner, owner)
    pattern = torch.tensor([True, False, True])
    found = anchor.conditional(pattern)
    o, u = pattern[owner], ~pattern[owner]
    gain = cov[u][:, o] @ torch.linalg.inv(cov[o][:, o])
    expected = mean[u] + (x[:20, o] - mean[o]) @ gain.T
    got = anchor.predict(torch.where(o, x[:20], torch.nan), found)
    torch.testing.assert_close(got, expected, atol=0.08, rtol=0)
    rest = cov[u][:, u] - gain @ cov[o][:, u]
    torch.testing.assert_close(found.cov, rest, atol=0.05, rtol=0)
    torch.testing.assert_close(found.root @ found.root.T, found.cov)


@pytest.mark.parametrize("ridge", RIDGES[::6])
def test_covariances_of_all_patterns_are_positive_definite(ridge):
    x, _, _, owner = gaussian_blocks(30)
    x = torch.cat([x, x[:, :1]], 1)  # a latent that is a copy of another one
    owner = torch.cat([owner, torch.tensor([2])])
    features = torch.cat([x, x.square(), torch.zeros(30, 1)], 1)
    owner_f = torch.cat([owner, owner, torch.tensor([0])])
    available = torch.tensor(rng().random((30, 3)) < 0.7)
    anchor = fit_moments(x, features, available, owner, owner_f)
    anchor.ridge.fill_(ridge)
    for number in range(8):
        pattern = torch.tensor([bool(number >> k & 1) for k in range(3)])
        cov = anchor.conditional(pattern).cov
        if len(cov):
            assert torch.linalg.eigvalsh(cov).min() > 0
        assert cov.shape == (int((~pattern[owner]).sum()),) * 2


def test_expectation_maximisation_ends_at_the_likeliest_moments():
    """Its tolerance was a value seen once, and red on another processor.

    Where only the last modality is ever missing the likeliest moments have a closed
    form (Anderson, 1957): the regression of complete rows, applied to the moments of
    all. Only the ridge, one row of 1500, is left between the two.
    """
    settings = AnchorSettings(n_em_steps=150)  # to the end: fits stop earlier
    x, _, _, owner = gaussian_blocks(3000)
    # Which rows lack it depends on the first column: complete rows mislead.
    available = torch.ones(len(x), 3, dtype=torch.bool)
    available[:, 2] = x[:, 0] < x[:, 0].median()
    seen = available[:, owner]
    anchor = fit_moments(
        torch.where(seen, x, 1e6),
        torch.where(seen, x, -1e6),
        available,
        owner,
        owner,
        settings=settings,
    )
    own = x[available[:, 2]]
    design = torch.cat([own[:, :5], torch.ones(len(own), 1).double()], 1)
    solution = torch.linalg.lstsq(design, own[:, 5:]).solution
    residual = own[:, 5:] - design @ solution
    slopes, first = solution[:5], torch.cov(x[:, :5].T, correction=0)
    mean = torch.cat([x[:, :5].mean(0), x[:, :5].mean(0) @ slopes + solution[5]])
    last = slopes.T @ first @ slopes + residual.T @ residual / len(residual)
    cov = torch.cat(
        [
            torch.cat([first, first @ slopes], 1),
            torch.cat([slopes.T @ first, last], 1),
        ]
    )
    sd = cov.diagonal().sqrt()
    torch.testing.assert_close(anchor.mean[:7] / sd, mean / sd, atol=5e-3, rtol=0)
    found, unit = anchor.moments[:7, :7], torch.outer(sd, sd)
    torch.testing.assert_close(found / unit, cov / unit, atol=5e-3, rtol=0)
    assert ((own.mean(0) - mean) / sd)[5:].abs().max() > 0.05


def test_slopes_are_those_of_the_conditional():
    x, _, _, owner = gaussian_blocks(40)
    available = torch.ones(len(x), 3, dtype=torch.bool)
    anchor = fit_moments(x, x, available, owner, owner)
    pattern = torch.tensor([True, True, False])
    every = anchor.slopes(pattern, RIDGES)
    for ridge, slopes in zip(RIDGES[::5], every[::5], strict=True):
        anchor.set_tuning(ridge=torch.full((7,), ridge))
        torch.testing.assert_close(anchor.conditional(pattern).slopes, slopes)
        centered = x[:, :5] - x[:, :5].mean(0)
        gram = centered.T @ centered + ridge * torch.eye(5)
        target = centered.T @ (x[:, 5:] - x[:, 5:].mean(0))
        torch.testing.assert_close(slopes, torch.linalg.solve(gram, target))


def test_kept_conditionals_are_few_and_do_not_travel(monkeypatch):
    x, _, _, owner = gaussian_blocks(40)
    available = torch.ones(len(x), 3, dtype=torch.bool)
    anchor = fit_moments(x, x, available, owner, owner)
    pattern = torch.tensor([True, False, True])
    first = anchor.conditional(pattern)
    assert anchor.conditional(pattern) is first
    assert len(anchor._kept) == 1
    assert not pickle.loads(pickle.dumps(anchor))._kept
    assert not anchor.to("cpu")._kept
    monkeypatch.setattr(_anchor, "MAX_PATTERNS", 2)
    for number in range(8):
        anchor.conditional(torch.tensor([bool(number >> k & 1) for k in range(3)]))
        assert len(anchor._kept) <= 2
    monkeypatch.setattr(_anchor, "MAX_KEPT_ELEMENTS", 0)
    anchor.conditional(pattern)
    assert len(anchor._kept) == 1


def test_an_anchor_without_slopes_has_the_latents_own_moments():
    """The ablation without the anchor: nothing is learnt from other modalities."""
    x, _, _, owner = gaussian_blocks(40)
    available = torch.ones(len(x), 3, dtype=torch.bool)
    settings = AnchorSettings(has_slopes=False)
    anchor = fit_moments(x, x, available, owner, owner, settings=settings)
    found = anchor.conditional(torch.tensor([True, False, True]))
    mean = anchor.predict(x, found)
    torch.testing.assert_close(mean, x.mean(0)[2:5].expand(40, 3))
    variance = torch.diag(x.var(0, correction=0)[2:5])
    torch.testing.assert_close(found.cov, variance, atol=1e-6, rtol=1e-6)


def test_an_anchor_of_no_features_is_the_mean():
    owner = torch.tensor([0, 1, 1])
    moments = torch.diag(torch.tensor([1.0, 2.0, 3.0]).double())
    mean = torch.tensor([1.0, 2.0, 3.0]).double()
    anchor = BlockAnchor(owner, torch.empty(0, dtype=int), mean, moments, 10)
    found = anchor.conditional(torch.tensor([True, False]))
    got = anchor.predict(torch.empty(4, 0).double(), found)
    torch.testing.assert_close(got, mean[1:].expand(4, 2))
    torch.testing.assert_close(found.cov, moments[1:, 1:], rtol=1e-5, atol=1e-5)


# Features


def curved(n, seed=0):
    """Two latents, of which only the first one predicts the target."""
    z = torch.randn(n, 2, generator=generator(seed), dtype=torch.float64)
    y = torch.sin(2 * z[:, :1])
    return z, y - y.mean()


def test_the_metric_ignores_a_latent_without_predictive_value():
    z, y = curved(400)
    metric = _learn_metric(z, y, generator())
    assert metric[0, 0] > 3 * metric[1].norm()
    noise = torch.randn(400, 1, generator=generator(9), dtype=torch.float64)
    # A target that no latent predicts does not change it.
    both = torch.cat([y, 3 * (noise - noise.mean())], 1)
    torch.testing.assert_close(
        _learn_metric(z, both, generator()), metric, atol=0.15, rtol=0
    )
    none = _learn_metric(z, noise - noise.mean(), generator())
    assert torch.isfinite(none).all()
    for rows in (z[:1], z[:10]):  # too few to learn
        identity = torch.eye(2).double()
        torch.testing.assert_close(
            _learn_metric(rows, y[: len(rows)], generator()), identity
        )


def test_features_reproduce_kernel_ridge_regression():
    z, y = curved(200)
    settings = KernelSettings(gammas=(2.0, 0.5), ridge=0.7)
    features = KernelFeatures(z, y, generator(), settings)
    fresh, truth = curved(100, 1)
    x, new = z @ features.metric, fresh @ features.metric

    def kernel(a, b):
        squared = _squared_distances(a, b) / features.distance
        center = features.center
        linear = 0.02 * (a - center) @ (b - center).T / features.spread
        return sum(torch.exp(-g * squared) for g in (2.0, 0.5)) + linear

    gram = kernel(x, x) + 0.7 * torch.eye(200)
    expected = kernel(new, x) @ torch.linalg.solve(gram, y)
    # The one direction for the one target is the regression itself, up to its scale.
    got = features(fresh)
    assert got.shape == (100, 1)
    design = torch.cat([got, torch.ones(100, 1).double()], 1)
    fit = design @ torch.linalg.lstsq(design, expected).solution
    torch.testing.assert_close(fit, expected, atol=1e-4, rtol=0)
    assert (fit - truth).square().mean() < 0.05 * truth.square().mean()


@pytest.mark.parametrize("linear", [0.02, 1.0, float("inf")])
@pytest.mark.parametrize("n", [1, 2, 30])
def test_features_of_latents_and_targets_that_do_not_vary(linear, n):
    """The decomposition of an empty kernel raised a LinAlgError."""
    z, y = curved(30)
    z, y = z[:n], y[:n]
    for latents, targets in (
        (torch.ones_like(z), y),
        (z, torch.zeros_like(y)),
        (z, y[:, :0]),
        (torch.ones_like(z), torch.zeros_like(y)),
    ):
        settings = KernelSettings(linear=linear, n_features=10)
        features = KernelFeatures(latents, targets, generator(), settings)
        assert torch.isfinite(features(z)).all()


def test_a_linear_kernel_is_linear():
    z, y = curved(100)
    settings = KernelSettings(linear=float("inf"), n_features=10)
    features = KernelFeatures(z, y, generator(), settings)
    a, b = features(z[:5]), features(z[5:10])
    torch.testing.assert_close(features((z[:5] + z[5:10]) / 2), (a + b) / 2)


# Ridges by rows left out


def folds(n, groups=None):
    held, kept = hold_out(n, 0.1, groups, torch.Generator().manual_seed(0))
    return deal_folds(held, kept, groups, rng())


def cross_fit(latents, owner, groups=None, available=None):
    m = int(owner.max()) + 1
    if available is None:
        available = torch.ones(len(latents), m, dtype=torch.bool)
    patterns = choose_patterns(available, np.zeros(m, dtype=bool), rng())
    fold = folds(len(latents), groups)
    rows = LatentRows(latents, available, owner)
    return CrossFit(rows, patterns, fold, generator())


def test_ridges_are_large_where_there_is_nothing_to_learn():
    g = generator()
    a = torch.randn(200, 3, generator=g, dtype=torch.float64)
    noise = torch.randn(200, 2, generator=g, dtype=torch.float64)
    follows = a[:, :2] + 0.1 * noise
    owner = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    cross = cross_fit(torch.cat([a, follows, noise.roll(7, 0)], 1), owner)
    anchor = cross.fitted.anchor
    assert len(cross.parts) == N_FOLDS
    assert anchor.ridge[5:].min() > 20 * anchor.ridge[3:5].max()
    pattern = torch.tensor([True, False])
    found = anchor.conditional(pattern)
    latents = torch.cat([a, torch.zeros(200, 4).double()], 1)
    features = cross.fitted.features(latents, pattern.expand(200, 2))
    mean = anchor.predict(features, found)
    assert mean[:, 2:].std(0).max() < 0.25  # close to the mean
    assert (mean[:, :2] - follows).std(0).max() < 0.3


def test_spreads_are_those_of_rows_left_out():
    """On five tables of 50 rows; the errors are those of 2000 rows of the same law."""
    pattern = torch.tensor([True, False, True])
    ratios, unscaled = [], []
    for seed in range(5):
        x, _, _, owner = gaussian_blocks(2050, seed)
        x, fresh = x[:50], x[50:]
        fitted = cross_fit(x, owner).fitted
        anchor, features = fitted.anchor, fitted.features
        found = anchor.conditional(pattern)
        curved = features(fresh, pattern.expand(2000, 3))
        error = fresh[:, found.latents] - anchor.predict(curved, found)
        ratios.append((error.square().mean(0) / found.cov.diagonal()).log())
        unscaled.append(ratios[-1] + 2 * anchor.scale[found.latents].log())
    ratios, unscaled = torch.cat(ratios), torch.cat(unscaled)
    assert ratios.abs().mean() < 0.8 * unscaled.abs().mean()
    assert ratios.abs().max() < 1.0
    assert ratios.mean().abs() < 0.2


def test_folds_keep_groups_together():
    groups = np.array([f"video {k % 13}" for k in range(200)])
    fold = folds(200, groups)
    for name in np.unique(groups):
        assert len(np.unique(fold[groups == name])) == 1
    assert set(fold) == set(range(N_FOLDS))
    assert np.bincount(folds(120)).tolist() == [12, 22, 22, 22, 21, 21]


def test_few_rows_or_one_group_are_not_cross_fitted():
    x, _, _, owner = gaussian_blocks(120)
    assert not cross_fit(x[:30], owner).parts
    assert not cross_fit(x, owner, groups=np.zeros(120)).parts
    # Of two folds, none is left for the anchor that is fitted without both.
    assert not cross_fit(x, owner, groups=np.arange(120) % 2).parts
    assert len(cross_fit(x, owner, groups=np.arange(120) % 3).parts) == 3


def test_no_anchor_of_a_fold_is_fitted_to_the_rows_that_validate_the_network():
    x, _, _, owner = gaussian_blocks(120)
    seen = []

    class Spy(CrossFit):
        def _fit(self, rows, *arguments, **options):
            seen.append(rows)
            return super()._fit(rows, *arguments, **options)

    fold = folds(120)
    available = torch.ones(120, 3, dtype=torch.bool)
    patterns = torch.tensor([[True, False, False], [False, True, True]])
    generator = torch.Generator().manual_seed(0)
    cross = Spy(LatentRows(x, available, owner), patterns, fold, generator)
    parts = seen[-1 - len(cross.parts) : -1]
    for k, rows in enumerate(parts):
        assert not rows[torch.as_tensor((fold == 0) | (fold == k))].any()


def test_a_fold_without_a_modality():
    """Left out with its only group, it had no rows to fit its features to."""
    x, _, _, owner = gaussian_blocks(120)
    groups = np.arange(120) // 24
    available = torch.ones(120, 3, dtype=torch.bool)
    available[24:, 0] = False
    cross = cross_fit(x, owner, groups, available)
    found = cross.fitted.anchor.conditional(torch.tensor([False, True, False]))
    assert torch.isfinite(found.cov).all()


def test_patterns_to_train_on():
    def patterns(m, fixed=()):
        is_fixed = np.isin(np.arange(m), fixed)
        available = torch.ones(3, m, dtype=torch.bool)
        return choose_patterns(available, is_fixed, rng()).tolist()

    assert patterns(1) == []
    assert patterns(2) == [[False, True], [True, False]]
    assert len(patterns(4)) == 14
    assert patterns(2, fixed=[1]) == [[False, True]]
    many = np.array(patterns(12))
    assert 8 <= len(many) <= 16
    assert many.any(axis=1).all()
    assert not many.all(axis=1).any()
    assert (~np.array(patterns(9, fixed=[8]))[:, 8]).sum() == 0


def test_what_training_can_afford_is_a_part_of_everything(monkeypatch):
    """Of large tables it took the first patterns, which all hide the first modality."""
    from admc_sklearn._blocks import trainer as _training

    patterns = torch.tensor([[False, True], [True, False]])
    available = torch.ones(1000, 2, dtype=torch.bool)
    rows, kept = affordable(available, patterns, 10, rng())
    assert len(rows) == 1000
    assert torch.equal(kept, patterns)
    monkeypatch.setattr(_training, "MAX_MEANS", 4000)
    rows, kept = affordable(available, patterns, 10, rng())
    assert len(np.unique(rows)) == 200
    assert rows.max() > 900
    assert torch.equal(kept, patterns)
    many = torch.tensor(rng().random((1000, 12)) < 0.7)
    every = torch.tensor(rng(1).random((16, 12)) < 0.7)
    rows, kept = affordable(many, every, 1, rng())
    kept_sets = torch.unique((many[rows][:, None] & kept).flatten(0, 1), dim=0)
    assert len(kept_sets) <= _training.MAX_KEPT_SETS
    assert len(rows) > 200
    assert len(kept) == 2


class Follower:
    """A model whose network gives a share of the residual, plus noise."""

    def __init__(self, share):
        self.share, self.gate, self.denoiser = (
            share,
            torch.ones(()),
            torch.nn.Identity(),
        )
        self.noise = torch.randn(4000, 2, generator=generator(1))

    def denoise(self, mean, sd, kept, deviation, sigma):
        return self.gate * (self.share * (1.0 - mean) + self.noise)


@pytest.mark.parametrize("share", [1.0, 3.0, 30.0, 0.0, -2.0])
def test_the_gate_is_the_weight_of_least_squares(share):
    """The residual and the noise have variance one."""
    left = torch.randn(4000, 2, generator=generator(2))
    every = torch.ones_like(left, dtype=torch.bool)
    validation = BlockValidation.__new__(BlockValidation)
    validation.weight = None
    validation.model, validation.n_cells = Follower(share), float(left.numel())
    one = torch.ones_like(left)
    validation.batches = [(one, one - left, every[:, :1], one, every)]
    rmse, _ = validation.measure()
    gate = max(0.0, share) / (share**2 + 1)
    # Of 8000 cells a slope is known to 0.011, a variance to 0.016.
    assert float(validation.model.gate) == pytest.approx(gate, abs=0.06)
    error = 1 / (share**2 + 1) if share > 0 else 1.0
    assert rmse**2 == pytest.approx(error, abs=0.08)


# The network, and which columns it is for


def test_the_network_starts_at_zero_and_does_not_mix_rows():
    torch.manual_seed(0)
    size = DenoiserSize(width=16, hidden=32, n_attention=2, n_layers=1)
    net = ModalityDenoiser([2, 5, 1], size, generator())
    value, noisy = torch.randn(2, 6, 8).unbind(0)
    observed = torch.rand(6, 3) < 0.5
    observed[0] = True
    level = torch.zeros(6, 1)
    assert (net(value, noisy, observed, level) == 0).all()
    for head in net.heads:
        torch.nn.init.normal_(head.weight)
    out = net(value, noisy, observed, level)
    assert out.shape == (6, 8)
    alone = net(value[2:3], noisy[2:3], observed[2:3], level[2:3])
    torch.testing.assert_close(alone, out[2:3])
    other = net(value, noisy, observed, level + 1)
    changed = (other - out).abs().sum(1) > 1e-6
    # Only missing modalities get the noise level.
    assert torch.equal(changed, ~observed.all(1))
    weights = net.attention_weights(value, noisy, observed, level)
    torch.testing.assert_close(weights.sum(-1), torch.ones(6, 3))


def test_which_modalities_are_blocks():
    observed = np.ones((100, 30), dtype=bool)
    n_levels = np.zeros(30, dtype=int)
    n_levels[28] = 3
    observed[:30, 0:6] = False  # whole rows: a block
    observed[:, 12:20] = rng().random((100, 8)) > 0.1
    columns = [
        np.arange(0, 6),
        np.arange(6, 10),  # too narrow
        np.arange(12, 20),  # lacks cells here and there
        np.arange(23, 29),  # a category among them
    ]
    layout = divide(dict(enumerate(columns)), observed, n_levels)
    assert [own.tolist() for own in layout.blocks] == [list(range(6))]
    assert layout.cells.tolist() == list(range(6, 30))
    for joint, own in zip(layout.joint_columns, columns[1:], strict=True):
        assert layout.cells[joint].tolist() == own.tolist()
