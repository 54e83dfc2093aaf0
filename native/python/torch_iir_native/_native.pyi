from typing import Literal, TypedDict, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

Algorithm = Literal["automatic", "direct", "rows", "segments", "blocks"]

class BuildInfo(TypedDict):
    version: str
    compiler: str
    isa: str
    isas: list[str]

@overload
def lfilter(
    x: NDArray[np.float32], b: ArrayLike, a: ArrayLike, zi: ArrayLike | None = None, *, algorithm: Algorithm = "automatic"
) -> tuple[NDArray[np.float32], NDArray[np.float64]]: ...
@overload
def lfilter(
    x: NDArray[np.float64], b: ArrayLike, a: ArrayLike, zi: ArrayLike | None = None, *, algorithm: Algorithm = "automatic"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def lfilter_algorithm(rows: int, samples: int, order: int, complex: bool = False) -> Algorithm: ...
def build_info() -> BuildInfo: ...
def set_isa(name: str) -> None: ...
