"""The variance of gradients, per coordinate or as a noise scale."""

from batchramp.gradient_variance.coordinates import GradientVariance
from batchramp.gradient_variance.noise_scale import NoiseScale
from batchramp.gradient_variance.norms import GradientNorms, squared_norm

__all__ = ["GradientNorms", "GradientVariance", "NoiseScale", "squared_norm"]
