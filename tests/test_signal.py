"""torch_iir.signal against scipy.signal, and a user's wrong calls."""

from __future__ import annotations

import doctest
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from torch.testing import assert_close

import torch_iir.functional._lfilter
import torch_iir.signal._filtfilt
import torch_iir.signal._lfilter
import torch_iir.signal._sosfilt
from torch_iir.signal import filtfilt, lfilter, lfilter_zi, lfiltic, sosfilt, sosfilt_zi, sosfiltfilt

FILTERS = {
    "butter 4": scipy.signal.butter(4, 0.2),
    "cheby 5": scipy.signal.cheby1(5, 1, 0.3),
    "a0 = 2": (np.array([1.0, 0.5, 0.2]), np.array([2.0, -0.9, 0.3])),
    "b longer": (np.array([1.0, 0.5, 0.2, 0.1]), np.array([1.0, -0.9])),
    "a longer": (np.array([1.0]), np.array([1.0, -0.9, 0.4])),
    "FIR": (np.array([0.2, 0.3, 0.5]), np.array([1.0])),
    "gain": (np.array([3.0]), np.array([2.0])),
}
every_filter = pytest.mark.parametrize("name", FILTERS)

CASCADES = {
    "butter 4": scipy.signal.butter(4, 0.2, output="sos"),
    "butter 5": scipy.signal.butter(5, 0.2, output="sos"),  # one section of order 1
    "ellip 6 highpass": scipy.signal.ellip(6, 1, 60, 0.6, "highpass", output="sos"),
    "one section": scipy.signal.butter(2, 0.3, output="sos"),
    "order 1": scipy.signal.butter(1, 0.3, output="sos"),
    "orders 1": np.array([[1.0, 0.5, 0, 1, -0.5, 0], [1, 0, 0, 1, 0.25, 0], [1, 0, 0.5, 1, 0.25, 0]]),
}
every_cascade = pytest.mark.parametrize("name", CASCADES)


