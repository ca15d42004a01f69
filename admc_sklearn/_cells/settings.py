"""Settings of all parts of the model of cells, as one argument of its fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .anchor.choose_coordinates import CoordinateSettings
from .anchor.level_scores import ScoreSettings
from .network.denoiser import NetworkSize
from .network.trainer import TrainingSettings

# Widths: benchmarks/NOTES.md, "Against a step's cost". Dropout: not measured.
SIZES = {
    "small": NetworkSize(width=16, hidden=128, n_attention=1, n_layers=2, dropout=0.1),
    "medium": NetworkSize(width=16, hidden=256, n_attention=1, n_layers=2, dropout=0.0),
    "large": NetworkSize(width=16, hidden=512, n_attention=1, n_layers=3, dropout=0.0),
}


@dataclass(frozen=True)
class CellSettings:
    """How the model of cells is fitted.

    Parameters
    ----------
    coordinates : CoordinateSettings
    scores : ScoreSettings
    sizes : mapping of str to NetworkSize
    training : TrainingSettings
    landmarks, donors : bool
        Whether the corrections by landmarks and by donor rows are learnt.
    """

    coordinates: CoordinateSettings = field(default_factory=CoordinateSettings)
    scores: ScoreSettings = field(default_factory=ScoreSettings)
    sizes: Mapping[str, NetworkSize] = field(default_factory=lambda: dict(SIZES))
    training: TrainingSettings = field(default_factory=TrainingSettings)
    landmarks: bool = True
    donors: bool = True
