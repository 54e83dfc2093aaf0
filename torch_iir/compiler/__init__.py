"""The torch.compile backend "torch_iir": Inductor with a stage in front that knows recursive filters.

Light to import: torch._dynamo and Inductor are imported when something is compiled.
"""

from torch_iir.compiler._compile import compile
from torch_iir.compiler._explain import explain
from torch_iir.compiler._patch import Patch, patch
from torch_iir.compiler._verify import VerificationError

__all__ = ["Patch", "VerificationError", "compile", "explain", "patch"]
