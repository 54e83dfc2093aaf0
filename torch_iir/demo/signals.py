"""Sounds that the demos render for themselves."""

from __future__ import annotations

import io
import math
import subprocess
import wave

import numpy as np
import scipy.signal
import torch
from torch import Tensor

from torch_iir.signal import lfilter, sosfilt


def chirp(seconds: float, sample_rate: int, first: float = 1.0, last: float = 1000.0) -> Tensor:
    """A sine whose frequency rises linearly, in Hz."""
    t = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    return 0.5 * torch.sin(2 * math.pi * (first + (last - first) * t / (2 * seconds)) * t)


def pluck(frequency: float, seconds: float, sample_rate: int, damping: float = 0.996, seed: int = 0) -> Tensor:
    """A plucked string: a burst of noise runs round a delay line and loses its highs in every turn.

    y[t] = x[t] + damping · (y[t − P] + y[t − P − 1]) / 2, a recursive filter of order P + 1 (Karplus and Strong,
    Computer Music Journal 7 (1983)).
    """
    period = round(sample_rate / frequency - 0.5)  # the average of two samples delays by another half
    burst = torch.zeros(round(seconds * sample_rate), dtype=torch.float64)
    burst[:period] = 2 * torch.rand(period, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
    a = torch.zeros(period + 2, dtype=torch.float64)
    a[0], a[-2:] = 1, -damping / 2
    string = lfilter([1.0], a, burst)
    return string * (0.5 / string.abs().max())


ROOM = 1e-3  # noise behind music and voice


# --- music

BEAT = 0.5  # seconds
CHORDS = ((57, 60, 64), (53, 57, 60), (48, 55, 64), (55, 59, 62))  # MIDI notes: A minor, F, C, G; each for four beats
SCALE = (69, 71, 72, 74, 76, 79, 81, 84)  # what the melody takes its notes from


def music(seconds: float, sample_rate: int, seed: int = 0) -> Tensor:
    """Held chords, a bass, a melody with vibrato, and noise for drums."""
    generator = torch.Generator().manual_seed(seed)
    beats = math.ceil(seconds / BEAT)
    mix = torch.zeros(round((beats + 4) * BEAT * sample_rate), dtype=torch.float64)

    def add(beat: float, sound: Tensor, level: float) -> None:
        start = round(beat * BEAT * sample_rate)
        mix[start : start + len(sound)] += level * sound

    for beat in range(beats):
        chord = CHORDS[beat // 4 % len(CHORDS)]
        if beat % 4 == 0:
            for key in chord:
                add(beat, note(key, 4 * BEAT, sample_rate, attack=0.08, decay=0.4), 0.12)
        add(beat, note(chord[0] - 12, BEAT, sample_rate, attack=0.01, decay=1.0), 0.3)
        key = SCALE[int(torch.randint(len(SCALE), (), generator=generator))]
        add(beat, note(key, BEAT, sample_rate, attack=0.02, decay=0.3, vibrato=0.006), 0.2)
        for half in (0.0, 0.5):
            add(beat + half, burst(0.1, sample_rate, (6000, 16000), generator), 0.08)
        if beat % 2:
            add(beat, burst(0.2, sample_rate, (150, 5000), generator), 0.2)
    room = ROOM * torch.randn(len(mix), generator=generator, dtype=torch.float64)
    return half_scale((mix + room)[: round(seconds * sample_rate)])


def note(
    key: int, seconds: float, sample_rate: int, attack: float, decay: float, vibrato: float = 0.0, partials: int = 24
) -> Tensor:
    """Σ_k Im zᵏ / k^1.5, z = exp(−decay · t + iφ(t)): the k-th partial dies away k times as fast as the first."""
    frequency = 440 * 2 ** ((key - 69) / 12)
    t = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    swing = vibrato * (1 - torch.cos(2 * math.pi * 5.5 * t)) / (2 * math.pi * 5.5)
    z = torch.polar(torch.exp(-decay * t), 2 * math.pi * frequency * (t + swing))
    total = torch.zeros_like(z)
    for k in range(min(partials, int(0.48 * sample_rate / frequency)), 0, -1):
        total = (total + k**-1.5).mul_(z)
    release = 0.02
    return total.imag * (t / attack).clamp(max=1) * ((seconds - t) / release).clamp(max=1)


def burst(seconds: float, sample_rate: int, band: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Noise that dies away."""
    samples = round(seconds * sample_rate)
    white = torch.randn(samples, generator=generator, dtype=torch.float64)
    low, high = band[0], min(band[1], 0.48 * sample_rate)
    sos = scipy.signal.butter(2, (min(low, high / 2), high), "bandpass", fs=sample_rate, output="sos")
    return sosfilt(sos, white) * torch.exp(torch.linspace(0, -7, samples, dtype=torch.float64))


# --- speech

TEXT = """
The ferry leaves the harbour at seven, and the gulls follow it as far as the lighthouse. Nobody on deck talks much.
A woman in a yellow coat reads yesterday's paper; two boys share an orange. When the fog lifts, you can see both
shores at once, the old town with its chimneys and the new one, all glass. Which of them would you choose? The pilot
shrugs. "Ask me in winter," he says, "when the river freezes and everyone walks."
"""
VOICES = (("en", 45, 165), ("en+f3", 60, 150), ("en+m3", 30, 175))  # of espeak-ng: name, pitch, words a minute


def speech(seconds: float, sample_rate: int) -> tuple[Tensor, str]:
    """Spoken by espeak-ng where that is installed, and otherwise by `voice`; and who speaks."""
    try:
        pieces, rate = zip(*(espeak(*settings) for settings in VOICES), strict=True)
    except (OSError, subprocess.CalledProcessError, wave.Error):
        return voice(seconds, sample_rate), "a synthesised voice"
    text = resample(np.concatenate(pieces), rate[0], sample_rate)
    samples = round(seconds * sample_rate)
    return half_scale(torch.from_numpy(np.resize(text, samples))), "espeak-ng"


def espeak(name: str, pitch: int, speed: int) -> tuple[np.ndarray, int]:
    """The text, and its sample rate."""
    words = ["espeak-ng", "--stdout", "-v", name, "-p", str(pitch), "-s", str(speed), TEXT]
    spoken = subprocess.run(words, check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(spoken)) as opened:
        samples = np.frombuffer(opened.readframes(opened.getnframes()), "<i2")
        return samples.astype(np.float64), opened.getframerate()


# The first three formants of five vowels in Hz, and what all have above.
VOWELS = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))
HIGHER = (3500, 4500, 5500, 6500, 7500)
SYLLABLE, PHRASE = 0.2, 12  # seconds; syllables, the last two of which are a pause


def voice(seconds: float, sample_rate: int, seed: int = 0) -> Tensor:
    """Babble: glottal pulses and breath through the formants of changing vowels, with hisses in between."""
    generator = torch.Generator().manual_seed(seed)
    samples = round(seconds * sample_rate)
    syllables = math.ceil(seconds / SYLLABLE) + 2
    t = torch.arange(samples, dtype=torch.float64) / sample_rate
    place = t / SYLLABLE

    def along(values: Tensor, width: float) -> Tensor:
        """One value a syllable, with a soft step of this width in between."""
        index = place.long()
        step = ((place - index - 1) / width + 1).clamp(min=0)
        return torch.lerp(values[index], values[index + 1], step * step * (3 - 2 * step))

    speaking = (torch.arange(syllables) % PHRASE < PHRASE - 2).double()
    fall = 1 - 0.3 * (torch.arange(syllables) % PHRASE) / PHRASE
    pitch = along(120 * fall * (1 + 0.1 * torch.randn(syllables, generator=generator, dtype=torch.float64)), 1.0)
    turns = torch.cumsum(pitch / sample_rate, 0)
    pulses = torch.diff(turns.floor(), prepend=turns.new_zeros(1))
    breath = torch.randn(samples, generator=generator, dtype=torch.float64)

    vowels = torch.randint(len(VOWELS), (syllables,), generator=generator)
    tracts = [[resonator(f, 50 + 0.03 * f, sample_rate) for f in (*vowel, *HIGHER)] for vowel in VOWELS]
    filtered = sosfilt(torch.stack([torch.stack(tract) for tract in tracts]), pulses + 0.01 * breath)
    spoken = sum(output * along((vowels == index).double(), 0.4) for index, output in enumerate(filtered))

    band = (0.18 * sample_rate, 0.4 * sample_rate)
    hiss = sosfilt(scipy.signal.butter(2, band, "bandpass", fs=sample_rate, output="sos"), breath)
    onset = torch.exp(-0.5 * (((place % 1) - 0.15) / 0.1).square())
    hissing = (torch.rand(syllables, generator=generator) < 0.3).double()[place.long()]
    spoken = spoken / spoken.abs().max() * (1 - 0.8 * onset) + 0.1 * hiss * onset * hissing
    return half_scale(spoken * along(speaking, 0.3) + ROOM * breath)


def resonator(frequency: float, bandwidth: float, sample_rate: int) -> Tensor:
    """A section with a pair of poles, and gain 1 at 0 Hz."""
    radius = math.exp(-math.pi * bandwidth / sample_rate)
    a1, a2 = -2 * radius * math.cos(2 * math.pi * min(frequency, 0.45 * sample_rate) / sample_rate), radius**2
    return torch.tensor([1 + a1 + a2, 0, 0, 1, a1, a2], dtype=torch.float64)


def resample(sound: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    common = math.gcd(rate, new_rate)
    return np.asarray(scipy.signal.resample_poly(sound, new_rate // common, rate // common))


def half_scale(sound: Tensor) -> Tensor:
    """Scaled so that its largest sample is 0.5."""
    return sound * (0.5 / sound.abs().max())
