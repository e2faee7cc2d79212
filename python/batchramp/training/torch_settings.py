"""torch's own settings, which change numbers: read, refused, and put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import backends

_MIXED = "set in two ways"


class _Setting(NamedTuple):
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _attribute(owner: Any, name: str) -> _Setting:
    return _Setting(
        lambda: getattr(owner, name), lambda value: setattr(owner, name, value)
    )


def _autocast(device: str) -> _Setting:
    return _Setting(
        lambda: torch.is_autocast_enabled(device),
        lambda value: torch.set_autocast_enabled(device, value),
    )


def _autocast_dtype(device: str) -> _Setting:
    return _Setting(
        lambda: str(torch.get_autocast_dtype(device)),
        lambda value: torch.set_autocast_dtype(device, _dtype(value)),
    )


def _dtype(name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name.removeprefix("torch."))
    return dtype


def _older(setting: _Setting) -> _Setting:
    """One of torch's older settings, unreadable where the newer ones were set too."""

    def read() -> Any:
        try:
            return setting.read()
        except RuntimeError:
            return _MIXED

    def write(value: Any) -> None:
        if value != _MIXED:
            setting.write(value)

    return _Setting(read, write)


def _flushes_denormals() -> bool:
    # There is no getter: a subnormal number is halved.
    tiny = torch.full((), 1e-40, dtype=torch.float32, device="cpu")
    return not bool(tiny * 0.5)


_CUDNN: Any = backends.cudnn
_MKLDNN: Any = backends.mkldnn

# In the order in which they are put back: the older way of saying a precision writes the
# newer one's values, and a general precision holds for what says none of its own.
_SETTINGS = {
    "default_dtype": _Setting(
        lambda: str(torch.get_default_dtype()),
        lambda value: torch.set_default_dtype(_dtype(value)),
    ),
    "default_device": _Setting(
        lambda: str(torch.get_default_device()),
        lambda value: torch.set_default_device(None if value == "cpu" else value),
    ),
    "grad_enabled": _Setting(torch.is_grad_enabled, torch.set_grad_enabled),
    "deterministic": _Setting(
        torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode
    ),
    "flush_denormal": _Setting(_flushes_denormals, torch.set_flush_denormal),
    "autocast_cpu": _autocast("cpu"),
    "autocast_cpu_dtype": _autocast_dtype("cpu"),
    "autocast_cuda": _autocast("cuda"),
    "autocast_cuda_dtype": _autocast_dtype("cuda"),
    "float32_matmul_precision": _older(
        _Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision)
    ),
    "cudnn_allow_tf32": _older(_attribute(_CUDNN, "allow_tf32")),
    "fp32_precision": _attribute(backends, "fp32_precision"),
    "cuda_fp32_precision": _attribute(_CUDNN, "fp32_precision"),
    "mkldnn_fp32_precision": _attribute(_MKLDNN, "fp32_precision"),
    "matmul_fp32_precision": _attribute(backends.cuda.matmul, "fp32_precision"),
    "cudnn_conv_fp32_precision": _attribute(_CUDNN.conv, "fp32_precision"),
    "cudnn_rnn_fp32_precision": _attribute(_CUDNN.rnn, "fp32_precision"),
    "mkldnn_matmul_fp32_precision": _attribute(_MKLDNN.matmul, "fp32_precision"),
    "mkldnn_conv_fp32_precision": _attribute(_MKLDNN.conv, "fp32_precision"),
    "mkldnn_rnn_fp32_precision": _attribute(_MKLDNN.rnn, "fp32_precision"),
    "fp16_reduced_precision_reduction": _attribute(
        backends.cuda.matmul, "allow_fp16_reduced_precision_reduction"
    ),
    "bf16_reduced_precision_reduction": _attribute(
        backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"
    ),
    "fp16_accumulation": _attribute(backends.cuda.matmul, "allow_fp16_accumulation"),
    "cudnn_enabled": _attribute(_CUDNN, "enabled"),
    "cudnn_benchmark": _attribute(_CUDNN, "benchmark"),
    "cudnn_deterministic": _attribute(_CUDNN, "deterministic"),
    "mkldnn_enabled": _attribute(_MKLDNN, "enabled"),
    "mkldnn_deterministic": _attribute(_MKLDNN, "deterministic"),
    "flash_attention": _Setting(
        backends.cuda.flash_sdp_enabled, backends.cuda.enable_flash_sdp
    ),
    "memory_efficient_attention": _Setting(
        backends.cuda.mem_efficient_sdp_enabled, backends.cuda.enable_mem_efficient_sdp
    ),
    "math_attention": _Setting(
        backends.cuda.math_sdp_enabled, backends.cuda.enable_math_sdp
    ),
    "cudnn_attention": _Setting(
        backends.cuda.cudnn_sdp_enabled, backends.cuda.enable_cudnn_sdp
    ),
}


def torch_settings() -> dict[str, Any]:
    """Return torch's settings that change numbers, as JSON values; threads are not here.

    They hold for the process, or (gradients, autocast, denormals) for this thread.
    """
    return {name: setting.read() for name, setting in _SETTINGS.items()}


@contextmanager
def settings_kept() -> Iterator[None]:
    """Put torch's settings and its threads back as they were, whatever is set inside."""
    before, threads = torch_settings(), torch.get_num_threads()
    try:
        yield
    finally:
        for name, value in before.items():
            if _SETTINGS[name].read() != value:
                _SETTINGS[name].write(value)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def check_torch_settings() -> None:
    """Refuse settings under which nothing can be trained.

    Raises:
        ValueError: Gradients are off, or tensors are made on another device than the
            CPU.
    """
    if not torch.is_grad_enabled():
        raise ValueError(
            "torch's gradients must be on to train, and are off: leave "
            "torch.set_grad_enabled(False) out, or use `with torch.no_grad():`"
        )
    if torch.get_default_device() != torch.device("cpu"):
        raise ValueError(
            "torch's default device must be the CPU, got "
            f"{torch.get_default_device()}: leave torch.set_default_device out (a trial "
            "moves model and data to the device it trains on)"
        )


@contextmanager
def settings_held(workload: str) -> Iterator[None]:
    """Let nothing inside change torch's settings or threads, and put them back.

    Args:
        workload: Whose code runs inside; for messages.

    Raises:
        ValueError: They differ at the end; or nothing can be trained under them.
    """
    check_torch_settings()
    before, threads = torch_settings(), torch.get_num_threads()
    with settings_kept():
        yield
        after = torch.get_num_threads()
        if after != threads:
            raise ValueError(
                f"torch computed with {threads} threads when the trial began and with "
                f"{after} at its end, for the code of workload {workload!r} changes "
                f"them: write threads = {after} in the suite instead"
            )
        for name, value in torch_settings().items():
            if value != before[name]:
                raise ValueError(
                    f"torch's {name} was {before[name]} when the trial began and "
                    f"{value} at its end, for the code of workload {workload!r} changes "
                    "it: set it once, where the file is loaded"
                )
