"""Other libraries' calls become ours while the backend traces, and at no other time.

What Dynamo is made to do is tested on functions made for it; torchaudio's and torchlpc's own where they are installed.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from types import MethodType, ModuleType
from typing import Any
from unittest.mock import Mock

import libraries
import pytest
import torch
from torch.testing import assert_close

import torch_iir
from torch_iir.compiler import _backend, _dynamo
from torch_iir.compiler._backend import backend

Function = Callable[..., Any]


class Traced:
    """The backend without Inductor: the graphs, and what was substituted in each."""

    def __init__(self) -> None:
        self.graphs: list[str] = []
        self.substituted: list[list[str]] = []

    def inductor(self, gm: torch.fx.GraphModule, example_inputs: Sequence[Any], mode: Any, options: Any) -> Function:
        self.graphs.append(str(gm.graph))
        self.substituted.append(_dynamo.substituted())
        return gm.forward  # type: ignore[no-any-return]

    def compile(self, f: Function, *, fullgraph: bool = True, **options: bool) -> Function:
        torch._dynamo.reset()
        ours = {f"torch_iir.{name}": value for name, value in options.items()}
        return torch.compile(f, backend=backend, fullgraph=fullgraph, options=ours)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Traced:
    result = Traced()
    monkeypatch.setattr(_backend, "inductor", result.inductor)
    return result


# --- what is done to Dynamo, on functions of this file


def theirs(x: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
    return inner(x) * factor


def inner(x: torch.Tensor) -> torch.Tensor:
    return x.sin()


def ours(x: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
    return x.cos() * factor


def ours_inner(x: torch.Tensor) -> torch.Tensor:
    return x.cos()


def unless_three(tx: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Function | None:
    numbers = [value for value in [*args, *kwargs.values()] if value.is_python_constant()]
    return None if any(number.as_python_constant() == 3 for number in numbers) else ours


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    _dynamo.register(theirs, unless_three, "theirs")
    _dynamo.register(inner, lambda tx, args, kwargs: ours_inner, "inner")


X = torch.linspace(0.5, 1, 5)


@pytest.mark.parametrize(
    "call",
    [
        theirs,
        lambda x: theirs(x),
        lambda x: theirs(x=x),
        lambda x: theirs(x, 5),
        lambda x: theirs(x, factor=5),
        lambda x: list(map(theirs, [x]))[0],  # noqa: RUF015  (that is the point)
        lambda x: functools.partial(theirs, factor=5)(x),
    ],
    ids=["root", "positional", "keyword", "default", "mixed", "map", "partial"],
)
def test_a_call_is_replaced(traced: Traced, call: Function) -> None:
    y = traced.compile(call)(X)
    assert traced.substituted == [["inner" if call is theirs else "theirs"]]
    assert_close(y, call(X) / X.sin() * X.cos())


def test_what_decides_sees_the_arguments(traced: Traced) -> None:
    f = traced.compile(lambda x: (theirs(x, 3), theirs(x, factor=3), theirs(x, 4)))
    assert_close(f(X), (3 * X.cos(), 3 * X.cos(), 4 * X.cos()))
    assert traced.substituted == [["inner", "inner", "theirs"]]


def test_the_function_stays_itself(traced: Traced) -> None:
    def f(x: torch.Tensor) -> Any:
        return x + 1, theirs, theirs is f.same, theirs.__name__, theirs == f.same  # type: ignore[attr-defined]

    f.same = theirs  # type: ignore[attr-defined]
    assert traced.compile(f)(X)[1:] == (theirs, True, "theirs", True)
    assert traced.substituted == [[]]


def test_other_backends_and_eager_code_are_untouched(traced: Traced) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return theirs(x) + theirs(x, 3)

    plain = GraphOf()
    for _ in range(2):  # before and after
        torch._dynamo.reset()
        assert_close(torch.compile(f, backend=plain, fullgraph=True)(X), f(X))
        assert_close(traced.compile(f)(X), 5 * X.cos())
    assert plain.graphs[0] == plain.graphs[1]
    assert "cos" not in plain.graphs[0]
    assert_close(f(X), 5 * X.sin())


class GraphOf:
    """A backend that keeps the graphs."""

    def __init__(self) -> None:
        self.graphs: list[str] = []

    def __call__(self, gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Function:
        self.graphs.append(str(gm.graph))
        return gm.forward  # type: ignore[no-any-return]


def test_one_function_compiled_with_two_backends(traced: Traced) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return theirs(x)

    mine, plain = traced.compile(f), torch.compile(f, backend="eager")
    for _ in range(2):
        assert_close(mine(X), 2 * X.cos())
        assert_close(plain(X), 2 * X.sin())
    assert len(traced.graphs) == 1


@pytest.mark.skipif(torch.__version__ < "2.13", reason="torch 2.11 itself crashes when two threads compile")
def test_two_threads_with_two_backends(traced: Traced) -> None:
    results: list[tuple[torch.Tensor, torch.Tensor]] = []

    def compiles(backend_: Any, sine: Function) -> None:
        f = torch.compile(lambda x: theirs(x), backend=backend_, fullgraph=True)
        for dims in range(1, 5):
            x = X.reshape(5, *[1] * dims)
            results.append((f(x), 2 * sine(x)))

    threads = [threading.Thread(target=compiles, args=args) for args in ((backend, torch.cos), ("eager", torch.sin))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for result, expected in results:
        assert_close(result, expected)
    assert traced.substituted == 4 * [["theirs"]]


def test_what_is_recorded_is_of_one_graph(traced: Traced) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        y = theirs(theirs(x))
        torch._dynamo.graph_break()
        return theirs(y)

    assert _dynamo.substituted() == []
    g = traced.compile(f, fullgraph=False)
    g(X)
    assert traced.substituted == [["theirs", "theirs"], ["theirs"]]  # the break had Dynamo start again
    g(torch.ones(2, 2))
    assert traced.substituted[2:] == [["theirs", "theirs"], ["theirs"]]
    assert _dynamo.substituted() == []


def test_dry_only_records(traced: Traced) -> None:
    y = traced.compile(lambda x: theirs(x) + inner(x), dry=True)(X)
    assert_close(y, 3 * X.sin())
    assert traced.substituted == [["theirs", "inner"]]  # not the inner of theirs: that would not have been called


def test_registering_again_does_nothing(traced: Traced) -> None:
    _dynamo.register(theirs, lambda tx, args, kwargs: ours_inner, "again")
    traced.compile(lambda x: theirs(x))(X)
    assert traced.substituted == [["theirs"]]


def test_the_backend_is_known_through_its_wrappers() -> None:
    from torch._dynamo.backends.distributed import DDPOptimizer
    from torch._dynamo.repro.after_dynamo import WrapBackendDebug

    @functools.wraps(backend)
    def wrapped(gm: Any, example_inputs: Any, **kwargs: Any) -> Any:
        return backend(gm, example_inputs, **kwargs)

    def compiled(backend_: Any, **options: bool) -> Any:
        return WrapBackendDebug(torch._TorchCompileWrapper(backend_, None, options or None, None), "name")

    dry = {"torch_iir.dry": True}
    partial = functools.partial(backend, options=dry)
    of_ddp = DDPOptimizer(2**30, torch._TorchCompileWrapper(backend, None, dry, None)).compile_fn
    assert isinstance(of_ddp, MethodType)
    for ours_ in (backend, compiled(backend), compiled(wrapped)):
        assert _dynamo.backend_options(ours_) == _backend.Options()
    for ours_ in (partial, compiled(partial), compiled(backend, **dry), of_ddp):
        assert _dynamo.backend_options(ours_) == _backend.Options(dry=True)
    inductor = torch._TorchCompileInductorWrapper(None, None, None)
    for other in (None, compiled("eager"), compiled(Mock()), Mock(), WrapBackendDebug(inductor, "inductor"), GraphOf()):
        assert _dynamo.backend_options(other) is None


def test_wrong_options_are_told_by_the_backend(traced: Traced) -> None:
    with pytest.raises(Exception, match=r"torch_iir\.nonsense") as caught:
        traced.compile(lambda x: theirs(x), nonsense=True)(X)
    assert type(caught.value).__name__ == "BackendCompilerFailed"


# --- what is found of the libraries


def library(monkeypatch: pytest.MonkeyPatch, name: str, source: str, **globals: Any) -> ModuleType:
    """A module that is not the real one, imported."""
    module = ModuleType(name)
    vars(module).update(globals, torch=torch)
    exec(textwrap.dedent(source), vars(module))
    monkeypatch.setitem(sys.modules, name, module)
    return module


LPC = """
def sample_wise_lpc(x, a, zi=None, return_zf=False):
    return x.clone()
