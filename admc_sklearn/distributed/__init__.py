"""The same imputer over datasets of Ray, on one machine or many.

It needs ``pip install "admc_sklearn[ray]"``.
"""

from ._datasets import sample, transform

__all__ = ["sample", "transform"]


def __dir__():
    return __all__
