"""Everything is where the table is: on a GPU that only pretends to be one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.anchor.factor_model import FactorAnchor
from admc_sklearn._combined.model import CombinedModel
from tests.conftest import gaussian_table, hide, mixed_rings, rings
from tests.pretend import pretended_gpu


def folded():
    """A table that takes folds, of more than 48 coordinates."""
    z = np.random.default_rng(0).normal(size=(300, 13))
    return hide(np.concatenate([z, z**2], axis=1), 0.1, 0)


def repeated():
    """Rows that repeat each other, which are retrieved."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(80, 5)), 5, axis=0)
    return hide(rng.permutation(X + 0.001 * rng.normal(size=X.shape)), 0.2, 0)


def with_blocks():
    """Columns that go missing as blocks, beside others."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 4)) @ rng.normal(size=(4, 40))
    X = X + 0.3 * rng.normal(size=X.shape)
    X[rng.random(150) < 0.2, :25] = np.nan
    return hide(X, 0.0, 0)


def parts(model):
    """Names of what a fitted model has besides its network and the anchor."""
    if isinstance(model, CombinedModel):
        return {"blocks"}
    names = {
        "landmarks": model.landmarks is not None,
        "donors": model.donors is not None,
        "forests": model.forests is not None,
        "folds": model.network.anchor.coordinates.distances is not None,
        "self-masking": model.self_masking is not None,
        "replicas": len(model.replicas) > 0,
        "factors": isinstance(model.network.anchor.gaussian, FactorAnchor),
    }
    return {name for name, is_there in names.items() if is_there}


@pytest.mark.usefixtures("light_fits")
@pytest.mark.parametrize(
    ("table", "options", "expected"),
    [
        (
            lambda: hide(rings(250, 0), 0.2, 0),
            {"self_masking": True},
            {"forests", "self-masking"},
        ),
        (lambda: mixed_rings(250, 0), {"n_bootstraps": 1}, {"forests", "replicas"}),
        (lambda: hide(rings(250, 0), 0.2, 0), {}, {"landmarks"}),
        (folded, {}, {"folds"}),
        (repeated, {}, {"donors"}),
        (lambda: hide(gaussian_table(120, 80, 0)[0], 0.1, 0), {}, {"factors"}),
        (with_blocks, {"modalities": {"views": list(range(25))}}, {"blocks"}),
    ],
    ids=["numbers", "mixed", "landmarks", "folds", "donors", "wide", "blocks"],
)
def test_nothing_is_mixed_with_what_is_elsewhere(table, options, expected):
    X = table()
    imputer = ADMCImputer(
        max_epochs=1, batch_size=64, device="cuda", random_state=0, **options
    )
    if "landmarks" in expected:  # where there are no forests
        cells = replace(imputer._settings.cells, forests=None)
        imputer._settings = replace(imputer._settings, cells=cells)
    with pretended_gpu() as gpu:
        imputer.fit(X)
        assert imputer.device_.type == "cuda"
        imputer.transform(X[:30])
        imputer.set_params(strategy="sample", n_steps=2).transform(X[:10])
    assert gpu.faults == []
    assert parts(imputer.model_) >= expected


def test_the_pretence_notes_what_a_gpu_refuses():
    with pretended_gpu() as gpu:
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        assert there.device.type == (there + 1.0).device.type == "cuda"
        assert there.cpu().device == here.device
        there[torch.tensor([0])] = 1.0  # allowed, as is copying
        here.copy_(there)
        assert not gpu.faults
        _ = here + there
        _ = here[there.long()]
        there.numpy()
        torch.rand(3, device="cuda", generator=torch.Generator())
        names = [name for name, _ in gpu.faults]
    assert len(names) == 4
    assert "__getitem__" in names
    assert "numpy" in names
