"""The operators on a CUDA device. Skipped where there is none; `tools/check_gpu.sh` runs them where there is one.

TORCH_IIR_TEST_DEVICE=cpu runs what needs no CUDA of torch's on the CPU: to try out the tests themselves.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from typing import Any

import emulated
import numpy as np
import pytest
import reference
import torch
from test_accuracy import FILTERS, noise, relative_rms
from test_registry import differentiable, every_sample, leaf, outputs_of, overload, wanted_outputs
from torch import Tensor

import torch_iir
from torch_iir import fft, functional, nn, signal, transforms
from torch_iir._registration import Op

DEVICE = os.environ.get("TORCH_IIR_TEST_DEVICE", "cuda")
if DEVICE == "cuda" and not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

needs_cuda = pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA device")
lfilter = torch.ops.torch_iir.lfilter.default
FORMS: tuple[str, ...] = ("automatic", "direct", "rows")
if DEVICE == "cuda" or emulated.ASKED_FOR:
    FORMS += ("clusters", "lookback")


def moved(value: Any) -> Any:
    """A tensor on the device, with the strides and the offset that it has."""
    if not isinstance(value, Tensor):
        return value
    storage = torch.empty(0, dtype=value.dtype).set_(value.untyped_storage())  # type: ignore[call-overload]
    return storage.to(DEVICE).as_strided(value.shape, value.stride(), value.storage_offset())


def on_device(*arguments: Any) -> tuple[Any, ...]:
    return tuple(moved(argument) for argument in arguments)


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def biquad(radius: float = 0.99, angle: float = 0.3) -> tuple[Tensor, Tensor]:
    a = torch.tensor([1.0, -2 * radius * np.cos(angle), radius * radius], dtype=torch.float64)
    return torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64), a


def relative(result: Tensor, target: Tensor) -> float:
    """Root mean square of the error, relative to that of the target."""
    target = target.double()
    return float((result.cpu().double() - target).norm() / target.norm().clamp_min(1e-30))


# --- the registry


@every_sample
def test_equals_its_reference(op: type[Op], args: tuple[Any, ...]) -> None:
    results = outputs_of(overload(op)(*on_device(*args)))
    expected = outputs_of(getattr(reference, op.name)(*args))
    for result, target in zip(results, expected, strict=True):
        assert result.device.type == DEVICE
        assert tuple(result.shape) == target.shape
        if not result.dtype.is_floating_point and not result.is_complex():
            np.testing.assert_array_equal(result.cpu().numpy(), target)
            continue
        scale = max(float(np.abs(target).max(initial=0)), 1)
        atol = 1e3 * torch.finfo(result.dtype).eps * scale
        np.testing.assert_allclose(result.cpu().numpy(), target, rtol=0, atol=atol)


@every_sample
def test_opcheck(op: type[Op], args: tuple[Any, ...]) -> None:
    args = on_device(*args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about non-leaf tensors
        torch.library.opcheck(overload(op), tuple(leaf(arg) for arg in args))
        torch.library.opcheck(overload(op), args, test_utils=("test_schema", "test_faketensor"))


@every_sample
def test_gradients(op: type[Op], args: tuple[Any, ...]) -> None:
    args = differentiable(on_device(*args))
    torch.autograd.gradcheck(
        wanted_outputs(op, args), args, check_forward_ad=True, check_batched_grad=True, check_undefined_grad=True
    )


@every_sample
def test_gradients_of_gradients(op: type[Op], args: tuple[Any, ...]) -> None:
    args = differentiable(on_device(*args))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.autograd.gradgradcheck(wanted_outputs(op, args), args, check_fwd_over_rev=True, atol=1e-4, fast_mode=True)


@needs_cuda
@every_sample
def test_graph_replay_is_eager(op: type[Op], args: tuple[Any, ...]) -> None:
    """Captured once, replayed on other numbers in the same memory, and twice the same bits."""
    args = on_device(*args)
    if any(isinstance(arg, Tensor) and arg.numel() == 0 for arg in args):
        pytest.skip("an empty graph")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            overload(op)(*args)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = outputs_of(overload(op)(*args))
    for arg in args[:1]:
        if isinstance(arg, Tensor) and 0 not in arg.stride():
            arg.mul_(0.5)
    expected = [output.clone() for output in outputs_of(overload(op)(*args))]
    for _ in range(2):
        graph.replay()
        for output, target in zip(outputs, expected, strict=True):
            torch.testing.assert_close(output, target, rtol=0, atol=0, equal_nan=True)


# --- every form of lfilter


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("order", [0, 1, 2, 3, 5, 8, 11, 32, 40])
def test_forms(form: str, dtype: torch.dtype, order: int) -> None:
    generator = torch.Generator().manual_seed(order)
    eps = torch.finfo(dtype).eps
    for rows, samples in ((1, 1), (3, 31), (2, 4097), (5, 20_001), (1, 100_003)):
        x = torch.randn(rows, samples, generator=generator, dtype=torch.float64).to(dtype)
        b = torch.randn(order + 1, generator=generator, dtype=torch.float64)
        a = torch.cat([torch.ones(1), 0.9 / max(order, 1) * torch.rand(order, generator=generator)]).double()
        zi = torch.randn(rows, order, generator=generator, dtype=torch.float64)
        with torch_iir.algorithm("direct"):
            target, target_zf = lfilter(x, b, a, zi)
        with torch_iir.algorithm(form):
            if form in ("clusters", "lookback", "rows") and order > 8:
                with contextlib.suppress(RuntimeError):  # a form that is forced may refuse; what it takes is right
                    y, zf = lfilter(*on_device(x, b, a, zi))
                    assert relative(y, target) <= max(2 * eps, 1e-12), (rows, samples)
                continue
            y, zf = lfilter(*on_device(x, b, a, zi))
        assert relative(y, target) <= max(2 * eps, 1e-12), (rows, samples)
        if order:
            assert relative(zf, target_zf) <= max(2 * eps, 1e-12) + (1e-7 if zf.dtype == torch.float32 else 0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FILTERS)
def test_accuracy(name: str, form: str, record_property: Callable[[str, object], None]) -> None:
    """float32 within 1e-7 of the exact filter, float64 within 1e-10; scipy's poles at their worst."""
    b, a = FILTERS[name]
    for dtype, most in ((np.float32, 1e-7), (np.float64, 1e-10)):
        x = noise().astype(dtype)
        exact, _ = reference.lfilter(x.astype(np.longdouble), b.astype(np.longdouble), a.astype(np.longdouble))
        given = on_device(torch.from_numpy(x), torch.from_numpy(b), torch.from_numpy(a))
        with torch_iir.algorithm(form):
            error = relative_rms(lfilter(*given)[0].cpu().numpy(), exact)
        record_property(f"accuracy {np.dtype(dtype).name} {name} {form}", error)
        assert error <= most


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("radius", [1.1, 2.0])
def test_unstable_until_overflow(form: str, radius: float) -> None:
    b, a = biquad(radius)
    x = torch.randn(1, 12_000, dtype=torch.float64)
    with torch_iir.algorithm("direct"):
        target = lfilter(x, b, a)[0]
    with torch_iir.algorithm(form):
        y = lfilter(*on_device(x, b, a))[0].cpu()
    finite = target.isfinite()
    last = int(finite.sum())
    assert last < 12_000
    near = slice(0, last - 64)
    scale = target[:, near].abs().cummax(-1).values
    assert bool(((y - target)[:, near].abs() <= 1e-8 * scale).all())
    assert not bool(y[:, last + 1 :].isfinite().any())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_sample_changes_none_before_it(form: str, bad: float) -> None:
    b, a = biquad()
    x = torch.randn(2, 30_000)
    spoiled = x.clone()
    spoiled[:, 17_777] = bad
    with torch_iir.algorithm(form):
        y, z = (lfilter(*on_device(given, b, a))[0].cpu() for given in (x, spoiled))
    assert torch.equal(y[:, :17_777], z[:, :17_777])
    assert not bool(z[:, 17_777:].isfinite().any())


