"""Trying a trial before it is run. (TRAINING: the lead's placeholder; replace it.)"""

from __future__ import annotations

import torch

from batchramp.training.trial import Trial
from batchramp.workloads import Data


def rehearse(_trial: Trial, _data: Data, _device: torch.device) -> None:
    """Make one update of a copy."""
