r"""Learnable filters that stay stable, as modules, with a streaming mode.

**Stability.** A stable denominator of order N is N reflection coefficients in (−1, 1). Three maps lead there from any
real parameters r, in float64:

.. math::
    u_i = U \sin(r_i / U), \qquad k_i = \tanh u_i, \qquad a_i = \rho^i \, a^{(N)}_i, \quad
    a^{(m)}_i = a^{(m-1)}_i + k_m a^{(m-1)}_{m-i}, \quad U = 10

The last is the step-up recursion: its poles lie in the unit disc, those of a within the radius ρ = ``max_radius``. The
middle one turns equal steps into equal ratios, of frequency (k = −cos θ) and of bandwidth: so an ear hears, and so a
loss behaves. The first bends the line back before the tanh is flat. A squashing function alone has a plateau, and
training goes further out on it with every step: pushed towards the boundary by 10,000 steps of Adam, clamped numbers,
tanh (its gradient is 0 beyond 19 in double precision, beyond 9 in float32), u/√(1 + u²) and u/(1 + |u|) had not come
back after 5000 steps in the other direction. A folded line has single points without gradient instead, and both sides
of them lead back: it was there after 145. `tests/test_nn_stability.py` does it again.

**Gradients** grow with the length of what the filter remembers, 1/(1 − ρ) samples at most: 10,000 by default.

**Streams.** With ``stream=True`` a call continues the signal of the call before it, from a state kept in float64.
Gradients flow through it to the chunks before until ``detach_state()`` cuts them; ``reset()`` begins a new signal; the
parameters may change from chunk to chunk. A compiled module has two graphs, for the first chunk and for the others, or
one after ``reset(batch_shape)``, which `torch.export` needs too. An exported stream does not carry gradients from chunk
to chunk. Transforms of `torch.func` take modules that do not stream. What runs a call twice, as
`torch.utils.checkpoint` does, moves the state twice; and ``DistributedDataParallel`` needs ``broadcast_buffers=False``
(``forward_sync_buffers=False`` where torch has that), or all streams would go on from the state of the first. That is
an error, but a compiled module cannot see it.
"""

from torch_iir.nn._bank import BiquadBank
from torch_iir.nn._eq import ParametricEQ
from torch_iir.nn._lfilter import LFilter
from torch_iir.nn._sos import SOSFilter

__all__ = ["BiquadBank", "LFilter", "ParametricEQ", "SOSFilter"]
