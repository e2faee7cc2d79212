"""The variance of gradients, per coordinate or as a noise scale."""

from batchramp.gradient_variance.coordinates import GradientVariance
from batchramp.gradient_variance.noise_scale import NoiseScale

__all__ = ["GradientVariance", "NoiseScale"]