"""


@pytest.mark.parametrize("reset", [False, True])
def test_what_is_imported_later(traced: Traced, monkeypatch: pytest.MonkeyPatch, reset: bool) -> None:
    def f(x: torch.Tensor, a: torch.Tensor) -> Any:
        return sys.modules["torchlpc"].sample_wise_lpc(x, a)

    x, a = torch.ones(1, 4), torch.full((1, 4, 1), -0.5)
    g = traced.compile(f)
    library(monkeypatch, "torchlpc", LPC)
    if reset:  # it clears Dynamo's callbacks, ours among them
        torch._dynamo.reset()
    assert_close(g(x, a), torch.tensor([[1.0, 1.5, 1.75, 1.875]]))
    assert traced.substituted == [["torchlpc.sample_wise_lpc"]]
    assert_close(f(x, a), x)


@pytest.mark.parametrize(
    "source",
    [
        LPC.replace("zi=None", "zi=0"),
        LPC.replace("zi", "initial"),
        LPC.replace("a, zi=None, return_zf=False", "a, zi=None, return_zf=False, backend=None"),
        LPC + "sample_wise_lpc.__module__ = 'another.library'",
        LPC + "sample_wise_lpc = torch.compiler.disable(sample_wise_lpc)",
        LPC + "del sample_wise_lpc",
        LPC + "sample_wise_lpc = len",
    ],
    ids=["default", "name", "more", "foreign", "wrapped", "absent", "builtin"],
)
def test_what_is_not_as_expected_is_left_alone(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    library(monkeypatch, "torchlpc", source)
    assert not any(s.name.startswith("torchlpc") for s in _dynamo._substitutions.found())


def test_nothing_is_imported() -> None:
    code = """
        import sys, torch, torch_iir, torch_iir.compiler
        assert "torch._dynamo" not in sys.modules
        from torch_iir.compiler import _backend
        _backend.inductor = lambda gm, example_inputs, mode, options: gm.forward
        torch.compile(lambda x: x + 1, backend=_backend.backend)(torch.ones(3))
        assert not {"torchaudio", "torchlpc"} & sys.modules.keys()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=libraries.ENVIRONMENT)


