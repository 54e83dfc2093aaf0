// Docstrings of the plans and of melscale_fbanks.
#pragma once

namespace torch_iir::python::docs {

inline constexpr const char* lfilter_plan = R"(A recursive filter, or a bank of them, block after block.

    a[0] y[t] = Σ_{k≥0} b[k] x[t−k] − Σ_{k≥1} a[k] y[t−k]

The coefficients are prepared, the algorithm and the instruction set chosen when the plan is made. The state stays in
the plan from run to run: a signal in pieces, of any lengths, is filtered as if at once.

Args:
    b: numerator coefficients, (..., len b); lists and arrays of any real numbers, used as float64.
    a: denominator coefficients, (..., len a); a[..., 0] is divided out and must not be 0.
    channels: the leading dimensions of the signal, which broadcast with those of b and a: (32,) and one filter are 32
        signals through it; (32, 1) and b (128, 3) are a bank with outputs (32, 128). Default: (), one signal.
    dtype: float32 or float64, of the signal. Computed in float64 inside. Default: float32.
    block: samples of a usual run, by which "automatic" chooses; other lengths work, too. Default: 64.
    algorithm: "automatic", or the name of one, as in the table of README.md. Default: "automatic".
    threads: over how many threads a run spreads its rows, the caller's among them; the bits are the same. Default: 1.

Raises:
    ValueError: shapes do not broadcast, a number is out of range, a[..., 0] is 0, or the algorithm is unknown or cannot
        run this filter.
    TypeError: the dtype is another, or coefficients are not real numbers.

Note:
    The GIL is released while a plan works. A plan serves one thread at a time: another one gets a RuntimeError.

Example:
    >>> import numpy as np
    >>> from torch_iir_native import LFilterPlan
    >>> plan = LFilterPlan([1.0], [1.0, -0.5])
    >>> plan.run(np.array([1, 0, 0], np.float32))
    array([1.  , 0.5 , 0.25], dtype=float32)
    >>> plan.run(np.zeros(2, np.float32))
    array([0.125 , 0.0625], dtype=float32)
    >>> stereo = LFilterPlan([1.0], [1.0, -0.5], (2,))
    >>> frames = np.ones((64, 2), np.float32)  # interleaved, filtered where it lies
    >>> _ = stereo.run(frames.T, out=frames.T)
    >>> frames[:3, 1]
    array([1.  , 1.5 , 1.75], dtype=float32)
)";

inline constexpr const char* sosfilt_plan =
    R"(A cascade of second-order sections, or a bank of cascades, block after block.

    u_0 = x,   u_s[t] = b0 u_{s−1}[t] + b1 u_{s−1}[t−1] + b2 u_{s−1}[t−2] − a1 u_s[t−1] − a2 u_s[t−2],   y = u_S

with the coefficients of section s divided by its a0. As LFilterPlan otherwise.

Args:
    sos: the sections, (..., S, 6), rows b0 b1 b2 a0 a1 a2 as scipy's; S at least 1, no a0 may be 0.
    channels, dtype, block, algorithm, threads: see LFilterPlan.

Raises:
    ValueError, TypeError: see LFilterPlan.

Example:
    >>> import numpy as np
    >>> from torch_iir_native import SOSFiltPlan
    >>> equaliser = SOSFiltPlan([[0.5, 0.5, 0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0, -0.5, 0.0]], (2,))
    >>> equaliser.sections, equaliser.outputs
    (2, (2,))
    >>> equaliser.run(np.ones((2, 3), np.float32))[0]
    array([0.5  , 1.25 , 1.625], dtype=float32)
)";

inline constexpr const char* lfilter_tv_plan = R"(A filter whose coefficients come with the signal, block after block.

    Σ_k a[t,k] y[t−k] = Σ_k b[t,k] x[t−k]

over the lags k from a_first to a_first + a_length − 1 on the left, from b_first to b_first + b_length − 1 on the right.

Args:
    channels: the leading dimensions of the signal. Default: (), one signal.
    a_length: coefficients of the output in a frame.
    a_first: lag of the first of them: with 1 the coefficient a[t,0] is 1 and not there; with 0 it is given, and divided
        by. Default: 1.
    b_length: coefficients of the input in a frame; 0: the right side is x[t]. Default: 0.
    b_first: lag of the first of them, 0 or 1. Default: 0.
    period: samples from one frame of coefficients to the next; in between they are interpolated linearly. Default: 1.
    dtype: float32 or float64, of the signal and of its coefficients. Default: float32.
    block, algorithm, threads: see LFilterPlan.

Raises:
    ValueError: a number is out of range, or the algorithm is unknown or cannot run this filter.
    TypeError: the dtype is another.

Example:
    >>> import numpy as np
    >>> from torch_iir_native import LFilterTVPlan
    >>> plan = LFilterTVPlan(a_length=1)
    >>> x = np.ones(4, np.float32)
    >>> a = np.array([[0.0], [-0.5], [-0.5], [0.0]], np.float32)
    >>> plan.run(x, a)
    array([1.  , 1.5 , 1.75, 1.  ], dtype=float32)
)";

inline constexpr const char* inverse_mel_plan = R"(From mel spectra back to spectra, block after block of frames.