@pytest.mark.parametrize(
    "module",
    [torch_iir.signal._lfilter, torch_iir.signal._filtfilt, torch_iir.signal._sosfilt, torch_iir.functional._lfilter],
    ids=lambda m: m.__name__,
)
def test_examples_in_docstrings(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@every_filter
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_lfilter_along_every_axis(name: str, axis: int) -> None:
    b, a = FILTERS[name]
    x = np.random.default_rng(0).standard_normal((6, 7, 8))
    y = lfilter(b, a, torch.from_numpy(x), axis)
    assert y.is_contiguous()
    assert_close(y.numpy(), scipy.signal.lfilter(b, a, x, axis), rtol=1e-11, atol=1e-12)

    order = max(len(b), len(a)) - 1
    for full in (True, False):  # with singleton dimensions
        shape = [n if full else 1 for n in x.shape]
        shape[axis] = order
        zi = np.random.default_rng(1).standard_normal(shape)
        if order == 0:
            continue
        y, zf = lfilter(b, a, torch.from_numpy(x), axis, torch.from_numpy(zi))
        expected_y, expected_zf = scipy.signal.lfilter(b, a, x, axis, zi)
        assert_close(y.numpy(), expected_y, rtol=1e-11, atol=1e-12)
        assert_close(zf.numpy(), expected_zf, rtol=1e-11, atol=1e-12)
        assert zf.is_contiguous()


def test_lfilter_takes_what_scipy_takes() -> None:
    b, a, x = [1, 2], [2, -1], np.arange(12.0).reshape(2, 6)
    expected = torch.from_numpy(scipy.signal.lfilter(b, a, x))
    for numerator in (b, tuple(b), np.array(b), np.array([2, 1])[::-1], torch.tensor(b), [torch.tensor(1), 2.0]):
        assert_close(lfilter(numerator, a, torch.from_numpy(x)), expected)
    assert_close(lfilter(b, a, x), expected)
    assert_close(lfilter(b, a, x.tolist()), expected)
    assert_close(lfilter(b, a, torch.from_numpy(x).int()), expected.float())
    assert_close(lfilter(2, 4.0, torch.from_numpy(x)), torch.from_numpy(x) / 2)
    assert lfilter(b, a, x.astype(np.float32)).dtype == torch.float32
    assert_close(lfilter([1j], [1.0], x), torch.from_numpy(1j * x))
    y, zf = lfilter(b, a, x, zi=[[1.0]])
    assert (y.shape, zf.shape, zf.dtype) == ((2, 6), (2, 1), torch.float64)


def test_lfilter_of_nothing() -> None:
    y, zf = lfilter([1.0, 0.5], [1.0, 0.5], torch.zeros(3, 0), zi=torch.ones(3, 1))
    assert y.shape == (3, 0)
    assert_close(zf, torch.ones(3, 1))
    assert lfilter([1.0], [1.0], torch.zeros(0, 5)).shape == (0, 5)


def test_lfilter_bank_along_another_axis() -> None:
    """Coefficients add dimensions in front; time stays where it is, counted from the end."""
    x, b, a = torch.randn(7, 4).double(), torch.randn(3, 1, 2).double(), torch.tensor([1.0, -0.5]).double()
    y = lfilter(b, a, x, axis=0)
    assert y.shape == (3, 7, 4)
    assert_close(y[1], lfilter(b[1, 0], a, x, axis=0))


@every_filter
def test_lfilter_zi(name: str) -> None:
    b, a = FILTERS[name]
    zi = lfilter_zi(b, a)
    if max(len(b), len(a)) == 1:
        assert zi.shape == (0,)
        return
    assert_close(zi.numpy(), scipy.signal.lfilter_zi(b, a), rtol=1e-9, atol=1e-10)
    y, zf = lfilter(b, a, torch.ones(50).double(), zi=zi)
    assert_close(y, torch.full_like(y, b.sum() / a.sum()), rtol=1e-9, atol=1e-9)
    assert_close(zf, zi, rtol=1e-9, atol=1e-9)


def test_lfilter_zi_of_a_batch() -> None:
    b, a = torch.randn(4, 1, 3).double(), torch.randn(5, 4).double() * 0.2 + torch.eye(4)[0].double() * 2
    zi = lfilter_zi(b, a)
    assert zi.shape == (4, 5, 3)
    for i in range(4):
        for j in range(5):
            assert_close(zi[i, j].numpy(), scipy.signal.lfilter_zi(b[i, 0].numpy(), a[j].numpy()))
    assert lfilter_zi(b.float(), a.float()).dtype == torch.float32
    assert torch.autograd.gradcheck(lfilter_zi, (b.requires_grad_(), a.requires_grad_()), check_forward_ad=True)


def test_lfilter_zi_of_a_low_cutoff_in_float32() -> None:
    """The sum of float32 coefficients cancels; it is taken in float64."""
    b, a = (torch.from_numpy(c).float() for c in scipy.signal.butter(2, 0.001))
    expected = scipy.signal.lfilter_zi(b.double().numpy(), a.double().numpy())
    np.testing.assert_allclose(lfilter_zi(b, a).numpy(), expected, rtol=1e-6)


def test_lfilter_zi_without_an_answer() -> None:
    integrator = torch.tensor([1.0, -1.0])
    with pytest.raises(ValueError, match="a must have no pole at z = 1"):
        lfilter_zi([1.0], integrator)
    with pytest.raises(ValueError, match=r"a\[\.\.\., 0\] must not be zero"):
        lfilter_zi([1.0], [0.0, 1.0])
    mapped = torch.vmap(lambda a: lfilter_zi(torch.ones(1), a))(integrator[None])
    assert not mapped.isfinite().any()


@every_filter
@pytest.mark.parametrize("with_x", [False, True])
@pytest.mark.parametrize("past", [0, 1, 2, 9])
def test_lfiltic(name: str, with_x: bool, past: int) -> None:
    b, a = FILTERS[name]
    y, x = np.random.default_rng(0).standard_normal((2, past))
    zi = lfiltic(b, a, torch.from_numpy(y), torch.from_numpy(x) if with_x else None)
    assert_close(zi.numpy(), scipy.signal.lfiltic(b, a, y, x if with_x else None), rtol=1e-12, atol=1e-13)


def test_lfiltic_continues_a_batch() -> None:
    b, a, x = torch.randn(3, 1, 3).double(), torch.tensor([2.0, -0.9, 0.4, 0.1]).double(), torch.randn(4, 30).double()
    y = lfilter(b, a, x)
    zi = lfiltic(b, a, y[..., :12].flip(-1), x[..., :12].flip(-1))
    assert zi.shape == (3, 4, 3)
    assert_close(lfilter(b, a, x[..., 12:], zi=zi)[0], y[..., 12:])
    past = (y[..., :5].detach().requires_grad_(), x[..., :5].clone().requires_grad_())
    leaves = (b.requires_grad_(), a.requires_grad_(), *past)
    assert torch.autograd.gradcheck(lfiltic, leaves, check_forward_ad=True)
    with pytest.raises(ValueError, match=r"a\[\.\.\., 0\] must not be zero"):
        lfiltic([1.0], [0.0, 1.0], [1.0])


@every_filter
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padtype": "even"},
        {"padtype": "constant"},
        {"padtype": None},
        {"padlen": 0},
        {"padlen": 7},
        {"padtype": "even", "padlen": 39},
        {"method": "gust"},
        {"method": "gust", "irlen": 15},
        {"method": "gust", "irlen": 100},
    ],
    ids=str,
)
def test_filtfilt(name: str, options: dict[str, Any]) -> None:
    b, a = FILTERS[name]
    x = np.random.default_rng(0).standard_normal((3, 40))
    y = filtfilt(b, a, torch.from_numpy(x), **options)
    assert y.is_contiguous()
    if name == "gain" and "method" not in options:  # scipy's lfilter_zi fails for order 0
        expected = x * (b[0] / a[0]) ** 2
    else:
        expected = scipy.signal.filtfilt(b, a, x, **options)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())


