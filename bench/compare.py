"""Whether a call computes what it is timed for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.floating]


class WrongOutputError(Exception):
    """A call that is not worth timing."""


class Judge(Protocol):
    """What knows whether the output of a call is right."""

    def compare(self, name: str, result: Any) -> str:
        """Raises WrongOutputError, or returns what the table has to say of the output."""


@dataclass(frozen=True)
class Expected:
    """What a correct call returns, and how far rounding may carry it from that.

    Args:
        values: the reference of each returned array, in double.
        amplification: of each array, the error that a relative error of 1 in every operation inside would cause.
        inside: the precision in which the call computes, whatever it stores.
    """

    values: tuple[Array, ...]
    amplification: tuple[float, ...]
    inside: type[np.floating] = np.float64

    def compare(self, name: str, result: Any) -> str:
        """Raises WrongOutputError where an output is further from its reference than

            eps(its dtype) max|y| + max(eps(inside) · amplification, 1e-10 max|y|)

        which is its own rounding, and what the rounding inside or the promise of our algorithms allows.
        """
        outputs = result if isinstance(result, tuple) else (result,)
        for index, output in enumerate(outputs):  # the reference of a backward pass covers a forward pass too
            actual = output.detach().numpy() if isinstance(output, Tensor) else output
            expected, amplification = self.values[index], self.amplification[index]
            if actual.shape != expected.shape:
                raise WrongOutputError(f"{name}, output {index}: shape {actual.shape} instead of {expected.shape}")
            largest = float(np.abs(expected).max())
            inside = max(float(np.finfo(self.inside).eps) * amplification, 1e-10 * largest)
            bound = float(np.finfo(actual.dtype).eps) * largest + inside
            error = float(np.abs(actual - expected).max())
            if not error <= bound:  # nan included
                raise WrongOutputError(f"{name}, output {index}: off by {error:.1e}, more than {bound:.1e}")
        return ""
