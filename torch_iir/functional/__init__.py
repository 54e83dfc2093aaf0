"""torchaudio.functional's filters, mel filterbanks and Griffin-Lim: same names, order of arguments and defaults.

Also torchlpc's sample_wise_lpc, and what is akin to it: filters of speech synthesis, the linear recurrence of order 1.
"""

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
from torch_iir.functional._lpc import all_pole_digital_filter, linear_recurrence, sample_wise_lpc
from torch_iir.functional._mel import melscale_fbanks

__all__ = [
    "all_pole_digital_filter",
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
    "linear_recurrence",
    "lowpass_biquad",
    "melscale_fbanks",
    "riaa_biquad",
    "sample_wise_lpc",
    "treble_biquad",
]
