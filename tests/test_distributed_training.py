"""Modules that learn on many processes: what the examples print, DDP, FSDP2, and streams beside them."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from torch_iir.nn import BiquadBank, LFilter, ParametricEQ, SOSFilter
from torch_iir.signal import lfilter

EXAMPLES = Path(__file__).parent.parent / "examples" / "distributed"
if not EXAMPLES.exists():
    pytest.skip("tests of an installed package have no examples beside them", allow_module_level=True)
sys.path.append(str(EXAMPLES))

import fsdp2  # noqa: E402
import listener  # noqa: E402
import sequence  # noqa: E402

BATCH, SAMPLES, STEPS, RATE = 12, 400, 4, 0.03
PRINTED = 1e-6  # digits that the examples print

# What torch calls it depends on its version.
forward_sync = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
OWN_BUFFERS = {"forward_sync_buffers" if forward_sync else "broadcast_buffers": False}


# --- the examples


COMMON = f"--steps {STEPS} --samples {SAMPLES} --rate {RATE}"


def run_example(name: str, options: str, optimizer: str = "Adam") -> str:
    """What an example prints on this rank; with another optimizer, if need be."""
    module, printed = importlib.import_module(name), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [f"{name}.py", *options.split()])
        patch.setattr(dist, "destroy_process_group", lambda: None)  # the group is that of tests/ranks.py
        patch.setattr(torch.optim, "Adam", getattr(torch.optim, optimizer))
        module.main()
    return printed.getvalue()


def printed_losses(printed: str) -> dict[int, float]:
    steps = [line.removeprefix("step ").split(": loss ") for line in printed.splitlines() if line.startswith("step ")]
    return {int(step): float(loss) for step, loss in steps}


def launched(name: str, *options: str) -> str:
    """What an example prints that torchrun starts on two ranks."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = [*torchrun, EXAMPLES / name, *COMMON.split(), "--batch", str(BATCH), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_ddp_example() -> None:
    printed = launched("ddp.py", "--compile", "aot_eager")
    model = seeded_listener()
    losses, _ = trained(model, model)
    assert_close(printed_losses(printed), {0: losses[0], STEPS - 1: losses[-1]}, rtol=0, atol=PRINTED)
    assert "the parameters of 2 processes differ by 0\n" in printed
    assert printed.count("step 0") == 1  # one voice for all ranks


def test_fsdp2_example_and_its_checkpoint(tmp_path: Path) -> None:
    """One process goes on from what two have saved."""
    losses = printed_losses(launched("fsdp2.py", "--save", str(tmp_path), "--every", "2"))
    model = seeded_listener()
    assert_close(losses, dict(enumerate(trained(model, model)[0])), rtol=0, atol=PRINTED)

    loaded = run_example("fsdp2", f"{COMMON} --batch {BATCH} --load {tmp_path / 'step-2'}")
    assert_close(printed_losses(loaded), {step: losses[step] for step in (2, 3)}, rtol=0, atol=2 * PRINTED)


