"""scikit-learn's own checks, and those that its suite leaves out."""

import os
import subprocess
import sys

import pytest
from sklearn.utils import estimator_checks as checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from tests.conftest import quick

light = pytest.mark.usefixtures("light_fits")


@parametrize_with_checks([quick()])
def test_contract(estimator, check):
    check(estimator)


@light
@parametrize_with_checks(
    [
        quick(
            add_indicator=True,
            keep_empty_features=False,
            strategy="sample",
            max_epochs=1,
        )
    ]
)
def test_contract_of_draws_and_indicators(estimator, check):
    check(estimator)


@light
@pytest.mark.parametrize(
    "name",
    [
        "check_set_output_transform",
        "check_set_output_transform_pandas",
        "check_global_output_transform_pandas",
        "check_transformer_get_feature_names_out",
        "check_transformer_get_feature_names_out_pandas",
        "check_get_feature_names_out_error",
        "check_dataframe_column_names_consistency",
        "check_param_validation",
    ],
)
def test_checks_that_the_suite_leaves_out(name):
    getattr(checks, name)("ADMCImputer", quick())


def test_it_works_with_the_array_api_switched_on():
    """The switch is read when SciPy is imported, hence a process of its own."""
    code = (
        "import numpy as np\n"
        "from admc_sklearn import ADMCImputer\n"
        "X = np.random.default_rng(0).normal(size=(60, 3))\n"
        "X[::3, 1] = np.nan\n"
        "imputer = ADMCImputer(max_epochs=1, random_state=0).fit(X)\n"
        "assert np.isfinite(imputer.transform(X)).all()\n"
        "assert np.isfinite(imputer.sample(X, 2)).all()\n"
        "from sklearn.utils import estimator_checks as checks\n"
        "for name in ('check_estimators_dtypes', 'check_n_features_in'):\n"
        "    getattr(checks, name)('ADMCImputer', ADMCImputer(max_epochs=0))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
