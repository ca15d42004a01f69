"""Atoms: few values, bins, points, and the anchor's masses and means on them."""

import numpy as np
import pytest
import torch
from scipy import stats

from admc_sklearn._cells.anchor.power_transform import PowerTransform
from admc_sklearn._cells.network.atoms import Atoms, _log_ndtr, column_atoms
from admc_sklearn._cells.network.posterior import NumericPosterior, PackedCells
from tests.conftest import quick


def atoms_of(*columns):
    """Atoms of columns in their own coordinates."""
    return Atoms(
        [column_atoms(c) for c in columns], PowerTransform.identity(len(columns))
    )


def summaries(values, mean, sd):
    """Mean of an untrained posterior for one column, by masses times means."""
    atoms = atoms_of(values)
    mean, sd = torch.tensor([mean]).float(), torch.tensor([sd]).float()
    column = torch.zeros(1, dtype=torch.long)
    share = torch.softmax(atoms.log_mass(mean, sd, column), -1)
    every = torch.arange(atoms.n_atoms)
    inside = atoms.mean_within(mean, sd, column, every)
    return float((share * inside).sum()), atoms, share[0]


def test_few_values_are_atoms():
    values = np.repeat([-1.0, 0.5, 3.0], [20, 10, 5])
    atoms = column_atoms(values)
    np.testing.assert_array_equal(atoms["low"], [-1.0, 0.5, 3.0])
    np.testing.assert_array_equal(atoms["high"], atoms["low"])
    np.testing.assert_allclose(atoms["share"], [20 / 35, 10 / 35, 5 / 35])


def test_bins_cover_the_range_once():
    values = np.random.default_rng(0).lognormal(size=2000)
    atoms = column_atoms(values)
    assert len(atoms["low"]) > 40
    assert atoms["low"][0] == values.min()
    assert atoms["high"][-1] == values.max()
    assert atoms["share"].sum() == pytest.approx(1)
    assert (atoms["low"] <= atoms["center"]).all()
    assert (atoms["center"] <= atoms["high"]).all()
    # Empty stretches have no bin, so neighbours touch or leave a gap.
    assert (atoms["high"][:-1] <= atoms["low"][1:] + 1e-12).all()


def test_a_value_that_recurs_is_a_point_of_its_own():
    rng = np.random.default_rng(0)
    values = np.concatenate([np.zeros(600), rng.exponential(size=1400)])
    atoms = column_atoms(values)
    point = (atoms["low"] == 0) & (atoms["high"] == 0)
    assert point.sum() == 1
    assert atoms["share"][point] == pytest.approx(0.3)


def test_index_finds_the_atom_that_holds_the_value():
    rng = np.random.default_rng(0)
    mixed = np.concatenate([np.zeros(500), rng.normal(size=1500)])
    coarse = rng.integers(0, 5, 2000).astype(float)
    table = np.column_stack([mixed, coarse]).astype(np.float32)
    atoms = atoms_of(*table.T.astype(float))
    index = atoms.index(torch.tensor(table))
    columns = torch.arange(2)
    low, high = atoms.low[columns, index], atoms.high[columns, index]
    assert (low - 1e-6 <= torch.tensor(table)).all()
    assert (torch.tensor(table) <= high + 1e-6).all()
    zero = torch.tensor(table[:, 0] == 0)
    assert (high[zero, 0] == 0).all()
    assert (low[zero, 0] == 0).all()
    assert atoms.valid[columns, index].all()


@pytest.mark.parametrize("mean", [-1.3, 0.0, 0.77])
@pytest.mark.parametrize("sd", [0.003, 0.05, 0.4, 1.0])
def test_untrained_mean_is_the_anchor(mean, sd):
    """Within the bin correction and the share of the marginal, in sd of the data."""
    values = np.random.default_rng(0).normal(size=20_000)
    got, _, _ = summaries(values, mean, sd)
    assert got == pytest.approx(mean, abs=0.01)


def test_masses_are_the_normal_probabilities():
    values = np.random.default_rng(0).normal(size=5000)
    _, atoms, share = summaries(values, 0.3, 0.5)
    edges = atoms.edges[0].numpy()
    expected = np.diff(stats.norm(0.3, 0.5).cdf(edges))
    np.testing.assert_allclose(share, expected, atol=2e-3)


def test_within_a_bin_the_anchor_is_cut_to_it():
    atoms = atoms_of(np.linspace(-3, 3, 4000))
    zero = torch.zeros(atoms.n_atoms, dtype=torch.long)
    every = torch.arange(atoms.n_atoms)
    for mean, sd in [(0.2, 0.1), (0.2, 0.03)]:
        args = (torch.tensor(mean), torch.tensor(sd))
        low, high = atoms.low[0].numpy(), atoms.high[0].numpy()
        cut = stats.truncnorm((low - mean) / sd, (high - mean) / sd, mean, sd)
        near = (np.abs((low + high) / 2 - mean) < 3 * sd) & (high - low > 0.3 * sd)
        assert near.sum() >= 2
        got = atoms.mean_within(*args, zero, every).numpy()
        np.testing.assert_allclose(got[near], cut.mean()[near], atol=0.02 * sd)
        for u in (0.1, 0.5, 0.9):
            got = atoms.quantile_within(*args, zero, every, torch.tensor(u)).numpy()
            np.testing.assert_allclose(got[near], cut.ppf(u)[near], atol=0.02 * sd)