def test_sequence_example() -> None:
    """By steps in proportion to gradients: those of Adam are the same whatever gradients are multiplied by."""
    rate = 1e-4
    printed, _ = ranks.run(run_example, 2, "sequence", f"--steps {STEPS} --samples {SAMPLES} --rate {rate}", "SGD")
    resonator = sequence.resonator(1300.0, 0.9)
    x, target = sequence.recording(SAMPLES)
    optimizer = torch.optim.SGD(resonator.parameters(), lr=rate)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = (lfilter(*resonator.coefficients(), x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.99 * losses[0]
    assert_close(printed_losses(printed), {0: losses[0], STEPS - 1: losses[-1]}, rtol=10 * PRINTED, atol=0)
    assert printed.endswith(f"a of {[round(value, 4) for value in resonator.coefficients()[1].tolist()]}\n")


# --- the same gradients as in one process


def test_ddp_gradients_are_those_of_one_process() -> None:
    model = seeded_listener().double()
    losses, gradients = trained(model, model)
    results = ranks.run(train_in_parallel, 2)
    for part_losses, part_gradients, parameters in results:
        assert_equal_to_rounding(part_gradients, gradients)
        assert_equal_to_rounding(parameters, [parameter.detach() for parameter in model.parameters()])
        assert all(map(torch.equal, parameters, results[0][2]))
        assert part_losses != losses  # each of its part
    means = torch.tensor([part_losses for part_losses, *_ in results]).mean(0)
    assert_close(means, torch.tensor(losses))


def train_in_parallel() -> tuple[list[float], list[Tensor], list[Tensor]]:
    model = seeded_listener().double()
    losses, gradients = trained(model, DistributedDataParallel(model))
    return losses, gradients, [parameter.detach() for parameter in model.parameters()]


def seeded_listener() -> listener.Listener:
    torch.manual_seed(0)
    return listener.Listener()


def trained(model: nn.Module, called: nn.Module) -> tuple[list[float], list[Tensor]]:
    """The losses on this rank, and the gradients of the first step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    dtype = next(model.parameters()).dtype
    losses, gradients = [], []
    for step in range(STEPS):
        x, classes = map(listener.own_part, listener.sounds(step, BATCH, SAMPLES))
        optimizer.zero_grad()
        loss = cross_entropy(called(x.to(dtype)), classes)
        loss.backward()
        gradients = gradients or [parameter.grad.clone() for parameter in model.parameters()]
        optimizer.step()
        losses.append(loss.item())
    return losses, gradients


def assert_equal_to_rounding(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Sums over all samples in other orders, in float64."""
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other, rtol=0, atol=BATCH * SAMPLES * torch.finfo(one.dtype).eps * float(other.abs().max()))


# --- FSDP2


def make(name: str, stream: bool) -> nn.Module:
    """Of one row or of three, on two ranks: shards that are uneven, and empty ones."""
    return {
        "one band": lambda: ParametricEQ(16000, 1, shelves=False, gain=3.0, stream=stream),
        "three bands": lambda: ParametricEQ(16000, 3, gain=3.0, stream=stream),
        "cascades": lambda: SOSFilter(2, shape=(3, 1), stream=stream),
        "order 1": lambda: LFilter(1, stream=stream),
        "sections": lambda: LFilter(3, "sections", stream=stream),
        "bank": lambda: BiquadBank(3, stream=stream),
        "float64": lambda: LFilter(2, dtype=torch.float64, stream=stream),
    }[name]()


NAMES = ("one band", "three bands", "cascades", "order 1", "sections", "bank", "float64")


def test_fsdp2_shards_every_module() -> None:
    x = torch.randn(2, 100)
    results = ranks.run(train_sharded, 2, x)
    for name in NAMES:
        module = make(name, stream=True)
        gradients = gradients_of_chunks(module, x)
        for sharded, state, response in (result[name] for result in results):
            assert_equal_to_rounding(sharded, gradients)
            assert torch.equal(state, module.state.detach())
            assert torch.equal(response, module.response(5).detach())


def train_sharded(x: Tensor) -> dict[str, Any]:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    results = {}
    for name in NAMES:
        module = fully_shard(make(name, stream=True), mesh=mesh)
        gradients = [gradient.full_tensor() for gradient in gradients_of_chunks(module, x)]
        register_fsdp_forward_method(module, "response")
        results[name] = gradients, module.state.detach(), module.response(5).detach()
    return results


def gradients_of_chunks(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Back through the state, from chunk to chunk."""
    torch.stack([module(chunk).square().sum() for chunk in x.split(40, -1)]).sum().backward()
    return [parameter.grad for parameter in module.parameters()]


def test_fsdp2_example_rounds_no_filter() -> None:
    x, _ = listener.sounds(0, BATCH, SAMPLES)
    model = seeded_listener()
    expected = model.bank(model.equaliser(x)).detach()
    for bands, dtypes in ranks.run(bands_beside_bfloat16, 2, x):
        assert torch.equal(bands, expected)
        assert dtypes == (torch.bfloat16, torch.float32)  # inside of the linear layer, and what it is trained in


def bands_beside_bfloat16(x: Tensor) -> tuple[Tensor, tuple[torch.dtype, torch.dtype]]:
    model, seen = seeded_listener(), {}
    fsdp2.shard(model, torch.device("cpu"), bf16=True)
    assert all(isinstance(module, FSDPModule) for module in (model, model.equaliser, model.bank, model.head))
    model.bank.register_forward_hook(lambda module, inputs, y: seen.update(bands=y.detach()))
    model.head.register_forward_pre_hook(lambda module, inputs: seen.update(dtype=module.weight.dtype))
    model(x).sum().backward()
    return seen["bands"], (seen["dtype"], model.head.weight.grad.dtype)


# --- streams beside DDP


def test_streams_are_each_ranks_own() -> None:
    for difference, error, gradients, expected in ranks.run(stream_in_parallel, 2):
        assert difference == 0.0
        assert "give DistributedDataParallel broadcast_buffers=False" in error
        assert_close(gradients, expected)


def stream_in_parallel() -> tuple[float, str, Tensor, Tensor]:
    """A model with buffers of its own, as batch normalisation has: DDP broadcasts all or none of them."""
    sos = torch.tensor([[1.0, 0.5, 0.2, 1.0, -0.9, 0.5]])
    generator = torch.Generator().manual_seed(dist.get_rank())
    x = torch.randn(2, 90, generator=generator)
    whole = SOSFilter.from_sos(sos)
    y = whole(x)
    y.square().sum().backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in whole.parameters()])
    dist.all_reduce(expected)

    filter = SOSFilter.from_sos(sos, stream=True)
    model = nn.Sequential(filter, nn.BatchNorm1d(30))
    broadcast = DistributedDataParallel(model)
    first, second, _ = chunks = x.split(30, -1)
    broadcast(first)
    with pytest.raises(ValueError, match="overwritten") as raised:
        broadcast(second)

    filter.reset()
    model[1] = nn.Identity()
    model.register_buffer("another", torch.zeros(1))
    parallel = DistributedDataParallel(model, **OWN_BUFFERS)
    streamed = torch.cat([parallel(chunk) for chunk in chunks], -1)
    streamed.square().sum().backward()
    gradients = torch.cat([parameter.grad.flatten() for parameter in filter.parameters()])
    difference = (streamed - y).abs().max().item()
    return difference, str(raised.value), gradients * dist.get_world_size(), expected
