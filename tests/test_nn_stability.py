"""The modules' filters are stable whatever their parameters are, and training comes back from the boundary."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from torch_iir.nn import BiquadBank, LFilter, ParametricEQ, SOSFilter, _stable
from torch_iir.signal import lfilter

PEAK = _stable.LIMIT * math.pi / 2  # where the line is folded: the reflection coefficients are largest


def is_stable(a: Tensor) -> bool:
    """Whether all poles of one denominator, as rounded to float64, lie strictly inside the unit circle: exactly."""
    c = [Fraction(value) for value in a.tolist()]
    while len(c) > 1:
        k = c[-1] / c[0]
        if abs(k) >= 1:
            return False
        c = [one - k * other for one, other in zip(c[:-1], reversed(c[1:]), strict=True)]
    return True


def test_is_stable() -> None:
    assert is_stable(torch.tensor([1.0, -1.99, 0.9901]).double())
    assert not is_stable(torch.tensor([1.0, -2.0, 1.0]).double())
    assert not is_stable(torch.tensor([1.0, -2.0000001, 1.0000001]).double())
    assert is_stable(torch.from_numpy(np.poly([0.5, -0.9, 0.99])))
    assert not is_stable(torch.from_numpy(np.poly([0.5, -0.9, 1.01])))


def hostile(count: int, dtype: torch.dtype) -> Tensor:
    """Raw parameters: all corners, numbers near them, everywhere and far away."""
    corners = list(product((-PEAK, PEAK), repeat=count))[:32] if count <= 8 else []
    rows = torch.tensor([[0.0] * count, [1e4] * count, *corners, [PEAK] * count, [-PEAK] * count]).double()
    alternating = PEAK * torch.tensor([(-1.0) ** i for i in range(count)]).double()  # poles that all meet at z = 1
    largest = torch.full((count,), torch.finfo(dtype).max, dtype=torch.float64)
    random = torch.randn(20, count, dtype=torch.float64) * torch.logspace(-1, 6, 20, dtype=torch.float64)[:, None]
    near = alternating + 0.3 * torch.randn(8, count, dtype=torch.float64)
    rows = torch.cat([rows, alternating[None], -alternating[None], near, largest[None], random])
    return rows.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("form", ["reflection", "sections"])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 8, 12])
def test_every_parameter_gives_a_stable_filter(order: int, form: str, dtype: torch.dtype) -> None:
    raw = hostile(order, dtype)
    module = LFilter(order, form, shape=raw.shape[:1], dtype=dtype)
    with torch.no_grad():
        module.raw_denominator.copy_(raw)
    _, a = module.coefficients()
    assert a.dtype == torch.float64
    assert a.isfinite().all()
    for one in a.detach():
        assert is_stable(one)
    module(torch.ones(len(raw), 50)).square().mean(-1).log1p().sum().backward()  # float16 holds no more
    assert module.raw_denominator.grad is not None
    assert module.raw_denominator.grad.isfinite().all()


@pytest.mark.parametrize("max_radius", [0.5, 0.9999, 1 - 3e-7])
def test_every_parameter_gives_stable_sections(max_radius: float) -> None:
    raw = hostile(2, torch.float32)
    module = SOSFilter(len(raw), max_radius=max_radius)
    bank = BiquadBank(len(raw), max_radius=max(max_radius, 0.999))
    with torch.no_grad():
        module.raw_denominator.copy_(raw)
        bank.raw_denominator.copy_(raw)
    for one in torch.cat([module.sos()[:, 3:], bank.coefficients()[1]]).detach():
        assert is_stable(one)
    for one in module.sos()[:, 3:].detach():
        # Two poles that meet separate by the root of the rounding of the coefficients, of np.roots' too.
        assert np.abs(np.roots(one.numpy())).max() <= max_radius + 4 * np.finfo(float).eps ** 0.5


@pytest.mark.parametrize("form", ["reflection", "sections"])
def test_rounding_would_make_sharper_filters_unstable(form: str) -> None:
    """The bound that depends on the order is needed: orders of magnitude beyond it, exact poles leave the circle."""
    order, escaped = 12, 0
    raw = hostile(order, torch.float64)
    for one in raw:
        if form == "sections":
            one = one.reshape(-1, 2)
        a = _stable.denominator(one, _stable.RADIUS)
        escaped += not is_stable(_stable.product(a) if form == "sections" else a)
    assert escaped > 0
    assert _stable.safe_radius(order) < _stable.RADIUS


def test_raw_parameters_of_every_stable_denominator() -> None:
    """The map covers what it shall, up to its ends, with its inverse."""
    generator = np.random.default_rng(3)
    for order in (1, 2, 3, 6):
        for _ in range(20):
            radius = 0.9 * generator.random(order // 2) ** 0.2
            pairs = radius * np.exp(1j * math.pi * generator.random(order // 2))
            poles = [*pairs, *pairs.conj(), *(0.9 * generator.uniform(-1, 1, order % 2))]
            a = torch.from_numpy(np.poly(poles).real)
            raw = _stable.raw_denominator(a, 0.95, "a")
            assert_close(_stable.denominator(raw, 0.95), a, rtol=1e-9, atol=1e-11)
    sharp = torch.tensor([1.0, -2 * 0.99989 * math.cos(1e-3), 0.99989**2], dtype=torch.float64)
    assert_close(_stable.denominator(_stable.raw_denominator(sharp, 0.9999, "a"), 0.9999), sharp, rtol=1e-14, atol=0)


def test_gradients_of_the_maps() -> None:
    raw = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda raw: _stable.denominator(raw, 0.9), raw, check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(lambda raw: _stable.denominator(raw, 0.9), raw)


SQUASHED: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp": lambda r: r.clamp(-1, 1),
    "tanh": lambda r: r.tanh(),
    "algebraic": lambda r: r.atan().sin(),  # r/√(1 + r²), without cancellation in its derivative
    "softsign": torch.nn.functional.softsign,
    "folded": lambda r: (_stable.LIMIT * (r / _stable.LIMIT).sin()).tanh(),
}
AWAY, BACK = 10_000, 5_000


def test_training_comes_back_from_the_boundary() -> None:
    """A loss that wants all the energy it can get, Adam with large steps; then one that wants another filter.

    Run for the modules' parametrisation and for what it was chosen over, each a row: Adam keeps them apart.
    """
    rho = _stable.RADIUS
    click = torch.zeros(256)
    click[0] = 1
    target = lfilter([1.0], [1.0, -0.9, 0.5], click)
    raw = torch.full((len(SQUASHED), 2), 0.1).requires_grad_()
    returned: dict[str, int] = {}

    def denominators() -> Tensor:
        k = torch.stack([map(row.double()) for map, row in zip(SQUASHED.values(), raw, strict=True)])
        return torch.stack([torch.ones_like(k[:, 0]), rho * k[:, 0] * (1 + k[:, 1]), rho**2 * k[:, 1]], -1)

    own = _stable.denominator(raw[-1], rho)
    assert_close(denominators()[-1], own, rtol=1e-15, atol=0)
    optimizer = torch.optim.Adam([raw], lr=1.0, fused=True)
    for _ in range(AWAY):
        optimizer.zero_grad()
        (-lfilter([1.0], denominators(), click).square().sum()).backward()
        optimizer.step()
    assert raw.isfinite().all()
    a = denominators().detach()
    assert all(is_stable(one) for one in a)
    assert (a[:, 2] > rho**2 - 2e-4).all()  # all of them went to the boundary

    optimizer = torch.optim.Adam([raw], lr=0.1, fused=True)
    for step in range(BACK):
        optimizer.zero_grad()
        error = (lfilter([1.0], denominators(), click) - target).square().sum(-1) / target.square().sum()
        for name, one in zip(SQUASHED, error.tolist(), strict=True):
            if one < 0.01:
                returned.setdefault(name, step)
        error.log1p().sum().backward()
        optimizer.step()
    assert list(returned) == ["folded"]
    assert returned["folded"] < 500


@pytest.mark.parametrize(
    "make",
    [
        lambda: LFilter(3),
        lambda: LFilter(4, "sections"),
        lambda: SOSFilter(2),
        lambda: BiquadBank(4),
        lambda: ParametricEQ(16000, 4),
    ],
    ids=["reflection", "sections", "SOSFilter", "BiquadBank", "ParametricEQ"],
)
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_hostile_training_of_the_modules(
    make: Callable[[], LFilter | SOSFilter | BiquadBank | ParametricEQ], optimizer: type[torch.optim.Optimizer]
) -> None:
    """As loud as can be: whatever the parameters become, they and the filter stay finite, the denominator stable."""
    module = make()
    x = torch.randn(300)
    steps = optimizer(module.parameters(), lr=1.0)  # type: ignore[call-arg]
    for step in range(400):
        steps.zero_grad()
        y = module(x)
        loss = -y.square().mean().log()
        loss.backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all(), (step, name)
        steps.step()
    with torch.no_grad():
        a = module.sos()[..., 3:] if isinstance(module, (SOSFilter, ParametricEQ)) else module.coefficients()[1]
        for one in a.reshape(-1, a.shape[-1]):
            assert is_stable(one)
        assert module(x).isfinite().all()
    if isinstance(module, ParametricEQ):
        for knob, (low, high) in (
            (module.frequency, module.frequency_range),
            (module.gain, module.gain_range),
            (module.Q, module.Q_range),
        ):
            rounding = 1e-12 * high
            assert ((low - rounding <= knob) & (knob <= high + rounding)).all()
