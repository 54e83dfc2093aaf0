"""The ops: for each its fake, its derivatives and samples of its arguments. Importing this package registers them."""

from torch_iir import _sharding
from torch_iir._registration import register
from torch_iir.ops.fft import (
    FFT,
    IFFT,
    IRFFT,
    RFFT,
    FFTAdjoint,
    IFFTAdjoint,
    IRFFTAdjoint,
    RFFTAdjoint,
)
from torch_iir.ops.fftconvolve import FFTConvolve
from torch_iir.ops.freqz import Freqz, FreqzBackward
from torch_iir.ops.lfilter import LFilter, LFilterBackward
from torch_iir.ops.lfilter_fsm import LFilterFSM, LFilterFSMBackward
from torch_iir.ops.lfilter_tv import LFilterTV, LFilterTVBackward
from torch_iir.ops.nnls import NNLS, NNLSDerivative
from torch_iir.ops.sosfilt import SOSFilt, SOSFiltBackward

OPS = (
    LFilter,
    LFilterBackward,
    LFilterTV,
    LFilterTVBackward,
    SOSFilt,
    SOSFiltBackward,
    NNLS,
    NNLSDerivative,
    Freqz,
    FreqzBackward,
    LFilterFSM,
    LFilterFSMBackward,
    FFTConvolve,
    FFT,
    FFTAdjoint,
    IFFT,
    IFFTAdjoint,
    RFFT,
    RFFTAdjoint,
    IRFFT,
    IRFFTAdjoint,
)

for _op in OPS:
    register(_op)
_sharding.register_when_imported(OPS)
