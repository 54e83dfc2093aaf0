from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeAlias, TypedDict, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

Algorithm = Literal["automatic", "direct", "rows", "segments", "blocks", "wavefront", "fft", "clusters", "lookback"]
TieBreak = Literal["min_norm", "entropy"]

Sample = TypeVar("Sample", np.float32, np.float64)
Float32: TypeAlias = type[np.float32] | np.dtype[np.float32] | Literal["float32"]
Float64: TypeAlias = type[np.float64] | np.dtype[np.float64] | Literal["float64"]

class BuildInfo(TypedDict):
    version: str
    compiler: str
    isa: str
    isas: list[str]

# What the plans have in common, for type checkers alone.
class _Plan(Generic[Sample]):
    @property
    def dtype(self) -> np.dtype[Sample]: ...
    @property
    def threads(self) -> int: ...

class _FilterPlan(_Plan[Sample]):
    def reset(self) -> None: ...
    @property
    def channels(self) -> tuple[int, ...]: ...
    @property
    def algorithm(self) -> Algorithm: ...
    @property
    def isa(self) -> str: ...

class LFilterPlan(_FilterPlan[Sample]):
    @overload
    def __init__(
        self: LFilterPlan[np.float32],
        b: ArrayLike,
        a: ArrayLike,
        channels: int | Sequence[int] = (),
        *,
        dtype: Float32 = ...,
        block: int = 64,
        algorithm: Algorithm = "automatic",
        threads: int = 1,
    ) -> None: ...
    @overload
    def __init__(
        self: LFilterPlan[np.float64],
        b: ArrayLike,
        a: ArrayLike,
        channels: int | Sequence[int] = (),
        *,
        dtype: Float64,
        block: int = 64,
        algorithm: Algorithm = "automatic",
        threads: int = 1,
    ) -> None: ...
    def run(self, x: NDArray[Sample], out: NDArray[Sample] | None = None) -> NDArray[Sample]: ...
    def set_coefficients(self, b: ArrayLike, a: ArrayLike) -> None: ...
    @property
    def state(self) -> NDArray[np.float64]: ...
    @state.setter
    def state(self, zi: ArrayLike) -> None: ...
    @property
    def outputs(self) -> tuple[int, ...]: ...
    @property
    def order(self) -> int: ...

class SOSFiltPlan(_FilterPlan[Sample]):
    @overload
    def __init__(
        self: SOSFiltPlan[np.float32],
        sos: ArrayLike,
        channels: int | Sequence[int] = (),
        *,
        dtype: Float32 = ...,
        block: int = 64,
        algorithm: Algorithm = "automatic",
        threads: int = 1,
    ) -> None: ...
    @overload
    def __init__(
        self: SOSFiltPlan[np.float64],
        sos: ArrayLike,
        channels: int | Sequence[int] = (),
        *,
        dtype: Float64,
        block: int = 64,
        algorithm: Algorithm = "automatic",
        threads: int = 1,
    ) -> None: ...
    def run(self, x: NDArray[Sample], out: NDArray[Sample] | None = None) -> NDArray[Sample]: ...
    def set_coefficients(self, sos: ArrayLike) -> None: ...
    @property
    def state(self) -> NDArray[np.float64]: ...
    @state.setter
    def state(self, zi: ArrayLike) -> None: ...
    @property
    def outputs(self) -> tuple[int, ...]: ...
    @property
    def sections(self) -> int: ...

class LFilterTVPlan(_FilterPlan[Sample]):
    @overload
    def __init__(
        self: LFilterTVPlan[np.float32],
        channels: int | Sequence[int] = (),
        *,
        a_length: int,
        a_first: int = 1,
        b_length: int = 0,
        b_first: int = 0,
        period: int = 1,
        dtype: Float32 = ...,
        block: int = 64,
        algorithm: Algorithm = "automatic",
        threads: int = 1,
    ) -> None: ...
    @overload
    def __init__(
        self: LFilterTVPlan[np.float64],
        channels: int | Sequence[int] = (),
        *,
        a_length: int,
        a_first: int = 1,
        b_length: int = 0,
        b_first: int = 0,
        period: int = 1,
        dtype: Float64,
        block: int = 64,
        algorithm: Algorithm = "automatic",
        threads: int = 1,
    ) -> None: ...
    def run(
        self,
        x: NDArray[Sample],
        a: NDArray[Sample] | Sequence[Any] | None = None,
        b: NDArray[Sample] | Sequence[Any] | None = None,
        out: NDArray[Sample] | None = None,
    ) -> NDArray[Sample]: ...
    @property
    def state(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
    @state.setter
    def state(self, zx_zi: tuple[ArrayLike, ArrayLike]) -> None: ...
    @property
    def order(self) -> int: ...

class InverseMelPlan(_Plan[Sample]):
    @overload
    def __init__(
        self: InverseMelPlan[np.float32],
        fb: ArrayLike,
        max_frames: int,
        *,
        dtype: Float32 = ...,
        tie_break: TieBreak = "min_norm",
        tolerance: float | None = None,
        max_iterations: int = 1000,
        threads: int = 1,
    ) -> None: ...
    @overload
    def __init__(
        self: InverseMelPlan[np.float64],
        fb: ArrayLike,
        max_frames: int,
        *,
        dtype: Float64,
        tie_break: TieBreak = "min_norm",
        tolerance: float | None = None,
        max_iterations: int = 1000,
        threads: int = 1,
    ) -> None: ...
    def run(self, mel: NDArray[Sample], out: NDArray[Sample] | None = None) -> NDArray[Sample]: ...
    @property
    def outcome(self) -> NDArray[np.int32]: ...
    @property
    def failed(self) -> int: ...
    @property
    def n_freqs(self) -> int: ...
    @property
    def n_mels(self) -> int: ...
    @property
    def max_frames(self) -> int: ...
    @property
    def tie_break(self) -> TieBreak: ...

def melscale_fbanks(
    n_freqs: int,
    f_min: float,
    f_max: float,
    n_mels: int,
    sample_rate: float,
    norm: Literal["slaney"] | None = None,
    mel_scale: Literal["htk", "slaney"] = "htk",
) -> NDArray[np.float64]: ...
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