@pytest.mark.parametrize("mean", [-80.0, 80.0, 1e4])
def test_an_anchor_far_outside_stays_finite_and_inside(mean):
    values = np.random.default_rng(0).normal(size=2000)
    got, _, share = summaries(values, mean, 1e-3)
    assert np.isfinite(got)
    assert values.min() - 1e-5 <= got <= values.max() + 1e-5
    assert float(share.sum()) == pytest.approx(1, abs=1e-5)


def test_no_atom_is_ever_impossible():
    """What an outlier costs the network is bounded by the column's own frequencies."""
    atoms = atoms_of(np.random.default_rng(0).normal(size=2000))
    mean, sd = torch.tensor([0.0, 5.0]), torch.tensor([1e-3, 1e-2])
    mass = atoms.log_mass(mean, sd, torch.zeros(2, dtype=torch.long)).exp()
    least = 5e-4 * atoms.share
    assert (mass[:, atoms.valid[0]] > least[:, atoms.valid[0]]).all()
    assert mass.sum(-1).tolist() == pytest.approx([1.0, 1.0], abs=1e-3)


def test_where_nothing_is_known_atoms_have_the_columns_frequencies():
    """A column of two humps and a spike, beside one that tells of it."""
    rng = np.random.default_rng(0)
    hump = rng.choice([-2.0, 2.0], 300) + 0.3 * rng.normal(size=300)
    X = np.column_stack([np.append(hump, np.zeros(100)), rng.normal(size=400)])
    X[:, 1] += X[:, 0]
    network = quick(max_epochs=0).fit(X).model_.network
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    with torch.no_grad():
        (posterior,) = network(torch.zeros(1, 2), nothing, ~nothing)
    share = torch.softmax(posterior.logits[:, 0], -1)
    torch.testing.assert_close(share, posterior.atoms.share, atol=1e-4, rtol=0)


def test_the_mean_is_that_of_all_atoms():
    """Of those with an inside too, whose shares are all but negligible."""
    rng = np.random.default_rng(0)
    tail = np.exp(rng.normal(size=3000))
    atoms = atoms_of(tail, np.repeat(np.arange(5.0), 600), rng.normal(size=3000))
    cells = PackedCells.from_mask(torch.ones(40, 3, dtype=torch.bool), torch.arange(3))
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 40, atoms.n_atoms, generator=generator)
    logits = torch.where(atoms.valid[:, None], logits, -torch.inf)
    logits[:, 20:] *= 10.0  # nearly all in one atom
    mean, sd = torch.randn(3, 40, generator=generator), torch.full((3, 40), 0.5)
    posterior = NumericPosterior(cells, logits, atoms, mean, sd)
    column, every = torch.arange(3)[:, None, None], torch.arange(atoms.n_atoms)
    inside = atoms.mean_within(mean[..., None], sd[..., None], column, every)
    expected = (torch.softmax(logits, -1) * inside).sum(-1)
    torch.testing.assert_close(posterior.mean(), expected, atol=2e-4, rtol=0.0)


@pytest.mark.parametrize("values", [[], [2.0], [2.0, 2.0, 2.0], [1.0, 2.0]])
def test_tiny_columns(values):
    atoms = atoms_of(np.array(values))
    assert atoms.valid.any()
    assert torch.isfinite(atoms.center).all()


def test_log_of_the_distribution_function():
    x = torch.linspace(-12, 12, 241, requires_grad=True)
    found = _log_ndtr(x)
    known = stats.norm.logcdf(x.detach().double().numpy())
    np.testing.assert_allclose(found.detach().numpy(), known, rtol=1e-5, atol=1e-7)
    (slope,) = torch.autograd.grad(found.sum(), x)
    expected = np.exp(stats.norm.logpdf(x.detach().double().numpy()) - known)
    np.testing.assert_allclose(slope.numpy(), expected, rtol=1e-4, atol=1e-7)


def test_points_have_no_inside():
    atoms = Atoms(
        [column_atoms(np.repeat(np.arange(5.0), 9))], PowerTransform.identity(1)
    )
    mean, sd = torch.zeros(1, 3), torch.ones(1, 3)
    column, atom = torch.zeros(1, 3, dtype=torch.long), torch.tensor([[0, 2, 4]])
    nll = atoms.inner_nll(mean, sd, column, atom, torch.tensor([[0.0, 2.0, 4.0]]))
    assert torch.equal(nll, torch.zeros(1, 3))


def test_cells_far_in_the_tail_of_their_atom_have_finite_gradients():
    atoms = Atoms([column_atoms(np.linspace(-2, 2, 500))], PowerTransform.identity(1))
    mean = torch.linspace(-300, 300, 61)[None].requires_grad_()
    log_sd = torch.zeros(1, 61, requires_grad=True)
    sd = (log_sd - 4).exp()
    column, values = torch.zeros(1, 61, dtype=torch.long), torch.zeros(1, 61)
    atom = torch.full((1, 61), 30)
    atoms.inner_nll(mean, sd, column, atom, values).sum().backward()
    assert torch.isfinite(mean.grad).all()
    assert torch.isfinite(log_sd.grad).all()
