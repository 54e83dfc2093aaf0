from typing import Literal, TypedDict, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Algorithm = Literal["automatic", "direct", "rows", "segments", "blocks", "wavefront", "fft"]

Sample = TypeVar("Sample", np.float32, np.float64)

class BuildInfo(TypedDict):
    version: str
    compiler: str
    isa: str
    isas: list[str]

def lfilter(
    x: NDArray[Sample],
    b: ArrayLike,
    a: ArrayLike,
    zi: ArrayLike | None = None,
    *,
    algorithm: Algorithm = "automatic",
) -> tuple[NDArray[Sample], NDArray[np.float64]]: ...
def lfilter_algorithm(rows: int, samples: int, order: int, complex: bool = False) -> Algorithm: ...
def lfilter_tv_algorithm(rows: int, samples: int, order: int, complex: bool = False) -> Algorithm: ...
def sosfilt_algorithm(rows: int, samples: int, sections: int, complex: bool = False) -> Algorithm: ...
def build_info() -> BuildInfo: ...
def set_isa(name: str) -> None: ...
