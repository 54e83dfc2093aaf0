"""The ops, written plainly in NumPy: one function per op, by its name, and the specification that its tests hold it to.

Computed in at least double precision, in long double where an argument is.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.inexact]


def array(value: Tensor | Array | None, like: np.dtype | type = np.float64) -> Array | None:
    """A tensor or array in at least double precision."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        value = value.detach().to(torch.promote_types(value.dtype, torch.float64)).numpy()
    return np.asarray(value, np.result_type(value, like))


def lfilter(x, b, a, zi=None):
    """Transposed direct form II of the filter normalised to a0 = 1, a sample at a time. Returns (y, zf)."""
    x, b, a, zi = (array(value) for value in (x, b, a, zi))
    order = max(b.shape[-1], a.shape[-1]) - 1
    batch = np.broadcast_shapes(*(value.shape[:-1] for value in (x, b, a, zi) if value is not None))
    dtype = np.result_type(*(value for value in (x, b, a, zi) if value is not None))
    b, a = padded(b / a[..., :1], order + 1), padded(a / a[..., :1], order + 1)
    y = np.zeros((*batch, x.shape[-1]), dtype)
    z = np.zeros((*batch, order + 1), dtype)  # with a 0 at the end
    if zi is not None:
        z[..., :order] = zi
    for t in range(x.shape[-1]):
        y[..., t] = b[..., 0] * x[..., t] + z[..., 0]
        z[..., :order] = z[..., 1:] + b[..., 1:] * x[..., t, None] - a[..., 1:] * y[..., t, None]
    return y, z[..., :order]


def lfilter_backward(gy, gzf, x, b, a, zi, y, output_mask=15):
    """Gradients of Re Σ conj(gy) y + Re Σ conj(gzf) zf, in torch's convention. Returns (gx, gb, ga, gzi)."""
    gy, gzf, x, b, a, zi, y = (array(value) for value in (gy, gzf, x, b, a, zi, y))
    order, samples = max(b.shape[-1], a.shape[-1]) - 1, x.shape[-1]
    given = [value for value in (gy, gzf, x, b, a, zi, y) if value is not None]
    batch = np.broadcast_shapes(*(value.shape[:-1] for value in given))
    dtype = np.result_type(*given)
    b0 = np.broadcast_to(padded(b, order + 1), (*batch, order + 1)).astype(dtype)
    a0 = np.broadcast_to(padded(a, order + 1), (*batch, order + 1)).astype(dtype)
    first = a0[..., :1].conj()
    b_hat, a_hat = b0.conj() / first, a0.conj() / first

    v = np.zeros((*batch, samples + 2 * order + 1), dtype)
    if gzf is not None:
        v[..., samples : samples + order] = gzf
    for t in reversed(range(samples)):
        v[..., t] = (0 if gy is None else gy[..., t]) - (a_hat[..., 1:] * v[..., t + 1 : t + 1 + order]).sum(-1)

    shifted = np.stack([v[..., k : k + samples] for k in range(order + 1)], -2)  # v[t+k]
    gx = (b_hat[..., None] * shifted).sum(-2)
    gb_hat = (shifted * x.conj()[..., None, :]).sum(-1)
    ga_hat = -(shifted * y.conj()[..., None, :]).sum(-1)
    through = (gb_hat * b_hat).sum(-1) + (ga_hat * a_hat)[..., 1:].sum(-1)
    ga = np.concatenate([-through[..., None], ga_hat[..., 1:]], -1) / first
    gradients = (
        (gx, x),
        (gb_hat[..., : b.shape[-1]] / first, b),
        (ga[..., : a.shape[-1]], a),
        (v[..., :order], zi),
    )
    return tuple(
        summed_to(gradient, argument) if argument is not None and output_mask >> bit & 1 else np.zeros(0)
        for bit, (gradient, argument) in enumerate(gradients)
    )


