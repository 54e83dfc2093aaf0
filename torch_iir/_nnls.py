"""Non-negative least squares."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import Tensor

from torch_iir._arguments import ArrayLike, as_signal, check_nnls, explain_nnls, first_tensor, whole_number
from torch_iir._registration import concrete
from torch_iir.ops.nnls import FAILED, SOLVERS
from torch_iir.ops.nnls import nnls as _nnls

NAMES = ("B", "A", "mu", "prior")
TOLERANCE, TOLERANCE_OF_DOUBLE = 1e-6, 1e-9
REGULARIZATION, REGULARIZATION_OF_DOUBLE = 1e-8, 2e-10  # with less, columns that are far from any A x may fail
MAX_ITERATIONS = 1000  # newton takes 10, seldom 100; projected gradient 50 to 500


@overload
def nnls(
    A: ArrayLike,
    B: ArrayLike,
    *,
    solver: str = "auto",
    tol: float | None = None,
    max_iter: int | None = None,
    return_outcome: Literal[False] = False,
) -> Tensor: ...
@overload
def nnls(
    A: ArrayLike,
    B: ArrayLike,
    *,
    solver: str = "auto",
    tol: float | None = None,
    max_iter: int | None = None,
    return_outcome: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def nnls(
    A: ArrayLike,
    B: ArrayLike,
    *,
    solver: str = "auto",
    tol: float | None = None,
    max_iter: int | None = None,
    return_outcome: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Solves linear systems by least squares under the condition that no unknown is negative.

    .. math::
        X_{:,c} = \operatorname*{arg\,min}_{x \ge 0} \tfrac12 |A x - B_{:,c}|^2 + \tfrac12 \mu |x|^2, \qquad
        \mu = \epsilon \max_i (A A^\mathsf{T})_{ii}

    ε, 2·10⁻¹⁰ in float64 and 10⁻⁹ otherwise, only chooses among the solutions for 0. Every column of B is a problem of
    its own.

    Args:
        A: matrices, (..., m, n).
        B: right-hand sides, (..., m, k), or (m,) for one. The leading dimensions of A and B broadcast.
        solver: ``"newton"``, for A ≥ 0 whose rows overlap their neighbours only: at most two entries in a column, and
            these in adjacent rows, as in a bank of mel filters. A damped Newton method on the dual problem, whose every
            step is a tridiagonal system, O(m + n) a column. ``"projected_gradient"``, for any A: accelerated, with
            restarts and diagonal steps, O(m n) a step and column. Default: ``"auto"``, newton where A allows it.
        tol: when a column b of B is solved. By newton, once no element of A x + μ λ − b exceeds tol times the largest
            of b (λ the multipliers), or the entries that are positive are known; by projected gradient, once no element
            of min(L x, gradient) exceeds tol times the largest of Aᵀb, taken of magnitudes, with L the largest
            eigenvalue of AᵀA. Default: None, 1e-9 for a result in float64 and 1e-6 for others.
        max_iter: steps after which a column has failed. Default: None, 1000: newton takes some 10, projected gradient
            some 50 to 500.
        return_outcome: also return how each column ended. Default: False.

    Returns:
        X, (..., n, k), or (..., n) for B of shape (m,); contiguous, of the wider dtype of A and B. With return_outcome
        ``(X, outcome)``, outcome an int32 tensor (..., k), or (...), of 0 where the column was solved and 2 where it
        failed: it did not reach tol in max_iter steps, and X is the best that was found, or it is not finite, and X is
        NaN. A RuntimeWarning counts the columns that failed, whenever values can be read: not under torch.compile and
        torch.func transforms.

    Raises:
        TypeError: an argument is not numeric, or complex; max_iter is not an integer.
        ValueError: A has less than two dimensions, B has not m rows, or leading dimensions do not broadcast; devices
            differ; solver is unknown, or newton and A is not of its kind; tol or max_iter is not positive.

    Note:
        As ``scipy.optimize.nnls``, for batches, and differentiable in A and B to any order, forwards and backwards:
        by the implicit function theorem for the entries of X that are positive; those that are 0 stay 0 (at a kink
        that is one of the derivatives). Returned alone, X has no residual beside it: ``torch.linalg.norm(A @ X - B)``.
        Where more than one X is best, newton gives the one of least norm, and projected gradient any: A @ X is the
        same. Computed in double precision. Sources: the dual problem by semismooth Newton steps with damping as by
        Levenberg and Marquardt; O'Donoghue and Candès, Adaptive restart for accelerated gradient schemes (2015).

    Example:
        >>> import torch
        >>> from torch_iir import nnls
        >>> A = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
        >>> nnls(A, torch.tensor([[3.0, 2.0], [6.0, -1.0]])).round(decimals=4)
        tensor([[1., 2.],
                [2., 0.],
                [2., 0.]])
        >>> B = torch.rand(8, 2, 100, requires_grad=True)
        >>> X, outcome = nnls(A, B, return_outcome=True)
        >>> X.shape, int((outcome != 0).sum())
        (torch.Size([8, 3, 100]), 0)
    """
    like = first_tensor(A, B)
    a, b = as_signal(A, "A", like), as_signal(B, "B", like)
    vector, names = b.dim() == 1, NAMES
    if vector:
        b, names = b.unsqueeze(-1), ("B as (m, 1)", *NAMES[1:])
    b = b.to(torch.promote_types(a.dtype, b.dtype))
    x, outcome = solved(b, a, solver=solver, tol=tol, max_iter=max_iter, names=names)
    if vector:
        x, outcome = x.squeeze(-1), outcome.squeeze(-1)
    return (x, outcome) if return_outcome else x


