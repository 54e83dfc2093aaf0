r"""torch.fft's transforms of one dimension, and the adjoint of each as an operator of its own.

The adjoint of a linear map F is the one with

.. math::
    \mathrm{Re} \langle F x, y \rangle = \mathrm{Re} \langle x, F^* y \rangle, \qquad
    \langle u, v \rangle = \sum_i u_i \overline{v_i}

for all x and y: the transpose of its matrix, conjugated, and what backpropagation through F applies. It is one more
FFT, never a matrix. The real parts count because real and complex numbers meet in rfft and irfft.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_iir._arguments import ArrayLike, as_signal, check_fft, time_axis, whole_number
from torch_iir.ops import fft as _ops

__all__ = ["fft", "fft_adjoint", "ifft", "ifft_adjoint", "irfft", "irfft_adjoint", "rfft", "rfft_adjoint"]

_SCALES = {None: 0, "backward": 0, "ortho": 1, "forward": 2}  # 1, 1/√n and 1/n; the other way round for the inverses


def fft(input: ArrayLike, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    r"""The discrete Fourier transform of one dimension.

    .. math::
        X_k = s \sum_{t=0}^{n-1} x_t e^{-2 \pi j k t / n}, \qquad 0 \le k < n

    Args:
        input: x, real or complex, of any number of dimensions.
        n: number of points; x is padded with zeros at its end, or trimmed, to that length. Default: its size.
        dim: the dimension to transform. Default: the last.
        norm: s is 1 for ``"backward"``, 1/√n for ``"ortho"``, 1/n for ``"forward"``. Default: ``"backward"``.

    Returns:
        X, complex, contiguous; n in the dimension dim.

    Raises:
        TypeError: input is not numeric, or has a precision that torch's FFT has not: bfloat16, and half precision on
            the CPU.
        ValueError: n is less than 1 (so is its default where there are no samples), dim or norm is none that there is.

    Note:
        As ``torch.fft.fft``, which computes it: MKL on the CPU, cuFFT on a GPU. The derivative is an operator too,
        :func:`fft_adjoint`, whose derivative is this one: to any order, forwards and backwards, and a graph has no more
        than one node for each. Integers become the default floating dtype. Errors are ValueError and TypeError here.

    Example:
        >>> import torch
        >>> from torch_iir.fft import fft
        >>> fft(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        tensor([1.+0.j, 1.+0.j, 1.+0.j, 1.+0.j])
        >>> fft(torch.randn(4, 100, 2), n=128, dim=1, norm="ortho").shape
        torch.Size([4, 128, 2])
    """
    return _transformed(_ops.fft, input, n, dim, _scale(norm))


def ifft(input: ArrayLike, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    r"""The inverse discrete Fourier transform of one dimension.

    .. math::
        x_t = s \sum_{k=0}^{n-1} X_k e^{2 \pi j k t / n}, \qquad 0 \le t < n

    Args:
        input: X, real or complex.
        n, dim: as for :func:`fft`.
        norm: s is 1/n for ``"backward"``, 1/√n for ``"ortho"``, 1 for ``"forward"``. Default: ``"backward"``.

    Returns:
        x, complex, contiguous; n in the dimension dim.

    Raises:
        TypeError, ValueError: as :func:`fft`.

    Note:
        As ``torch.fft.ifft``; see :func:`fft`.

    Example:
        >>> import torch
        >>> from torch_iir.fft import fft, ifft
        >>> x = torch.randn(3, 10, dtype=torch.complex128)
        >>> torch.allclose(ifft(fft(x)), x)
        True
    """
    return _transformed(_ops.ifft, input, n, dim, 2 - _scale(norm))


def rfft(input: ArrayLike, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The discrete Fourier transform of one dimension of real numbers: its bins 0 to n // 2, which say all.

    Args:
        input: x, real.
        n, dim, norm: as for :func:`fft`.

    Returns:
        X, complex, contiguous; n // 2 + 1 in the dimension dim.

    Raises:
        TypeError: input is complex; else as :func:`fft`.
        ValueError: as :func:`fft`.

    Note:
        As ``torch.fft.rfft``; see :func:`fft`.

    Example:
        >>> import torch
        >>> from torch_iir.fft import rfft
        >>> rfft(torch.tensor([1.0, -1.0, 1.0, -1.0]))
        tensor([0.+0.j, 0.+0.j, 4.+0.j])
    """
    return _transformed(_ops.rfft, input, n, dim, _scale(norm), to_bins=True)


def irfft(input: ArrayLike, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    r"""The inverse of :func:`rfft`: real numbers from the bins 0 to n // 2.

    .. math::
        x_t = s \sum_{k=0}^{\lfloor n/2 \rfloor} w_k \mathrm{Re} (X_k e^{2 \pi j k t / n}), \qquad 0 \le t < n

    where w is 2, but 1 at bin 0 and, if n is even, at bin n/2: imaginary parts there have no effect.

    Args:
        input: X, real or complex; padded with zeros or trimmed to n // 2 + 1 bins.
        n: number of points. Default: 2 (size − 1), which is even; for an odd n it must be given.
        dim: the dimension to transform. Default: the last.
        norm: as for :func:`ifft`.

    Returns:
        x, real, contiguous; n in the dimension dim.

    Raises:
        TypeError, ValueError: as :func:`fft`.

    Note:
        As ``torch.fft.irfft``; see :func:`fft`.

    Example:
        >>> import torch
        >>> from torch_iir.fft import irfft, rfft
        >>> irfft(rfft(torch.tensor([1.0, 2.0, 4.0])), n=3).round(decimals=4)
        tensor([1., 2., 4.])
    """
    return _transformed(_ops.irfft, input, n, dim, 2 - _scale(norm), from_bins=True)


def fft_adjoint(
    input: ArrayLike, n: int | None = None, dim: int = -1, norm: str | None = None, *, length: int | None = None
) -> Tensor:
    r"""The adjoint of :func:`fft`.

    .. math::
        x_t = s \sum_{k=0}^{n-1} y_k e^{2 \pi j k t / n}, \qquad 0 \le t < length

    Where :func:`fft` had padded x, the sum is trimmed to the length of x; what it had trimmed off gets zeros.

    Args:
        input: y, real or complex, of the shape of what :func:`fft` returns.
        n: number of points: the size of y, if given. Default: that.
        dim: the dimension that was transformed. Default: the last.
        norm: that of :func:`fft`, from which s follows. Default: ``"backward"``.
        length: the size that the input of :func:`fft` had in dim, before it was padded or trimmed to n. Default: n.

    Returns:
        x, complex, contiguous; length in the dimension dim. Of a real input to :func:`fft`, the gradient is the real
        part.

    Raises:
        TypeError: as :func:`fft`.
        ValueError: n is not the size of y, length is negative; else as :func:`fft`.

    Note:
        In torch's convention for complex numbers this is the gradient of a loss with respect to x, for the gradient y
        with respect to the transform. With length n it is n · ifft for norm ``"backward"``, and ifft for ``"ortho"``.
        Differentiable to any order, forwards and backwards: its derivative is :func:`fft`.

    Example:
        >>> import torch
        >>> from torch_iir.fft import fft, fft_adjoint
        >>> x, y = torch.randn(5, dtype=torch.complex128), torch.randn(8, dtype=torch.complex128)
        >>> torch.allclose(torch.vdot(fft(x, n=8), y), torch.vdot(x, fft_adjoint(y, length=5)))
        True
    """
    return _adjoint(_ops.fft_adjoint, input, n, dim, _scale(norm), length)


def ifft_adjoint(
    input: ArrayLike, n: int | None = None, dim: int = -1, norm: str | None = None, *, length: int | None = None
) -> Tensor:
    r"""The adjoint of :func:`ifft`.

    .. math::
        X_k = s \sum_{t=0}^{n-1} y_t e^{-2 \pi j k t / n}, \qquad 0 \le k < length

    Args:
        input: y, real or complex, of the shape of what :func:`ifft` returns.
        n, dim, norm, length: as for :func:`fft_adjoint`, of :func:`ifft`.

    Returns:
        X, complex, contiguous; length in the dimension dim.

    Raises:
        TypeError, ValueError: as :func:`fft_adjoint`.

    Note:
        See :func:`fft_adjoint`. With length n it is fft / n for norm ``"backward"``.

    Example:
        >>> import torch
        >>> from torch_iir.fft import ifft_adjoint
        >>> ifft_adjoint([4, 0, 0, 0], length=3)
        tensor([1.+0.j, 1.+0.j, 1.+0.j], dtype=torch.complex128)
    """
    return _adjoint(_ops.ifft_adjoint, input, n, dim, 2 - _scale(norm), length)


def rfft_adjoint(
    input: ArrayLike, n: int | None = None, dim: int = -1, norm: str | None = None, *, length: int | None = None
) -> Tensor:
    r"""The adjoint of :func:`rfft`.

    .. math::
        x_t = s \sum_{k=0}^{\lfloor n/2 \rfloor} \mathrm{Re} (y_k e^{2 \pi j k t / n}), \qquad 0 \le t < length

    Every bin counts once. It is not a multiple of :func:`irfft`, whose inner bins stand for two.

    Args:
        input: y, real or complex, of the shape of what :func:`rfft` returns: n // 2 + 1 in dim.
        n: number of points. Default: 2 (size − 1), which is even; for an odd n it must be given.
        dim, norm, length: as for :func:`fft_adjoint`, of :func:`rfft`.

    Returns:
        x, real, contiguous; length in the dimension dim.

    Raises:
        TypeError: as :func:`fft`.
        ValueError: n // 2 + 1 is not the size of y, length is negative; else as :func:`fft`.

    Note:
        See :func:`fft_adjoint`.

    Example:
        >>> import torch
        >>> from torch_iir.fft import rfft, rfft_adjoint
        >>> x, y = torch.randn(7, dtype=torch.float64), torch.randn(4, dtype=torch.complex128)
        >>> torch.allclose(torch.vdot(y, rfft(x).to(y.dtype)).real, torch.dot(x, rfft_adjoint(y, n=7)))
        True
    """
    return _adjoint(_ops.rfft_adjoint, input, n, dim, _scale(norm), length, to_bins=True)


def irfft_adjoint(
    input: ArrayLike, n: int | None = None, dim: int = -1, norm: str | None = None, *, length: int | None = None
) -> Tensor:
    r"""The adjoint of :func:`irfft`.

    .. math::
        X_k = s w_k \sum_{t=0}^{n-1} y_t e^{-2 \pi j k t / n}, \qquad 0 \le k < length

    with the weights w of :func:`irfft`, and 0 beyond the bin n // 2.

    Args:
        input: y, real, of the shape of what :func:`irfft` returns.
        n, dim, norm: as for :func:`fft_adjoint`, of :func:`irfft`.
        length: the number of bins that the input of :func:`irfft` had. Default: n // 2 + 1.

    Returns:
        X, complex, contiguous; length in the dimension dim.

    Raises:
        TypeError: input is complex; else as :func:`fft`.
        ValueError: as :func:`fft_adjoint`.

    Note:
        See :func:`fft_adjoint`.

    Example:
        >>> import torch
        >>> from torch_iir.fft import irfft_adjoint
        >>> irfft_adjoint(torch.tensor([4.0, 0.0, 0.0, 0.0]))
        tensor([1.+0.j, 2.+0.j, 1.+0.j])
    """
    return _adjoint(_ops.irfft_adjoint, input, n, dim, 2 - _scale(norm), length, from_bins=True)


def _transformed(
    op: Any, input: ArrayLike, n: int | None, dim: int, scale: int, *, to_bins: bool = False, from_bins: bool = False
) -> Tensor:
    x, axis = _along(input, dim)
    n = _points(x, from_bins) if n is None else whole_number(n, "n", 1)
    if torch.compiler.is_compiling():  # what the op raises in a trace is not what the user would see
        check_fft(x, n, scale, real=to_bins)
    try:
        return _put_back(op(x, n, scale), axis)
    except (RuntimeError, TypeError, ValueError):
        check_fft(x, n, scale, real=to_bins)
        raise


def _adjoint(
    op: Any,
    input: ArrayLike,
    n: int | None,
    dim: int,
    scale: int,
    length: int | None,
    *,
    to_bins: bool = False,
    from_bins: bool = False,
) -> Tensor:
    y, axis = _along(input, dim)
    size = y.shape[-1]
    if n is None:
        n = _points(y, to_bins)
    else:
        n = whole_number(n, "n", 1)
        if (n // 2 + 1 if to_bins else n) != size:
            raise ValueError(f"{'n // 2 + 1' if to_bins else 'n'} must be the size of input in dim, {size}, got n {n}")
    length = (n // 2 + 1 if from_bins else n) if length is None else whole_number(length, "length", 0)
    if torch.compiler.is_compiling():
        check_fft(y, n, scale, real=from_bins, length=length, bins=to_bins)
    try:
        return _put_back(op(y, n, length, scale), axis)
    except (RuntimeError, TypeError, ValueError):
        check_fft(y, n, scale, real=from_bins, length=length, bins=to_bins)
        raise


def _along(input: ArrayLike, dim: int) -> tuple[Tensor, int]:
    """The input with the dimension last, and where it was."""
    tensor = as_signal(input, "input")
    axis = time_axis(tensor, dim, "dim", "input")
    return tensor if axis == -1 else tensor.movedim(axis, -1), axis


def _put_back(result: Tensor, axis: int) -> Tensor:
    return result if axis == -1 else result.movedim(-1, axis).contiguous()


def _points(input: Tensor, bins: bool) -> int:
    return 2 * (input.shape[-1] - 1) if bins else input.shape[-1]


def _scale(norm: str | None) -> int:
    if norm is not None and (not isinstance(norm, str) or norm not in _SCALES):
        raise ValueError(f"norm must be 'backward', 'ortho' or 'forward', got {norm!r}")
    return _SCALES[norm]
