"""Cascades of second-order sections, and the initial states that go with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

import torch
from torch import Tensor

from torch_iir._arguments import (
    SOSFILT_NAMES,
    ArrayLike,
    as_coefficients,
    as_signal,
    check_sections,
    check_sosfilt,
    explain_sosfilt,
    first_tensor,
    time_axis,
)
from torch_iir._registration import concrete
from torch_iir.ops.sosfilt import sosfilt as _sosfilt
from torch_iir.signal._filtfilt import forwards_and_backwards
from torch_iir.signal._lfilter import steady_state


@overload
def sosfilt(sos: ArrayLike, x: ArrayLike, axis: int = -1, zi: None = None) -> Tensor: ...
@overload
def sosfilt(sos: ArrayLike, x: ArrayLike, axis: int = -1, *, zi: ArrayLike) -> tuple[Tensor, Tensor]: ...
@overload
def sosfilt(sos: ArrayLike, x: ArrayLike, axis: int, zi: ArrayLike) -> tuple[Tensor, Tensor]: ...


def sosfilt(
    sos: ArrayLike, x: ArrayLike, axis: int = -1, zi: ArrayLike | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Filters a signal along one axis with a cascade of second-order sections.

    .. math::
        u_0 = x, \qquad a_{s0} u_{s,t} = \sum_{k=0}^{2} b_{sk} u_{s-1,t-k} - \sum_{k=1}^{2} a_{sk} u_{s,t-k},
        \qquad y = u_S

    The states are those of each section normalised to :math:`a_{s0} = 1`, in transposed direct form II.

    Args:
        sos: sections, (..., S, 6) with S ≥ 1; each row is b0, b1, b2, a0, a1, a2. a0 is divided out and must not be 0.
        x: signal, (..., T); its other dimensions broadcast with the leading dimensions of sos. Any T ≥ 0.
        axis: the dimension of x that is time. Default: the last.
        zi: states before the first sample, (S, ..., 2, ...): the sections first, always, also where sos has leading
            dimensions; then the dimensions of the result, with the 2 values of a section on ``axis``. Dimensions other
            than these two broadcast with those of the result. Default: None, a filter at rest.

    Returns:
        ``y`` of the dtype of x (its complex counterpart if any argument is complex), contiguous, or ``(y, zf)`` if zi
        is given. ``zf``, laid out as zi, continues the signal exactly; it has at least the dtype of zi, so a float64
        state carries a float32 signal on without rounding.

    Raises:
        TypeError: an argument is not numeric.
        ValueError: sos or zi have another shape, an a0 is 0 (found on the CPU only; elsewhere the result is inf or
            nan), axis is out of range, shapes do not broadcast, or devices differ.

    Note:
        As ``scipy.signal.sosfilt``, except that a0 need not be 1, that sos may have leading dimensions (a bank: ``x``
        of shape (32, 1, T) with ``sos`` of shape (128, S, 6) gives (32, 128, T), with states (S, 32, 128, 2)), that
        zi broadcasts, that integer signals become the default floating dtype, and that the coefficients do not widen
        the result. ``torch.ops.torch_iir.sosfilt`` keeps the states as (..., S, 2), and so do :func:`sosfilt_zi` and
        the modules; ``.movedim(-2, 0)`` brings them here. Signals between sections are kept in double precision.
        Differentiable in sos, x and zi to any order, forwards and backwards.

    Example:
        >>> import torch
        >>> from torch_iir.signal import sosfilt
        >>> sos = [[1.0, 0.0, 0.0, 1.0, -0.5, 0.0], [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]]
        >>> sosfilt(sos, torch.tensor([1.0, 0.0, 0.0, 0.0]))
        tensor([1.0000, 1.5000, 0.7500, 0.3750])
        >>> y, zf = sosfilt(sos, torch.ones(3, 8), zi=torch.zeros(2, 3, 2))
        >>> y.shape, zf.shape
        (torch.Size([3, 8]), torch.Size([2, 3, 2]))
    """
    if not (
        isinstance(x, Tensor)
        and isinstance(sos, Tensor)
        and x.is_floating_point()
        and sos.is_floating_point()
        and sos.dim()
        and (zi is None or isinstance(zi, Tensor))
    ):
        like = first_tensor(x, sos)
        x, sos = as_signal(x, "x", like), as_coefficients(sos, "sos", like)
        zi = None if zi is None else as_coefficients(zi, "zi", like)
    if axis == -1 and zi is None:
        return filtered(x, sos)[0]
    return along(filtered, sos, x, axis, zi)


