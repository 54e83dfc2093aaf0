"""What is wrong with an argument, and in which words: shared by the fakes of the ops and by the public functions.

The public functions call their op at once and come here when it fails, so that a right call pays for no check. The
sentences are those of the kernels (`native/ops`).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_iir._registration import concrete

ArrayLike = Any  # a tensor, a number, a sequence of numbers or a NumPy array
LFILTER_NAMES = ("x", "b", "a", "zi")
LFILTER_TV_NAMES = ("x", "b", "a", "zx", "zi")
SOSFILT_NAMES = ("x", "sos", "zi")
FREQZ_NAMES = ("b", "a", "w")
LFILTER_FSM_NAMES = ("x", "b", "a")
NNLS_NAMES = ("b", "a", "mu", "prior")
NO_ZERO = "must not be zero"  # the kernels of a0: between frames it may be 0 where it is in none of them

Named = Sequence[tuple[str, Tensor]]  # arguments, the signal first


def check_lfilter(
    x: Tensor, b: Tensor, a: Tensor, zi: Tensor | None = None, names: Sequence[str] = LFILTER_NAMES
) -> tuple[tuple[int, ...], int]:
    """Raises for the first wrong argument of lfilter; returns the broadcast batch shape and the order."""
    given = [(name, tensor) for name, tensor in zip(names, (x, b, a, zi), strict=True) if tensor is not None]
    _check_tensors(given)
    for name, tensor in given[1:3]:
        if tensor.shape[-1] == 0:
            raise ValueError(f"{name} must have at least one coefficient, got {name} {list(tensor.shape)}")
    order = filter_order(b, a)
    if zi is not None and zi.shape[-1] != order:
        raise ValueError(
            f"the last dimension of {names[3]} must be max(len {names[1]}, len {names[2]}) - 1 = {order}, "
            f"got {shapes([given[3], *given[1:3]])}"
        )
    return broadcast_batch(given), order


def check_lfilter_tv(
    x: Tensor,
    b: Tensor | None,
    a: Tensor,
    zx: Tensor | None = None,
    zi: Tensor | None = None,
    b_first: int = 0,
    a_first: int = 1,
    period: int = 1,
    names: Sequence[str] = LFILTER_TV_NAMES,
) -> tuple[tuple[int, ...], int]:
    """Raises for the first wrong argument of lfilter_tv; returns the broadcast batch shape and the largest lag of a."""
    operands = zip(names, (x, b, a, zx, zi), (1, 2, 2, 1, 1), strict=True)
    entries = [(name, tensor, core) for name, tensor, core in operands if tensor is not None]
    given, cores = [(name, tensor) for name, tensor, _ in entries], [core for _, _, core in entries]
    _check_tensors(given)
    for name, first in (("b_first", b_first), ("a_first", a_first)):
        if first not in (0, 1):
            raise ValueError(f"{name} must be 0 or 1, got {first}")
    if period < 1:
        raise ValueError(f"period must be at least 1, got {period}")
    for name, tensor, core in entries:
        if core == 2:
            _check_frames(given[0], (name, tensor), period)
    if a_first == 0 and a.shape[-1] == 0:
        raise ValueError(f"{names[2]} must have at least one coefficient, got {shapes([(names[2], a)])}")
    inputs, order = 0 if b is None else largest_lag(b, b_first), largest_lag(a, a_first)
    for state, taps, name, of, lag in ((zx, b, names[3], names[1], inputs), (zi, a, names[4], names[2], order)):
        if state is not None and state.shape[-1] != lag:
            of_taps = f"{of} None" if taps is None else shapes([(of, taps)])
            raise ValueError(
                f"the last dimension of {name} must be the largest lag of {of}, {lag}, "
                f"got {shapes([(name, state)])}, {of_taps}"
            )
    return broadcast_batch(given, cores), order


def _check_frames(signal: tuple[str, Tensor], taps: tuple[str, Tensor], period: int) -> None:
    name, tensor = taps
    if tensor.dim() < 2:
        raise ValueError(f"{name} must have at least 2 dimensions, got {shapes([taps])}")
    frames, whole = tensor.shape[-2], -(-signal[1].shape[-1] // period)
    if frames == 1 or frames == whole or (period > 1 and frames == whole + 1):
        return
    of_signal = f"the samples of {signal[0]}, " if period == 1 else f"the frames of {signal[0]}, or one more: "
    raise ValueError(
        f"the dimension of {name} before the last must be 1 or {of_signal}{whole}, got {shapes([taps, signal])}"
    )


def largest_lag(taps: Tensor, first: int) -> int:
    """How many past samples coefficients (..., F, K) of the lags from `first` on reach back to."""
    return first + taps.shape[-1] - 1 if taps.shape[-1] else 0


def check_sosfilt(
    x: Tensor, sos: Tensor, zi: Tensor | None = None, names: Sequence[str] = SOSFILT_NAMES
) -> tuple[tuple[int, ...], int]:
    """Raises for the first wrong argument of sosfilt; returns the broadcast batch shape and the number of sections."""
    given = [(name, tensor) for name, tensor in zip(names, (x, sos, zi), strict=True) if tensor is not None]
    _check_tensors(given)
    sections = check_sections(sos, names[1])
    if zi is not None and (zi.dim() < 2 or zi.shape[-1] != 2 or zi.shape[-2] != sections):
        raise ValueError(
            f"the last two dimensions of {names[2]} must be the sections of {names[1]} and 2: {sections} x 2, "
            f"got {shapes([given[2], given[1]])}"
        )
    return broadcast_batch(given, (1, 2, 2)), sections


def check_sections(sos: Tensor, name: str = "sos") -> int:
    """The number of sections."""
    if sos.dim() < 2 or sos.shape[-1] != 6 or sos.shape[-2] == 0:
        raise ValueError(f"{name} must have the shape (..., S, 6) with S at least 1, got {shapes([(name, sos)])}")
    return sos.shape[-2]


def check_freqz(b: Tensor, a: Tensor, w: Tensor, names: Sequence[str] = FREQZ_NAMES) -> tuple[int, ...]:
    """Raises for the first wrong argument of freqz; returns the broadcast batch shape."""
    given = list(zip(names, (b, a, w), strict=True))
    _check_tensors(given)
    if w.is_complex():
        raise TypeError(f"{names[2]} must be real, got {w.dtype}")
    _check_cascade(given[:2])
    return broadcast_batch(given, (2, 2, 1))


def check_lfilter_fsm(
    x: Tensor, b: Tensor, a: Tensor, n_fft: int = 0, names: Sequence[str] = LFILTER_FSM_NAMES
) -> tuple[int, ...]:
    """Raises for the first wrong argument of lfilter_fsm; returns the broadcast batch shape."""
    given = list(zip(names, (x, b, a), strict=True))
    _check_tensors(given, real=True)
    _check_cascade(given[1:])
    samples = x.shape[-1]
    if n_fft != 0 and (n_fft < 1 or n_fft < samples):
        raise ValueError(
            f"n_fft must be 0 or at least the number of samples of {names[0]}, T, got n_fft {n_fft}, T {samples}"
        )
    return broadcast_batch(given, (1, 2, 2))


def check_lfilter_fsm_backward(gy: Tensor, x: Tensor, b: Tensor, a: Tensor, n_fft: int) -> None:
    """As check_lfilter_fsm, for lfilter_fsm_backward."""
    batch = check_lfilter_fsm(x, b, a, n_fft)
    _check_tensors([("x", x), ("gy", gy)], real=True)
    if gy.dtype != x.dtype:
        raise TypeError(f"gy must have the dtype of y, {x.dtype}, got {gy.dtype}")
    if gy.shape != (*batch, x.shape[-1]):
        raise ValueError(f"gy must have the shape of y, got {shapes([('gy', gy), ('x', x), ('b', b), ('a', a)])}")


def _check_cascade(given: Named) -> None:
    """The numerators and denominators of S sections."""
    for name, tensor in given:
        if tensor.dim() < 2 or 0 in tensor.shape[-2:]:
            raise ValueError(
                f"{name} must have the shape (..., S, K) with S and K at least 1, got {shapes([(name, tensor)])}"
            )
    (b_name, b), (a_name, a) = given
    if b.shape[-2] != a.shape[-2]:
        raise ValueError(f"{b_name} and {a_name} must have the same number of sections, got {shapes(given)}")


def check_nnls(
    b: Tensor, a: Tensor, mu: Tensor | None, prior: Tensor | None = None, names: Sequence[str] = NNLS_NAMES
) -> tuple[tuple[int, ...], int, int, int]:
    """Raises for the first wrong argument of nnls; returns the broadcast batch shape, m, n and k."""
    for_b, for_a, for_mu, for_prior = names
    return _check_columns(for_a, a, [(for_b, b, "m"), (for_mu, mu, ""), (for_prior, prior, "n")])


def check_nnls_derivative(
    g: Tensor | None, h: Tensor | None, w: Tensor, a: Tensor, mu: Tensor
) -> tuple[tuple[int, ...], int, int, int]:
    """As check_nnls, for nnls_derivative."""
    result = _check_columns("a", a, [("w", w, "n"), ("mu", mu, ""), ("g", g, "n"), ("h", h, "m")])
    for name, tensor, dtype, of in (("g", g, w.dtype, "w"), ("h", h, torch.float64, "u")):
        if tensor is not None and tensor.dtype != dtype:
            raise TypeError(f"{name} must have the dtype of {of}, {dtype}, got {tensor.dtype}")
    return result


def _check_columns(
    matrix: str, a: Tensor, operands: Sequence[tuple[str, Tensor | None, str]]
) -> tuple[tuple[int, ...], int, int, int]:
    """Operands of one system a column: rows × k, with the m rows or the n columns of the matrix as rows, or k alone."""
    given = [(name, tensor, rows) for name, tensor, rows in operands if tensor is not None]
    named = [(matrix, a), *[(name, tensor) for name, tensor, _ in given]]
    cores = [2, *[1 + len(rows) for _, _, rows in given]]
    _check_tensors(named, real=True)
    for (name, tensor), core in zip(named, cores, strict=True):
        if tensor.dim() < core:
            raise ValueError(f"{name} must have at least {core} dimensions, got {shapes([(name, tensor)])}")
    m, n = a.shape[-2:]
    k = named[1][1].shape[-1]
    for name, tensor, rows in given:
        expected = [k] if not rows else [m if rows == "m" else n, k]
        if list(tensor.shape[-len(expected) :]) != expected:
            sizes = ", ".join(str(size) for size in expected)
            raise ValueError(f"{name} must have the shape (..., {sizes}), got {shapes(named)}")
    return broadcast_batch(named, cores), m, n, k


def check_fft(
    input: Tensor, n: int, norm: int, *, real: bool = False, length: int | None = None, bins: bool = False
) -> None:
    """Raises for the first wrong argument of fft and its kin; adjoints have a length, and take points or bins."""
    _check_tensors([("input", input)], real)
    if input.dtype == torch.bfloat16:
        raise TypeError(f"input must not be {input.dtype}: torch's FFT has none")
    if input.dtype in (torch.float16, torch.complex32) and input.device.type == "cpu":
        raise TypeError(f"input must not have half precision on the CPU: torch's FFT has none there, got {input.dtype}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if norm not in (0, 1, 2):
        raise ValueError(f"norm must be 0 (none), 1 (by sqrt(n)) or 2 (by n), got {norm}")
    if length is None:
        return
    if length < 0:
        raise ValueError(f"length must be at least 0, got {length}")
    given, wanted = input.shape[-1], n // 2 + 1 if bins else n
    if given != wanted:
        raise ValueError(f"the last dimension of input must be what n = {n} points give, {wanted}, got {given}")


def check_fftconvolve(in1: Tensor, in2: Tensor, size: int, n_fft: int = 0) -> tuple[int, ...]:
    """Raises for the first wrong argument of fftconvolve; returns the broadcast batch shape."""
    given = [("in1", in1), ("in2", in2)]
    _check_tensors(given)
    for name, value in (("size", size), ("n_fft", n_fft)):
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    least = 0 if n_fft == 0 or in1.numel() == 0 else min(size, in2.shape[-1])
    if n_fft < least:
        raise ValueError(f"n_fft must be 0 or at least the smaller of size and in2's length, {least}, got {n_fft}")
    return broadcast_batch(given)


def check_convolution(in1: Tensor, in2: Tensor, axes: Sequence[int]) -> None:
    """Raises for the first wrong argument of a convolution over axes, counted from the end, of both."""
    given = [("in1", in1), ("in2", in2)]
    _check_tensors(given)
    shape1, shape2 = ([1 if i - t.dim() in axes else n for i, n in enumerate(t.shape)] for t in (in1, in2))
    if broadcast_shape(shape1, shape2) is None:
        raise ValueError(f"axes that are not convolved over must broadcast together, got {shapes(given)}")


def _check_tensors(given: Named, real: bool = False) -> None:
    signal, x = given[0]
    for name, tensor in given:
        if not (tensor.is_floating_point() or tensor.is_complex()):
            raise TypeError(f"{name} must have a floating or complex dtype, got {tensor.dtype}")
        if real and tensor.is_complex():
            raise TypeError(f"{name} must be real, got {tensor.dtype}")
        if tensor.dim() == 0:
            raise ValueError(f"{name} must have at least one dimension, got a scalar")
        if tensor.device != x.device:
            raise ValueError(
                f"{name} must be on the device of {signal}: {signal} is on {x.device}, {name} on {tensor.device}"
            )


def filter_order(b: Tensor, a: Tensor) -> int:
    one, other = b.shape[-1], a.shape[-1]
    # To Dynamo a symbol is an int, and `max` may have it; in a fake one is not.
    longer: int = max(one, other) if isinstance(one, int) and isinstance(other, int) else torch.sym_max(one, other)
    return longer - 1


def broadcast_batch(given: Named, cores: Sequence[int] = (1, 1, 1, 1)) -> tuple[int, ...]:
    """What the batch dimensions of named arguments, those before the last 1 or 2, broadcast to."""
    shape = broadcast_shape(*(tensor.shape[:-core] for (_, tensor), core in zip(given, cores, strict=False)))
    if shape is None:
        raise ValueError(f"the dimensions before the last must broadcast together, got {shapes(given)}")
    return shape


def broadcast_shape(*shapes: Sequence[int]) -> tuple[int, ...] | None:
    """What shapes broadcast to, or None: the error of torch.broadcast_shapes cannot be caught in a trace."""
    result = []
    for back in range(max([0, *map(len, shapes)]), 0, -1):
        size = 1
        for shape in shapes:
            if len(shape) >= back and shape[-back] != 1:
                if size not in (1, shape[-back]):
                    return None
                size = shape[-back]
        result.append(size)
    return tuple(result)


def explain_lfilter(
    error: Exception,
    x: Tensor,
    b: Tensor,
    a: Tensor,
    zi: Tensor | None = None,
    names: Sequence[str] = LFILTER_NAMES,
) -> Exception:
    """What to raise for an error of the op: what the caller did wrong, or the error itself."""
    check_lfilter(x, b, a, zi, names)
    return zero_a0(f"{names[2]}[..., 0]") if NO_ZERO in str(error) else error


def explain_lfilter_tv(
    error: Exception,
    x: Tensor,
    b: Tensor | None,
    a: Tensor,
    zx: Tensor | None = None,
    zi: Tensor | None = None,
    b_first: int = 0,
    a_first: int = 1,
    period: int = 1,
    names: Sequence[str] = LFILTER_TV_NAMES,
) -> Exception:
    """As explain_lfilter."""
    check_lfilter_tv(x, b, a, zx, zi, b_first, a_first, period, names)
    return zero_a0(f"{names[2]}[..., 0]") if NO_ZERO in str(error) else error


def explain_sosfilt(
    error: Exception, x: Tensor, sos: Tensor, zi: Tensor | None = None, names: Sequence[str] = SOSFILT_NAMES
) -> Exception:
    """As explain_lfilter."""
    check_sosfilt(x, sos, zi, names)
    return zero_a0(f"{names[1]}[..., 3]") if NO_ZERO in str(error) else error


def explain_nnls(error: Exception, a: Tensor, name: str) -> Exception:
    """What to raise for an error of the op that check_nnls does not find."""
    if not concrete(a) or is_banded(a):
        return error
    return ValueError(
        f"solver must be 'auto' or 'projected_gradient', and there can be no prior, for this {name}: Newton's method "
        f"needs {name} ≥ 0 with at most two entries in a column, in adjacent rows"
    )


def is_banded(a: Tensor) -> bool:
    """Whether the rows of a ≥ 0 overlap their neighbours only: the newton solver of nnls takes no other matrix."""
    entry = a != 0
    entries, adjacent = entry.sum(-2), (entry[..., 1:, :] & entry[..., :-1, :]).sum(-2)
    return bool((a >= 0).all() & a.isfinite().all() & (entries <= 2).all() & (entries - adjacent <= 1).all())


def has_zero_a0(a: Tensor) -> bool:
    return bool((a.narrow(-1, 0, 1) == 0).any())


def zero_a0(a0: str = "a[..., 0]") -> ValueError:
    return ValueError(f"{a0} must not be zero: the filter is divided by it")


def time_axis(x: Tensor, axis: int, name: str = "axis", signal: str = "x") -> int:
    """The axis counted from the end, so that it stays the same when coefficients add leading dimensions."""
    try:
        axis = operator.index(axis)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {axis!r}") from None
    dims = x.dim()
    if not -dims <= axis < dims:
        raise ValueError(f"{name} must lie in [{-dims}, {dims}) for {signal} of {dims} dimensions, got {axis}")
    return axis if axis < 0 else axis - dims


def whole_number(value: int, name: str, least: int) -> int:
    """The value as an int, at least `least`; one that is symbolic in a trace stays so."""
    try:
        number = value if isinstance(value, (int, torch.SymInt)) else operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def fast_length(n: int) -> int:
    """The smallest even number, at least n, without prime factors above 5: transforms of that length are fast."""
    half = max((n + 1) // 2, 1)
    best = 1 << (half - 1).bit_length()
    fives = 1
    while fives < best:
        odd = fives
        while odd < best:
            best = min(best, odd << (-(-half // odd) - 1).bit_length())
            odd *= 3
        fives *= 5
    return 2 * best


def result_dtype(x: Tensor, *others: Tensor | None) -> torch.dtype:
    """The dtype of y: that of the signal, its complex counterpart if any argument is complex."""
    if x.is_complex() or not any(other is not None and other.is_complex() for other in others):
        return x.dtype
    return torch.complex128 if x.dtype == torch.float64 else torch.complex64


def state_dtype(result: torch.dtype, zi: Tensor | None) -> torch.dtype:
    """The dtype of zf: at least float32, and wide enough for zi."""
    dtype = torch.promote_types(result, torch.float32)
    return dtype if zi is None else torch.promote_types(dtype, zi.dtype)


def first_tensor(*values: ArrayLike) -> Tensor | None:
    """The tensor whose device what is not a tensor goes to."""
    return next((value for value in values if isinstance(value, Tensor)), None)


def as_coefficients(value: ArrayLike, name: str, like: Tensor | None = None) -> Tensor:
    """Coefficients as a floating tensor of one dimension or more; what is not a tensor becomes double precision."""
    if isinstance(value, Tensor):
        tensor = value if value.is_floating_point() or value.is_complex() else value.to(torch.float64)
    else:
        tensor = as_tensor(value, name, like)
        tensor = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
    return tensor if tensor.dim() else tensor.unsqueeze(0)


def as_signal(value: ArrayLike, name: str, like: Tensor | None = None) -> Tensor:
    """A signal as a floating tensor; integer tensors and arrays become the default dtype."""
    tensor = value if isinstance(value, Tensor) else as_tensor(value, name, like)
    return tensor if tensor.is_floating_point() or tensor.is_complex() else tensor.to(torch.get_default_dtype())


def as_tensor(value: ArrayLike, name: str, like: Tensor | None) -> Tensor:
    """What is not a tensor as one, on the device of `like`; numbers of Python become double precision."""
    device = None if like is None else like.device
    expected = f"{name} must be a tensor, a number, a sequence of numbers or a NumPy array"
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{expected}, got {value!r}")
    try:
        if isinstance(value, (list, tuple)) and any(isinstance(element, Tensor) for element in value):
            return torch.stack([torch.as_tensor(element, device=device) for element in value])
        if isinstance(value, np.ndarray):
            return torch.tensor(np.ascontiguousarray(value), device=device)  # torch takes no negative strides
        return torch.tensor(value, dtype=_number_dtype(value), device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{expected}, got {type(value).__name__}: {error}") from None


def _number_dtype(value: ArrayLike) -> torch.dtype:
    """Numbers of Python are double precision, and stay so."""
    if isinstance(value, (list, tuple)):
        return torch.complex128 if any(_number_dtype(v) is torch.complex128 for v in value) else torch.float64
    return torch.complex128 if isinstance(value, complex) else torch.float64


def shapes(given: Named) -> str:
    """Names and shapes, for an error."""
    return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in given)
