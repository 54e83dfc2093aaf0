"""The kernels and the plans of torch_iir on NumPy arrays, and the files that C++ programs build against. No torch.

A plan is a filter that is made once and run block after block, its state inside: :class:`LFilterPlan`,
:class:`SOSFiltPlan`, :class:`LFilterTVPlan`; :class:`InverseMelPlan` turns mel spectra back to spectra.
"""

from pathlib import Path

from torch_iir_native._native import (
    InverseMelPlan,
    LFilterPlan,
    LFilterTVPlan,
    SOSFiltPlan,
    build_info,
    lfilter,
    lfilter_algorithm,
    lfilter_tv_algorithm,
    melscale_fbanks,
    set_isa,
    sosfilt_algorithm,
)

__all__ = [
    "InverseMelPlan",
    "LFilterPlan",
    "LFilterTVPlan",
    "SOSFiltPlan",
    "build_info",
    "cmake_dir",
    "lfilter",
    "lfilter_algorithm",
    "lfilter_tv_algorithm",
    "melscale_fbanks",
    "set_isa",
    "sosfilt_algorithm",
]


def cmake_dir() -> Path:
    """The value of torch_iir_DIR with which ``find_package(torch_iir CONFIG)`` finds the kernels."""
    # In an editable install the Python files lie elsewhere than the built ones, which the extension module is among.
    from torch_iir_native import _native

    return Path(_native.__file__).parent / "lib" / "cmake" / "torch_iir"
