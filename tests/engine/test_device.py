"""The device and the precision: what is chosen, what is refused, how fast it could be."""

from __future__ import annotations

import pytest
import torch

from semiseg.engine import device as device_module
from semiseg.engine.device import (
    Precision,
    as_started,
    convolution_seconds,
    make_current,
    pays_off,
    precision_as_trained,
    repeatable,
    resolve_device,
    resolve_precision,
)
from semiseg.pipelines.errors import UsageError

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(UsageError, match="no GPU"):
        resolve_device("cuda")


@pytest.fixture
def processor(monkeypatch):
    """Makes the processor one with these instructions, whose bf16 takes so many times as long as its float32."""

    def make(instructions, ratio=0.5):
        seconds = {torch.bfloat16: ratio, torch.float32: 1.0}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)
        monkeypatch.setattr(device_module, "convolution_seconds", seconds.__getitem__)
        pays_off.cache_clear()

    yield make
    pays_off.cache_clear()


@pytest.mark.parametrize(
    ("instructions", "ratio", "chosen"),
    [
        ({}, 0.5, "fp32"),
        ({"avx512_bf16": True}, 0.6, "bf16"),
        ({"avx512_bf16": True}, 1.9, "fp32"),
        ({"amx_bf16": True}, 0.2, "bf16"),
    ],
)
def test_auto_is_bf16_where_the_processor_has_it_and_gains(processor, instructions, ratio, chosen):
    processor(instructions, ratio)
    assert resolve_precision("auto", CPU) == Precision(chosen, CPU)


def test_timing_a_convolution_leaves_the_process_as_it_was():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert convolution_seconds(torch.float32) > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("instructions", "name", "emulated"),
    [
        ({}, "bf16", True),
        ({"avx512_bf16": True}, "bf16", False),
        ({"avx512_bf16": True}, "fp16", True),
        ({"amx_fp16": True}, "fp16", False),
        ({}, "fp32", False),
    ],
)
def test_a_processor_emulates_what_it_has_no_instructions_for(processor, instructions, name, emulated):
    processor(instructions)
    assert Precision(name, CPU).emulated is emulated


@pytest.mark.parametrize(("capability", "chosen"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_is_bf16_on_gpus_that_multiply_it(monkeypatch, capability, chosen):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", CUDA) == precision_as_trained("bf16", CUDA) == Precision(chosen, CUDA)
    assert Precision("bf16", CUDA).emulated is (chosen != "bf16")
    assert not any(Precision(name, CUDA).emulated for name in ("fp16", "tf32", "fp32"))


@pytest.mark.parametrize(
    ("instructions", "trained", "taken"),
    [
        ({}, "auto", "fp32"),
        ({}, "bf16", "fp32"),
        ({}, "tf32", "fp32"),
        ({"avx512_bf16": True}, "auto", "bf16"),
        ({"avx512_bf16": True}, "fp32", "fp32"),
        ({"avx512_bf16": True}, "fp16", "bf16"),
    ],
)
def test_a_network_is_used_in_the_precision_of_its_training_where_the_device_has_it(
    processor, instructions, trained, taken
):
    processor(instructions)
    assert precision_as_trained(trained, CPU) == Precision(taken, CPU)


def test_wrong_devices_and_precisions_are_refused():
    with pytest.raises(UsageError, match="tf32"):
        resolve_precision("tf32", CPU)
    with pytest.raises(UsageError, match="--device"):
        resolve_device("gpu")


@pytest.mark.parametrize(
    ("name", "precision", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989.5),
        ("NVIDIA H100 80GB HBM3", "tf32", 494.75),
        ("NVIDIA H100 PCIe", "fp16", 756.5),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5),
        ("NVIDIA A100 80GB PCIe", "bf16", 312.0),
        ("NVIDIA H200", "bf16", 989.5),
        ("NVIDIA GH200 480GB", "bf16", 989.5),
        ("NVIDIA B200", "bf16", 2250.0),
        ("NVIDIA A10", "bf16", 125.0),
        ("NVIDIA L40S", "bf16", 362.0),
        ("NVIDIA L4", "bf16", 121.0),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
    ],
)
def test_the_peak_is_that_of_the_data_sheet(monkeypatch, name, precision, teraflops):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert Precision(precision, CUDA).peak_flops() == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize(
    "name",
    [
        *("NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H800", "NVIDIA A100X"),
        *("NVIDIA H200 NVL", "NVIDIA GB200", "NVIDIA A100-SXM-64GB", "GRID A100-10C", "AMD Instinct MI300X"),
        *("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"),
    ],
)
def test_a_gpu_that_is_not_in_the_table_has_no_peak(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert Precision("bf16", CUDA).peak_flops() is None


def test_a_processor_has_no_peak():
    assert Precision("fp32", CPU).peak_flops() is None


@pytest.mark.parametrize(("started", "before", "after"), [(True, 2, [2]), (False, 0, [0])])
def test_the_gpu_that_was_current_is_so_again(monkeypatch, started, before, after):
    """0 in a process that had not started CUDA; and CUDA is not started for it."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: started)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: before if started else pytest.fail("starts CUDA"))
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    with as_started():
        make_current(torch.device("cpu"))
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        make_current(torch.device("cuda", 1))
    assert chosen == [torch.device("cuda", 1), *after]
    chosen.clear()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    with as_started():
        pass
    assert chosen == []


def test_an_operation_whose_order_is_open_is_named_where_the_same_bits_are_wanted():
    def add() -> None:
        torch.zeros(3).put_(torch.tensor([1, 1]), torch.ones(2))

    with repeatable(False):
        add()
    said = r"--deterministic: put_ does not have .* implementation; leave it out"
    with pytest.raises(UsageError, match=said), repeatable(True):
        add()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    with repeatable(True):
        assert not torch.utils.deterministic.fill_uninitialized_memory
    said = "--deterministic: this process multiplied matrices before; start it with CUBLAS_WORKSPACE_CONFIG=:4096:8"
    with pytest.raises(UsageError, match=said), repeatable(True):
        raise RuntimeError("enabled with `torch.use_deterministic_algorithms(True)`, but it uses CuBLAS and ...")
    with pytest.raises(UsageError, match=r"cross-entropy's kernel is not used.*semiseg selfcheck"), repeatable(True):
        raise RuntimeError("nll_loss2d_forward_out_cuda_template ... `torch.use_deterministic_algorithms(True)`")
    with pytest.raises(RuntimeError, match="another"), repeatable(True):
        raise RuntimeError("another")
