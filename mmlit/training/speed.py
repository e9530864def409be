"""What makes training faster without an option: results stay the same but for rounding."""

import ctypes
import inspect
import platform
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

#: devices for which torch has such kernels of its own
_FUSED = ("cuda", "cpu")
#: of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def fused(optimizer: Callable[..., Optimizer], groups: list[dict[str, Any]], *, device: torch.device) -> Optimizer:
    """The optimizer on these groups; one that can updates all weights in one kernel, also on a CPU.

    What the optimizer's own options `fused` and `foreach` say comes first. Lightning refuses to clip gradients for an
    optimizer that says it can undo a loss scaler's scaling in its step; this one is told not to, so that scaling is
    undone before clipping, as with any other.

    Args:
        optimizer: called with the groups, and with `fused=True` if it knows that option.
        groups: parameters, on `device`.
        device: of the parameters.
    """
    options = inspect.signature(optimizer).parameters
    open_ = "fused" in options and all(options[name].default is None for name in ("fused", "foreach"))
    made = optimizer(groups, fused=True) if open_ and device.type in _FUSED else optimizer(groups)
    if getattr(made, "_step_supports_amp_scaling", False):
        made._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return made


def channels_last(module: nn.Module) -> None:
    """Lays the weights of 2D convolutions out with the channels last; what such a convolution returns follows them."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)


def keep_freed_memory() -> None:
    """On Linux with glibc: what tensors on a CPU leave is kept for the next ones, up to 2 GiB of it.

    By default glibc hands every block of 32 MiB and more back to the system when it is freed, and each new one costs a
    page fault for each of its pages, all of which the system fills with zeros first: two fifths of the time of
    fine-tuning a MobileNetV2 with 128 pictures of 224 px. Other allocators (jemalloc, tcmalloc) and other systems are
    left alone.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    # Older ones refuse such a threshold; the second call alone would fix theirs where it begins, far too low.
    if library.mallopt(_M_MMAP_THRESHOLD, 2**30):
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