def lfilter_tv(x, b, a, zx=None, zi=None, b_first=0, a_first=1, period=1):
    """The recursion, a sample at a time, over signals that begin with the past, oldest first. Returns (y, zf)."""
    x, b, a, zx, zi = (array(value) for value in (x, b, a, zx, zi))
    given = [v for v in zip((x, b, a, zx, zi), (1, 2, 2, 1, 1), strict=True) if v[0] is not None]
    batch = np.broadcast_shapes(*(value.shape[:-core] for value, core in given))
    dtype = np.result_type(*(value for value, _ in given))
    samples, inputs, order = x.shape[-1], largest_lag(b, b_first), largest_lag(a, a_first)
    b, a = over_time(b, b_first, samples, period), over_time(a, a_first, samples, period, monic=True)
    x, y = continued(x, zx, inputs, batch, dtype), continued(np.zeros(samples), zi, order, batch, dtype)
    for t in range(samples):
        past_x, past_y = x[..., t : t + inputs + 1], y[..., t : t + order]
        drive = x[..., t] if b is None else (b[t] * past_x[..., ::-1]).sum(-1)
        y[..., order + t] = (drive - (a[t][..., 1:] * past_y[..., ::-1]).sum(-1)) / a[t][..., 0]
    return y[..., order:], y[..., samples:][..., ::-1]


def lfilter_tv_backward(gy, gzf, x, b, a, zx, zi, y, b_first, a_first, period, output_mask=31):
    """As lfilter_backward, backwards through the recursion a sample at a time. Returns (gx, gb, ga, gzx, gzi)."""
    gy, gzf, x, b, a, zx, zi, y = (array(value) for value in (gy, gzf, x, b, a, zx, zi, y))
    arguments = (x, b, a, zx, zi)
    given = [v for v in zip((gy, gzf, x, b, a, zx, zi, y), (1, 1, 1, 2, 2, 1, 1, 1), strict=True) if v[0] is not None]
    batch = np.broadcast_shapes(*(value.shape[:-core] for value, core in given))
    dtype = np.result_type(*(value for value, _ in given))
    samples, inputs, order = x.shape[-1], largest_lag(b, b_first), largest_lag(a, a_first)
    all_b, all_a = over_time(b, b_first, samples, period), over_time(a, a_first, samples, period, monic=True)
    x, y = continued(x, zx, inputs, batch, dtype), continued(y, zi, order, batch, dtype)

    gx, g = np.zeros_like(x), np.zeros_like(y)  # with the past; g becomes that of what y was made of
    if gy is not None:
        g[..., order:] += gy
    if gzf is not None:
        g[..., samples:] += gzf[..., ::-1]
    gb, ga = (None if c is None else np.zeros((*batch, *c.shape[-2:]), dtype) for c in (b, a))
    b_weights, a_weights = (None if c is None else frames_of(samples, c.shape[-2], period) for c in (b, a))
    for t in reversed(range(samples)):
        v = (g[..., order + t] / all_a[t][..., 0].conj())[..., None]
        g[..., t : t + order] -= v * all_a[t][..., :0:-1].conj()
        past_x, past_y = x[..., t : t + inputs + 1][..., ::-1], y[..., t : t + order + 1][..., ::-1]
        if b is None:
            gx[..., t] = v[..., 0]
        else:
            gx[..., t : t + inputs + 1] += v * all_b[t][..., ::-1].conj()
        for gradient, lagged, first, weights in (
            (gb, v * past_x.conj(), b_first, b_weights),
            (ga, -v * past_y.conj(), a_first, a_weights),
        ):
            if gradient is not None:
                for frame, weight in weights:
                    if weight[t] > 0:
                        gradient[..., frame[t], :] += weight[t] * lagged[..., first : first + gradient.shape[-1]]
    gradients = (gx[..., inputs:], gb, ga, gx[..., :inputs][..., ::-1], g[..., :order][..., ::-1])
    return tuple(
        summed_to(gradient, argument) if argument is not None and output_mask >> bit & 1 else np.zeros(0)
        for bit, (gradient, argument) in enumerate(zip(gradients, arguments, strict=True))
    )


def largest_lag(taps: Array | None, first: int) -> int:
    """How far coefficients (..., F, K) of the lags from `first` on reach back."""
    return 0 if taps is None or taps.shape[-1] == 0 else first + taps.shape[-1] - 1


def over_time(taps: Array | None, first: int, samples: int, period: int, monic: bool = False) -> Array | None:
    """(T, ..., lags from 0 on): the coefficients of every sample, 1 or 0 at the lag 0 that they lack."""
    if taps is None:
        return None
    result = np.zeros((samples, *taps.shape[:-2], largest_lag(taps, first) + 1), taps.dtype)
    if monic and first:
        result[..., 0] = 1
    frames = np.moveaxis(taps, -2, 0)
    for indices, weights in frames_of(samples, len(frames), period):
        present = weights > 0
        parts = weights[present].reshape(-1, *(1,) * (taps.ndim - 1)) * frames[indices[present]]
        result[present, ..., first : first + taps.shape[-1]] += parts
    return result


