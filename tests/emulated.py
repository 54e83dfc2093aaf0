"""The operators for CUDA on the CPU, their kernels run by the emulator: in processes that ask for it.

`TORCH_IIR_TEST_EMULATED=1 python -m pytest` runs those of the tests below, with these operators in place of the CPU's.
What is left out asks for an algorithm of the CPU, looks at its threads or its memory, wants an error for an a[0] of 0,
which only the CPU looks for, or would take minutes on the emulator.
"""

from __future__ import annotations

import os
import sys

import torch

from torch_iir import _libraries

ASKED_FOR = os.environ.get("TORCH_IIR_TEST_EMULATED") == "1"

TESTS: dict[str, tuple[str, ...]] = {
    "test_cuda_emulated": ("test_the_emulator_runs", "test_forced"),
    "test_registry": (
        "test_equals_its_reference",
        "test_real_ops_refuse_complex_arguments",
        "test_gradients",
        "test_schema_and_fake",
    ),
    "test_lfilter": (
        "test_a_complex_state_makes_the_result_complex",
        "test_a_float64_state_carries_a_float32_signal_exactly",
        "test_broadcasting_equals_a_loop",
        "test_dtypes",
        "test_nothing_is_a_view_or_mutated",
        "test_strides_are_honoured",
        "test_unwanted_gradients_are_empty",
        "test_wide_coefficients_are_not_rounded",
    ),
    "test_sosfilt": (
        "test_a_complex_state_makes_the_result_complex",
        "test_absent_gradients_count_as_zero",
        "test_broadcasting_equals_a_loop",
        "test_dtypes",
        "test_nothing_is_a_view_or_mutated",
        "test_strided_gradients",
        "test_unwanted_gradients_are_empty",
        "test_wrong_gradients_raise",
    ),
    "test_lfilter_tv": (
        "test_a_complex_state_makes_the_result_complex",
        "test_broadcasting",
        "test_dtypes",
        "test_everything_may_be_asked_for_where_arguments_lack",
        "test_nothing_is_a_view_or_mutated",
        "test_strides_are_honoured",
        "test_unwanted_gradients_are_empty",
        "test_wrong_gradients_raise",
    ),
    "test_nnls": (
        "test_broadcasting_equals_a_loop",
        "test_derivative_equals_the_reference",
        "test_dtypes",
        "test_newton_equals_the_reference",
        "test_nothing_is_a_view_or_mutated",
        "test_nothing_to_solve",
        "test_strides_are_honoured",
    ),
    "test_freqz": (
        "test_complex_sections",
        "test_derivatives",
        "test_derivatives_of_a_cascade_with_a_zero",
        "test_dtypes",
        "test_every_filter_at_its_own_frequencies",
        "test_next_to_double_zeros",
        "test_next_to_poles",
    ),
    "test_fftconvolve": (
        "test_broadcasting_and_sums",
        "test_dtypes",
        "test_every_block_size",
        "test_gradients_are_adjoints",
        "test_long_signals",
        "test_strides_are_honoured",
        "test_the_op_around_every_boundary",
        "test_wrong_arguments_of_the_op_raise",
    ),
    "test_lfilter_fsm": (
        "test_equals_the_recurrence",
        "test_gradients_are_those_of_the_complex_formula",
        "test_layouts",
        "test_nan_spoils_its_row",
        "test_wide_coefficients_are_not_rounded",
        "test_wraps_as_numpy_does",
    ),
    "test_cuda": (  # with TORCH_IIR_TEST_DEVICE=cpu
        "test_a_bad_sample_changes_none_before_it",
        "test_accuracy",
        "test_bank_and_its_gradients",
        "test_compiled_training_step",
        "test_cut_anywhere",
        "test_frequency_sampled_filters_and_convolution",
        "test_inverse_mel_scale",
        "test_misaligned_and_strided_views",
        "test_repeats_have_the_same_bits",
        "test_streaming_module_and_autocast",
        "test_unstable_until_overflow",
    ),
}


def load() -> None:
    library = _libraries.find("torch_iir_ops_emulated")
    assert library is not None, (
        "libtorch_iir_ops_emulated.so was not built: it is one of the tests (TORCH_IIR_TESTS=ON)"
    )
    sys.stderr.flush()
    before = os.dup(2)  # torch warns that operators are replaced, and not by way of Python
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    finally:
        os.dup2(before, 2)
        os.close(before)


def runs(module: str, function: str) -> bool:
    return function in TESTS.get(module, ())
