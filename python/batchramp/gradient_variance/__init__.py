"""The variance of gradients: per coordinate, as a noise scale, and what else rules need."""

from batchramp.gradient_variance.coordinates import GradientVariance
from batchramp.gradient_variance.noise_scale import NoiseScale
from batchramp.gradient_variance.norms import GradientNorms, squared_norm
from batchramp.gradient_variance.per_example import per_example_statistics
from batchramp.gradient_variance.statistics import (
    STATISTICS,
    GradientStatistics,
    micro_batch_statistics,
)
from batchramp.gradient_variance.ways import OneByOneWarning

__all__ = [
    "STATISTICS",
    "GradientNorms",
    "GradientStatistics",
    "GradientVariance",
    "NoiseScale",
    "OneByOneWarning",
    "micro_batch_statistics",
    "per_example_statistics",
    "squared_norm",
]
