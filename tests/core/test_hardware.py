"""Hardware, ranks and seeds."""

import pytest
import torch

from llmctl.core.distributed import World, pick_device, session
from llmctl.core.errors import UsageError
from llmctl.core.hardware import cpu_count, find_gpu, matmul_peak, memory_used
from llmctl.core.seeds import derive


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA A100-SXM4-80GB", 312)]
    + [
        ("NVIDIA H200", 989),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA L40S", 362),
        ("b200", 2250),
    ],
)
def test_gpus_are_found_by_what_drivers_call_them(name, teraflops):
    assert find_gpu(name).peak == teraflops * 1e12


def test_an_unknown_gpu_is_none():
    assert find_gpu("abacus") is None


def test_this_machine_has_a_peak_and_memory():
    assert cpu_count() >= 1 and memory_used() > 1e6
    assert matmul_peak(torch.device("cpu"), torch.float32, seconds=0.05) > 1e9


def test_alone_every_reduction_is_the_identity():
    with session("cpu") as world:
        assert (world.rank, world.size, world.is_main) == (0, 1, True)
        tensor = torch.ones(3)
        world.sum_tensors([tensor])
        world.agree("anything", 1)
        assert world.sum([1.5]) == [1.5] and world.share("x") == "x" and tensor.sum() == 3


def test_a_device_that_is_not_here_is_refused():
    with pytest.raises(UsageError, match="device 'abacus' is none of"):
        pick_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="torch sees no CUDA device"):
            pick_device("cuda")
    assert World(1, 2, pick_device("cpu")).is_main is False


def test_streams_are_functions_of_their_names():
    assert derive(0, "order", 1) == derive(0, "order", 1)
    assert len({derive(s, n, i) for s in (0, 1) for n in ("a", "b") for i in (0, 1)}) == 8
    assert derive(1, "12") != derive(11, "2")
    assert 0 <= derive(0, "x") < 1 << 63
