"""One long signal, of which each process has a part: ``torchrun --nproc-per-node 2 sequence.py``.

A resonator learns from a recording and what an unknown resonator made of it.
"""

from __future__ import annotations

import argparse
import math

import torch
import torch.distributed as dist
from listener import RATE, say, start
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from torch_iir import distributed
from torch_iir.nn import LFilter
from torch_iir.signal import lfilter


class SplitFilter(nn.Module):
    """A filter of signals whose time is split over the ranks, in order."""

    def __init__(self, filter: LFilter) -> None:
        super().__init__()
        self.filter = filter

    def forward(self, part: Tensor) -> Tensor:
        return distributed.lfilter(*self.filter.coefficients(), part)


def resonator(frequency: float, radius: float) -> LFilter:
    return LFilter.from_coefficients([1.0], [1.0, -2 * radius * math.cos(2 * math.pi * frequency / RATE), radius**2])


def recording(samples: int) -> tuple[Tensor, Tensor]:
    """Sound and target, whole; of a real recording each process would read its part."""
    x = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return x, lfilter(*resonator(1000.0, 0.98).coefficients(), x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--samples", type=int, default=100_001, help="of all processes together")
    parser.add_argument("--rate", type=float, default=0.03, help="learning rate")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cuda: a GPU for each process")
    args = parser.parse_args()

    device = start(args.device)
    rank, world = dist.get_rank(), dist.get_world_size()
    # Parts may differ in length, and be empty. The state at their borders is all that is sent.
    x, target = (each.tensor_split(world)[rank].to(device) for each in recording(args.samples))
    model = resonator(1300.0, 0.9).to(device)
    parallel = DistributedDataParallel(SplitFilter(model))
    optimizer = torch.optim.Adam(model.parameters(), lr=args.rate)

    for step in range(args.steps):
        optimizer.zero_grad()
        share = (parallel(x) - target).square().sum() / args.samples  # of the loss, which is the ranks' sum
        # A rank's gradients are what its own part adds. Their sum is wanted, and DDP takes the mean: hence the factor.
        (world * share).backward()
        optimizer.step()
        if step in (0, args.steps - 1):
            loss = share.detach().clone()
            dist.all_reduce(loss)
            say(f"step {step}: loss {loss.item():.6g}")

    say(f"a of {[round(value, 4) for value in model.coefficients()[1].tolist()]}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
