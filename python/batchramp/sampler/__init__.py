"""Batches of a scheduled size for any trainer that takes a torch batch sampler."""

from batchramp.sampler.batch_sampler import VariableBatchSampler

__all__ = ["VariableBatchSampler"]