def along(
    filtered: Callable[[Tensor, Tensor, Tensor | None, Sequence[str]], tuple[Tensor, Tensor]],
    sos: Tensor,
    x: Tensor,
    axis: int,
    zi: Tensor | None,
) -> Tensor | tuple[Tensor, Tensor]:
    """What sosfilt returns, from a function as the one below, of signals with time last and states (..., S, 2)."""
    if axis != -1:
        axis = time_axis(x, axis)
        x = x.movedim(axis, -1)
    if zi is None:
        y, _ = filtered(x, sos, None, SOSFILT_NAMES)
        return y if axis == -1 else y.movedim(-1, axis).contiguous()
    zi = _sections_last(zi, x, sos, axis)
    y, zf = filtered(x, sos, zi, ("x", "sos", "zi as (..., S, 2)"))  # not the shape that the user gave
    if zf.dim() > 2:
        zf = zf.movedim(-2, 0)
    if axis != -1:
        y, zf = y.movedim(-1, axis).contiguous(), zf.movedim(-1, axis)
    return y, zf.contiguous()


def filtered(
    x: Tensor, sos: Tensor, zi: Tensor | None = None, names: Sequence[str] = SOSFILT_NAMES
) -> tuple[Tensor, Tensor]:
    """The op, whose states are (..., S, 2), with errors in the names of the public function."""
    if torch.compiler.is_compiling():  # what the op raises in a trace is not what the user would see
        check_sosfilt(x, sos, zi, names)
    try:
        y_and_zf: tuple[Tensor, Tensor] = _sosfilt(x, sos, zi)
        return y_and_zf
    except (RuntimeError, TypeError, ValueError) as error:
        raise explain_sosfilt(error, x, sos, zi, names) from None


def _sections_last(zi: Tensor, x: Tensor, sos: Tensor, axis: int) -> Tensor:
    """The states (S, ..., 2, ...) as (..., S, 2)."""
    if zi.dim() < 1 - axis or zi.shape[axis] != 2 or zi.shape[0] != sos.shape[-2:][0]:
        _, sections = check_sosfilt(x, sos)
        raise ValueError(
            f"zi must have the shape (S, ..., 2, ...): first the {sections} sections of sos, and on axis {axis} the "
            f"2 values of each, got {list(zi.shape)}"
        )
    if axis != -1:
        zi = zi.movedim(axis, -1)
    return zi.movedim(0, -2) if zi.dim() > 2 else zi


def sosfilt_zi(sos: ArrayLike) -> Tensor:
    r"""The states in which a cascade answers a constant input of 1 with a constant output, from the first sample on.

    .. math::
        zi_s = \mathrm{lfilter\_zi}(b_s, a_s) \prod_{r<s} G_r, \qquad G_r = \sum_k b_{rk} / \sum_k a_{rk}

    Args:
        sos: sections, (..., S, 6), each row b0, b1, b2, a0, a1, a2.

    Returns:
        zi, (..., S, 2), of the dtype of sos. For one filter that is what :func:`sosfilt` takes. Scaled by the first
        sample, a signal starts without a transient: ``sosfilt(sos, x, zi=(sosfilt_zi(sos) * x[..., :1,
        None]).movedim(-2, 0))``, for signals and filters of any leading dimensions.

    Raises:
        TypeError: sos is not numeric.
        ValueError: sos has another shape, or a section has a0 = 0 or a pole at z = 1, where no such state exists. The
            last two are found only where values can be read at once: on the CPU, outside torch.compile and torch.func
            transforms. Elsewhere the result is then inf or nan.

    Note:
        As ``scipy.signal.sosfilt_zi``, for batches of filters, with any a0, and differentiable.

    Example:
        >>> import torch
        >>> from torch_iir.signal import sosfilt, sosfilt_zi
        >>> sos = [[0.5, 0.5, 0.0, 1.0, -0.5, 0.0], [2.0, 0.0, 0.0, 1.0, 0.25, -0.25]]
        >>> y, _ = sosfilt(sos, torch.ones(4), zi=sosfilt_zi(sos))
        >>> y
        tensor([4., 4., 4., 4.])
    """
    sos = as_coefficients(sos, "sos")
    check_sections(sos)
    return _steady_states(sos).to(sos.dtype)