@pytest.mark.parametrize("form", FORMS)
def test_cut_anywhere(form: str) -> None:
    b, a = biquad()
    x, b, a = on_device(torch.randn(3, 9000, dtype=torch.float64), b, a)
    with torch_iir.algorithm(form):
        whole, end = lfilter(x, b, a)
        for cut in (1, 2, 31, 4095, 4096, 4097, 8999):
            first, state = lfilter(x[:, :cut], b, a)
            second, final = lfilter(x[:, cut:], b, a, state)
            torch.testing.assert_close(torch.cat([first, second], -1), whole, rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(final, end, rtol=1e-11, atol=1e-11)


def views(x: Tensor) -> list[Tensor]:
    """The same samples, laid out otherwise."""
    rows, samples = x.shape
    flat = torch.empty(x.numel() + 3, dtype=x.dtype, device=x.device)
    shifted = flat[3:].view(rows, samples)
    shifted.copy_(x)
    wide = torch.empty(rows, 2 * samples + 1, dtype=x.dtype, device=x.device)
    wide[:, 1::2].copy_(x)
    return [shifted, wide[:, 1::2], x.t().contiguous().t()]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_misaligned_and_strided_views(dtype: torch.dtype) -> None:
    b, a = on_device(*biquad())
    x = moved(torch.randn(7, 10_001).to(dtype))
    target, _ = lfilter(x, b, a)
    for view in views(x):
        assert torch.equal(lfilter(view, b, a)[0], target)


def test_bank_and_its_gradients() -> None:
    filters, batch, samples = 33, 3, 9001
    b = torch.randn(filters, 3, dtype=torch.float64)
    a = torch.stack([torch.ones(filters), torch.rand(filters) - 0.5, 0.5 * torch.rand(filters)], -1).double()
    x, weights = torch.randn(batch, 1, samples), torch.randn(batch, filters, samples)
    results = []
    for device in ("cpu", DEVICE):
        leaves = [tensor.to(device).requires_grad_() for tensor in (x, b, a)]
        y, _ = lfilter(*leaves)
        results.append([y, *torch.autograd.grad((y * weights.to(device)).sum(), leaves)])
    for target, result in zip(*results, strict=True):
        assert relative(result.detach(), target.detach()) <= 2e-6


# --- streams, repeats, sizes


@needs_cuda
def test_delayed_producer_on_another_stream() -> None:
    b, a = on_device(*biquad())
    stream = torch.cuda.Stream()
    x = torch.zeros(64, 50_000, device="cuda")
    torch.cuda.synchronize()
    target, _ = lfilter(torch.ones_like(x), b, a)
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        x.fill_(1)
        y, _ = lfilter(x, b, a)
    stream.synchronize()
    assert torch.equal(y, target)


@needs_cuda
def test_two_streams_at_once() -> None:
    b, a = on_device(*biquad())
    inputs = [torch.randn(4, 300_000, device="cuda") for _ in range(2)]
    targets = [lfilter(x, b, a)[0] for x in inputs]
    streams = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    for _ in range(20):
        results = []
        for x, stream in zip(inputs, streams, strict=True):
            with torch.cuda.stream(stream):
                results.append(lfilter(x, b, a)[0])
        torch.cuda.synchronize()
        for result, target in zip(results, targets, strict=True):
            assert torch.equal(result, target)


@needs_cuda
@pytest.mark.skipif(DEVICE == "cuda" and torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_second_gpu() -> None:
    b, a = biquad()
    x = torch.randn(3, 10_000)
    target = lfilter(x.cuda(0), b.cuda(0), a.cuda(0))[0]
    assert torch.cuda.current_device() == 0
    y = lfilter(x.cuda(1), b.cuda(1), a.cuda(1))[0]
    assert y.device == torch.device("cuda", 1)
    assert torch.equal(y.cpu(), target.cpu())


REPEATS: dict[str, Callable[[], Any]] = {}


def repeated(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def keep(make: Callable[[], Any]) -> Callable[[], Any]:
        REPEATS[name] = make
        return make

    return keep


def training(form: str, rows: int, samples: int, *more: int) -> Callable[[], list[Tensor]]:
    """A call and its gradients."""
    b, a = (tensor.expand(*more, 3).clone().requires_grad_() for tensor in on_device(*biquad()))
    x = moved(torch.randn(rows, *(1 for _ in more), samples)).requires_grad_()

    def run() -> list[Tensor]:
        with torch_iir.algorithm(form if form in FORMS else "automatic"):
            y, zf = lfilter(x, b, a)
            gradients = torch.autograd.grad(y.square().sum() + zf.sum(), (x, b, a))
        return [y, zf, *gradients]

    return run


repeated("rows")(lambda: training("rows", 300, 5000))
repeated("clusters")(lambda: training("clusters", 8, 50_000))
repeated("lookback")(lambda: training("lookback", 1, 300_000))
repeated("bank")(lambda: training("automatic", 4, 5000, 40))
repeated("shared filter")(lambda: training("automatic", 1000, 700))


@repeated("sosfilt")
def _sosfilt() -> Callable[[], list[Tensor]]:
    sos = moved(torch.tensor([[0.2, 0.3, 0.1, 1, -1.2, 0.5]] * 5, dtype=torch.float64)).requires_grad_()
    x = moved(torch.randn(6, 30_000)).requires_grad_()

    def run() -> list[Tensor]:
        y = signal.sosfilt(sos, x)
        return [y, *torch.autograd.grad(y.square().sum(), (x, sos))]

    return run


@repeated("lfilter_tv")
def _lfilter_tv() -> Callable[[], list[Tensor]]:
    a = moved(0.2 * torch.randn(2, 20_000, 2)).requires_grad_()
    x = moved(torch.randn(2, 20_000)).requires_grad_()

    def run() -> list[Tensor]:
        y, zf = torch.ops.torch_iir.lfilter_tv(x, None, a)
        return [y, zf, *torch.autograd.grad(y.square().sum(), (x, a))]

    return run


@repeated("nnls")
def _nnls() -> Callable[[], list[Tensor]]:
    fb = functional.melscale_fbanks(513, 0.0, 8000.0, 64, 16000).to(DEVICE)
    inverse = transforms.InverseMelScale(513, 64, 16000).to(DEVICE)
    mel = (torch.rand(513, 200, device=DEVICE).T @ fb).T.contiguous()
    return lambda: [inverse(mel)]


@pytest.mark.parametrize("name", REPEATS)
def test_repeats_have_the_same_bits(name: str) -> None:
    run = REPEATS[name]()
    first = run()
    for _ in range(1000 if DEVICE == "cuda" else 3):
        for result, target in zip(run(), first, strict=True):
            assert torch.equal(result, target)


@needs_cuda
def test_lookback_with_more_tiles_than_blocks() -> None:
    b, a = on_device(*biquad(0.9999))
    x = torch.randn(1, 40_000_000, device="cuda")
    with torch_iir.algorithm("lookback"):
        y, zf = lfilter(x, b, a)
    with torch_iir.algorithm("rows"):
        target, target_zf = lfilter(x, b, a)
    assert relative(y, target.cpu()) <= 1e-7
    torch.testing.assert_close(zf, target_zf, rtol=1e-4, atol=1e-5)


@needs_cuda
@pytest.mark.parametrize("shape", [(1, 2**31 + 5001), (2**20 + 3, 2049)], ids=["long", "many"])
def test_more_than_2_to_the_31_elements(shape: tuple[int, int]) -> None:
    if torch.cuda.get_device_properties(0).total_memory < 40 << 30:
        pytest.skip("needs 40 GB")
    b, a = biquad(0.9)
    x = torch.empty(shape, device="cuda", dtype=torch.float16)
    x.random_(-3, 4)
    y, _ = lfilter(x, *on_device(b, a))
    for row in (0, shape[0] - 1):
        end = x[row, -3000:].cpu()
        target, _ = lfilter(end, b, a)
        assert relative(y[row, -1500:], target[-1500:]) <= 1e-3
    gx = torch.ops.torch_iir.lfilter_backward(y, None, x, *on_device(b, a), None, y, 1)[0]
    flipped, _ = lfilter(y[-1, :3000].cpu().flip(-1), b, a)
    assert relative(gx[-1, :1500], flipped.flip(-1)[:1500]) <= 1e-2


# --- what users do


def test_first_wrong_calls() -> None:
    b, a = on_device(*biquad())
    x = moved(torch.randn(3, 100))
    if DEVICE == "cuda":
        with pytest.raises((ValueError, RuntimeError), match=r"device|on the"):
            signal.lfilter(b.cpu(), a, x)
        with pytest.raises(RuntimeError):
            lfilter(x, b.cpu(), a)
        zero, _ = lfilter(x, b, torch.zeros_like(a))  # not looked for: it would have to be waited for
        assert not bool(zero.isfinite().any())
    with pytest.raises(ValueError, match="broadcast"):
        signal.lfilter(b.expand(2, 3), a, x)
    with pytest.raises(RuntimeError, match="broadcast"):
        lfilter(x, b.expand(2, 3), a)
    assert bool(torch.isfinite(signal.lfilter(b, a, x)).all())


def test_compiled_training_step() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bank = nn.BiquadBank(8, 16000)
            self.eq = nn.ParametricEQ(3, 16000)

        def forward(self, x: Tensor) -> Tensor:
            return self.eq(self.bank(x)).square().mean()

    torch.manual_seed(0)
    model = Model().to(DEVICE)
    x = moved(torch.randn(2, 4000))
    eager = torch.autograd.grad(model(x), list(model.parameters()))
    compiled = torch.compile(model, fullgraph=True)
    for result, target in zip(torch.autograd.grad(compiled(x), list(model.parameters())), eager, strict=True):
        torch.testing.assert_close(result, target, rtol=1e-4, atol=1e-5)


def test_streaming_module_and_autocast() -> None:
    filtered = nn.LFilter.from_coefficients([0.3, 0.2], [1.0, -0.5], stream=True).to(DEVICE)
    x = moved(torch.randn(2, 1000))
    whole = signal.lfilter(filtered.coefficients()[0], filtered.coefficients()[1], x)
    chunks = torch.cat([filtered(chunk) for chunk in x.split(333, -1)], -1)
    torch.testing.assert_close(chunks, whole, rtol=1e-5, atol=1e-5)
    with torch.autocast(DEVICE, torch.bfloat16):
        assert lfilter(x.bfloat16(), *on_device(*biquad()))[0].dtype == torch.float32


def test_frequency_sampled_filters_and_convolution() -> None:
    b, a = biquad(0.9)
    x = torch.randn(3, 500)
    target = signal.lfilter(b, a, x)
    torch.testing.assert_close(
        signal.lfilter_fsm(*on_device(b, a, x)).cpu(), target, rtol=1e-4, atol=1e-4, check_dtype=False
    )
    h = torch.randn(40)
    torch.testing.assert_close(
        signal.fftconvolve(*on_device(x, h.expand(3, 40))).cpu(),
        signal.fftconvolve(x, h.expand(3, 40)),
        rtol=1e-4,
        atol=1e-4,
    )
    spectrum = fft.rfft(moved(x))
    torch.testing.assert_close(fft.irfft(spectrum, 500).cpu(), x, rtol=1e-5, atol=1e-5)


def test_inverse_mel_scale() -> None:
    for tie_break in ("min_norm", "entropy"):
        inverse = transforms.InverseMelScale(257, 40, 16000, tie_break=tie_break)
        mel = (torch.rand(257, 50).T @ inverse.fb).T.contiguous()
        torch.testing.assert_close(inverse.to(DEVICE)(moved(mel)).cpu(), inverse.cpu()(mel), rtol=1e-3, atol=1e-4)