def test_filtfilt_of_batches_axes_and_dtypes() -> None:
    b, a = FILTERS["butter 4"]
    x = np.random.default_rng(0).standard_normal((40, 3))
    for method in ("pad", "gust"):
        expected = scipy.signal.filtfilt(b, a, x, axis=0, method=method)
        np.testing.assert_allclose(filtfilt(b, a, torch.from_numpy(x), 0, method=method), expected, atol=1e-8)
        narrow = filtfilt(b, a, torch.from_numpy(x).float(), 0, method=method)
        assert narrow.dtype == torch.float32
        np.testing.assert_allclose(narrow, expected, atol=1e-5)
        coefficients = [torch.from_numpy(np.stack([c, c])) for c in (b, a)]
        bank = filtfilt(*(c[:, None] for c in coefficients), torch.from_numpy(x.T), method=method)
        assert bank.shape == (2, 3, 40)
        np.testing.assert_allclose(bank[1].numpy().T, expected, atol=1e-8)


@every_cascade
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_sosfilt_along_every_axis(name: str, axis: int) -> None:
    sos = CASCADES[name]
    x = np.random.default_rng(0).standard_normal((6, 7, 8))
    y = sosfilt(sos, torch.from_numpy(x), axis)
    assert y.is_contiguous()
    assert_close(y.numpy(), scipy.signal.sosfilt(sos, x, axis), rtol=1e-11, atol=1e-12)

    shape = [len(sos), *x.shape]
    shape[1 + axis % 3] = 2
    zi = np.random.default_rng(1).standard_normal(shape)
    y, zf = sosfilt(sos, torch.from_numpy(x), axis, torch.from_numpy(zi))
    expected_y, expected_zf = scipy.signal.sosfilt(sos, x, axis, zi)
    assert_close(y.numpy(), expected_y, rtol=1e-11, atol=1e-12)
    assert_close(zf.numpy(), expected_zf, rtol=1e-11, atol=1e-12)
    assert zf.is_contiguous()

    singles = [n if d in (0, 1 + axis % 3) else 1 for d, n in enumerate(shape)]
    broadcast = sosfilt(sos, torch.from_numpy(x), axis, torch.ones(singles).double())
    assert_close(broadcast, sosfilt(sos, torch.from_numpy(x), axis, torch.ones(shape).double()))


