"""Settings of all parts of the model of cells, as one argument of its fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .anchor.choose_coordinates import CoordinateSettings
from .anchor.level_scores import ScoreSettings
from .corrections.donors import DonorSettings
from .corrections.forests import ForestSettings
from .corrections.landmark_regression import LandmarkSettings
from .corrections.pattern_regression import PatternSettings
from .corrections.self_masking import SelfMaskingSettings
from .network.denoiser import NetworkSize
from .network.gaps import GapSettings
from .network.trainer import TrainingSettings

# Widths: benchmarks/NOTES.md, "Sizes, against a step's cost". Dropout: not measured.
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
    mean_head : bool
        Whether the network has a `MeanHead`.
    max_networks, network_rows : int
        As many networks, each with an anchor of its own, are fitted and averaged as
        together see so many training rows, up to this number. (NOTES, "Several
        networks".)
    landmarks : LandmarkSettings, or None for no correction by landmarks
    donors : DonorSettings, or None for no donor rows
    forests : ForestSettings, or None for no forests
    patterns : PatternSettings, or None for no regressions of patterns
    self_masking : SelfMaskingSettings
    gaps : GapSettings, or None where missing cells never lie in one
    """

    coordinates: CoordinateSettings = field(default_factory=CoordinateSettings)
    scores: ScoreSettings = field(default_factory=ScoreSettings)
    sizes: Mapping[str, NetworkSize] = field(default_factory=lambda: dict(SIZES))
    training: TrainingSettings = field(default_factory=TrainingSettings)
    mean_head: bool = True
    max_networks: int = 3
    network_rows: int = 2000
    landmarks: LandmarkSettings | None = field(default_factory=LandmarkSettings)
    donors: DonorSettings | None = field(default_factory=DonorSettings)
    forests: ForestSettings | None = field(default_factory=ForestSettings)
    patterns: PatternSettings | None = field(default_factory=PatternSettings)
    self_masking: SelfMaskingSettings = field(default_factory=SelfMaskingSettings)
    gaps: GapSettings | None = field(default_factory=GapSettings)

    def n_networks(self, n_rows):
        """Networks that are trained to so many rows."""
        return max(1, min(self.max_networks, self.network_rows // max(1, n_rows)))