def frames_of(samples: int, frames: int, period: int) -> list[tuple[Array, Array]]:
    """The two frames that the coefficients of every sample are made of, and their weights."""
    frame, part = np.divmod(np.arange(samples), period)
    if frames == 1:
        frame, part = 0 * frame, 0 * part
    return [(frame, 1 - part / period), (np.minimum(frame + 1, frames - 1), part / period)]


def continued(signal: Array, past: Array | None, lags: int, batch: tuple[int, ...], dtype: np.dtype) -> Array:
    """A signal after its past, which comes newest first."""
    result = np.zeros((*batch, lags + signal.shape[-1]), dtype)
    result[..., lags:] = signal
    if past is not None:
        result[..., :lags] = past[..., ::-1]
    return result


def sosfilt(x, sos, zi=None):
    """Section after section. Returns (y, zf)."""
    u, zf = inner_signals(x, sos, zi)
    return u[-1], zf


def inner_signals(x, sos, zi=None):
    """The input of every section and the output of the last, and the final states."""
    x, sos, zi = (array(value) for value in (x, sos, zi))
    u, states = [x], []
    for s in range(sos.shape[-2]):
        v, state = lfilter(u[-1], sos[..., s, :3], sos[..., s, 3:], None if zi is None else zi[..., s, :])
        u.append(v)
        states.append(state)
    return u, np.stack(states, -2)


def sosfilt_backward(gy, gzf, x, sos, zi, output_mask=7):
    """lfilter_backward from section to section, from the last on. Returns (gx, gsos, gzi)."""
    gy, gzf, x, sos, zi = (array(value) for value in (gy, gzf, x, sos, zi))
    u, _ = inner_signals(x, sos, zi)
    gu, gsos, gzi = gy, [], []
    for s in reversed(range(sos.shape[-2])):
        state_gradient, state = (None if value is None else value[..., s, :] for value in (gzf, zi))
        gu, gb, ga, g = lfilter_backward(gu, state_gradient, u[s], sos[..., s, :3], sos[..., s, 3:], state, u[s + 1])
        gsos.insert(0, np.concatenate([gb, ga], -1))
        gzi.insert(0, g)
    gradients = (gu, np.stack(gsos, -2), np.zeros(0) if zi is None else np.stack(gzi, -2))
    return tuple(g if output_mask >> bit & 1 else np.zeros(0) for bit, g in enumerate(gradients))


def fft(input, n, norm):
    return array(input) @ dft_matrix("fft", input.shape[-1], n, norm).T


def ifft(input, n, norm):
    return array(input) @ dft_matrix("ifft", input.shape[-1], n, norm).T


def rfft(input, n, norm):
    return array(input) @ dft_matrix("rfft", input.shape[-1], n, norm).T


def irfft(input, n, norm):
    return (array(input) @ dft_matrix("irfft", input.shape[-1], n, norm).T).real


def fft_adjoint(input, n, length, norm):
    return array(input) @ dft_matrix("fft", length, n, norm).conj()


def ifft_adjoint(input, n, length, norm):
    return array(input) @ dft_matrix("ifft", length, n, norm).conj()


def rfft_adjoint(input, n, length, norm):
    return (array(input) @ dft_matrix("rfft", length, n, norm).conj()).real


def irfft_adjoint(input, n, length, norm):
    return array(input) @ dft_matrix("irfft", length, n, norm).conj()


def dft_matrix(name: str, length: int, n: int, norm: int) -> Array:
    """The matrix of a transform of n points for inputs of a length; of its product with them irfft is the real part."""
    points, bins = n, n // 2 + 1
    outputs, inputs = {"rfft": (bins, points), "irfft": (points, bins)}.get(name, (points, points))
    row, column = np.arange(outputs)[:, None], np.arange(length)
    sign = 2j if name in ("ifft", "irfft") else -2j
    matrix = np.exp(sign * np.pi * (row * column % n) / n) * (column < inputs)  # padding, and what is trimmed off
    if name == "irfft":
        matrix = matrix * np.where((column == 0) | (2 * column == n), 1, 2)
    return matrix / n ** (norm / 2)


