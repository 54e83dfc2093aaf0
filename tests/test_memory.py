"""Large outputs lie in memory that is kept for the next, and that the system may take back at any time."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

import torch_iir

MIB = 1 << 20
LARGE = 40 * MIB  # bytes of an output
PAGE = 2 * MIB  # a huge one
PLACES = 32  # blocks that are kept at most,
MOST_UNMARKED = 32 * MIB  # bytes of them that are not marked as free,
MOST = 1 << 30  # and in all

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is kept on Linux only")


def output(value: float, bytes_: int = LARGE) -> Tensor:
    """A fresh output of so many bytes, all of it the value."""
    return torch_iir.signal.lfilter([1.0], [1.0], torch.full((1,), value).expand(bytes_ // 4))


def lazily_free() -> int:
    """Bytes of this process that the system may take back."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("LazyFree"))


def resident() -> int:
    """Bytes of memory that this process has."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    gc.collect()
    torch_iir.empty_cache()


@pytest.mark.parametrize("size", [PAGE * 7 // 8, PAGE, PAGE + 4, 3 * PAGE - 4, 3 * PAGE, LARGE, LARGE + 4 * 1111])
def test_memory_is_used_again(size: int) -> None:
    y = output(1.0, size)
    address = y.data_ptr()
    assert address % PAGE == 0
    del y
    again = output(2.0, size)
    assert again.data_ptr() == address
    assert bool((again == 2).all())


def test_small_outputs_are_torchs() -> None:
    y = output(1.0, PAGE * 7 // 8 - 4)
    y.resize_(2 * y.numel())
    del y
    assert torch.ops.torch_iir._empty_cache() == 0


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


def test_what_is_kept_is_bounded() -> None:
    blocks = [output(1.0, PAGE) for _ in range(PLACES + 3)]
    del blocks
    assert torch.ops.torch_iir._empty_cache() == PLACES * PAGE

    blocks = [output(1.0, MOST // 4) for _ in range(5)]
    del blocks
    assert torch.ops.torch_iir._empty_cache() == MOST


def test_no_more_than_the_latest_are_not_marked_as_free() -> None:
    before = lazily_free()
    blocks = [output(1.0, 2 * PAGE) for _ in range(PLACES)]
    assert lazily_free() == before
    blocks.clear()
    assert lazily_free() - before == pytest.approx(PLACES * 2 * PAGE - MOST_UNMARKED, abs=MIB)
    again = [output(2.0, 2 * PAGE) for _ in range(PLACES)]
    assert all(bool((y == 2).all()) for y in again)
    assert lazily_free() == pytest.approx(before, abs=MIB)


def test_empty_cache_leaves_what_is_in_use() -> None:
    y, other = output(1.0), output(2.0)
    del other
    before = resident()
    torch_iir.empty_cache()
    assert before - resident() == pytest.approx(LARGE, abs=MIB)
    assert torch.ops.torch_iir._empty_cache() == 0
    assert bool((y == 1).all())


def test_given_back_by_another_thread() -> None:
    box = [output(1.0)]
    address = box[0].data_ptr()
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    assert output(2.0).data_ptr() == address


def test_in_the_child_of_a_fork() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # torch's other threads stay behind
    try:
        y, other = output(1.0), output(2.0)
        del other
        child = os.fork()
        if child == 0:  # no exception may reach pytest from here
            os._exit(0 if bool((output(3.0) == 3).all()) and bool((y == 1).all()) else 1)
        assert bool((output(4.0) == 4).all())
        for _ in range(600):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            time.sleep(0.1)
        else:
            os.kill(child, signal.SIGKILL)
            pytest.fail("the child hangs")
        assert status == 0
    finally:
        torch.set_num_threads(threads)


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