Non-negative least squares on a bank of mel filters: the spectrum S ≥ 0 of each frame whose mel spectrum fbᵀ S is the
given one, or nearest to it.

Args:
    fb: the bank, (n_freqs, n_mels), as of melscale_fbanks: not negative, at most two mels at a frequency, and these
        neighbours.
    max_frames: the most frames of a run, at least 1.
    dtype: float32 or float64, of the spectra. Computed in float64 inside. Default: float32.
    tie_break: which of the many spectra that have one mel spectrum: "min_norm", that of least norm; "entropy", the
        smooth one, of least relative entropy to the mels spread evenly over their triangles. Default: "min_norm".
    tolerance: at which residual a frame counts as solved, relative to its largest mel. Default: None, 1e-9 in float64,
        1e-6 in float32.
    max_iterations: of the solver, for a frame. Default: 1000.
    threads: over how many threads a run spreads its frames, the caller's among them. Default: 1.

Raises:
    ValueError: a shape or a number is wrong, or fb is not of that kind.
    TypeError: the dtype is another, or fb is not of real numbers.

Example:
    >>> import numpy as np
    >>> from torch_iir_native import InverseMelPlan, melscale_fbanks
    >>> fb = melscale_fbanks(201, 0.0, 8000.0, 40, 16000)
    >>> inverse = InverseMelPlan(fb, 100)
    >>> mel = (fb.T @ np.random.default_rng(0).random((201, 30))).astype(np.float32)
    >>> spectrum = inverse.run(mel)
    >>> spectrum.shape, bool(spectrum.min() >= 0), inverse.failed
    ((201, 30), True, 0)
    >>> np.allclose(fb.T @ spectrum, mel, rtol=1e-4)
    True
)";

inline constexpr const char* run = R"(Filters the next block, any number of samples.

Args:
    x: (*channels, T), of the plan's dtype, with any strides; it is not copied.
    out: where to write to, (*outputs, T); it may be x where each output has an input of its own, and must not overlap
        it otherwise. Default: None, a new array.

Returns:
    out.

Raises:
    ValueError: a shape is wrong, out cannot be written to or overlaps, or an array is not aligned, as inside of records.
    TypeError: a dtype is not the plan's.
    RuntimeError: another thread uses the plan.
)";

inline constexpr const char* run_tv = R"(Filters the next block, any number of samples.

Args:
    x: (*channels, T), of the plan's dtype, with any strides; it is not copied.
    a: (..., frames, a_length), whose leading dimensions broadcast to channels: frames is T for a period of 1, else
        ⌈T / period⌉ or more; one more is what the last one is interpolated towards, and a block that another one
        follows is a whole number of periods long. A single frame holds for all samples. None where a_length is 0.
    b: likewise, (..., frames, b_length). Default: None, as b_length is 0.
    out: where to write to, (*channels, T); it may be x where there is no b, and must not overlap an argument otherwise.
        Default: None, a new array.

Returns:
    out.

Raises:
    ValueError: a shape is wrong, out cannot be written to or overlaps, an array is not aligned, as inside of records;
        or some a[t,0] is 0: what was written is of no use then, and the plan is at rest.
    TypeError: a dtype is not the plan's.
    RuntimeError: another thread uses the plan.
)";

inline constexpr const char* run_mel = R"(Inverts the next frames.

Args:
    mel: (n_mels, frames), of the plan's dtype, with any strides; it is not copied. Up to max_frames frames; those that
        are not finite become NaN.
    out: where to write to, (n_freqs, frames); it must not overlap mel. Default: None, a new array.

Returns:
    out.

Raises:
    ValueError: a shape is wrong, out cannot be written to or overlaps, or an array is not aligned, as inside of records.
    TypeError: a dtype is not the plan's.
    RuntimeError: another thread uses the plan.
)";

inline constexpr const char* melscale_fbanks = R"(The triangles that turn a spectrum into a mel spectrum.

As torch_iir.functional.melscale_fbanks, which has the equation, in float64.

Args:
    n_freqs: number of frequencies, n_fft // 2 + 1; at least 2.
    f_min: where the first triangle begins, in Hz, 0 or above.
    f_max: where the last one ends, in Hz, above f_min. Beyond half the sample rate there is nothing to weigh.
    n_mels: number of triangles, at least 1.
    sample_rate: in Hz.
    norm: None, all triangles have height 1; or "slaney", area 1 over Hz. Default: None.
    mel_scale: "htk", 2595 log₁₀(1 + f/700); or "slaney", linear up to 1000 Hz, logarithmic above. Default: "htk".

Returns:
    The weights, (n_freqs, n_mels), float64. A warning says when a triangle fell between two frequencies, and is empty.

Raises:
    TypeError: n_freqs or n_mels is not an integer.
    ValueError: a number is out of its range, a name is unknown, or float64 cannot tell n_mels triangles between f_min
        and f_max apart.

Example:
    >>> from torch_iir_native import melscale_fbanks
    >>> melscale_fbanks(5, 0.0, 4000.0, 1, 8000).round(2)[:, 0]
    array([0.  , 0.9 , 0.69, 0.35, 0.  ])
)";

}  // namespace torch_iir::python::docs