def test_sosfilt_takes_what_scipy_takes() -> None:
    sos, x = [[1, 2, 0, 1, -1, 0], [2, 0, 1, 1, 0, 0]], np.arange(12.0).reshape(2, 6)
    expected = torch.from_numpy(scipy.signal.sosfilt(sos, x))
    for given in (sos, tuple(map(tuple, sos)), np.array(sos), np.array(sos)[::-1], torch.tensor(sos)):
        assert_close(sosfilt(given, torch.from_numpy(x)), expected)
    assert_close(sosfilt([torch.tensor(row) for row in sos], x), expected)
    assert_close(sosfilt(sos, x.tolist()), expected)
    assert_close(sosfilt(sos, torch.from_numpy(x).int()), expected.float())
    assert_close(sosfilt(2 * np.array(sos), x), expected)  # a0 = 2, which scipy refuses
    assert sosfilt(sos, x.astype(np.float32)).dtype == torch.float32
    assert_close(sosfilt([[1j, 0, 0, 1, 0, 0]], x), torch.from_numpy(1j * x))
    y, zf = sosfilt(sos, x, zi=np.ones((2, 1, 2), int))
    assert (y.shape, zf.shape, zf.dtype) == ((2, 6), (2, 2, 2), torch.float64)
    assert_close(y.numpy(), scipy.signal.sosfilt(sos, x, zi=np.ones((2, 2, 2)))[0])


def test_sosfilt_of_nothing() -> None:
    y, zf = sosfilt(CASCADES["butter 4"], torch.zeros(3, 0), zi=torch.ones(2, 3, 2))
    assert y.shape == (3, 0)
    assert_close(zf, torch.ones(2, 3, 2))
    assert sosfilt(CASCADES["butter 4"], torch.zeros(0, 5)).shape == (0, 5)


def test_sosfilt_bank_along_another_axis() -> None:
    """Filters add dimensions in front of the signal's, not of the sections of a state; time stays where it is."""
    sos = torch.from_numpy(np.stack([CASCADES["butter 5"], CASCADES["orders 1"]]))[:, None]
    x, zi = torch.randn(7, 4).double(), torch.randn(3, 2, 2, 4).double()
    y, zf = sosfilt(sos, x, axis=0, zi=zi)
    assert (y.shape, zf.shape) == ((2, 7, 4), (3, 2, 2, 4))
    for filter in range(2):
        one_y, one_zf = sosfilt(sos[filter, 0], x, axis=0, zi=zi[:, filter])
        assert_close(y[filter], one_y)
        assert_close(zf[:, filter], one_zf)


@every_cascade
def test_sosfilt_zi(name: str) -> None:
    sos = CASCADES[name]
    zi = sosfilt_zi(sos)
    assert_close(zi.numpy(), scipy.signal.sosfilt_zi(sos), rtol=1e-9, atol=1e-10)
    assert_close(sosfilt_zi(3 * sos), zi)
    y, zf = sosfilt(sos, torch.ones(50).double(), zi=zi)
    gain = np.prod(sos[:, :3].sum(-1) / sos[:, 3:].sum(-1))
    assert_close(y, torch.full_like(y, gain), rtol=1e-9, atol=1e-9)
    assert_close(zf, zi, rtol=1e-9, atol=1e-9)


def test_sosfilt_zi_of_a_batch() -> None:
    sos = torch.from_numpy(np.stack([CASCADES["butter 5"], CASCADES["orders 1"]]))
    zi = sosfilt_zi(sos)
    assert zi.shape == (2, 3, 2)
    for one, state in zip(sos, zi, strict=True):
        assert_close(state.numpy(), scipy.signal.sosfilt_zi(one.numpy()))
    assert sosfilt_zi(sos.float()).dtype == torch.float32
    assert torch.autograd.gradcheck(sosfilt_zi, sos.clone().requires_grad_(), check_forward_ad=True)
    silent = sos.clone()
    silent[:, 0, :3] = torch.tensor([1.0, -2, 1])  # the first section has no gain, and that has a gradient too
    assert torch.autograd.gradcheck(sosfilt_zi, silent.requires_grad_(), check_forward_ad=True)

    x = 5 + 0 * torch.randn(4, 1, 30).double()  # the recipe of the docstring
    y, _ = sosfilt(sos, x, zi=(zi * x[..., :1, None]).movedim(-2, 0))
    assert_close(y, y[..., :1].expand(4, 2, 30))


