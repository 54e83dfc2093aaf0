"""scipy.signal's recursive filters on tensors: same names, order of arguments, defaults and numbers."""

from torch_iir.signal._filtfilt import filtfilt
from torch_iir.signal._lfilter import lfilter, lfilter_zi, lfiltic

__all__ = ["filtfilt", "lfilter", "lfilter_zi", "lfiltic"]