# --- torchaudio


A, B = torch.tensor([2.0, -1.0, 0.5]).double(), torch.tensor([0.5, 0.25, 0.125]).double()
AS, BS = torch.stack([A, A / 3]), torch.stack([B, B * 2])
ONE = torch.tensor([900.0]).double()  # torchaudio takes a tensor of one element for a number

CALLS: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "lfilter": lambda F, x: F.lfilter(x, A, B),
    "lfilter unclamped": lambda F, x: F.lfilter(waveform=3 * x, b_coeffs=B, a_coeffs=A, clamp=False),
    "lfilter batching": lambda F, x: F.lfilter(x, AS, BS),
    "lfilter every": lambda F, x: F.lfilter(x, AS, BS, True, False),
    "filtfilt": lambda F, x: F.filtfilt(x, A, B, clamp=False),
    "biquad": lambda F, x: F.biquad(x, 0.5, 0.25, torch.tensor(0.1), 2.0, torch.tensor([-0.5]), a2=0.25),
    "allpass_biquad": lambda F, x: F.allpass_biquad(x, 16000, 900.0),
    "band_biquad": lambda F, x: F.band_biquad(x, 16000, central_freq=900.0, Q=1.0, noise=True),
    "bandpass_biquad": lambda F, x: F.bandpass_biquad(x, 16000, 900.0, 1.0, True),
    "bandreject_biquad": lambda F, x: F.bandreject_biquad(x, 16000, ONE, Q=ONE / 900),
    "bass_biquad": lambda F, x: F.bass_biquad(x, 16000, 3.0),
    "deemph_biquad": lambda F, x: F.deemph_biquad(x, sample_rate=44100),
    "equalizer_biquad": lambda F, x: F.equalizer_biquad(x, 16000, 900.0, 3.0),
    "highpass_biquad": lambda F, x: F.highpass_biquad(waveform=x, sample_rate=16000, cutoff_freq=900.0),
    "lowpass_biquad": lambda F, x: F.lowpass_biquad(x[0, 0], 16000, ONE),
    "riaa_biquad": lambda F, x: F.riaa_biquad(x, 44100),
    "treble_biquad": lambda F, x: F.treble_biquad(x, 16000, -3.0, Q=1.0),
}


