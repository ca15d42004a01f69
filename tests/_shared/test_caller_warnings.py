"""Warnings name the line of whoever called, through scikit-learn's own frames."""

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from admc_sklearn import ADMCImputer


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(40, 2))).add_prefix("x")
    return frame.assign(level=np.where(frame["x0"] > 0, "a", "b"), empty=np.nan)


def wrapped(imputer):
    return make_pipeline(FunctionTransformer(), imputer)


@pytest.mark.parametrize("made", [lambda imputer: imputer, wrapped])
def test_fit_and_transform_warn_where_they_were_called(table, made):
    imputer = made(ADMCImputer(max_epochs=0, random_state=0))
    with pytest.warns(UserWarning, match="without a single") as found:
        imputer.fit(table)
    assert [each.filename for each in found] == [__file__]
    strange = table.assign(level=[f"new{k}" for k in range(40)])
    with pytest.warns(UserWarning, match="unknown levels") as found:
        imputer.transform(strange)
    assert [each.filename for each in found] == [__file__]