def solved(
    b: Tensor,
    a: Tensor,
    mu: Tensor | None = None,
    prior: Tensor | None = None,
    *,
    solver: str = "auto",
    tol: float | None = None,
    max_iter: int | None = None,
    names: Sequence[str] = NAMES,
    stacklevel: int = 3,
) -> tuple[Tensor, Tensor]:
    """x and the outcome of each column, with errors in the names of the public function.

    b (..., m, k), a (..., m, n), mu (..., k), prior (..., n, k). Warns when columns failed; `stacklevel` is that of the
    caller's caller.
    """
    check_solver(solver, tol)
    iterations = MAX_ITERATIONS if max_iter is None else whole_number(max_iter, "max_iter", 1)
    check_nnls(b, a, mu, prior, names)
    double = b.dtype == torch.float64
    if tol is None:
        tol = TOLERANCE_OF_DOUBLE if double else TOLERANCE
    if mu is None:
        mu = regularization(a, REGULARIZATION_OF_DOUBLE if double else REGULARIZATION)
        mu = mu.expand(*a.shape[:-2], b.shape[-1])
    try:
        x, _, outcome = _nnls(b, a, mu, prior, SOLVERS.index(solver), tol, iterations)
    except RuntimeError as error:
        raise explain_nnls(error, a, names[1]) from None
    if concrete(outcome) and (failed := int((outcome == FAILED).sum())):
        warnings.warn(
            f"{failed} of {outcome.numel()} columns did not reach the tolerance {tol:g}, or are not finite",
            RuntimeWarning,
            stacklevel=stacklevel,
        )
    return x, outcome


def check_solver(solver: str, tol: float | None) -> None:
    """Raises for a wrong name or number."""
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(SOLVERS)}; got {solver!r}")
    if tol is not None and not 0 < tol < math.inf:
        raise ValueError(f"tol must be positive and finite, got {tol}")


def regularization(a: Tensor, epsilon: float = REGULARIZATION) -> Tensor:
    """μ as this part of the largest squared norm of a row, (..., 1) for a (..., m, n). A constant: no derivative."""
    norms = torch.linalg.vector_norm(a.detach(), dim=-1, dtype=torch.float64)
    largest = norms.amax(-1, keepdim=True) if norms.shape[-1] else norms.new_zeros((*norms.shape[:-1], 1))
    return torch.where(largest == 0, 1.0, epsilon * largest.square())
