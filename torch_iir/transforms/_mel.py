"""Modules between spectrograms and mel spectrograms."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import Tensor

from torch_iir._arguments import ArrayLike, as_signal
from torch_iir._nnls import check_solver, regularization, solved
from torch_iir._registration import concrete
from torch_iir.functional._mel import melscale_fbanks

TIE_BREAKS = ("min_norm", "entropy")
ENTROPY_REGULARIZATION = 1e-8  # μ, of max (A Aᵀ): with less, more frames that no spectrum has stall


class MelScale(torch.nn.Module):
    r"""Turns a spectrogram into a mel spectrogram, by triangles that are evenly spaced in mels.

    .. math::
        M_{i,t} = \sum_k F_{k,i} S_{k,t}

    F is :func:`torch_iir.functional.melscale_fbanks`, kept as the buffer ``fb``, (n_stft, n_mels).

    Args:
        n_mels: number of triangles. Default: 128.
        sample_rate: in Hz. Default: 16000.
        f_min: where the first triangle begins, in Hz. Default: 0.
        f_max: where the last one ends, in Hz. Default: None, half the sample rate.
        n_stft: number of frequencies, n_fft // 2 + 1. Default: 201.
        norm: None, all triangles have height 1; or ``"slaney"``, area 1. Default: None.
        mel_scale: ``"htk"`` or ``"slaney"``. Default: ``"htk"``.

    Shape:
        specgram (..., n_stft, time) to (..., n_mels, time), contiguous, of the dtype of specgram. The sums are computed
        in the wider dtype of specgram and ``fb``: a spectrogram in half precision needs no module in half precision.

    Raises:
        TypeError: specgram is not numeric, or complex.
        ValueError: a number is out of range, or a name unknown; specgram has not n_stft frequencies, or is on another
            device than the module.

    Note:
        As ``torchaudio.transforms.MelScale``, with the same buffer in its ``state_dict``. torchaudio demands that
        specgram has the dtype of ``fb``, returns a transposed view, and makes NaN of ``f_max=0.0``, an error here.

    Example:
        >>> import torch
        >>> from torch_iir.transforms import MelScale
        >>> spectrogram = torch.rand(2, 513, 100)
        >>> MelScale(80, sample_rate=16000, n_stft=513)(spectrogram).shape
        torch.Size([2, 80, 100])
    """

    fb: Tensor

    def __init__(
        self,
        n_mels: int = 128,
        sample_rate: float = 16000,
        f_min: float = 0.0,
        f_max: float | None = None,
        n_stft: int = 201,
        norm: str | None = None,
        mel_scale: str = "htk",
    ) -> None:
        super().__init__()
        self.n_mels, self.sample_rate = n_mels, sample_rate
        self.f_min, self.f_max = f_min, sample_rate / 2 if f_max is None else f_max
        self.norm, self.mel_scale = norm, mel_scale
        self.register_buffer("fb", melscale_fbanks(n_stft, f_min, self.f_max, n_mels, sample_rate, norm, mel_scale))

    def forward(self, specgram: ArrayLike) -> Tensor:
        specgram = _checked(specgram, "specgram", "n_stft", self.fb.shape[0], self.fb)
        dtype = torch.promote_types(specgram.dtype, self.fb.dtype)
        return torch.matmul(self.fb.mT.to(dtype), specgram.to(dtype)).to(specgram.dtype).contiguous()

    def extra_repr(self) -> str:
        names = f"norm={self.norm!r}, mel_scale={self.mel_scale!r}"
        return f"{self.n_mels}, sample_rate={self.sample_rate:g}, f_min={self.f_min:g}, f_max={self.f_max:g}, {names}"


class InverseMelScale(torch.nn.Module):
    r"""Estimates a spectrogram from a mel spectrogram, by non-negative least squares.

    .. math::
        S_t = \arg\min_{S \ge 0} \tfrac12 \lVert A S - M_t \rVert^2 + \tfrac\mu2 \lVert S \rVert^2,
        \qquad A = F^\top, \quad \mu \to 0

    F is :func:`torch_iir.functional.melscale_fbanks`, kept as the buffer ``fb``, (n_stft, n_mels). Many spectra have
    the same mel spectrum, for there are fewer triangles than frequencies. ``tie_break`` chooses among them:

    * ``"min_norm"``: the one of least norm, which the limit μ → 0 of the equation is. It is 0 at many frequencies.
    * ``"entropy"``: the smooth one, of least relative entropy Σ S log(S / E) − S + E to the spectrum E, in which each
      mel is spread evenly over its triangle:

      .. math::
          S = E \circ e^{A^\top \lambda}, \qquad A S + \mu \lambda = \max(M_t, 0), \qquad
          E = \frac{A^\top (\max(M_t, 0) / A 1)}{A^\top 1}

      Log spectra of music and speech are 2 dB and more closer to the true ones than by least norm. μ is larger than
      there, 1e-8 max (A Aᵀ) for the loudest mel max (A Aᵀ) / max A. A frame that is far from any mel spectrum may have
      no such solution; it comes back as by ``"min_norm"``.

    Args:
        n_stft: number of frequencies, n_fft // 2 + 1.
        n_mels: number of triangles. Default: 128.
        sample_rate: in Hz. Default: 16000.
        f_min: where the first triangle begins, in Hz. Default: 0.
        f_max: where the last one ends, in Hz. Default: None, half the sample rate.
        norm: None, all triangles have height 1; or ``"slaney"``, area 1. Default: None.
        mel_scale: ``"htk"`` or ``"slaney"``. Default: ``"htk"``.
        driver: does nothing. torchaudio's chooses the LAPACK routine of plain least squares, which this is not.
        solver: that of :func:`torch_iir.nnls`. ``"newton"`` relies on F's triangles, which overlap their neighbours
            only; ``"projected_gradient"`` takes any ``fb``, and finds some S, not the one of least norm; ``"auto"``
            chooses. Default: ``"auto"``.
        tie_break: ``"min_norm"`` or ``"entropy"``. Default: ``"min_norm"``.
        tol: at which residual a frame counts as solved, relative to its largest mel; see :func:`torch_iir.nnls`.
            Default: None, 1e-9 in float64 and 1e-6 in other dtypes.

    Shape:
        melspec (..., n_mels, time) to (..., n_stft, time), contiguous, of the dtype of melspec; computed in float64.
        With ``return_outcome=True`` the call returns (S, outcome), outcome (..., time) of int32: 0 for frames of
        non-negative least squares, 1 for those of maximum entropy, 2 for those that failed.

    Raises:
        TypeError: melspec is not numeric, or complex.
        ValueError: a number is out of range, or a name unknown; ``"entropy"`` is to be solved by projected gradients;
            melspec has not n_mels mels, or is on another device than the module.

    Warns:
        RuntimeWarning: frames failed: they did not reach the tolerance and are the best that was found, or they are not
            finite, and NaN. It says how many, wherever values can be read at once: not under torch.compile and
            torch.func transforms.

    Note:
        ``torchaudio.transforms.InverseMelScale`` has the same buffer in its ``state_dict``. It solves least squares
        without the constraint and sets negative numbers to 0, which no longer is a solution: A S misses some 6 % of M;
        it raises where a triangle is empty. ``librosa.feature.inverse.mel_to_stft`` solves the same problem as here,
        approximately, and takes the root of the result: ``(...)(melspec) ** (1 / power)``. Its triangles are those of
        ``norm="slaney", mel_scale="slaney"``.

        Differentiable in melspec and in ``fb``, backwards and forwards, by the equations that S satisfies: where S is
        0, and for frames that are 0, so is the derivative.

        The problem's dual has n_mels unknowns and, as F is banded, a tridiagonal Newton system: a damped semismooth
        Newton method solves it. Lawson and Hanson, Solving Least Squares Problems (1974), ch. 23; Qi and Sun,
        Mathematical Programming 58 (1993).

    Example:
        >>> import torch
        >>> from torch_iir.transforms import InverseMelScale, MelScale
        >>> mel = MelScale(40, n_stft=201)(torch.rand(2, 201, 30))
        >>> spectrogram = InverseMelScale(201, 40)(mel)
        >>> spectrogram.shape
        torch.Size([2, 201, 30])
        >>> torch.allclose(MelScale(40, n_stft=201)(spectrogram), mel, rtol=1e-4)
        True
    """

    fb: Tensor

    def __init__(
        self,
        n_stft: int,
        n_mels: int = 128,
        sample_rate: float = 16000,
        f_min: float = 0.0,
        f_max: float | None = None,
        norm: str | None = None,
        mel_scale: str = "htk",
        driver: str | None = None,
        *,
        solver: str = "auto",
        tie_break: str = "min_norm",
        tol: float | None = None,
    ) -> None:
        super().__init__()
        check_inversion(solver, tie_break, tol)
        if driver is not None:
            warnings.warn(
                f"driver={driver!r} does nothing: it chooses a LAPACK routine for plain least squares, "
                "and InverseMelScale solves non-negative least squares",
                DeprecationWarning,
                stacklevel=2,
            )
        self.n_mels, self.sample_rate = n_mels, sample_rate
        self.f_min, self.f_max = f_min, sample_rate / 2 if f_max is None else f_max
        self.norm, self.mel_scale = norm, mel_scale
        self.solver, self.tie_break, self.tol = solver, tie_break, tol
        self.register_buffer("fb", melscale_fbanks(n_stft, f_min, self.f_max, n_mels, sample_rate, norm, mel_scale))

    @overload
    def forward(self, melspec: ArrayLike, *, return_outcome: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, melspec: ArrayLike, *, return_outcome: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(self, melspec: ArrayLike, *, return_outcome: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        melspec = _checked(melspec, "melspec", "n_mels", self.fb.shape[1], self.fb)
        S, outcome = inverted(melspec, self.fb, self.solver, self.tie_break, self.tol, stacklevel=4)
        return (S, outcome) if return_outcome else S

    def extra_repr(self) -> str:
        bank = f"{self.n_mels}, sample_rate={self.sample_rate:g}, f_min={self.f_min:g}, f_max={self.f_max:g}"
        names = f"norm={self.norm!r}, mel_scale={self.mel_scale!r}"
        return f"{bank}, {names}, solver={self.solver!r}, tie_break={self.tie_break!r}"


def check_inversion(solver: str, tie_break: str, tol: float | None) -> None:
    """Raises for a wrong name or number."""
    check_solver(solver, tol)
    if tie_break not in TIE_BREAKS:
        raise ValueError(f"tie_break must be one of {', '.join(TIE_BREAKS)}; got {tie_break!r}")
    if tie_break == "entropy" and solver == "projected_gradient":
        raise ValueError("solver must be 'auto' or 'newton' for tie_break='entropy', got 'projected_gradient'")


def inverted(
    melspec: Tensor,
    fb: Tensor,
    solver: str,
    tie_break: str,
    tol: float | None,
    names: Sequence[str] = ("melspec", "fb"),
    stacklevel: int = 1,
) -> tuple[Tensor, Tensor]:
    """The spectrogram, and the outcome of each frame. A warning is the caller's for a stacklevel of 1."""
    a = fb.mT

    def solution(b: Tensor, mu: Tensor | None = None, prior: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return solved(b, a, mu, prior, solver=solver, tol=tol, names=(*names, "mu", "prior"), stacklevel=3 + stacklevel)

    if tie_break == "min_norm":
        return solution(melspec)
    # μ of least squares grows with A², that of entropy with A and M. One for both, as a frame may end as either, fits
    # frames of a largest mel of max (A Aᵀ) / max A.
    b = melspec.to(torch.promote_types(melspec.dtype, torch.float32)).relu()
    weights = fb.to(b.dtype)
    square = regularization(a, 1)
    level = (square / _positive(weights.detach().amax())).to(b.dtype)
    scale = _positive(b.detach().amax(-2, keepdim=True)) / level
    b = b / scale
    share = b / _positive(weights.sum(0)).unsqueeze(-1)  # of each frequency of a triangle
    prior = (weights / _positive(weights.sum(1)).unsqueeze(-1)) @ share
    mu = (ENTROPY_REGULARIZATION * square).expand(b.shape[-1])
    x, outcome = solution(b, mu, prior)
    x = x.mul_(scale) if concrete(x) and not x.requires_grad else x * scale  # a fresh spectrogram is slow to write
    return x.to(melspec.dtype), outcome


def _positive(value: Tensor) -> Tensor:
    """The value, 1 where it is 0: what is divided by it there is 0, too."""
    return torch.where(value == 0, 1, value)


def _checked(value: ArrayLike, name: str, count: str, rows: int, fb: Tensor) -> Tensor:
    """A real spectrogram of so many rows on the device of fb."""
    tensor = as_signal(value, name, fb)
    if tensor.is_complex():
        raise TypeError(f"{name} must be real, magnitudes or powers, got {tensor.dtype}")
    if tensor.dim() < 2 or tensor.shape[-2] != rows:
        raise ValueError(f"{name} must have the shape (..., {count} = {rows}, time), got {list(tensor.shape)}")
    if tensor.device != fb.device:
        raise ValueError(f"{name} must be on the device of the module, got {tensor.device} and {fb.device}")
    return tensor
