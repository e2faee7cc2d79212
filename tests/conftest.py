"""What all tests share: real data where the machine has it."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir():
    """The parent of cifar10/, fashion-mnist/ and so on, or a clean skip."""
    named = os.environ.get("BATCHRAMP_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs data sets: name their directory in BATCHRAMP_DATA")
    return folder
