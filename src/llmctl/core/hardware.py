"""What this machine can do: cores, memory, and the peak that MFU is a fraction of.

GPU peaks are the makers' dense bf16 figures (fp16 where a card has no bf16), without sparsity.
A CPU's peak is measured once: the best square matrix product in the run's own dtype and threads.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.core.errors import UsageError


@dataclass(frozen=True)
class Gpu:
    """One accelerator: dense 16-bit matmul peak (FLOP/s) and memory (bytes)."""

    name: str
    peak: float
    memory: float


def _gpu(name: str, teraflops: float, gigabytes: float) -> Gpu:
    return Gpu(name, teraflops * 1e12, gigabytes * 1e9)


# The longer names first: a card is found by the first one its own name contains.
GPUS: tuple[Gpu, ...] = (
    _gpu("GB200", 2450, 186),
    _gpu("B200", 2250, 180),
    _gpu("GH200", 989, 96),
    _gpu("H200", 989, 141),
    _gpu("H100 NVL", 835, 94),
    _gpu("H100 PCIe", 756, 80),
    _gpu("H100", 989, 80),
    _gpu("H800", 989, 80),
    _gpu("A100-SXM4-40GB", 312, 40),
    _gpu("A100-PCIE-40GB", 312, 40),
    _gpu("A100", 312, 80),
    _gpu("L40S", 362, 48),
    _gpu("L40", 181, 48),
    _gpu("L4", 121, 24),
    _gpu("RTX 6000 Ada", 364, 48),
    _gpu("RTX A6000", 155, 48),
    _gpu("A10", 125, 24),
    _gpu("RTX 5090", 209, 32),
    _gpu("RTX 4090", 165, 24),
    _gpu("RTX 3090", 71, 24),
    _gpu("V100", 125, 32),
    _gpu("T4", 65, 16),
    _gpu("MI300X", 1307, 192),
    _gpu("MI250X", 383, 128),
)


def find_gpu(name: str) -> Gpu | None:
    """The table's entry for a device name such as 'NVIDIA H100 80GB HBM3' or 'h100'."""
    squeezed = _squeeze(name)
    return next((gpu for gpu in GPUS if _squeeze(gpu.name) in squeezed), None)


def wanted_gpu(name: str) -> Gpu:
    """The device --dry-run reckons with: "auto" this machine's, else the table's entry.

    UsageError (2) with the names it has.
    """
    found = this_device() if name == "auto" else find_gpu(name)
    if found is None:
        known = ", ".join(gpu.name for gpu in GPUS)
        raise UsageError(f"gpu={name!r} is not in the table; known: {known}")
    return found


def _squeeze(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def cpu_count() -> int:
    """Cores this process may use: affinity, and the cgroup's quota where one is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        if quota != "max":
            cores = min(cores or 1, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return max(1, cores or 1)


def memory_used(device: Any = None) -> int:
    """Bytes: the peak allocated on a CUDA device, else this process's resident set now."""
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_total(device: Any = None) -> int:
    """Bytes of memory on the device, or of this machine."""
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def device_name(device: Any) -> str:
    """What to call the device in a log: the GPU's name, or the processor's."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(li.split(":", 1)[1].strip() for li in lines if li.startswith("model name"))
    except (OSError, StopIteration):
        import platform

        return platform.processor() or platform.machine()


def cpu_has_fast_bf16() -> bool:
    """Whether the processor multiplies bf16 natively (avx512_bf16, amx_bf16, Arm's bf16)."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def matmul_peak(device: Any, dtype: Any, seconds: float = 0.3) -> float:
    """FLOP/s of the best square matrix product seen within about `seconds`."""
    import torch

    n = 1024 if device.type == "cpu" else 8192
    a = torch.randn(n, n, dtype=torch.float32, device=device).to(dtype)
    a @ a  # the first call pays for setting up
    # one thread's own time, where there is only one: other work on the machine does not count
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    best, tries, deadline = float("inf"), 0, time.perf_counter() + seconds
    while tries < 3 or time.perf_counter() < deadline:
        tries += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = clock()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, clock() - start)
    return 2 * n**3 / best


def this_device() -> Gpu:
    """What a run here would compute on: the first CUDA device, else all cores together."""
    import torch

    if torch.cuda.is_available():
        device = torch.device("cuda", 0)
        peak, _ = peak_flops(device, torch.bfloat16)
        return Gpu(device_name(device), peak, memory_total(device))
    device, threads = torch.device("cpu"), torch.get_num_threads()
    dtype = torch.bfloat16 if cpu_has_fast_bf16() else torch.float32
    torch.set_num_threads(1)
    try:
        peak = matmul_peak(device, dtype)
    finally:
        torch.set_num_threads(threads)
    return Gpu(f"{device_name(device)} ({cpu_count()} cores)", peak * cpu_count(), memory_total())


def peak_flops(device: Any, dtype: Any) -> tuple[float, str]:
    """(FLOP/s, where the figure is from) for MFU: the table's, else measured here."""
    if device.type == "cuda" and (gpu := find_gpu(device_name(device))):
        return gpu.peak, f"{gpu.name} data sheet"
    return matmul_peak(device, dtype), "measured matmul"