def test_sosfilt_zi_without_an_answer() -> None:
    integrator = torch.tensor([[1.0, 0, 0, 1, 0, 0], [1, 0, 0, 1, -1, 0]])
    with pytest.raises(ValueError, match=r"sos\[\.\.\., 3:\] must have no pole at z = 1"):
        sosfilt_zi(integrator)
    with pytest.raises(ValueError, match=r"sos\[\.\.\., 3\] must not be zero"):
        sosfilt_zi([[1.0, 0, 0, 0, 1, 0]])
    with pytest.raises(ValueError, match=r"sos must have the shape \(\.\.\., S, 6\)"):
        sosfilt_zi([1.0, 0, 0, 0, 1, 0])
    assert not torch.vmap(sosfilt_zi)(integrator[None])[:, 1].isfinite().any()


@every_cascade
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padtype": "even"},
        {"padtype": "constant"},
        {"padtype": None},
        {"padlen": 0},
        {"padlen": 7},
        {"padtype": "even", "padlen": 39},
    ],
    ids=str,
)
def test_sosfiltfilt(name: str, options: dict[str, Any]) -> None:
    """Also where a trace does not know how many sections have b2 = 0 and a2 = 0, on which the default depends."""
    sos = CASCADES[name]
    x = np.random.default_rng(0).standard_normal((3, 40))
    y = sosfiltfilt(sos, torch.from_numpy(x), **options)
    assert y.is_contiguous()
    expected = scipy.signal.sosfiltfilt(sos, x, **options)
    bound = 1e-9 * np.abs(expected).max()
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-7, atol=bound)
    mapped = torch.vmap(lambda sos: sosfiltfilt(sos, torch.from_numpy(x), **options))(torch.from_numpy(sos)[None])
    np.testing.assert_allclose(mapped[0].numpy(), expected, rtol=1e-7, atol=bound)


def test_sosfiltfilt_of_banks_axes_and_dtypes() -> None:
    filters = [CASCADES[name] for name in ("butter 5", "ellip 6 highpass", "orders 1")]  # each with its own padlen
    bank = torch.from_numpy(np.stack(filters))
    x = np.random.default_rng(0).standard_normal((40, 2))
    y = sosfiltfilt(bank[:, None], torch.from_numpy(x), 0)
    assert y.shape == (3, 40, 2)
    for sos, one in zip(filters, y, strict=True):
        expected = scipy.signal.sosfiltfilt(sos, x, 0)
        np.testing.assert_allclose(one.numpy(), expected, atol=1e-9)
        narrow = sosfiltfilt(sos, torch.from_numpy(x).float(), 0)
        assert narrow.dtype == torch.float32
        np.testing.assert_allclose(narrow, expected, atol=1e-5)
    leaves = bank.clone().requires_grad_(), torch.from_numpy(x.T).unsqueeze(1).clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda sos, x: sosfiltfilt(sos, x, padlen=9), leaves, check_forward_ad=True)
    assert torch.autograd.gradcheck(
        lambda x: sosfiltfilt(bank, x), leaves[1], check_forward_ad=True
    )  # not for sos, of whose zeros the default is no smooth function
    assert sosfiltfilt(bank[:0], torch.ones(40)).shape == (0, 40)


@pytest.mark.parametrize("name", ["butter 5", "butter 4"])
def test_sosfiltfilt_compiled(name: str) -> None:
    sos, x = torch.from_numpy(CASCADES[name]), torch.randn(3, 40).double()
    compiled = torch.compile(sosfiltfilt, fullgraph=True, backend="aot_eager")
    assert_close(compiled(sos, x), sosfiltfilt(sos, x))
    with pytest.raises(torch._dynamo.exc.Unsupported, match="longer than padlen"):
        compiled(sos, x[:, :15])


