"""The memory of earlier outputs."""

import torch


def empty_cache() -> None:
    """Gives the memory that is kept for coming outputs back to the system.

    On the CPU, outputs of 1.75 MiB and more reuse the memory of earlier ones of their size, which lies in huge pages.
    What the last outputs left, 32 MiB of it, stays with the process; 1 GiB more is marked as free, and the system takes
    it when memory is short. Nothing has to be emptied for that; it is for those who measure memory, or fork. What
    outputs still use is not touched. For CUDA, see `torch.cuda.empty_cache`.

    Example::

        y = torch_iir.signal.lfilter([0.1], [1.0, -0.9], torch.zeros(1_000_000))
        del y
        torch_iir.empty_cache()
    """
    torch.ops.torch_iir._empty_cache()
