"""The torch.compile backend "torch_iir": Inductor with a stage in front that knows recursive filters.

Light to import: torch._dynamo and Inductor are imported when something is compiled.
"""

from torch_iir.compiler._compile import compile

__all__ = ["compile"]
