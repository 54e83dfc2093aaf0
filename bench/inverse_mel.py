"""From mel spectra back to spectra, non-negative, against plain least squares and against librosa's optimiser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from bench.measure import Call
from bench.mels import HTK, SLANEY, SOUND, Mels, Spectra
from bench.question import Figure, Question, Target
from bench.threads import threads
from torch_iir.demo import peers

# librosa solves for 512 frames together. Of htk mels, that takes ten minutes and more; fewer take less time each.
HTK_FRAMES, SLANEY_FRAMES = 16, 512


def figures(quick: bool) -> Iterator[Figure]:
    htk, slaney = Mels.of(HTK, quick), Mels.of(SLANEY, quick)
    name = f"InverseMelScale, htk, {SOUND}"
    yield htk.figure(name, (htk.ours(), htk.lstsq()), Target("speedup", 2.5, 5))
    calls: tuple[Call, ...]
    if len(os.sched_getaffinity(0)) > 1:
        calls = (htk.ours(context=threads(2)), htk.lstsq(context=threads(2)))
        yield htk.figure(f"{name}, 2 threads", calls, Target("speedup", 2.5, 5))

    calls = (htk.ours(), *librosa(htk, 1 if quick else HTK_FRAMES))
    yield htk.figure(name, calls, Target("speedup", 10_000, 50_000))
    calls = (slaney.ours(), *librosa(slaney, 2 if quick else SLANEY_FRAMES))
    yield slaney.figure(f"InverseMelScale, slaney, {SOUND}", calls, Target("speedup", 300, 800))


def librosa(job: Mels, count: int) -> tuple[Call, ...]:
    mel = job.spread(count)
    return job.librosa(partial(peers.inverse_mel_librosa, job.fb), mel, Spectra(job.fb, mel))


QUESTION = Question("speed", figures)
