"""Each process keeps its shard of parameters and optimizer, and saves it: ``torchrun --nproc-per-node 2 fsdp2.py``.

``--save DIRECTORY`` writes a checkpoint now and then; ``--load CHECKPOINT`` goes on from one, on any number of
processes: ``python fsdp2.py --load CHECKPOINT`` is one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from listener import Listener, mean_over_ranks, own_part, say, sounds, start
from torch import nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer


class Training:
    """What a checkpoint holds: by names and whole shapes, so that any number of processes can load it."""

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.model, self.optimizer, self.step = model, optimizer, 0

    def state_dict(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        self.step = state["step"]


def shard(model: Listener, device: torch.device, bf16: bool) -> None:
    """In place. In bfloat16 only the linear layer: a filter whose numbers are rounded to it is several per cent off."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    fully_shard([model.equaliser, model.bank], mesh=mesh)
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.float32)
    fully_shard(model.head, mesh=mesh, mp_policy=half if bf16 else MixedPrecisionPolicy())
    fully_shard(model, mesh=mesh)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="until when to train, those before a checkpoint included")
    parser.add_argument("--batch", type=int, default=24, help="sounds of all processes together")
    parser.add_argument("--samples", type=int, default=4000, help="length of a sound")
    parser.add_argument("--rate", type=float, default=0.03, help="learning rate")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cuda: a GPU for each process")
    parser.add_argument("--bf16", action="store_true", help="the linear layer in bfloat16, on several processes")
    parser.add_argument("--save", type=Path, metavar="DIRECTORY", help="for checkpoints")
    parser.add_argument("--every", type=int, default=20, help="steps from checkpoint to checkpoint")
    parser.add_argument("--load", type=Path, metavar="CHECKPOINT", help="where to go on")
    args = parser.parse_args()

    device = start(args.device)
    model = Listener().to(device)
    if dist.is_initialized():
        shard(model, device, args.bf16)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.rate)  # of the shards: after fully_shard
    training = Training(model, optimizer)
    if args.load is not None:
        state_dict_loader.load({"training": training}, checkpoint_id=args.load)

    while training.step < args.steps:
        x, classes = (own_part(each).to(device) for each in sounds(training.step, args.batch, args.samples))
        optimizer.zero_grad()
        loss = cross_entropy(model(x), classes)  # the mean over our part; FSDP takes the mean over the ranks
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        say(f"step {training.step}: loss {mean_over_ranks(loss):.6f}")
        training.step += 1
        if args.save is not None and training.step % args.every == 0:
            checkpoint = args.save / f"step-{training.step}"
            state_dict_saver.save({"training": training}, checkpoint_id=checkpoint)
            say(f"written: {checkpoint}")

    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
