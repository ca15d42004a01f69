"""The classes of which a file may hold instances, and the parts of each.

It is the whole list: what a file names beyond it is refused, and nothing is imported on
a file's word. A part that is gone or renamed, or new without a default, is a new
format: raise `FORMAT`, and let older files be read still.
"""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass

from .._blocks.anchor import AnchorSettings, BlockAnchor
from .._blocks.cross_fit import FeatureMap, ScaledLatents
from .._blocks.denoiser import ModalityDenoiser
from .._blocks.encoders import EncoderSettings, LinearEncoder
from .._blocks.gaussian_diffusion import DiffusionSettings
from .._blocks.kernel_features import KernelFeatures, KernelSettings
from .._blocks.model import BlockModel
from .._cells.anchor.column_anchor import ColumnAnchor
from .._cells.anchor.factor_model import FactorAnchor
from .._cells.anchor.gaussian import GaussianAnchor
from .._cells.anchor.level_scores import Coordinates
from .._cells.anchor.median_distances import MedianDistances
from .._cells.anchor.power_transform import PowerTransform
from .._cells.corrections.donors import Donors, DonorSettings
from .._cells.corrections.forests import Forests, ForestSettings
from .._cells.corrections.landmark_regression import (
    LandmarkRegression,
    LandmarkSettings,
)
from .._cells.corrections.pattern_regression import (
    KernelRegression,
    OnePattern,
    PatternRegression,
    PatternSettings,
)
from .._cells.corrections.self_masking import SelfMasking
from .._cells.model import CellModel
from .._cells.network.atoms import Atoms
from .._cells.network.cell_encoding import LevelEmbedding, PiecewiseLinearEncoder
from .._cells.network.denoiser import Denoiser, TokenEmbedding
from .._cells.network.heads import LevelHead, NumericHead
from .._cells.network.mean_head import MeanHead
from .._cells.network.network import CompletionNetwork, Prior
from .._cells.network.tilt import TiltSettings
from .._combined.model import CombinedModel
from .._combined.partition import Partition
from .._shared.trunk import FeedForward, TokenAttention
from .._table.codec import TableCodec
from .._table.column_kinds import CategoryColumn, NumberColumn, RareLevels, TimeColumn
from .._table.columns import ColumnCodec
from .._table.group_means import GroupMeans
from .._table.relations import Line, Map, Relations
from .._table.standardiser import Standardiser

