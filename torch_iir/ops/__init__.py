"""The ops: for each its fake, its derivatives and samples of its arguments. Importing this package registers them."""

from torch_iir._registration import register
from torch_iir.ops.lfilter import LFilter, LFilterBackward
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
)

for _op in OPS:
    register(_op)
