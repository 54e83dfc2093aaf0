"""torchaudio.functional's filters: same names, order of arguments and defaults."""

from torch_iir.functional._lfilter import biquad, filtfilt, lfilter

__all__ = ["biquad", "filtfilt", "lfilter"]