def fftconvolve(in1, in2, start, size, reverse=False, summed=0, n_fft=0):
    """The sum itself, an element of in2 at a time."""
    in1, in2 = array(in1), array(in2)
    batch = np.broadcast_shapes(in1.shape[:-1], in2.shape[:-1])
    samples, y = in1.shape[-1], np.zeros((*batch, size), np.result_type(in1, in2))
    for k in range(in2.shape[-1]):
        at = np.arange(size) + start + (k if reverse else -k)
        inside = (at >= 0) & (at < samples)
        y[..., inside] += (in2.conj() if reverse else in2)[..., k : k + 1] * in1[..., at[inside]]
    along = tuple(-2 - bit for bit in range(len(batch)) if summed >> bit & 1)
    return y.sum(along, keepdims=True)


def padded(coefficients: Array, length: int) -> Array:
    rest = np.zeros((*coefficients.shape[:-1], length - coefficients.shape[-1]), coefficients.dtype)
    return np.concatenate([coefficients, rest], -1)


def summed_to(gradient: Array, argument: Array) -> Array:
    """Summed over the dimensions that the argument was broadcast over; real if the argument is."""
    extra = gradient.ndim - argument.ndim
    gradient = gradient.sum(tuple(range(extra)))
    ones = tuple(d for d in range(argument.ndim) if argument.shape[d] == 1)
    gradient = gradient.sum(ones, keepdims=True)
    return gradient if np.iscomplexobj(argument) else gradient.real