# Buffers, parameters and other parts of each class. A part that ends in "?" may be
# absent, and "margin_*" stands for margin_0, margin_1 and so on.
_PARTS = {
    # The table.
    TableCodec: (
        "",
        "",
        "missing_values is_frame_ codes_ columns_ n_levels_ scaling_ relations_ "
        "n_rows_? missing_rates_?",
    ),
    ColumnCodec: (
        "",
        "",
        "codes names_ columns_ are_numbers_ dtypes_ n_levels_ whole_",
    ),
    NumberColumn: ("", "", "whole is_empty exponent is_number low? high? limits?"),
    TimeColumn: (
        "",
        "",
        "is_empty of_objects type zone dtype step start end first last",
    ),
    CategoryColumn: (
        "",
        "",
        "is_number is_empty fallback levels n_levels _index rare whole ordered?",
    ),
    RareLevels: ("", "", "own shared share ends number"),
    Standardiser: (
        "",
        "",
        "kept_ empty_ whole_ grids_ mean_ scale_ low_ high_ looks_whole_ seen_low_? "
        "seen_high_?",
    ),
    Relations: ("", "", "rules_"),
    # Cells: anchor, network, corrections.
    GaussianAnchor: ("mean cov precision", "", "excess"),
    FactorAnchor: ("mean loadings noise", "", ""),
    Coordinates: (
        "numeric column codes_of table share used slots",
        "",
        "categorical n_numeric n_columns is_relieved distances",
    ),
    MedianDistances: ("center shift scale", "", "warp column_warp"),
    PowerTransform: ("power origin unit shift scale", "", "is_identity"),
    ColumnAnchor: ("precision? pull? features?", "", "coordinates gaussian"),
    Prior: ("margin_*", "", "anchor"),
    CompletionNetwork: (
        "level_tokens? numeric categorical low high",
        "",
        "n_columns dropout prior warp encoder heads denoiser mean_head others levels",
    ),
    PiecewiseLinearEncoder: ("left slope", "", "n_features"),
    LevelEmbedding: ("start", "weight", ""),
    Denoiser: ("", "", "n_features hidden embedding attention mix layers norm"),
    TokenEmbedding: ("", "weight bias", "group n_tokens padding"),
    TokenAttention: ("", "", "n_heads norm qkv out feed_forward"),
    FeedForward: ("", "", "first second"),
    NumericHead: ("columns", "weight bias inner_weight inner_bias", "n_outcomes atoms"),
    LevelHead: ("columns slots share ordered?", "weight bias", "n_outcomes"),
    Atoms: (
        "low high own_low own_high center share edges valid offset reaching?",
        "",
        "n_atoms has_bins warp",
    ),
    MeanHead: ("weight", "", "first second last"),
    LandmarkRegression: ("points solution weight coordinate width", "", "settings"),
    Donors: (
        "numeric categorical scale grid chance level_chance weight is_used "
        "concentration values scaled_values observed outcome search_rows search_flags "
        "log_weight?",
        "",
        "settings searched",
    ),
    Forests: (
        "weight root feature threshold child start size outcome mass",
        "",
        "settings depth",
    ),
    KernelRegression: ("choice points center solution", "", "kernels widths ridges"),
    OnePattern: ("observed weight precision", "", "columns regressions"),
    PatternRegression: ("", "", "settings patterns"),
    SelfMasking: ("tilt_*", "", "slopes"),
    CellModel: (
        "",
        "",
        "ridges wholes dependence landmarks donors patterns network replicas forests "
        "self_masking lost_error? held_out_errors?",
    ),
    # Blocks.
    LinearEncoder: ("", "", "settings mean_ components_ variance_ noise_"),
    KernelFeatures: (
        "metric landmarks distance spread center root mean",
        "",
        "settings curved linear",
    ),
    FeatureMap: ("owner_z owner", "", "maps"),
    ScaledLatents: ("owner scale", "", ""),
    BlockAnchor: ("owner_z owner_f mean moments ridge scale", "", "n_rows settings"),
    ModalityDenoiser: ("", "", "sizes embed attention mix layers norm heads"),
    BlockModel: (
        "scale gate",
        "",
        "encoders columns diffusion dependence lost_error slices n_outputs features "
        "anchor denoiser held_out_errors",
    ),
    CombinedModel: ("", "", "partition n_levels encoders cells blocks"),
}
_RECORDS = (  # dataclasses: their fields are their parts
    Line,
    Map,
    Partition,
    AnchorSettings,
    DiffusionSettings,
    DonorSettings,
    EncoderSettings,
    ForestSettings,
    GroupMeans,
    KernelSettings,
    LandmarkSettings,
    PatternSettings,
    TiltSettings,
)
CLASSES = {kind.__name__: kind for kind in (*_PARTS, *_RECORDS)}
# Fields that older files hold, on which nothing depends any more.
GONE = {"ForestSettings": {"bag_share", "min_errors"}}
# What an instance makes anew and no file holds.
TRANSIENT = {"BlockAnchor": {"_kept": dict}}


def _has_default(field):
    return field.default is not MISSING or field.default_factory is not MISSING


def _parts_of(kind):
    """How each part is held, by its name: as "buffer", "parameter" or "field"."""
    if is_dataclass(kind):
        # A field that came later has its default in older files.
        return {f.name + "?" * _has_default(f): "field" for f in fields(kind)}
    kinds = zip(("buffer", "parameter", "field"), _PARTS[kind], strict=True)
    return {name: how for how, names in kinds for name in names.split()}


PARTS = {name: _parts_of(kind) for name, kind in CLASSES.items()}


def held_as(parts, name):
    """How a part is held, or None where it is none.

    Parameters
    ----------
    parts : dict
        Of `PARTS`.
    name : str
    """
    stem = name.rstrip("0123456789") + "*"
    return parts.get(name) or parts.get(f"{name}?") or parts.get(stem)


def lacks(parts, names):
    """Parts that have to be there, and are not."""
    return [p for p in parts if p[-1] not in "?*" and p not in names]
