"""Each process trains on its part of the batch: ``torchrun --nproc-per-node 2 ddp.py``."""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from listener import Listener, mean_over_ranks, own_part, say, sounds, start
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel


def spread(model: nn.Module) -> float:
    """How far any parameter of any rank is from that of rank 0."""
    own = nn.utils.parameters_to_vector(model.parameters()).detach()
    first = own.clone()
    dist.broadcast(first, 0)
    distance = (own - first).abs().max()
    dist.all_reduce(distance, dist.ReduceOp.MAX)
    return distance.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=24, help="sounds of all processes together")
    parser.add_argument("--samples", type=int, default=4000, help="length of a sound")
    parser.add_argument("--rate", type=float, default=0.03, help="learning rate")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cuda: a GPU for each process")
    parser.add_argument("--compile", nargs="?", const="inductor", metavar="BACKEND", help="with torch.compile")
    args = parser.parse_args()

    device = start(args.device)
    model = Listener().to(device)
    # A filter is a few numbers: all gradients of this model go in one message, and nothing of the signals.
    # Modules with stream=True have each rank's own state in a buffer: they need broadcast_buffers=False.
    parallel: nn.Module = DistributedDataParallel(model)
    if args.compile is not None:
        parallel.compile(backend=args.compile)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.rate)

    for step in range(args.steps):
        x, classes = (own_part(each).to(device) for each in sounds(step, args.batch, args.samples))
        optimizer.zero_grad()
        loss = cross_entropy(parallel(x), classes)  # the mean over our part; DDP takes the mean over the ranks
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step in (0, args.steps - 1):
            say(f"step {step}: loss {mean_over_ranks(loss):.6f}")

    say(f"the parameters of {dist.get_world_size()} processes differ by {spread(model):g}")
    say(f"equaliser: gains of {[round(gain, 2) for gain in model.equaliser.gain.tolist()]} dB")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