def _steady_states(sos: Tensor) -> Tensor:
    """sosfilt_zi in double precision."""
    b, a = sos[..., :3], sos[..., 3:]
    zi = steady_state(b, a, "sos[..., 3:]", "sos[..., 3]")
    gains = (b.sum(-1, dtype=zi.dtype) / a.sum(-1, dtype=zi.dtype)).unbind(-1)
    level = [torch.ones_like(gains[0])]  # of the input of each section
    for gain in gains[:-1]:
        level.append(level[-1] * gain)
    return zi * torch.stack(level, -1).unsqueeze(-1)


def sosfiltfilt(
    sos: ArrayLike, x: ArrayLike, axis: int = -1, padtype: str | None = "odd", padlen: int | None = None
) -> Tensor:
    r"""Filters a signal forwards and then backwards in time: no phase shift, the squared magnitude response.

    .. math::
        y = R F R F x, \qquad F = \prod_s B_s / A_s, \quad R \text{ reverses time}

    Args:
        sos: sections, (..., S, 6), each row b0, b1, b2, a0, a1, a2; a0 must not be 0.
        x: signal, (..., T); its other dimensions broadcast with the leading dimensions of sos.
        axis: the dimension of x that is time. Default: the last.
        padtype: how the ends are extended: "odd" (the signal turned by 180° about its end), "even" (mirrored),
            "constant" (the end held) or None (not at all). Default: "odd".
        padlen: samples of extension at each end. Default: None, 3 · (2 S + 1 − n), n the number of sections with
            b2 = 0 or that of sections with a2 = 0, whichever is less; each filter of a bank has its own.

    Returns:
        y, of the shape of x (broadcast with sos), its dtype (complex if any argument is), contiguous.

    Raises:
        TypeError: an argument is not numeric.
        ValueError: padtype or axis is unknown, T ≤ padlen, a section has a pole at z = 1, or sos, x are wrong as for
            :func:`sosfilt`.

    Note:
        The numbers of ``scipy.signal.sosfiltfilt``, for banks of filters, and differentiable. Under torch.compile and
        torch.func transforms, and on other devices than the CPU, the default padlen gives the same numbers, but n is
        not known when T is checked: T must then exceed 3 · (2 S + 1).

    Example:
        >>> import torch
        >>> from torch_iir.signal import sosfiltfilt
        >>> click = torch.eye(81)[40]
        >>> y = sosfiltfilt([[0.2, 0.2, 0.0, 1.0, -0.6, 0.0], [0.5, 0.2, 0.1, 1.0, 0.0, -0.2]], click)
        >>> torch.allclose(y, y.flip(-1), atol=1e-6)
        True
    """
    like = first_tensor(x, sos)
    x, sections = as_signal(x, "x", like), as_coefficients(sos, "sos", like)
    check_sosfilt(x, sections)
    axis = time_axis(x, axis)
    zi = _steady_states(sections)

    def one_pass(x: Tensor) -> Tensor:
        y, _ = filtered(x, sections, zi * x[..., :1, None])
        return y

    edge, spare = _default_padlen(sections) if padlen is None else (padlen, None)
    y = forwards_and_backwards(one_pass, x.movedim(axis, -1), edge, padtype, spare)
    return y.movedim(-1, axis).contiguous()


def _default_padlen(sos: Tensor) -> tuple[int, Tensor | None]:
    """The longest extension that a filter needs, and by how much those of the others are shorter."""
    longest = 2 * sos.shape[-2] + 1
    missing = torch.minimum((sos[..., 2] == 0).sum(-1), (sos[..., 5] == 0).sum(-1))
    if sos.device.type == "cpu" and concrete(sos) and missing.numel():
        least = int(missing.min())
        longest, missing = longest - least, missing - least
        if not missing.any():
            return 3 * longest, None
    return 3 * longest, 3 * missing