B, A, X = torch.tensor([1.0, 0.5]), torch.tensor([1.0, -0.5]), torch.ones(2, 8)
SOS = torch.tensor([[1.0, 0.5, 0, 1, -0.5, 0]])

WRONG_CALLS: dict[str, tuple[Any, type[Exception], str]] = {
    "batches": (
        lambda: lfilter(torch.ones(3, 2), A, X),
        ValueError,
        r"must broadcast together, got x \[2, 8\], b \[3, 2\]",
    ),
    "b and a": (lambda: lfilter(torch.ones(3, 2), torch.ones(4, 2), X[0]), ValueError, "must broadcast together"),
    "empty b": (lambda: lfilter(B[:0], A, X), ValueError, r"b must have at least one coefficient, got b \[0\]"),
    "empty a": (lambda: lfilter(B, [], X), ValueError, "a must have at least one coefficient"),
    "a0": (lambda: lfilter(B, [0.0, 1.0], X), ValueError, r"a\[\.\.\., 0\] must not be zero"),
    "a0 in a bank": (
        lambda: lfilter(B, torch.tensor([[1.0], [0.0]]), X),
        ValueError,
        r"a\[\.\.\., 0\] must not be zero",
    ),
    "zi length": (lambda: lfilter(B, A, X, zi=torch.ones(2, 2)), ValueError, "the last dimension of zi must be .* = 1"),
    "zi batch": (lambda: lfilter(B, A, X, zi=torch.ones(3, 1)), ValueError, "must broadcast together"),
    "zi on axis": (
        lambda: lfilter(B, A, X, axis=0, zi=torch.ones(1)),
        ValueError,
        "zi must hold its values on axis -2",
    ),
    "axis": (lambda: lfilter(B, A, X, axis=2), ValueError, r"axis must lie in \[-2, 2\)"),
    "axis below": (lambda: lfilter(B, A, X, axis=-3), ValueError, r"axis must lie in \[-2, 2\)"),
    "axis type": (lambda: lfilter(B, A, X, axis=0.5), TypeError, "axis must be an integer"),
    "scalar x": (lambda: lfilter(B, A, X.sum()), ValueError, "x must have at least one dimension"),
    "scalar x, axis": (lambda: lfilter(B, A, X.sum(), axis=0), ValueError, "axis must lie in"),
    "string": (lambda: lfilter("ba", A, X), TypeError, "b must be a tensor, a number, .* got 'ba'"),
    "string x": (lambda: lfilter(B, A, "x"), TypeError, "x must be a tensor"),
    "None": (lambda: lfilter(B, None, X), TypeError, "a must be a tensor.* got NoneType"),
    "dict": (lambda: lfilter({}, A, X), TypeError, "b must be a tensor.* got dict"),
    "ragged": (lambda: lfilter([[1.0], [1.0, 2.0]], A, X), TypeError, "b must be a tensor.* got list"),
    "objects": (lambda: lfilter(np.array([object()]), A, X), TypeError, "b must be a tensor.* got ndarray"),
    "zi string": (lambda: lfilter(B, A, X, zi="0"), TypeError, "zi must be a tensor"),
    "devices": (
        lambda: lfilter(B.to("meta"), A, X),
        ValueError,
        "b must be on the device of x: x is on cpu, b on meta",
    ),
    "zi empty": (lambda: lfilter_zi(B[:0], A), ValueError, "b must have at least one coefficient"),
    "zi string b": (lambda: lfilter_zi("b", A), TypeError, "b must be a tensor"),
    "lfiltic": (lambda: lfiltic(B, A, torch.ones(2, 1), torch.ones(3, 1)), ValueError, "must broadcast together"),
    "short": (lambda: filtfilt(B, A, X[:, :6]), ValueError, "x must be longer than padlen = 6, got 6 samples"),
    "padlen": (lambda: filtfilt(B, A, X, padlen=-1), ValueError, "padlen must not be negative"),
    "padtype": (lambda: filtfilt(B, A, X, padtype="zero"), ValueError, 'padtype must be "odd", "even"'),
    "method": (lambda: filtfilt(B, A, X, method="fast"), ValueError, 'method must be "pad" or "gust"'),
    "irlen": (lambda: filtfilt(B, A, X, method="gust", irlen=0), ValueError, "irlen must be positive"),
    "gust of nothing": (lambda: filtfilt(B, A, X[:, :0], method="gust"), ValueError, "x must have at least one sample"),
    "sos shape": (lambda: sosfilt(SOS[:, :5], X), ValueError, r"sos must have the shape \(\.\.\., S, 6\) .* \[1, 5\]"),
    "sos vector": (lambda: sosfilt(SOS[0], X), ValueError, r"sos must have the shape \(\.\.\., S, 6\)"),
    "sos number": (lambda: sosfilt(1.0, X), ValueError, r"sos must have the shape \(\.\.\., S, 6\)"),
    "no sections": (lambda: sosfilt(SOS[:0], X), ValueError, "with S at least 1"),
    "sos string": (lambda: sosfilt("sos", X), TypeError, "sos must be a tensor"),
    "sos, scalar x": (lambda: sosfilt(SOS, X.sum()), ValueError, "x must have at least one dimension"),
    "sos a0": (lambda: sosfilt(SOS * 0, X), ValueError, r"sos\[\.\.\., 3\] must not be zero"),
    "sos axis": (lambda: sosfilt(SOS, X, 2), ValueError, r"axis must lie in \[-2, 2\)"),
    "sos batches": (
        lambda: sosfilt(SOS.expand(3, 1, 6), X),
        ValueError,
        r"must broadcast together, got x \[2, 8\], sos \[3, 1, 6\]",
    ),
    "sos zi batch": (lambda: sosfilt(SOS, X, zi=torch.ones(1, 3, 2)), ValueError, "must broadcast together"),
    "sos zi sections": (
        lambda: sosfilt(SOS, X, zi=torch.ones(2, 1, 2)),
        ValueError,
        r"zi must have the shape \(S, ..., 2, ...\): first the 1 sections .* got \[2, 1, 2\]",
    ),
    "sos zi values": (lambda: sosfilt(SOS, X, zi=torch.ones(1, 2, 1)), ValueError, "zi must have the shape"),
    "sos zi vector": (lambda: sosfilt(SOS, X, zi=torch.ones(2)), ValueError, "zi must have the shape"),
    "sos zi on axis": (lambda: sosfilt(SOS, X, 0, torch.ones(1, 2)), ValueError, "on axis -2 the 2 values"),
    "sos shape before zi": (lambda: sosfilt(SOS[0], X, zi=torch.ones(1, 2)), ValueError, "sos must have the shape"),
    "sos devices": (lambda: sosfilt(SOS.to("meta"), X), ValueError, "sos must be on the device of x"),
    "sos short": (lambda: sosfiltfilt(SOS + 1, X), ValueError, "x must be longer than padlen = 9, got 8 samples"),
    "sos padtype": (lambda: sosfiltfilt(SOS, X, padtype="zero"), ValueError, 'padtype must be "odd", "even"'),
    "sos padlen": (lambda: sosfiltfilt(SOS, X, padlen=-1), ValueError, "padlen must not be negative"),
    "sos pole at 1": (
        lambda: sosfiltfilt([[1.0, 0, 0, 1, -1, 0]], X),
        ValueError,
        r"sos\[\.\.\., 3:\] must have no pole at z = 1",
    ),
    "pole at 1": (lambda: filtfilt([1.0], [1.0, -1.0], X), ValueError, "no pole at z = 1"),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_calls(name: str) -> None:
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("name", ["batches", "empty b", "zi length", "axis", "string", "sos shape", "sos zi values"])
def test_wrong_calls_under_compile(name: str) -> None:
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(kind, match=message):
        torch.compile(call, backend="aot_eager")()
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=kind.__name__):
        torch.compile(call, backend="aot_eager", fullgraph=True)()


def test_nan_propagates() -> None:
    assert lfilter([torch.nan], A, X).isnan().all()
    assert lfilter(B, [1.0, torch.nan], X)[:, 1:].isnan().all()
    assert lfilter(B, [torch.nan, 1.0], X).isnan().all()
