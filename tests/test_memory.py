"""Large outputs lie in memory that is kept for the next, and that the system may take back at any time."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

import torch_iir

MIB = 1 << 20
LARGE = 40 * MIB  # bytes: above the 32 MiB from which memory is kept
KEPT = 4  # blocks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is kept on Linux only")


def output(value: float, bytes_: int = LARGE) -> Tensor:
    """A fresh output of so many bytes, all of it the value."""
    return torch_iir.signal.lfilter([1.0], [1.0], torch.full((1,), value).expand(bytes_ // 4))


def lazily_free() -> int:
    """Bytes of this process that the system may take back."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("LazyFree"))


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    """Fills what is kept with blocks of another size."""
    gc.collect()
    fillers = [output(0.0, LARGE + 8 * MIB) for _ in range(KEPT)]
    del fillers


def test_memory_is_used_again() -> None:
    y = output(1.0)
    address = y.data_ptr()
    del y
    again = output(2.0)
    assert again.data_ptr() == address
    assert bool((again == 2).all())


def test_what_lives_is_not_shared() -> None:
    outputs = [output(float(n)) for n in range(3)]
    assert len({y.data_ptr() for y in outputs}) == 3
    assert all(bool((y == n).all()) for n, y in enumerate(outputs))


def test_a_view_holds_its_memory() -> None:
    y = output(3.0)
    view = y[5:9]
    del y
    other = output(4.0)
    assert other.data_ptr() + 20 != view.data_ptr()
    assert view.tolist() == [3.0] * 4


def test_what_is_kept_is_bounded_and_free() -> None:
    outputs = [output(1.0) for _ in range(KEPT + 2)]
    assert lazily_free() <= KEPT * (LARGE + 8 * MIB)
    del outputs
    assert 0 < lazily_free() <= KEPT * LARGE


def test_given_back_by_another_thread() -> None:
    box = [output(1.0)]
    address = box[0].data_ptr()
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    assert output(2.0).data_ptr() == address


def test_outputs_are_ordinary_tensors() -> None:
    y = output(1.0)
    assert y.device == torch.device("cpu")
    assert y.is_contiguous()
    assert y.storage_offset() == 0
    assert bool((y.add_(1) == 2).all())
    torch.testing.assert_close(y.clone(), y)


def test_its_storage_does_not_grow() -> None:
    """As that of every tensor whose memory is not from torch's allocator; the README says so."""
    y = output(1.0)
    with pytest.raises(RuntimeError, match="not resizable"):
        y.resize_(2 * y.numel())
