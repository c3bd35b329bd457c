"""Spoken digits by formant synthesis, and their log-mel features.

Words are phonemes in a row; a phoneme is three formants, how much of it is voice and
how much noise, and where the noise lies. Speakers differ in pitch, length of the vocal
tract, tempo and loudness; noise lies over everything.
"""

from __future__ import annotations

import dataclasses

import numpy as np

SAMPLE_RATE = 16_000
NUM_FRAMES = 49  # of 40 ms, one every 20 ms: a second
NUM_BANDS = 20
WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "nothing",
)

_FRAME, _HOP = 640, 320
_HIGHEST = 7_000.0  # Hz
_CONTROL_FRAME, _CONTROL_HOP = 320, 80  # samples for which formants stay
_CONTROL_WINDOW = np.hanning(_CONTROL_FRAME)
_LOUDNESS_FLOOR = 1e-10


@dataclasses.dataclass(frozen=True)
class Phoneme:
    """How a sound is made.

    Attributes:
      formants: Hz.
      seconds: how long it lasts.
      voice, noise: amplitudes.
      noise_band: centre and width of the noise, Hz.
    """

    formants: tuple[float, float, float]
    seconds: float
    voice: float = 1.0
    noise: float = 0.0
    noise_band: tuple[float, float] = (4_000.0, 2_000.0)


# Formants of vowels: means of men's voices as phonetics books list them, rounded.
_PHONEMES = {
    "i": Phoneme((270, 2290, 3010), 0.14),
    "I": Phoneme((390, 1990, 2550), 0.10),
    "e": Phoneme((530, 1840, 2480), 0.11),
    "^": Phoneme((640, 1190, 2390), 0.12),
    "@": Phoneme((500, 1500, 2500), 0.07),
    "a": Phoneme((730, 1090, 2440), 0.13),
    "O": Phoneme((570, 840, 2410), 0.13),
    "o": Phoneme((450, 900, 2400), 0.13),
    "u": Phoneme((300, 870, 2240), 0.15),
    "r": Phoneme((350, 1200, 1600), 0.07, voice=0.7),
    "w": Phoneme((300, 700, 2200), 0.07, voice=0.7),
    "n": Phoneme((250, 1400, 2400), 0.09, voice=0.4),
    "v": Phoneme((250, 1100, 2300), 0.07, 0.3, 0.08, (5_000, 3_000)),
    "z": Phoneme((250, 1600, 2500), 0.10, 0.2, 0.25, (5_500, 2_000)),
    "s": Phoneme((300, 1600, 2500), 0.13, 0.0, 0.40, (5_500, 2_000)),
    "f": Phoneme((300, 1100, 2300), 0.11, 0.0, 0.12, (4_500, 4_000)),
    "T": Phoneme((300, 1400, 2500), 0.10, 0.0, 0.10, (5_000, 4_000)),
    "k": Phoneme((300, 1700, 2400), 0.04, 0.0, 0.35, (2_000, 1_000)),
    "t": Phoneme((300, 1700, 2600), 0.03, 0.0, 0.40, (4_500, 2_500)),
    "-": Phoneme((300, 1500, 2500), 0.05, 0.0),
}
_SPOKEN = ("zIro", "w^n", "-tu", "Tri", "fOr", "faIv", "sI-ks", "sev@n", "eI-t", "naIn")


def spoken_digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 (count, NUM_FRAMES, NUM_BANDS), dB; classes int64 (count,).

    Each seed has speakers of its own.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(WORDS), count)
    waves = np.stack([_utterance(int(label), rng) for label in labels])
    return log_mel(waves), labels


def log_mel(waves: np.ndarray) -> np.ndarray:
    """Energies of mel bands in dB, float32 (N, NUM_FRAMES, NUM_BANDS).

    Args:
      waves: float (N, SAMPLE_RATE), within about -1 and 1.
    """
    starts = np.arange(NUM_FRAMES) * _HOP
    frames = waves[:, starts[:, np.newaxis] + np.arange(_FRAME)] * np.hanning(_FRAME)
    power = np.abs(np.fft.rfft(frames)) ** 2
    energies = power @ _mel_bands().T
    return (10 * np.log10(energies + _LOUDNESS_FLOOR)).astype(np.float32)


