"""torch's settings are read whole, put back as they were, and held while one trains."""

import json

import pytest
import torch
from torch import backends

from batchramp.training.torch_settings import (
    check_torch_settings,
    settings_held,
    settings_kept,
    torch_settings,
)

# What a user's file may call, and the names under which it must show.
CHANGES = {
    "default_dtype": lambda: torch.set_default_dtype(torch.float64),
    "default_device": lambda: torch.set_default_device("meta"),
    "grad_enabled": lambda: torch.set_grad_enabled(False),
    "deterministic": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "flush_denormal": lambda: torch.set_flush_denormal(True),
    "autocast_cpu": lambda: torch.set_autocast_enabled("cpu", True),
    "autocast_cpu_dtype": lambda: torch.set_autocast_dtype("cpu", torch.float16),
    "float32_matmul_precision": lambda: torch.set_float32_matmul_precision("high"),
    "matmul_fp32_precision": lambda: setattr(
        backends.cuda.matmul, "fp32_precision", "tf32"
    ),
    "mkldnn_matmul_fp32_precision": lambda: torch.set_float32_matmul_precision(
        "medium"
    ),
    "fp32_precision": lambda: setattr(backends, "fp32_precision", "tf32"),
    "cuda_fp32_precision": lambda: setattr(backends.cudnn, "fp32_precision", "ieee"),
    "cudnn_allow_tf32": lambda: setattr(backends.cudnn, "allow_tf32", False),
    "cudnn_conv_fp32_precision": lambda: setattr(
        backends.cudnn.conv, "fp32_precision", "ieee"
    ),
    "cudnn_benchmark": lambda: setattr(backends.cudnn, "benchmark", True),
    "cudnn_deterministic": lambda: setattr(backends.cudnn, "deterministic", True),
    "fp16_accumulation": lambda: setattr(
        backends.cuda.matmul, "allow_fp16_accumulation", True
    ),
    "mkldnn_enabled": lambda: setattr(backends.mkldnn, "enabled", False),
    "flash_attention": lambda: backends.cuda.enable_flash_sdp(False),
}


@pytest.fixture(autouse=True)
def as_before():
    with settings_kept():
        yield


@pytest.mark.parametrize("name", CHANGES)
def test_each_setting_is_read_and_put_back(name):
    before = torch_settings()
    assert json.loads(json.dumps(before)) == before
    with settings_kept():
        CHANGES[name]()
        assert torch_settings()[name] != before[name]
    assert torch_settings() == before
    # The older getters raise where anything was put back in the newer way only.
    assert torch.get_float32_matmul_precision() == before["float32_matmul_precision"]
    assert backends.cudnn.allow_tf32 == before["cudnn_allow_tf32"]


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with settings_kept():
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "grad_enabled",
            r"gradients must be on .*leave torch\.set_grad_enabled\(False",
        ),
        ("default_device", "default device must be the CPU, got meta: leave"),
    ],
)
def test_settings_under_which_nothing_trains_are_refused(name, words):
    check_torch_settings()
    CHANGES[name]()
    with pytest.raises(ValueError, match=words):
        check_torch_settings()
    with pytest.raises(ValueError, match=words), settings_held("w"):
        pytest.fail("nothing may run under them")


def test_what_changes_while_a_trial_runs_is_named_and_put_back():
    before, threads = torch_settings(), torch.get_num_threads()
    with settings_held("w"):
        torch.rand(3)
    words = (
        f"with {threads} threads .* with {threads + 1} .*'w'.*threads = {threads + 1}"
    )
    with pytest.raises(ValueError, match=words), settings_held("w"):
        torch.set_num_threads(threads + 1)
    words = r"default_dtype was torch\.float32 when .* and torch\.float64 at its end"
    with pytest.raises(ValueError, match=words), settings_held("w"):
        torch.set_default_dtype(torch.float64)
    assert (torch_settings(), torch.get_num_threads()) == (before, threads)
