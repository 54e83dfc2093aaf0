"""What the examples train: a model of filters and a linear layer, and sounds for it, made on the spot."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn

from torch_iir import design
from torch_iir.nn import BiquadBank, ParametricEQ
from torch_iir.signal import sosfilt

RATE = 16000  # Hz
CLASSES = 6


class Listener(nn.Module):
    """An equaliser, a bank of filters, the energy in each band, and which class they speak for."""

    def __init__(self, n_filters: int = 12) -> None:
        super().__init__()
        self.equaliser = ParametricEQ(RATE, 4, gain=[3.0, -3.0, 3.0, -3.0])  # flat, only gains would have gradients
        self.bank = BiquadBank(n_filters, RATE, f_min=100.0)
        self.head = nn.Linear(n_filters, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        bands: Tensor = self.bank(self.equaliser(x))
        logits: Tensor = self.head(bands.square().mean(-1).log())
        return logits


def sounds(step: int, count: int, samples: int) -> tuple[Tensor, Tensor]:
    """A batch, the same wherever it is made: noise, each sound with a resonance, and the resonances' numbers."""
    random = torch.Generator().manual_seed(step)
    classes = torch.arange(count) % CLASSES
    frequency = 300.0 * (6000.0 / 300.0) ** ((classes + torch.rand(count, generator=random) / 2) / CLASSES)
    resonances = design.peaking(RATE, frequency, gain=12.0, Q=3.0)
    return sosfilt(resonances, torch.randn(count, samples, generator=random)), classes


def own_part(batch: Tensor) -> Tensor:
    """This rank's part; a program with sounds in files would have a DistributedSampler. They must be equally many."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if len(batch) % world:
        raise ValueError(f"the batch must be a multiple of the {world} processes, got {len(batch)}")
    return batch.chunk(world)[rank]


def start(device: str) -> torch.device:
    """What torchrun has prepared for this process; without torchrun it is alone, and has no group."""
    rank = int(os.environ.get("LOCAL_RANK", 0))
    here = torch.device(device, rank) if device == "cuda" else torch.device(device)
    if here.type == "cuda":
        torch.cuda.set_device(here)
    if dist.is_torchelastic_launched():
        dist.init_process_group(dist.get_default_backend_for_device(here))  # gloo for the CPU, NCCL for CUDA
    torch.manual_seed(0)  # the same parameters everywhere, to start from
    return here


def say(message: str) -> None:
    """One voice for all ranks."""
    if not dist.is_initialized() or dist.get_rank() == 0:
        print(message, flush=True)


def mean_over_ranks(loss: Tensor) -> float:
    mean = loss.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
    return mean.item()
