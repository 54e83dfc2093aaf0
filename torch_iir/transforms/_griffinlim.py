"""The module of Griffin and Lim's iterations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from torch_iir._arguments import ArrayLike, whole_number
from torch_iir.functional._griffinlim import check_griffinlim, griffinlim


class GriffinLim(torch.nn.Module):
    r"""Turns a spectrogram without phases into a signal, by the fast Griffin-Lim algorithm.

    .. math::
        t_n = \mathrm{STFT}(\mathrm{ISTFT}(S^{1/p} \, e^{i \varphi_{n-1}})), \qquad
        \varphi_n = \arg((1 + \alpha) \, t_n - \alpha \, t_{n-1})

    It is :func:`torch_iir.functional.griffinlim`, with the window kept as the buffer ``window``.

    Args:
        n_fft: samples of a transform. Default: 400.
        n_iter: number of iterations. Default: 32.
        win_length: samples of the window. Default: None, n_fft.
        hop_length: samples from frame to frame. Default: None, win_length // 2.
        window_fn: makes the window from win_length. Default: `torch.hann_window`.
        power: exponent p of the spectrogram: 1 for magnitudes, 2 for powers. Default: 2.
        wkwargs: keyword arguments of window_fn. Default: None.
        momentum: α, in [0, 1). Default: 0.99.
        length: samples of the result. Default: None, the fewest that have the frames of the spectrogram.
        rand_init: whether to start from random numbers, which `torch.manual_seed` governs. Default: True.

    Shape:
        specgram (..., n_fft // 2 + 1, frames) to (..., length), contiguous, of the dtype of specgram.

    Raises:
        TypeError, ValueError: as :func:`torch_iir.functional.griffinlim`; what is wrong with a number is said when the
            module is made.

    Note:
        As ``torchaudio.transforms.GriffinLim``, with the same buffer in its ``state_dict``. The call takes
        ``init_phase`` too.

    Example:
        >>> import torch
        >>> from torch_iir.transforms import GriffinLim
        >>> GriffinLim(n_fft=512, hop_length=128, n_iter=8)(torch.rand(2, 257, 30)).shape
        torch.Size([2, 3712])
    """

    window: Tensor

    def __init__(
        self,
        n_fft: int = 400,
        n_iter: int = 32,
        win_length: int | None = None,
        hop_length: int | None = None,
        window_fn: Callable[..., Tensor] = torch.hann_window,
        power: float = 2.0,
        wkwargs: Mapping[str, Any] | None = None,
        momentum: float = 0.99,
        length: int | None = None,
        rand_init: bool = True,
    ) -> None:
        super().__init__()
        win_length = n_fft if win_length is None else win_length
        hop_length = win_length // 2 if hop_length is None else hop_length
        self.n_fft, self.hop_length, self.win_length, self.n_iter = check_griffinlim(
            n_fft, hop_length, win_length, power, n_iter, momentum
        )
        self.power, self.momentum, self.rand_init = power, momentum, rand_init
        self.length = None if length is None else whole_number(length, "length", 1)
        self.register_buffer("window", window_fn(win_length, **(wkwargs or {})))

    def forward(self, specgram: ArrayLike, *, init_phase: ArrayLike | None = None) -> Tensor:
        return griffinlim(
            specgram,
            self.window,
            self.n_fft,
            self.hop_length,
            self.win_length,
            self.power,
            self.n_iter,
            self.momentum,
            self.length,
            self.rand_init,
            init_phase=init_phase,
        )

    def extra_repr(self) -> str:
        lengths = f"n_fft={self.n_fft}, win_length={self.win_length}, hop_length={self.hop_length}"
        return f"{lengths}, n_iter={self.n_iter}, power={self.power:g}, momentum={self.momentum:g}"
