"""patch(): other libraries' calls become ours in eager code, and are theirs again afterwards."""

from __future__ import annotations

import doctest
import inspect
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import torch_iir
from torch_iir.compiler import _patch
from torch_iir.compiler._patch import patch


def sample_wise_lpc(x: Any, a: Any, zi: Any = None, return_zf: bool = False) -> Any:
    """What the library of these tests has, in which torch_iir.functional.sample_wise_lpc has the first word."""
    if x.shape[-1] == 7:
        raise LookupError("theirs")
    return 0 * x


sample_wise_lpc.__module__ = "torchlpc"
CODE = sample_wise_lpc.__code__

imported = sample_wise_lpc  # as "from torchlpc import sample_wise_lpc" has it


class Model:
    lpc = staticmethod(sample_wise_lpc)


def closure(f: Any = sample_wise_lpc) -> Callable[..., Any]:
    return lambda x, a: f(x, a)


USES: list[Callable[..., Any]] = [imported, Model.lpc, closure(), lambda x, a: sys.modules["torchlpc"].lpc(x=x, a=a)]


@pytest.fixture(autouse=True)
def torchlpc(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module: Any = ModuleType("torchlpc")
    module.sample_wise_lpc = module.lpc = sample_wise_lpc
    monkeypatch.setitem(sys.modules, "torchlpc", module)
    return module  # type: ignore[no-any-return]


X, HALVES = torch.ones(1, 4), torch.full((1, 4, 1), -0.5)
OURS = torch.tensor([[1.0, 1.5, 1.75, 1.875]])


def is_patched() -> bool:
    results = [use(X, HALVES) for use in USES]
    assert all(torch.equal(result, results[0]) for result in results)
    assert (sample_wise_lpc.__code__ is CODE) == torch.equal(results[0], 0 * X)
    return torch.equal(results[0], OURS)


def test_as_a_context_manager() -> None:
    assert not is_patched()
    with patch():
        assert is_patched()
    assert not is_patched()


def test_as_a_switch() -> None:
    handle = patch()
    assert is_patched()
    handle.undo()
    assert not is_patched()
    handle.undo()
    assert not is_patched()
    assert not _patch._patched


def test_it_ends_with_an_exception() -> None:
    with pytest.raises(KeyError), patch():
        raise KeyError
    assert not is_patched()


def test_patches_are_counted() -> None:
    first = patch()
    with patch():
        first.undo()
        first.undo()
        assert is_patched()
    assert not is_patched()


def test_what_else_a_function_is_stays() -> None:
    before = inspect.signature(sample_wise_lpc), sample_wise_lpc.__defaults__, sample_wise_lpc.__doc__
    with patch():
        assert (inspect.signature(sample_wise_lpc), sample_wise_lpc.__defaults__, sample_wise_lpc.__doc__) == before
        _, zf = sample_wise_lpc(X, HALVES, return_zf=True)
        assert_close(zf, OURS[:, -1:])
        assert_close(sample_wise_lpc(X, HALVES, torch.ones(1, 1))[0, 0], torch.tensor(1.5))
        with pytest.raises(TypeError, match=r"sample_wise_lpc\(\) missing 1 required positional argument: 'a'"):
            sample_wise_lpc(X)  # type: ignore[call-arg]


def test_what_ours_refuses_is_theirs() -> None:
    assert torch.equal(sample_wise_lpc(X, "a"), 0 * X)
    with patch():
        assert torch.equal(sample_wise_lpc(X, "a"), 0 * X)
        with pytest.raises(LookupError, match="theirs") as caught:
            sample_wise_lpc(torch.ones(1, 7), "a")
        assert caught.value.__context__ is None


def test_in_all_threads() -> None:
    seen: list[bool] = []
    with patch():
        thread = threading.Thread(target=lambda: seen.append(is_patched()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_what_was_compiled_is_compiled_again() -> None:
    compiled = [
        torch.compile(lambda x, a: sample_wise_lpc(x, a) + 0, backend="eager", fullgraph=True),
        torch.compile(sample_wise_lpc, backend="eager", fullgraph=True),
    ]
    for _ in range(2):
        for f in compiled:
            assert torch.equal(f(X, HALVES), 0 * X)
        with patch():
            for f in compiled:
                assert torch.equal(f(X, HALVES), OURS)


def test_with_nothing_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in ("torchaudio", "torchlpc"):
            monkeypatch.delitem(sys.modules, name)
    with patch(inverse_mel=True):
        assert not _patch._patched
    assert not {"torchaudio", "torchlpc"} & sys.modules.keys()


def test_wrong_calls() -> None:
    with pytest.raises(TypeError, match="inverse_mel must be True or False, got 1"):
        patch(inverse_mel=1)  # type: ignore[arg-type]


def test_examples() -> None:
    result = doctest.testmod(_patch)
    assert (result.failed, result.attempted > 0) == (0, True)


# --- torchaudio


def test_torchaudio(F: Any) -> None:
    x, a, b = torch.rand(2, 9) - 0.5, torch.tensor([1.0, -0.5, 0.2]), torch.tensor([0.5, 0.2, 0.1])
    spectrogram, window = torch.rand(2, 17, 6), torch.hann_window(32)
    calls: list[tuple[Any, Callable[[], torch.Tensor]]] = [
        (F.lfilter, lambda: F.lfilter(x, a, b_coeffs=b)),
        (F.filtfilt, lambda: F.filtfilt(x, a, b)),
        (F.biquad, lambda: F.biquad(x, 0.5, 0.2, 0.1, 1.0, -0.5, 0.2)),
        (F.bass_biquad, lambda: F.bass_biquad(x, 16000, 3.0)),
        (
            F.griffinlim,
            lambda: F.griffinlim(spectrogram, window, 32, 8, 32, 2.0, 3, 0.9, None, False),
        ),
    ]
    before = [(theirs.__code__, call()) for theirs, call in calls]
    with patch():
        during = [call() for _, call in calls]
        assert all(theirs.__code__ is not code for (theirs, _), (code, _) in zip(calls, before, strict=True))
        low = F.lowpass_biquad(x[0], 16000, torch.tensor([500.0]))
        beyond = F.lowpass_biquad(x, 16000, 8100.0)
        loudness = F.loudness(torch.rand(1, 8000), 16000)
    for (theirs, call), (code, result), ours in zip(calls, before, during, strict=True):
        assert theirs.__code__ is code
        assert torch.equal(call(), result)
        assert not torch.equal(ours, result)
        assert_close(ours, result, rtol=0, atol=1e-5)
    assert torch.equal(low, torch_iir.functional.lowpass_biquad(x[0], 16000, 500.0))
    assert_close(beyond, F.lowpass_biquad(x, 16000, 8100.0), equal_nan=True, rtol=1e-4, atol=1e-4)
    assert loudness.isfinite()


def test_inverse_mel_on_request(torchaudio: Any) -> None:
    module = torchaudio.transforms.InverseMelScale(33, 8, driver="gelsd")
    expected = torch_iir.transforms.InverseMelScale(33, 8)
    expected.fb = module.fb
    mel = torch.rand(2, 8, 5)
    before = module(mel)
    with patch():
        assert torch.equal(module(mel), before)
        with patch(inverse_mel=True):
            assert torch.equal(module(mel), expected(mel))
            with pytest.raises(ValueError, match="Expected an input with 8 mel bins"):
                module(mel[:, :7])
        assert torch.equal(module(mel), before)
    assert torch.equal(module(mel), before)
