"""The same imputer over datasets of Ray, on one machine or many.

It needs ``pip install "admc_sklearn[ray]"``.
"""

from ._datasets import complete_parquet, fit, sample, transform

__all__ = ["complete_parquet", "fit", "sample", "transform"]


def __dir__():
    return __all__
