"""Settings of all parts of the model of modalities, as one argument of its fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .cross_fit import CrossFitSettings
from .denoiser import DenoiserSize
from .encoders import EncoderSettings
from .gaussian_diffusion import DiffusionSettings
from .trainer import BlockTrainingSettings

# Widths: benchmarks/NOTES.md, "Weight of the denoiser by rows left out": 64 and 128
# make no difference.
# Layers: not measured.
SIZES = {
    "small": DenoiserSize(width=64, hidden=256, n_attention=2, n_layers=1),
    "medium": DenoiserSize(width=96, hidden=384, n_attention=2, n_layers=2),
    "large": DenoiserSize(width=128, hidden=768, n_attention=2, n_layers=3),
}


@dataclass(frozen=True)
class BlockSettings:
    """How the model of modalities is fitted.

    Parameters
    ----------
    encoder : EncoderSettings
    cross_fit : CrossFitSettings
        It holds the settings of the curved features and of the anchor.
    sizes : mapping of str to DenoiserSize
    diffusion : DiffusionSettings
    training : BlockTrainingSettings
    """

    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    cross_fit: CrossFitSettings = field(default_factory=CrossFitSettings)
    sizes: Mapping[str, DenoiserSize] = field(default_factory=lambda: dict(SIZES))
    diffusion: DiffusionSettings = field(default_factory=DiffusionSettings)
    training: BlockTrainingSettings = field(default_factory=BlockTrainingSettings)
