"""lfilter, biquad and filtfilt with torchaudio's signatures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_iir._arguments import ArrayLike, as_coefficients, as_signal, first_tensor
from torch_iir.signal._lfilter import filtered


def lfilter(
    waveform: ArrayLike, a_coeffs: ArrayLike, b_coeffs: ArrayLike, clamp: bool = True, batching: bool = True
) -> Tensor:
    r"""Filters a waveform with recursive filters, and clamps the result to [−1, 1].

    .. math::
        a_0 y_t = \sum_k b_k x_{t-k} - \sum_{k \ge 1} a_k y_{t-k}

    Args:
        waveform: (..., time).
        a_coeffs: denominator, (order + 1) or (filters, order + 1); ``a_coeffs[..., 0]`` must not be 0. Note that a
            comes before b here.
        b_coeffs: numerator, likewise; it may have another length than a_coeffs.
        clamp: limit the result to [−1, 1]. Default: True.
        batching: with two-dimensional coefficients, True applies filter i to channel i of a waveform (..., filters,
            time); False applies every filter to the whole waveform, and adds a dimension: (..., filters, time).
            Default: True.

    Returns:
        The filtered waveform, contiguous, of the dtype of waveform.

    Raises:
        TypeError: an argument is not numeric.
        ValueError: coefficients are empty, a_coeffs[..., 0] is 0 (found on the CPU only), the number of filters does
            not match the channels, devices differ.

    Note:
        As ``torchaudio.functional.lfilter``, which has no forward mode, vmap, half precision or whole graph under
        torch.compile. :func:`torch_iir.signal.lfilter` takes b before a, does not clamp, and has states. Coefficients
        may have more leading dimensions: with ``batching=True`` they broadcast with those of the waveform.

    Example:
        >>> import torch
        >>> from torch_iir.functional import lfilter
        >>> lfilter(torch.tensor([1.0, 0.0, 0.0]), a_coeffs=[1.0, -0.5], b_coeffs=[1.0, 0.0])
        tensor([1.0000, 0.5000, 0.2500])
    """
    like = first_tensor(waveform, a_coeffs, b_coeffs)
    waveform = as_signal(waveform, "waveform", like)
    a, b = as_coefficients(a_coeffs, "a_coeffs", like), as_coefficients(b_coeffs, "b_coeffs", like)
    if a.dim() > 1 or b.dim() > 1:
        if not batching:
            waveform = waveform.unsqueeze(-2)
        elif waveform.dim() < 2 or waveform.shape[-2] != max(a.shape[-2:-1] + b.shape[-2:-1]):
            raise ValueError(
                "waveform must have a channel for each filter, (..., filters, time), got "
                f"waveform {list(waveform.shape)}, a_coeffs {list(a.shape)}, b_coeffs {list(b.shape)}; "
                "batching=False applies every filter to the whole waveform"
            )
    y, _ = filtered(waveform, b, a, names=("waveform", "b_coeffs", "a_coeffs", "zi"))
    return y.clamp(-1, 1) if clamp else y


def biquad(
    waveform: ArrayLike,
    b0: ArrayLike,
    b1: ArrayLike,
    b2: ArrayLike,
    a0: ArrayLike,
    a1: ArrayLike,
    a2: ArrayLike,
    clamp: bool = True,
) -> Tensor:
    r"""Filters a waveform with a filter of order 2, and clamps the result to [−1, 1].

    .. math::
        a_0 y_t = b_0 x_t + b_1 x_{t-1} + b_2 x_{t-2} - a_1 y_{t-1} - a_2 y_{t-2}

    Args:
        waveform: (..., time).
        b0, b1, b2: numerator, numbers or tensors of any shapes that broadcast with each other and with (...).
        a0, a1, a2: denominator, likewise; a0 must not be 0. Note that b comes before a here.
        clamp: limit the result to [−1, 1]. Default: True.

    Returns:
        The filtered waveform, contiguous, of the dtype of waveform.

    Raises:
        TypeError: an argument is not numeric.
        ValueError: a0 is 0 (found on the CPU only), shapes do not broadcast, devices differ.

    Note:
        As ``torchaudio.functional.biquad``, with coefficients of any batch shape, and numbers kept in float64.

    Example:
        >>> import torch
        >>> from torch_iir.functional import biquad
        >>> biquad(torch.tensor([0.5, 0.0, 0.0]), 1.0, 1.0, 0.0, 1.0, 0.0, 0.25)
        tensor([ 0.5000,  0.5000, -0.1250])
    """
    like = first_tensor(waveform, b0, b1, b2, a0, a1, a2)
    waveform = as_signal(waveform, "waveform", like)
    b = _stack(("b0", "b1", "b2"), (b0, b1, b2), like)
    a = _stack(("a0", "a1", "a2"), (a0, a1, a2), like)
    y, _ = filtered(waveform, b, a, names=("waveform", "b", "a", "zi"))
    return y.clamp(-1, 1) if clamp else y


def _stack(names: Sequence[str], values: Sequence[ArrayLike], like: Tensor | None) -> Tensor:
    tensors = [as_signal(value, name, like) for name, value in zip(names, values, strict=True)]
    try:
        return torch.stack(torch.broadcast_tensors(*tensors), -1)  # type: ignore[no-untyped-call]
    except RuntimeError:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in zip(names, tensors, strict=True))
        raise ValueError(f"the coefficients must broadcast together and share a device, got {shapes}") from None


def filtfilt(waveform: ArrayLike, a_coeffs: ArrayLike, b_coeffs: ArrayLike, clamp: bool = True) -> Tensor:
    r"""Filters a waveform forwards and then backwards in time, from rest, and clamps the result to [−1, 1].

    .. math::
        y = R F R F x, \qquad F = B / A, \quad R \text{ reverses time}

    Args:
        waveform: (..., time).
        a_coeffs: denominator, (order + 1) or (channels, order + 1); a comes before b here.
        b_coeffs: numerator, likewise.
        clamp: limit the result (not the result of the first pass) to [−1, 1]. Default: True.

    Returns:
        The filtered waveform, contiguous, of the dtype of waveform.

    Raises:
        TypeError, ValueError: as :func:`lfilter`.

    Note:
        The numbers of ``torchaudio.functional.filtfilt``: the ends are not extended and both passes start from rest, so
        that the ends ring. :func:`torch_iir.signal.filtfilt` is scipy's, which avoids that.

    Example:
        >>> import torch
        >>> from torch_iir.functional import filtfilt
        >>> filtfilt(torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]), [1.0, 0.0], [0.5, 0.5])
        tensor([0.0000, 0.2500, 0.5000, 0.2500, 0.0000])
    """
    forward = lfilter(waveform, a_coeffs, b_coeffs, clamp=False)
    return lfilter(forward.flip(-1), a_coeffs, b_coeffs, clamp=clamp).flip(-1)
