"""What a run decides once about the machine it runs on, and keeps at every resume.

Lanes, dtype, compilation and micro-batch change the order in which numbers are added, so the last
bits of the result. They are decided at the first start and recorded; a resumed run takes them as
they are, and says so where the machine itself has changed.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from llmctl.core import console, hardware
from llmctl.core.distributed import World
from llmctl.core.errors import OutOfMemory, UsageError
from llmctl.model.config import ModelConfig
from llmctl.model.transformer import Transformer
from llmctl.train.plan import auto_micro_batch, divisor_at_most, memory_per_rank

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CPU_MICRO_TOKENS = 1024  # of one lane: activations that stay near the caches
# seconds an eager run must be predicted to take before compiling (18-166 s on a CPU) pays
COMPILE_PAYS = {"cpu": 400.0, "cuda": 120.0}
EAGER_SHARE = {"cpu": 0.45, "cuda": 0.3}  # of the peak, for that prediction


@dataclass(frozen=True)
class Machine:
    """The decisions, and the facts that make them bit-exact."""

    device: str
    name: str
    isa: str
    torch: str
    ranks: int
    lanes: int  # threads that share a step's micro-batches (CPU)
    threads: int  # of one lane's operators
    dtype: str
    compile: bool
    micro_batch: int  # rows

    def changed(self, here: Machine) -> list[str]:
        """Which of them differ on the machine of a resumed run."""
        before, now = asdict(self), asdict(here)
        return [f"{k} ({before[k]} then, {now[k]} now)" for k in before if before[k] != now[k]]


def decide(
    world: World,
    model: ModelConfig,
    *,
    seq_len: int,
    rows: int,
    total_tokens: int,
    workers: int,
    dtype: str,
    compile: str,
    micro_batch: int,
    peak: Callable[[torch.device, torch.dtype], float],
) -> Machine:
    """Fill in what is 'auto' or 0. rows: of one step, on this rank."""
    device = world.device
    cpu = device.type == "cpu"
    cores = max(1, (workers or hardware.cpu_count()) // world.size)
    lanes = min(cores, rows) if cpu else 1
    if dtype == "auto":
        fast = hardware.cpu_has_fast_bf16() if cpu else torch.cuda.is_bf16_supported()
        dtype = "bf16" if fast else "fp32"
    if compile == "auto":
        flops = total_tokens * model.flops_per_token(seq_len) / world.size
        speed = peak(device, DTYPES[dtype]) * EAGER_SHARE[device.type] * lanes
        pays = speed > 0 and flops / speed > COMPILE_PAYS[device.type]
        compile = "on" if pays and can_compile(device) else "off"
    if micro_batch and rows % micro_batch:
        raise UsageError(
            f"micro_batch={micro_batch} does not divide the {rows} rows of a step on each rank"
        )
    if not micro_batch and cpu:
        most = max(1, CPU_MICRO_TOKENS // seq_len)
        micro_batch = divisor_at_most(rows // lanes if rows % lanes == 0 else rows, most)
    elif not micro_batch:
        micro_batch = auto_micro_batch(model, rows, seq_len, hardware.memory_total(device))
    return Machine(
        device=device.type,
        name=hardware.device_name(device),
        isa=torch.backends.cpu.get_cpu_capability() if cpu else platform.machine(),
        torch=torch.__version__,
        ranks=world.size,
        lanes=lanes,
        threads=cores // lanes if cpu else 1,  # a device's peak is per host core
        dtype=dtype,
        compile=compile == "on",
        micro_batch=micro_batch,
    )


def can_compile(device: torch.device) -> bool:
    """Whether the compiler's own compiler is there."""
    if device.type == "cuda":
        try:
            import triton  # noqa: F401
        except ImportError:
            return False
    return any(shutil.which(name) for name in ("g++", "c++", "clang++"))


def take_up(recorded: Machine, here: Machine, rows: int) -> Machine:
    """The machine of a resumed run: decisions as recorded, facts as they are here."""
    micro = recorded.micro_batch if rows % recorded.micro_batch == 0 else here.micro_batch
    kept: dict[str, Any] = {
        "dtype": recorded.dtype,
        "compile": recorded.compile,
        "micro_batch": micro,
    }
    if recorded.ranks == here.ranks:
        kept |= {"lanes": recorded.lanes, "threads": recorded.threads}
    taken = Machine(**{**asdict(here), **kept})
    if different := recorded.changed(taken):
        console.warn(f"not bit-exact with the run's beginning: {', '.join(different)}")
    return taken


@contextmanager
def one_thread() -> Iterator[None]:
    """Measure what one core can do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def prepared(machine: Machine) -> Iterator[None]:
    """Set what holds for a whole process, threads and matmul precision, and put it back."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    if machine.device == "cpu":
        torch.set_num_threads(machine.threads)
    else:
        torch.set_float32_matmul_precision("high")  # TF32 where a product stays in fp32
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def settle_micro_batch(
    machine: Machine,
    world: World,
    model: ModelConfig,
    *,
    seq_len: int,
    rows: int,
    attempt: Callable[[int], None],
) -> int:
    """On CUDA, try one micro-batch and halve it while it does not fit; all ranks agree.

    attempt(micro_batch) does a forward and backward pass without any collective.
    """
    micro = machine.micro_batch
    if world.device.type != "cuda":
        return micro
    while True:
        # room for the optimizer's moments, which come with the first update
        moments = torch.empty(8 * model.n_params(), dtype=torch.uint8, device=world.device)
        fits = 1.0
        try:
            attempt(micro)
        except torch.OutOfMemoryError:
            fits = 0.0
        del moments
        torch.cuda.empty_cache()
        if world.sum([fits])[0] == world.size:
            return micro
        if micro == 1:
            need = memory_per_rank(model, 1, seq_len).total
            raise OutOfMemory(
                f"one row of {seq_len:,} tokens does not fit: about {need / 1e9:.1f} GB "
                f"wanted, {hardware.memory_total(world.device) / 1e9:.1f} GB there; lower depth "
                "or seq_len, or shard with --set parallel=fsdp"
            )
        micro = divisor_at_most(rows, micro // 2)
        console.warn(f"out of memory: micro_batch halved to {micro}, the global batch stays")


def shard(model: Transformer, world: World) -> None:
    """FSDP2: each block and the rest are split over the ranks, gathered when they are used."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "hidden")
