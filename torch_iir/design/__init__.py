"""Second-order sections by R. Bristow-Johnson's Audio EQ Cookbook, differentiable in every parameter.

Every function returns float64 sections of shape (..., 1, 6), a row being b0, b1, b2, 1, a1, a2; (...) is what the
parameters broadcast to. Sections concatenate along dimension −2 into a cascade.

The parameters are numbers, sequences or NumPy arrays, which are checked at once, or tensors, whose values are not read:
where one is out of range the section is NaN, and the gradients of the others stay finite.
"""

from torch_iir.design._cookbook import (
    allpass,
    bandpass,
    bandreject,
    high_shelf,
    highpass,
    low_shelf,
    lowpass,
    peaking,
)

__all__ = ["allpass", "bandpass", "bandreject", "high_shelf", "highpass", "low_shelf", "lowpass", "peaking"]
