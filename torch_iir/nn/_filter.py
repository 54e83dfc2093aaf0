"""What the modules share: the state of a stream, and the frequency response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from torch_iir._arguments import as_signal, broadcast_shape
from torch_iir._registration import _transforms_active as transforms_active
from torch_iir._registration import concrete
from torch_iir.signal._freqz import freqz


class Filter(nn.Module):
    """A filter module. Subclasses have parameters and say what they do with a signal and a state."""

    state: Tensor | None

    def __init__(self, stream: bool) -> None:
        super().__init__()
        self.stream = stream
        # Not saved with the parameters: it belongs to a signal, and its shape to the signal's batch.
        self.register_buffer("state", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = as_signal(x, "x", next(self.parameters()))
        if x.dim() == 0:
            raise ValueError("x must have at least one dimension, got a scalar")
        if not self.stream:
            return self._filtered(x, None)[0]
        if not torch.compiler.is_compiling():
            if transforms_active():
                raise ValueError("a module with stream=True cannot run inside a transform of torch.func")
            _check_own(self.state)
        shape = self._state_shape(x.shape[:-1])
        state = self.state
        if state is None:
            if torch.compiler.is_exporting():
                raise ValueError("a stream needs its state before export: call reset(batch_shape)")
            state = self._zeros(shape, torch.promote_types(x.dtype, torch.float64))
        elif state.shape != shape:
            raise ValueError(
                f"x {list(x.shape)} does not continue the signal before it: its state would be {list(shape)}, "
                f"that of the stream is {list(state.shape)}; call reset() where a new signal begins"
            )
        elif concrete(state) and state.is_inference() and not torch.is_inference_mode_enabled():
            state = state.clone()  # made in inference mode, it could not be saved for a backward pass
        y, zf = self._filtered(x, state)
        if torch.compiler.is_exporting():
            state.copy_(zf.detach())  # of an assignment, a strict export knows nothing
        else:
            self.state = zf
        return y

    def reset(self, batch_shape: Sequence[int] | None = None) -> None:
        """Forgets the state: the next chunk begins a new signal.

        Args:
            batch_shape: dimensions before time of the signals to come. Default: None, those of the next chunk. Given,
                the state of zeros is made now, which `torch.export` needs, and saves `torch.compile` the graph of the
                first chunk.
        """
        self.state = None if batch_shape is None else self._zeros(self._state_shape(batch_shape), torch.float64)

    def detach_state(self) -> None:
        """Cuts the gradient between the chunks before and those to come: truncated backpropagation through time."""
        if self.state is not None:
            self.state = self.state.detach()

    def response(self, n: int | Tensor = 512) -> Tensor:
        """The frequency response.

        Args:
            n: number of frequencies, evenly spaced from 0 to half the sample rate, both included; or a tensor (n,) of
                frequencies in radians per sample.

        Returns:
            complex128, (..., n), the leading dimensions those of the coefficients; differentiable.
        """
        b, a = self._sections()
        return freqz(b, a, n, include_nyquist=True)[1].prod(-2)

    def _filtered(self, x: Tensor, zi: Tensor | None) -> tuple[Tensor, Tensor]:
        """y, and the state behind it."""
        raise NotImplementedError

    def _state_shape(self, batch_shape: Sequence[int]) -> torch.Size:
        """The shape of the state behind signals of this batch."""
        raise NotImplementedError

    def _sections(self) -> tuple[Tensor, Tensor]:
        """b and a, (..., sections, K)."""
        raise NotImplementedError

    def _zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=next(self.parameters()).device)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Behind to(), half() and the like: the state follows to the device, but is not rounded."""
        state = self.state
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        if state is not None and self.state is not None:
            self.state = state.to(self.state.device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What copy and pickle take: neither can take a graph."""
        attributes = self.__dict__.copy()
        if self.state is not None:
            attributes["_buffers"] = {**self._buffers, "state": self.state.detach()}
        return attributes


def _check_own(state: Tensor | None) -> None:
    """By default DistributedDataParallel writes the first rank's buffers over those of the others before a forward.

    A tensor does not show it, not even to autograd. The wrapper that is at work can be asked.
    """
    wrapper: Any = DistributedDataParallel._active_ddp_module
    if wrapper is None or not wrapper.will_sync_module_buffers():
        return
    if any(buffer is state for buffer in wrapper.modules_buffers):
        raise ValueError(
            "a module with stream=True has a state of its own on each rank, and this one's was overwritten with the "
            "first rank's: give DistributedDataParallel broadcast_buffers=False"
        )


def broadcast(batch_shape: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """What the dimensions of signals and of coefficients broadcast to."""
    result = broadcast_shape(batch_shape, shape)
    if result is None:
        raise ValueError(
            "the dimensions of x before time and those of the filters must broadcast together, got "
            f"{list(batch_shape)} and {list(shape)}"
        )
    return result


def parameter(values: Tensor, device: torch.device | str | None, dtype: torch.dtype | None) -> nn.Parameter:
    """A parameter that starts at these values, on the default device and of the default dtype where none is given."""
    device, dtype = device or torch.get_default_device(), dtype or torch.get_default_dtype()
    if not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating dtype, got {dtype}")
    return nn.Parameter(values.to(device, dtype, memory_format=torch.contiguous_format, copy=True))


def options_of(*coefficients: Tensor) -> dict[str, Any]:
    """Device and dtype of the module of given coefficients."""
    dtype = torch.float64 if any(c.dtype == torch.float64 for c in coefficients) else coefficients[0].dtype
    return {"device": coefficients[0].device, "dtype": dtype}


def real(coefficients: Tensor, name: str) -> Tensor:
    if coefficients.is_complex():
        raise TypeError(f"{name} must be real, got {coefficients.dtype}")
    return coefficients.double()


def check_finite(name: str, *coefficients: Tensor) -> None:
    if not all(bool(c.isfinite().all()) for c in coefficients):
        raise ValueError(f"{name} must be finite")
