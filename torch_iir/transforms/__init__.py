"""torchaudio.transforms' modules: same names, order of arguments and defaults."""

from torch_iir.transforms._griffinlim import GriffinLim
from torch_iir.transforms._mel import InverseMelScale, MelScale

__all__ = ["GriffinLim", "InverseMelScale", "MelScale"]
