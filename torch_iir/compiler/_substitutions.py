"""The table of other libraries' functions that become ours, while the backend traces and under `patch`.

No library here is imported: only what already is gets found. A function takes part when it is the library's own, with
the parameters that ours begins with; one that another package has put there, or that has changed, is left alone.

A function that is itself what is compiled, as in torch.compile(torchaudio.functional.lfilter), is not called by what
Dynamo traces, and stays theirs. But what it calls becomes ours: lfilter's ``_lfilter``, filtfilt's lfilter, a design's
biquad. That leaves griffinlim, which traces as it is, and sample_wise_lpc, which does not.

The numbers stay theirs, where theirs are right. In float64 the two agree to 1e-11 (relative rms, 4000 samples of noise,
filters from 20 Hz on at 16 kHz). In float32 ours are within 3e-8 of the exact filter. The recursions of torchaudio and
torchlpc are 3e-7 to 2e-5 off. torchaudio's designs, rounded to the dtype of the waveform, are off by 4e-7 at 1000 Hz,
1e-5 to 7e-5 at 100 Hz, 1e-4 to 9e-4 at 20 Hz; in bfloat16 by 1e-2 and more, up to nothing but noise. Griffin and Lim's
iterations amplify how sums were rounded: in float32 two results differ by 5e-6 after 8 of them, by 6e-4 after 32
(momentum 0.99), as each does from float64. InverseMelScale has other numbers altogether, those of
torch_iir.transforms.InverseMelScale, and is for those who ask for it. Results are contiguous; some of torchaudio's are
views.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any, NamedTuple

from torch import Tensor

from torch_iir import functional
from torch_iir.transforms._mel import inverted


@dataclass(frozen=True, eq=False)
class Substitution:
    """A function of another library, and the one to call in its place."""

    name: str
    original: FunctionType
    replacement: Callable[..., Any]


def found() -> Iterator[Substitution]:
    """Of the libraries that have been imported."""
    for module, functions in _FUNCTIONS.items():
        names = vars(sys.modules.get(module, object))
        for name, ours in functions.items():
            theirs = names.get(name)
            if isinstance(theirs, FunctionType) and (substitution := _substitution(module, theirs, ours)):
                yield substitution


def found_inverse_mel() -> Substitution | None:
    """torchaudio's InverseMelScale.forward, if torchaudio has been imported."""
    module = "torchaudio.transforms"
    module_class = vars(sys.modules.get(module, object)).get("InverseMelScale", object)
    theirs = vars(module_class).get("forward")
    return _substitution(module, theirs, _inverse_mel) if isinstance(theirs, FunctionType) else None


@functools.cache
def _substitution(module: str, theirs: FunctionType, ours: Callable[..., Any]) -> Substitution | None:
    library = module.partition(".")[0]
    own = theirs.__module__.partition(".")[0] == library and theirs.__closure__ is None
    if not own or not _begins(inspect.signature(ours), inspect.signature(theirs)):
        return None
    # A copy: what it does stays the same under `patch`, and it is not substituted itself.
    before = FunctionType(theirs.__code__, theirs.__globals__, theirs.__name__, theirs.__defaults__)
    name = theirs.__qualname__.removesuffix(".forward").removeprefix("_")
    return Substitution(f"{module.removesuffix('.filtering')}.{name}", theirs, _or_else(ours, before))


def _begins(ours: inspect.Signature, theirs: inspect.Signature) -> bool:
    """Whether a call of theirs means the same to ours."""
    pairs = list(zip(ours.parameters.values(), theirs.parameters.values(), strict=False))
    same = all((o.name, o.kind, o.default) == (t.name, t.kind, t.default) for o, t in pairs)
    return same and len(pairs) == len(theirs.parameters)


def _or_else(ours: Callable[..., Any], theirs: Callable[..., Any]) -> Callable[..., Any]:
    """What ours refuses, a cutoff beyond half of the sample rate say, has their result, or their error."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return ours(*args, **kwargs)
        except (TypeError, ValueError):
            pass  # theirs is not called here: its error would be told as one that ours led to
        return theirs(*args, **kwargs)

    return call


def _of_numbers(ours: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """With parameters of one element as numbers, which they are to torchaudio: they add no dimension to the result."""

    @functools.wraps(ours)
    def call(waveform: Any, *args: Any, **kwargs: Any) -> Tensor:
        numbers = [_number(value) for value in args]
        return ours(waveform, *numbers, **{name: _number(value) for name, value in kwargs.items()})

    return call


def _number(value: Any) -> Any:
    return value.reshape(()) if isinstance(value, Tensor) and value.numel() == 1 else value


@functools.wraps(functional.griffinlim)
def _griffinlim(
    specgram: Any, window: Any, n_fft: int, hop_length: int | None, win_length: int | None, *args: Any, **kwargs: Any
) -> Tensor:
    """Lengths that are None are those of torch.stft."""
    hop_length = n_fft // 4 if hop_length is None else hop_length
    win_length = n_fft if win_length is None else win_length
    return functional.griffinlim(specgram, window, n_fft, hop_length, win_length, *args, **kwargs)


def _lfilter(waveform: Tensor, a_coeffs: Tensor, b_coeffs: Tensor) -> Tensor:
    """Inside of torchaudio's lfilter, where that itself is compiled: waveform (B, C, T), coefficients (C, K)."""
    return functional.lfilter(waveform, a_coeffs, b_coeffs, clamp=False)


def _inverse_mel(self: Any, melspec: Tensor) -> Tensor:
    return inverted(melspec, self.fb, "auto", "min_norm", None)[0]


class Solution(NamedTuple):
    solution: Tensor


def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Solution:
    """torch.linalg.lstsq inside of torchaudio's InverseMelScale: A (1, n_mels, n_stft), the solution not negative."""
    return Solution(inverted(B, A[0].mT, "auto", "min_norm", None)[0])


_FUNCTIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "torchaudio.functional": {
        "allpass_biquad": _of_numbers(functional.allpass_biquad),
        "band_biquad": _of_numbers(functional.band_biquad),
        "bandpass_biquad": _of_numbers(functional.bandpass_biquad),
        "bandreject_biquad": _of_numbers(functional.bandreject_biquad),
        "bass_biquad": _of_numbers(functional.bass_biquad),
        "biquad": _of_numbers(functional.biquad),
        "deemph_biquad": functional.deemph_biquad,
        "equalizer_biquad": _of_numbers(functional.equalizer_biquad),
        "filtfilt": functional.filtfilt,
        "griffinlim": _griffinlim,
        "highpass_biquad": _of_numbers(functional.highpass_biquad),
        "lfilter": functional.lfilter,
        "lowpass_biquad": _of_numbers(functional.lowpass_biquad),
        "riaa_biquad": functional.riaa_biquad,
        "treble_biquad": _of_numbers(functional.treble_biquad),
    },
    "torchaudio.functional.filtering": {"_lfilter": _lfilter},
    "torchlpc": {"sample_wise_lpc": functional.sample_wise_lpc},
}
