"""torchaudio.functional's filters, mel filterbanks and Griffin-Lim: same names, order of arguments and defaults."""

from torch_iir.functional._biquads import (
    allpass_biquad,
    band_biquad,
    bandpass_biquad,
    bandreject_biquad,
    bass_biquad,
    deemph_biquad,
    equalizer_biquad,
    highpass_biquad,
    lowpass_biquad,
    riaa_biquad,
    treble_biquad,
)
from torch_iir.functional._griffinlim import griffinlim
from torch_iir.functional._lfilter import biquad, filtfilt, lfilter
from torch_iir.functional._mel import melscale_fbanks

__all__ = [
    "allpass_biquad",
    "band_biquad",
    "bandpass_biquad",
    "bandreject_biquad",
    "bass_biquad",
    "biquad",
    "deemph_biquad",
    "equalizer_biquad",
    "filtfilt",
    "griffinlim",
    "highpass_biquad",
    "lfilter",
    "lowpass_biquad",
    "melscale_fbanks",
    "riaa_biquad",
    "treble_biquad",
]