def _mel_bands() -> np.ndarray:
    """Triangles over the spectrum, (NUM_BANDS, _FRAME / 2 + 1)."""
    highest = 2595 * np.log10(1 + _HIGHEST / 700)
    edges = 700 * (10 ** (np.linspace(30, highest, NUM_BANDS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(_FRAME, 1 / SAMPLE_RATE)
    low, centre, high = (edges[i : i + NUM_BANDS, np.newaxis] for i in range(3))
    rising, falling = (hertz - low) / (centre - low), (high - hertz) / (high - centre)
    return np.maximum(0, np.minimum(rising, falling))


def _utterance(label: int, rng: np.random.Generator) -> np.ndarray:
    """One second of a new speaker saying a word, or nothing, somewhere in it."""
    wave = np.zeros(SAMPLE_RATE)
    if label < len(_SPOKEN):
        spoken = _speak(_SPOKEN[label], rng)[:SAMPLE_RATE]
        start = rng.integers(0, SAMPLE_RATE - len(spoken) + 1)
        wave[start : start + len(spoken)] = spoken
    background = _coloured_noise(rng)
    loudness = 10 ** rng.uniform(-1.2, 0.0)
    return (wave + loudness * background) * 10 ** rng.uniform(-1.0, 0.0)


def _coloured_noise(rng: np.random.Generator) -> np.ndarray:
    """A second of noise that falls off towards high frequencies, more or less."""
    spectrum = np.fft.rfft(rng.normal(size=SAMPLE_RATE))
    spectrum *= np.maximum(np.arange(len(spectrum)), 20) ** -rng.uniform(0.0, 1.0)
    wave = np.fft.irfft(spectrum)
    return wave / np.std(wave)


def _speak(word: str, rng: np.random.Generator) -> np.ndarray:
    """A word by one speaker, of amplitude 1: source and filter, frame by frame."""
    controls = _controls(word, rng)
    count = len(controls) * _CONTROL_HOP
    bend = np.linspace(-1, 1, count)
    pitch = rng.uniform(85, 260) * (1 + 0.1 * rng.normal() * bend)
    cycles = np.cumsum(pitch) / SAMPLE_RATE
    pulses = np.diff(np.floor(cycles), prepend=0.0) * np.sqrt(SAMPLE_RATE / pitch)
    hertz = np.fft.rfftfreq(_CONTROL_FRAME, 1 / SAMPLE_RATE)
    *formants, voice, noise, centre, width = controls.T[..., np.newaxis]
    wave = _filtered(pulses, voice * _resonance(hertz, formants))
    band = np.exp(-(((hertz - centre) / width) ** 2))
    wave += _filtered(rng.normal(size=count), noise * band)
    return wave / (np.abs(wave).max() + 1e-9)


def _filtered(source: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """A sound whose spectrum is multiplied by `gains`, one row for each frame."""
    padded = np.pad(source, (0, _CONTROL_FRAME))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _CONTROL_FRAME)
    spectra = np.fft.rfft(frames[::_CONTROL_HOP][: len(gains)] * _CONTROL_WINDOW)
    pieces = np.fft.irfft(spectra * gains).reshape(len(gains), -1, _CONTROL_HOP)
    overlapping = pieces.shape[1]
    result = np.zeros((len(gains) + overlapping, _CONTROL_HOP))
    for index in range(overlapping):
        result[index : index + len(gains)] += pieces[:, index]
    return result.ravel()[: len(source)]


def _resonance(hertz: np.ndarray, formants: list[np.ndarray]) -> np.ndarray:
    """The gain of a vocal tract with those formants, at each frequency."""
    gain = np.zeros(())
    for index, formant in enumerate(formants):
        bandwidth = 60.0 + 40.0 * index
        gain = gain + 0.6**index / (1 + ((hertz - formant) / bandwidth) ** 2)
    return gain


def _controls(word: str, rng: np.random.Generator) -> np.ndarray:
    """What the phonemes of a word ask for, every `_CONTROL_HOP` samples, smoothed.

    Columns: three formants, voice, noise, centre and width of the noise.
    """
    tempo, tract = rng.uniform(0.7, 1.5), rng.uniform(0.85, 1.2)
    rows = []
    for symbol in word:
        phoneme = _PHONEMES[symbol]
        length = phoneme.seconds * tempo * rng.uniform(0.8, 1.25)
        formants = np.array(phoneme.formants) / tract * rng.normal(1, 0.06, 3)
        row = [*formants, phoneme.voice, phoneme.noise, *phoneme.noise_band]
        rows += [row] * max(2, round(length * SAMPLE_RATE / _CONTROL_HOP))
    controls = np.array(rows)
    window = np.hanning(9) / np.hanning(9).sum()
    padded = np.pad(controls, ((4, 4), (0, 0)), "edge")
    smooth = [np.convolve(column, window, "valid") for column in padded.T]
    return np.transpose(smooth)