@pytest.fixture
def x() -> torch.Tensor:
    return (torch.rand(3, 2, 12).double() - 0.5).requires_grad_()


@pytest.mark.parametrize("name", CALLS)
def test_a_filter_of_torchaudio(F: Any, traced: Traced, x: torch.Tensor, name: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return CALLS[name](F, x)  # type: ignore[no-any-return]

    y, exact = traced.compile(f)(x), f(x)
    assert traced.substituted == [["torchaudio.functional." + name.split()[0]]]
    assert "torch_iir.lfilter" in traced.graphs[0]
    assert y.shape == exact.shape
    assert_close(y, exact, rtol=0, atol=1e-13)
    # torchaudio has no gradients without its compiled part: they are differences of its values
    g, d = torch.randn_like(exact), torch.randn_like(x)
    (gradient,) = torch.autograd.grad(y, x, g)
    assert_close((gradient * d).sum(), slope(lambda h: (f(x + h * d) * g).sum()), rtol=0, atol=1e-8)


def slope(f: Callable[[float], torch.Tensor], h: float = 1e-5) -> torch.Tensor:
    with torch.no_grad():
        return (f(h) - f(-h)) / (2 * h)


@pytest.mark.parametrize("name", [name for name in CALLS if "_" in name])  # lfilter's coefficients are as the waveform
def test_in_single_precision_it_is_closer_to_double(F: Any, traced: Traced, x: torch.Tensor, name: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return CALLS[name](F, x)  # type: ignore[no-any-return]

    x = x.detach().float()
    exact, y = f(x.double()), traced.compile(f)(x)
    assert y.dtype == torch.float32
    assert_close(y.double(), exact, rtol=2**-23, atol=2**-30)
    assert (f(x) - exact).abs().max() > (y - exact).abs().max()


def test_gradients_of_coefficients(F: Any, traced: Traced, x: torch.Tensor) -> None:
    def f(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return F.lfilter(x, a, b, clamp=False).square().sum()  # type: ignore[no-any-return]

    a, b = AS.clone().requires_grad_(), BS.clone().requires_grad_()
    da, db = torch.autograd.grad(traced.compile(f)(x, a, b), (a, b))
    d = torch.randn_like(a)
    assert_close((da * d).sum(), slope(lambda h: f(x, AS + h * d, BS)), rtol=1e-7, atol=0)
    assert_close((db * d).sum(), slope(lambda h: f(x, AS, BS + h * d)), rtol=1e-7, atol=0)


@pytest.mark.parametrize(
    ("name", "arguments", "inside"),
    [
        ("lfilter", (A, B), ["lfilter"]),
        ("filtfilt", (A, B), ["lfilter", "lfilter"]),
        ("biquad", (0.5, 0.25, 0.1, 2.0, -0.5, 0.25), ["lfilter"]),
        ("lowpass_biquad", (16000, 900.0), ["biquad"]),
    ],
)
def test_a_function_of_torchaudio_compiled_by_itself(
    F: Any, traced: Traced, x: torch.Tensor, name: str, arguments: Any, inside: list[str]
) -> None:
    theirs = getattr(F, name)
    assert_close(traced.compile(theirs)(x, *arguments), theirs(x, *arguments), rtol=0, atol=1e-13)
    assert traced.substituted == [["torchaudio.functional." + n for n in inside]]


def test_what_ours_refuses_is_theirs(F: Any, traced: Traced, x: torch.Tensor) -> None:
    def beyond(x: torch.Tensor) -> torch.Tensor:
        return F.lowpass_biquad(x, 16000, 8100.0)  # type: ignore[no-any-return]

    with pytest.raises(ValueError, match="half of sample_rate"):
        torch_iir.functional.lowpass_biquad(x, 16000, 8100.0)
    assert_close(traced.compile(beyond)(x), beyond(x), rtol=1e-11, atol=1e-11)
    assert traced.substituted == [["torchaudio.functional.lowpass_biquad", "torchaudio.functional.biquad"]]


def test_numbers_that_change(F: Any, traced: Traced, x: torch.Tensor) -> None:
    f = traced.compile(lambda x, cutoff: F.lowpass_biquad(x, 16000, cutoff))
    for cutoff in (900.0, 700.0, 500.0):
        assert_close(f(x, cutoff), F.lowpass_biquad(x, 16000, cutoff), rtol=0, atol=1e-13)


def test_calls_within_torchaudio(F: Any, traced: Traced) -> None:
    x = torch.rand(1, 8000).double() - 0.5
    y = traced.compile(lambda x: F.loudness(x, 16000))(x)
    assert traced.substituted == [["torchaudio.functional.treble_biquad", "torchaudio.functional.highpass_biquad"]]
    shelved = torch_iir.functional.treble_biquad(x, 16000, 4.0, 1500.0, 1 / 2**0.5)
    power = torch_iir.functional.highpass_biquad(shelved, 16000, 38.0, 0.5).square().mean()
    assert_close(y, (-0.691 + 10 * power.log10()).expand_as(y), rtol=0, atol=0.1)  # of one block: nothing to gate


SPECTROGRAM, WINDOW = torch.rand(2, 17, 6).double(), torch.hann_window(32).double()


@pytest.mark.parametrize("options", [{"substitute": False}, {"dry": True}])
def test_on_request_nothing_is_substituted(F: Any, traced: Traced, options: dict[str, bool]) -> None:
    def f(specgram: torch.Tensor) -> torch.Tensor:
        return F.griffinlim(specgram, WINDOW, 32, 8, 32, 2.0, 3, 0.9, None, False)  # type: ignore[no-any-return]

    assert torch.equal(traced.compile(f, **options)(SPECTROGRAM), f(SPECTROGRAM))
    assert "istft" in traced.graphs[0]
    assert traced.substituted == [["torchaudio.functional.griffinlim"] if "dry" in options else []]


def test_griffinlim(torchaudio: Any, F: Any, traced: Traced) -> None:
    module = torchaudio.transforms.GriffinLim(32, 4, power=1.0).double()
    for f in (
        lambda s: F.griffinlim(s, WINDOW, 32, 8, 32, 2.0, 3, 0.9, length=None, rand_init=True),
        lambda s: F.griffinlim(s, WINDOW, 32, 8, 32, 2.0, 3, 0.9, None, False),
        lambda s: F.griffinlim(s, WINDOW, 32, None, None, 2.0, 3, 0.9, None, False),
        lambda s: module(s),
        module,
    ):
        g = traced.compile(f)
        results = []
        for call in (g, f):
            torch.manual_seed(0)
            results.append(call(SPECTROGRAM))
        assert_close(*results, rtol=0, atol=1e-10)
    assert traced.substituted == 5 * [["torchaudio.functional.griffinlim"]]


@pytest.fixture
def inverse_mel(torchaudio: Any) -> Any:
    return torchaudio.transforms.InverseMelScale(33, 8, driver="gelsd")


def expected_spectrogram(inverse_mel: Any, mel: torch.Tensor) -> torch.Tensor:
    module = torch_iir.transforms.InverseMelScale(33, 8)
    module.fb = inverse_mel.fb
    return module(mel)  # type: ignore[no-any-return]


@pytest.mark.parametrize("shape", [(8, 5), (2, 3, 8, 5)])
def test_inverse_mel_on_request(traced: Traced, inverse_mel: Any, shape: tuple[int, ...]) -> None:
    mel = torch.rand(shape, requires_grad=True)
    expected = expected_spectrogram(inverse_mel, mel)
    assert (inverse_mel(mel) - expected).abs().max() > 0.01
    g = torch.randn_like(expected)
    for f in (inverse_mel, lambda mel: torch.nn.Sequential(inverse_mel)(mel)):
        y = traced.compile(f, inverse_mel=True)(mel)
        assert torch.equal(y, expected)
        assert_close(*(torch.autograd.grad(result, mel, g, retain_graph=True)[0] for result in (y, expected)))
    assert traced.substituted == 2 * [["torchaudio.transforms.InverseMelScale"]]


@pytest.mark.parametrize("options", [{}, {"inverse_mel": True, "substitute": False}])
def test_inverse_mel_otherwise(traced: Traced, inverse_mel: Any, options: dict[str, bool]) -> None:
    mel = torch.rand(8, 5)
    assert_close(traced.compile(inverse_mel, fullgraph=False, **options)(mel), inverse_mel(mel))
    assert not any(traced.substituted)


def test_other_least_squares(traced: Traced, inverse_mel: Any) -> None:
    def f(a: torch.Tensor, b: torch.Tensor) -> Any:
        return torch.linalg.lstsq(a, b).solution

    a, b = torch.randn(5, 3), torch.randn(5, 2)
    assert_close(traced.compile(f, fullgraph=False, inverse_mel=True)(a, b), f(a, b))
    assert not any(traced.substituted)


def test_another_backend_sees_what_it_sees_without_this_package(F: Any) -> None:
    code = """
        import torch
        import torchaudio.functional as F
        from torchaudio.functional import griffinlim

        class Model(torch.nn.Module):
            def forward(self, x, window):
                y = griffinlim(x, window, 32, 8, 32, 2.0, 1, 0.9, None, False)
                return y + F.griffinlim(specgram=x + 1, window=window, n_fft=32, hop_length=8, win_length=32, power=1.0,
                                        n_iter=0, momentum=0.0, length=None, rand_init=False)

        model, inputs, graphs = Model(), (torch.ones(1, 17, 5), torch.hann_window(32)), []

        def plain(gm, example_inputs):
            graphs.append(str(gm.graph))
            return gm.forward

        def compiled(backend):
            torch._dynamo.reset()
            return torch.compile(model, backend=backend, fullgraph=True)(*inputs)

        before = compiled(plain)
        from torch_iir.compiler import _backend, _dynamo
        _backend.inductor = lambda gm, example_inputs, mode, options: plain(gm, example_inputs)
        compiled(_backend.backend)
        after = compiled(plain)
        assert torch.equal(before, after)
        assert graphs[0] == graphs[2] and "istft" in graphs[0] and "istft" not in graphs[1]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=libraries.ENVIRONMENT)


# --- torchlpc


@pytest.mark.parametrize("order", [1, 3])
def test_torchlpc(traced: Traced, order: int) -> None:
    torchlpc = pytest.importorskip("torchlpc")
    x = torch.randn(2, 9).double().requires_grad_()
    a = (torch.rand(2, 9, order).double() / 2 / order).requires_grad_()
    zi = torch.rand(2, order).double().requires_grad_()
    for f in (
        lambda x, a, zi: torchlpc.sample_wise_lpc(x, a, zi),
        lambda x, a, zi: torchlpc.sample_wise_lpc(a=a, x=x),
        lambda x, a, zi: torch.cat(torchlpc.sample_wise_lpc(x, a, zi, return_zf=True), 1),
    ):
        y, exact = traced.compile(f)(x, a, zi), f(x, a, zi)
        assert_close(y, exact, rtol=0, atol=1e-13)
        g = torch.randn_like(exact)
        ours_, theirs_ = (
            torch.autograd.grad(result, (x, a, zi), g, allow_unused=True, materialize_grads=True)
            for result in (y, exact)
        )
        assert_close(ours_, theirs_, rtol=0, atol=1e-12)
    assert traced.substituted == 3 * [["torchlpc.sample_wise_lpc"]]
