"""scipy.signal's recursive filters and convolutions on tensors: same names, order of arguments, defaults and numbers.

Not in scipy: lfilter_tv, whose coefficients change in time; lfilter_fsm and sosfilt_fsm, which sample the response of a
filter in frequency.
"""

from torch_iir.signal._fftconvolve import fftconvolve, oaconvolve
from torch_iir.signal._filtfilt import filtfilt
from torch_iir.signal._freqz import freqz, freqz_sos
from torch_iir.signal._lfilter import lfilter, lfilter_zi, lfiltic
from torch_iir.signal._lfilter_fsm import lfilter_fsm, sosfilt_fsm
from torch_iir.signal._lfilter_tv import lfilter_tv
from torch_iir.signal._sosfilt import sosfilt, sosfilt_zi, sosfiltfilt

__all__ = [
    "fftconvolve",
    "filtfilt",
    "freqz",
    "freqz_sos",
    "lfilter",
    "lfilter_fsm",
    "lfilter_tv",
    "lfilter_zi",
    "lfiltic",
    "oaconvolve",
    "sosfilt",
    "sosfilt_fsm",
    "sosfilt_zi",
    "sosfiltfilt",
]
