"""Types of the public signatures: arguments of users, and results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:  # matplotlib need not be installed
    Axes = Any


class Frame(Sized, Protocol):
    """A data frame of pandas or polars, by names that both have and arrays lack."""

    @property
    def columns(self) -> Any: ...

    def join(self, *args: Any, **kwargs: Any) -> Any: ...

    def drop(self, *args: Any, **kwargs: Any) -> Any: ...


FrameT = TypeVar("FrameT", bound=Frame)
Table: TypeAlias = ArrayLike | Frame

# Names, indices, a mask, a slice, or a function of the table that returns one of them.
Columns: TypeAlias = ArrayLike | slice | Callable[[Any], Any]
Modalities: TypeAlias = Mapping[str, Columns]
Rates: TypeAlias = ArrayLike | Mapping[str, float] | Mapping[int, float]
Mechanism: TypeAlias = Literal["mcar", "mar", "mnar", "modality"]
Metric: TypeAlias = Literal["rmse", "mae", "accuracy"]
RandomState: TypeAlias = int | np.random.RandomState | None

# The type of a result depends on values (the output container, the library of a frame,
# the number of parameters), which a type checker does not see.
ArrayOrFrame: TypeAlias = Any
NumberOrArray: TypeAlias = Any

# A pair of arrays, or a dict of pairs by column.
CellBounds: TypeAlias = Any
# A number, text or a null; several in a list; by column in a dict.
Markers: TypeAlias = Any
# An object with the methods of scikit-learn's estimators, which have no types.
Estimator: TypeAlias = Any

__all__ = [
    "ArrayOrFrame",
    "Axes",
    "CellBounds",
    "Columns",
    "Estimator",
    "Frame",
    "FrameT",
    "Markers",
    "Mechanism",
    "Metric",
    "Modalities",
    "NumberOrArray",
    "RandomState",
    "Rates",
    "Table",
]
