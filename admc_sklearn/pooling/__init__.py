"""One inference from the analyses of several completed data sets (Rubin, 1987)."""

from ._long import from_long, to_long
from ._rubin import PooledEstimates, pool_estimates, pool_over_draws
from ._tests import (
    PooledTest,
    pool_chi2,
    pool_correlation,
    pool_likelihood_ratio,
    pool_predictions,
    pool_r_squared,
    pool_wald_test,
)
from ._tipping import TippingPoint, tipping_point

__all__ = [
    "PooledEstimates",
    "PooledTest",
    "TippingPoint",
    "from_long",
    "pool_chi2",
    "pool_correlation",
    "pool_estimates",
    "pool_likelihood_ratio",
    "pool_over_draws",
    "pool_predictions",
    "pool_r_squared",
    "pool_wald_test",
    "tipping_point",
    "to_long",
]


def __dir__() -> list[str]:
    return __all__
