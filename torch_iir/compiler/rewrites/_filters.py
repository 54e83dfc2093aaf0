"""The filters that the rewrites are about."""

from __future__ import annotations

import torch
from torch.fx import Node

from torch_iir.compiler._graph import Builder, tensor

# By the names of their calls.
FILTERS = {"lfilter": torch.ops.torch_iir.lfilter.default, "sosfilt": torch.ops.torch_iir.sosfilt.default}


def wide(new: Builder, coefficients: Node) -> Node:
    """In double: what the kernels compute in, so that a product with them rounds nothing."""
    dtype = torch.promote_types(tensor(coefficients).dtype, torch.float64)
    return coefficients if dtype == tensor(coefficients).dtype else new("to", coefficients, dtype)
