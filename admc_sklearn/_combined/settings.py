"""Settings of both models of a table, for experiments."""

from __future__ import annotations

from dataclasses import dataclass, field

from .._blocks.settings import BlockSettings
from .._cells.settings import CellSettings
from .partition import PartitionSettings


@dataclass(frozen=True)
class Settings:
    """How the models of cells and of blocks are fitted.

    An experiment sets them as ``_settings`` of a subclass of `ADMCImputer`.

    Parameters
    ----------
    cells : CellSettings
    blocks : BlockSettings
    partition : PartitionSettings
    """

    cells: CellSettings = field(default_factory=CellSettings)
    blocks: BlockSettings = field(default_factory=BlockSettings)
    partition: PartitionSettings = field(default_factory=PartitionSettings)
