"""torch_iir.functional: torchaudio's signatures and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from torch.testing import assert_close

from torch_iir.functional import biquad, filtfilt, lfilter

B, A = scipy.signal.butter(3, 0.3)


def waveform(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, shape))


def test_lfilter_takes_a_first_and_clamps() -> None:
    x = 4 * waveform(2, 50)
    exact = torch.from_numpy(scipy.signal.lfilter(B, A, x.numpy()))
    assert exact.abs().max() > 1
    assert_close(lfilter(x, torch.from_numpy(A), torch.from_numpy(B)), exact.clamp(-1, 1))
    assert_close(lfilter(x, A, B, clamp=False), exact)
    assert lfilter(x.float(), A, B).dtype == torch.float32
    assert lfilter(x.half(), A, B).dtype == torch.float16


def test_lfilter_of_several_filters() -> None:
    x = waveform(2, 3, 50)
    b, a = torch.randn(3, 2).double(), torch.tensor([[1.0, -0.5], [2.0, 0.5], [1.0, 0.0]]).double()
    y = lfilter(x, a, b, clamp=False)
    assert y.shape == (2, 3, 50)
    every = lfilter(x, a, b, clamp=False, batching=False)
    assert every.shape == (2, 3, 3, 50)
    assert lfilter(x[0, 0], a, b, batching=False).shape == (3, 50)
    for i in range(3):
        assert_close(y[:, i], lfilter(x[:, i], a[i], b[i], clamp=False))
        assert_close(every[:, :, i], lfilter(x, a[i], b[i], clamp=False))
    assert_close(lfilter(x, a, b[0], clamp=False)[:, 2], lfilter(x[:, 2], a[2], b[0], clamp=False))


def test_biquad() -> None:
    x = waveform(4, 30)
    numbers = (0.5, 0.25, 0.125, 2.0, -0.5, 0.25)
    y = biquad(x, *numbers, clamp=False)
    assert_close(y, torch.from_numpy(scipy.signal.lfilter(numbers[:3], numbers[3:], x.numpy())))
    assert_close(biquad(9 * x, *numbers), (9 * y).clamp(-1, 1))
    assert_close(biquad(x, *(torch.tensor(n) for n in numbers), clamp=False), y)
    # numbers stay in float64, beside tensors in float32 too
    assert_close(
        biquad(x, 0.1, torch.tensor(0.25), 0.0, 1.0, 0.0, 0.0, clamp=False)[:, 0], 0.1 * x[:, 0], rtol=1e-14, atol=0
    )


def test_biquad_with_tensor_parameters() -> None:
    x, b0 = waveform(4, 1, 30), torch.tensor([0.5, 0.7]).double().requires_grad_()
    y = biquad(x, b0, 0.1, torch.tensor([[0.2], [0.3], [0.4], [0.5]]).double(), 1.0, -0.5, 0.2)
    assert y.shape == (4, 2, 30)
    assert torch.autograd.gradcheck(lambda b0: biquad(x, b0, 0.1, 0.2, 1.0, -0.5, 0.2), (b0,))


def test_filtfilt_starts_from_rest() -> None:
    x = 3 * waveform(2, 60)
    forward = scipy.signal.lfilter(B, A, x.numpy())
    exact = torch.from_numpy(scipy.signal.lfilter(B, A, forward[:, ::-1])[:, ::-1].copy())
    assert_close(filtfilt(x, A, B, clamp=False), exact)
    assert_close(filtfilt(x, A, B), exact.clamp(-1, 1))
    assert filtfilt(x, A, B).is_contiguous()


X = torch.ones(2, 8)

WRONG_CALLS: dict[str, tuple[Any, type[Exception], str]] = {
    "1-D waveform": (lambda: lfilter(X[0], torch.ones(3, 2), torch.ones(3, 2)), ValueError, "batching=False"),
    "channels": (lambda: lfilter(X, torch.ones(3, 2), torch.ones(3, 2)), ValueError, "a channel for each filter"),
    "filters": (lambda: lfilter(X, torch.ones(2, 2), torch.ones(3, 2), batching=False), ValueError, "must broadcast"),
    "a0": (lambda: lfilter(X, [0.0, 1.0], [1.0, 0.0]), ValueError, r"a_coeffs\[\.\.\., 0\] must not be zero"),
    "empty": (lambda: lfilter(X, [1.0], []), ValueError, "b_coeffs must have at least one coefficient"),
    "string": (lambda: lfilter("x", [1.0], [1.0]), TypeError, "waveform must be a tensor"),
    "string a": (lambda: lfilter(X, "a", [1.0]), TypeError, "a_coeffs must be a tensor"),
    "scalar": (lambda: lfilter(X.sum(), [1.0], [1.0]), ValueError, "waveform must have at least one dimension"),
    "device": (
        lambda: lfilter(X, torch.ones(1, device="meta"), [1.0]),
        ValueError,
        "must be on the device of waveform",
    ),
    "biquad a0": (lambda: biquad(X, 1, 0, 0, 0, 0, 0), ValueError, r"a\[\.\.\., 0\] must not be zero"),
    "biquad string": (lambda: biquad(X, 1, 0, 0, 1, "0", 0), TypeError, "a1 must be a tensor, a number"),
    "biquad shapes": (
        lambda: biquad(X, torch.ones(2), torch.ones(3), 0, 1, 0, 0),
        ValueError,
        r"must broadcast together .* b0 \[2\], b1 \[3\]",
    ),
    "biquad batch": (lambda: biquad(X, torch.ones(3), 0, 0, 1, 0, 0), ValueError, "must broadcast together"),
    "filtfilt": (lambda: filtfilt(X, [0.0], [1.0]), ValueError, r"a_coeffs\[\.\.\., 0\] must not be zero"),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_calls(name: str) -> None:
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(kind, match=message):
        call()