def stable_filter(order: int, generator: np.random.Generator, radius: float = 0.9) -> tuple[Array, Array]:
    """(b, a) with poles and zeros at random angles, poles within the radius, and a0 = 1."""

    def roots(largest: float) -> Array:
        pairs = largest * generator.uniform(0.3, 1, order // 2) * np.exp(1j * generator.uniform(0.1, 3.0, order // 2))
        return np.concatenate([pairs, pairs.conj(), generator.uniform(-largest, largest, order % 2)])

    b, a = (np.atleast_1d(np.poly(roots(largest)).real) for largest in (0.95, radius))
    return b * generator.uniform(0.5, 1), a


def tolerance(dtype: torch.dtype, y: Array, x: Array, b: Array, a: Array, zi: Array | None = None) -> float:
    """What rounding may do to the largest sample of a filter's output.

    The result is rounded once to its dtype. Inside, every term of the recursion is rounded in double precision, and the
    errors, independent of each other, come out gained by the root of Σ h² of 1/A. Algorithms other than the direct form
    sum in other orders; 1e-10 of the largest sample is what they promise.
    """
    order = max(b.shape[-1], a.shape[-1]) - 1
    a = a / a[..., :1]
    largest = np.abs(y).max(initial=0)
    terms = np.abs(b).sum(-1).max() * np.abs(x).max(initial=0) + np.abs(a).sum(-1).max() * largest
    if zi is not None:
        terms += np.abs(zi).max(initial=0)
    impulse = np.zeros(max(x.shape[-1], 1))
    impulse[0] = 1
    gain = np.sqrt((np.abs(lfilter(impulse, np.ones(1), a)[0]) ** 2).sum(-1).max())
    double = np.finfo(np.float64).eps
    return float(
        torch.finfo(dtype).eps * largest + max(8 * (order + 1) * double * gain * terms, 1e-10 * largest) + double
    )


def varying_taps(order: int, frames: int, generator: np.random.Generator, *batch: int) -> Array:
    """The coefficients of the lags from 1 on, (..., frames, order), of another filter in every frame: Σ |a| = 0.9."""
    a = generator.standard_normal((*batch, frames, order))
    return 0.9 * a / np.abs(a).sum(-1, keepdims=True)


def lfilter_tv_tolerance(dtype, y, x, b, a, zx=None, zi=None, b_first=0, a_first=1, period=1) -> float:
    """As tolerance, with lfilter_tv_gain."""
    y, x, b, a, zx, zi = (array(value) for value in (y, x, b, a, zx, zi))
    past_and_present = [np.abs(value).max(initial=0) for value in (x, zx) if value is not None]
    largest = max(np.abs(value).max(initial=0) for value in (y, zi) if value is not None)
    terms = (1 if b is None else np.abs(b).sum(-1).max(initial=0)) * max(past_and_present)
    terms += (a_first + np.abs(a).sum(-1).max(initial=0)) * largest
    gain = lfilter_tv_gain(a, y.shape[-1], a_first, period)
    double, order = np.finfo(np.float64).eps, largest_lag(a, a_first)
    largest = np.abs(y).max(initial=0)
    return float(
        torch.finfo(dtype).eps * largest + max(8 * (order + 1) * double * gain * terms, 1e-10 * largest) + double
    )


def lfilter_tv_gain(a: Array, samples: int, a_first: int, period: int) -> float:
    """The largest that comes of noise which enters the recursion where rounding does."""
    noise = np.random.default_rng(0).standard_normal((*a.shape[:-2], samples))
    return float(np.abs(lfilter_tv(noise, None, a, None, None, 0, a_first, period)[0]).max(initial=1))


def stable_sections(count: int, generator: np.random.Generator, radius: float = 0.9) -> Array:
    """Sections with poles within the radius and a0 ≠ 1; in every third b0 is 0, in every fourth a2 and b2 are."""
    rows = [np.concatenate(stable_filter(2, generator, radius)) for _ in range(count)]
    sos = np.stack(rows) * generator.uniform(0.5, 2, (count, 1))
    sos[1::3, 0] = 0
    sos[2::4, (2, 5)] = 0
    sos[2::4, 4] *= 0.45  # a pair of poles has become one at -a1 / a0, which was up to 2
    return sos


def sos_tolerance(dtype: torch.dtype, x: Array, sos: Array, zi: Array | None = None) -> float:
    """As tolerance, for sections in double: what each rounds off comes out gained by itself and those after it."""
    u, _ = inner_signals(x, sos, zi)
    impulse = np.zeros(max(u[0].shape[-1], 1))
    impulse[0] = 1
    double, inside = np.finfo(np.float64).eps, 0.0
    for s in reversed(range(sos.shape[-2])):
        b, a = sos[..., s, :3] / sos[..., s, 3:4], sos[..., s, 3:] / sos[..., s, 3:4]
        terms = np.abs(b).sum(-1).max() * np.abs(u[s]).max(initial=0)
        terms += np.abs(a).sum(-1).max() * np.abs(u[s + 1]).max(initial=0)
        terms += 0 if zi is None else np.abs(zi[..., s, :]).max(initial=0)
        gained, _ = lfilter(impulse, np.ones(1), a)
        inside += 24 * double * terms * np.sqrt((np.abs(gained) ** 2).sum(-1).max())
        impulse, _ = lfilter(impulse, b, a)
    largest = np.abs(u[-1]).max(initial=0)
    return float(torch.finfo(dtype).eps * largest + max(inside, 1e-10 * largest) + double)


def freqz(b, a, w, wide=True):
    """Polynomials as sums over dense matrices of e^{−jωk}. Returns h."""
    b, a, w = (array(value) for value in (b, a, w))
    return (polynomials(b, w) / polynomials(a, w)).prod(-2)


def freqz_backward(g, b, a, w, output_mask=7):
    """Σ_w g conj(∂h/∂c) for every coefficient c, likewise for every angle. Returns (gb, ga, gw)."""
    g, b, a, w = (array(value) for value in (g, b, a, w))
    numerators, denominators = polynomials(b, w), polynomials(a, w)
    b_slopes, a_slopes = (polynomials(-1j * np.arange(c.shape[-1]) * c, w) for c in (b, a))  # by ω
    gb, ga, gw = [], [], 0
    for s in range(b.shape[-2]):
        others = np.delete(numerators / denominators, s, -2).prod(-2)
        over, under = numerators[..., s, :], denominators[..., s, :]
        of_b, of_a = others / under, -others * over / under**2
        of_w = others * (b_slopes[..., s, :] * under - over * a_slopes[..., s, :]) / under**2
        for gradients, of_c, count in ((gb, of_b, b.shape[-1]), (ga, of_a, a.shape[-1])):
            gradients.append(((g * of_c.conj())[..., None, :] * phasors(count, w).conj()).sum(-1))
        gw = gw + (g * of_w.conj()).real
    gradients = ((np.stack(gb, -2), b), (np.stack(ga, -2), a), (gw, w))
    return tuple(
        summed_to(gradient, argument) if output_mask >> bit & 1 else np.zeros(0)
        for bit, (gradient, argument) in enumerate(gradients)
    )


def polynomials(c: Array, w: Array) -> Array:
    """Σ_k c_k e^{−jωk} for sections c (..., S, K): (..., S, W)."""
    return c @ phasors(c.shape[-1], w)


def phasors(count: int, w: Array) -> Array:
    """e^{−jωk} for k < count: (..., count, W)."""
    return np.exp(-1j * np.arange(count)[:, None] * w[..., None, :])


def lfilter_fsm(x, b, a, n_fft=0):
    """Through dense matrices of the Fourier transform. Returns y."""
    x, b, a = (array(value) for value in (x, b, a))
    angles, transform, weights = fourier(x.shape[-1], n_fft)
    spectrum = x @ transform * freqz(b, a, angles)
    return (spectrum * weights @ transform.conj().T).real


def lfilter_fsm_backward(gy, x, b, a, n_fft, output_mask=7):
    """Back through y = Re Σ weight_k X_k H_k e^{jω_k t}. Returns (gx, gb, ga)."""
    gy, x, b, a = (array(value) for value in (gy, x, b, a))
    angles, transform, weights = fourier(x.shape[-1], n_fft)
    g = gy @ transform * weights
    gx = (g * freqz(b, a, angles).conj() @ transform.conj().T).real
    gb, ga, _ = freqz_backward(g * (x @ transform).conj(), b, a, angles)
    gradients = ((gx, x), (gb, b), (ga, a))
    return tuple(
        summed_to(gradient, argument) if output_mask >> bit & 1 else np.zeros(0)
        for bit, (gradient, argument) in enumerate(gradients)
    )


def fourier(samples: int, n_fft: int) -> tuple[Array, Array, Array]:
    """Angles from 0 to π, the matrix (T, bins) of e^{−jω_k t}, and what bins weigh in the inverse transform."""
    n = n_fft or fast_length(2 * samples)
    bins = np.arange(n // 2 + 1)
    weights = np.where((bins == 0) | (2 * bins == n), 1, 2) / n
    angles = 2 * np.pi * bins / n
    return angles, np.exp(-2j * np.pi * (np.arange(samples)[:, None] * bins % n) / n), weights


def fast_length(least: int) -> int:
    """The smallest even number from `least` on without prime factors above 5."""
    length = max(least + least % 2, 2)
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 2


def nnls(b, a, mu, prior=None, solver=0, tolerance=1e-9, max_iterations=0):
    """Column after column, exactly. Returns (x, dual, outcome)."""
    batch, (b, a, mu, prior) = columns(b, a, mu, prior)
    m, n, k = *a.shape[-2:], b.shape[-1]
    x, dual, outcome = np.empty((*batch, n, k)), np.empty((*batch, m, k)), np.zeros((*batch, k), np.int32)
    for index in np.ndindex(*batch):
        for c in range(k):
            matrix, column, weight = a[index], b[index][:, c], mu[index][c]
            given = [matrix, column, weight] if prior is None else [matrix, column, weight, prior[index][:, c]]
            if not all(np.isfinite(value).all() for value in given) or weight <= 0:
                x[index][:, c], dual[index][:, c], outcome[index][c] = np.nan, np.nan, 2
                continue
            if prior is None:
                free = non_negative(matrix.T @ matrix + weight * np.eye(n), matrix.T @ column)
                if free.sum() <= m:  # the smaller system is the better conditioned one, as a rule
                    active = matrix[:, free]
                    solution = np.zeros(n, matrix.dtype)
                    solution[free] = solve(active.T @ active + weight * np.eye(free.sum()), active.T @ column)
                    multipliers = (column - matrix @ solution) / weight
                else:
                    multipliers = solve((matrix * free) @ matrix.T + weight * np.eye(m), column)
                    solution = np.where(free, matrix.T @ multipliers, 0)
            else:
                free = prior[index][:, c] > 0
                active, shares = matrix[:, free], prior[index][:, c][free]
                multipliers = most_entropy(active, column, weight, shares)
                solution = np.zeros(n, matrix.dtype)
                solution[free] = shares * np.exp(active.T @ multipliers)
                outcome[index][c] = 1
            x[index][:, c], dual[index][:, c] = solution, multipliers
    return x, dual, outcome


def non_negative(h: Array, c: Array) -> Array:
    """Where x > 0 for the x ≥ 0 with the least ½ xᵀh x − cᵀx, by the active set method of Lawson and Hanson."""
    x = np.zeros_like(c)
    free = np.zeros(c.shape, bool)
    while True:
        slope = np.where(free, -np.inf, c - h @ x)
        if free.all() or slope.max() <= 1e3 * np.finfo(c.dtype).eps * (np.abs(h) @ np.abs(x) + np.abs(c)).max():
            return free
        free[slope.argmax()] = True
        while True:
            goal = np.zeros_like(x)
            goal[free] = solve(h[np.ix_(free, free)], c[free])
            if (goal[free] > 0).all():
                break
            blocking = free & (goal <= 0)
            steps = x[blocking] / (x[blocking] - goal[blocking])
            x = x + steps.min() * (goal - x)
            free[np.flatnonzero(blocking)[steps.argmin()]] = False
            x[~free] = 0
        x = goal


def most_entropy(a: Array, b: Array, mu: Array, prior: Array) -> Array:
    """The λ with A x + μ λ = b, x = prior · exp(Aᵀλ): the least of Σ x + ½ μ |λ|² − bᵀλ, by damped Newton steps."""
    dual = np.zeros(b.shape, np.result_type(a, b))

    def value(at):
        with np.errstate(over="ignore"):
            return (prior * np.exp(a.T @ at)).sum() + mu * (at @ at) / 2 - b @ at

    for _ in range(200):
        x = prior * np.exp(a.T @ dual)
        step = solve((a * x) @ a.T + mu * np.eye(len(b)), b - a @ x - mu * dual)
        scale = 1.0
        while not value(dual + scale * step) <= value(dual) + 1e-15 * abs(value(dual)) and scale > 1e-12:
            scale /= 2
        dual = dual + scale * step
        if np.abs(step).max(initial=0) <= 4 * np.finfo(dual.dtype).eps * np.abs(dual).max(initial=0):
            break
    return dual


def nnls_derivative(g, h, w, a, mu, support, solver=0, needs_p=True):
    """(A D Aᵀ + μ) u = A D g + h and p = D (g − Aᵀu), D = diag(w > 0) or diag(w). Returns (u, p)."""
    batch, (g, h, w, a, mu) = columns(g, h, w, a, mu)
    m, n, k = *a.shape[-2:], w.shape[-1]
    u, p = np.empty((*batch, m, k)), np.empty((*batch, n, k))
    for index in np.ndindex(*batch):
        matrix = a[index]
        for c in range(k):
            d = (w[index][:, c] > 0).astype(w.dtype) if support else w[index][:, c]
            along = np.zeros_like(d) if g is None else g[index][:, c]
            right = (matrix * d) @ along + (0 if h is None else h[index][:, c])
            solution = solve((matrix * d) @ matrix.T + mu[index][c] * np.eye(m), right)
            u[index][:, c], p[index][:, c] = solution, d * (along - matrix.T @ solution)
    return u, p if needs_p else np.zeros(0)


def columns(*arguments):
    """The batch shape, and long double arrays expanded to it; the one argument of fewest dimensions is k alone."""
    arrays = [array(value, np.longdouble) for value in arguments]
    cores = [2] * len(arrays)
    cores[4 if len(arrays) == 5 else 2] = 1
    batch = np.broadcast_shapes(*(v.shape[:-core] for v, core in zip(arrays, cores, strict=True) if v is not None))
    expanded = [
        None if v is None else np.broadcast_to(v, (*batch, *v.shape[-core:]))
        for v, core in zip(arrays, cores, strict=True)
    ]
    return batch, expanded


def solve(matrix: Array, right: Array) -> Array:
    """The solution of a positive definite system, by elimination: numpy.linalg knows no long double."""
    matrix, right = np.array(matrix), np.array(right)
    for i in range(len(right)):
        factor = matrix[i + 1 :, i] / matrix[i, i]
        matrix[i + 1 :, i:] -= factor[:, None] * matrix[i, i:]
        right[i + 1 :] -= factor * right[i]
    for i in reversed(range(len(right))):
        right[i] = (right[i] - matrix[i, i + 1 :] @ right[i + 1 :]) / matrix[i, i]
    return right
