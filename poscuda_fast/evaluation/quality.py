"""How far protected clips are from their originals: the library's own metrics, and those of installed packages.

Every metric compares one clip's true frames before and after. The summary counts clips that were not changed and
clips that a metric cannot measure; its median and percentiles leave both out.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import math
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from poscuda_fast.evaluation.padded import FULL_SCALE, checked_lengths, checked_rows
from poscuda_fast.text import how_to_install

SPECTRUM_SECONDS = 0.025
SPECTRUM_HOP_SECONDS = 0.010
VISQOL_SILENCE_SECONDS = 0.5
TONE_SECONDS = 0.5
TONE_BINS = 5  # of a Hann window's main lobe, and one
TONE_BAND = (90.0, 11_200.0)  # Hz, of ECMA-418-1
ROUNDING = 1 / 12  # power of rounding to int16
WORST = 10
WIDE_BAND = 16_000  # Hz: ViSQOL's speech mode and wide-band PESQ
NARROW_BAND = 8_000  # Hz: narrow-band PESQ
UNCHANGED = math.inf  # in place of the value of a clip that was not changed

Clip = NDArray[np.int16]  # (frames,)
_FILTERING = threading.Lock()  # filters of warnings are the whole process's: two threads would put back each other's


class UnmeasurableError(Exception):
    """A metric cannot measure this clip; the message says why, in a few words that a summary can count."""


def snr_db(original: Clip, protected: Clip) -> float:
    """Energy of the clip over energy of the edit, in dB; infinite if nothing was changed.

    Parameters
    ----------
    original, protected : (frames,) int16
        One clip's true frames.

    Raises
    ------
    UnmeasurableError
        If a silent clip was changed: no ratio is defined.
    """
    return _ratio_db(original, protected)


def changed_snr_db(original: Clip, protected: Clip) -> float:
    """The same as `snr_db`, over the changed frames alone: how strong the edit is where it is."""
    changed = original != protected
    return _ratio_db(original[changed], protected[changed])


def log_spectral_distance_db(original: Clip, protected: Clip, sample_rate: int) -> float:
    """The difference of the spectra in dB, root mean square over frequency, averaged over the clip.

    Spectra are of 25 ms Hann windows, centred on the first frame and every 10 ms after it, with zeros outside the
    clip. Power below that of rounding to int16, a twelfth of a squared step, is raised to it: nothing can be compared
    below it.

    Parameters
    ----------
    original, protected : (frames,) int16
    sample_rate : int
        Hz.

    Returns
    -------
    float
        dB; 0 if nothing was changed, or only the sign of the whole clip. High is bad.
    """
    difference = _spectra_db(original, sample_rate) - _spectra_db(protected, sample_rate)  # (windows, bins)
    return float(np.sqrt((difference**2).mean(axis=1)).mean())


def tonality_db(original: Clip, protected: Clip, sample_rate: int) -> float:
    """The tone-to-noise ratio of the edit in the half second where it stands out most.

    As in ECMA-418-1, sec. 11: the power of a tone over the power of what else lies in the critical band around it.
    Tones are looked for in the edit alone, since voices have tones of their own; the noise is the original, the rest
    of the edit, and the rounding to int16. Windows are Hann's, of 0.5 s or the whole clip, every 0.25 s. ECMA-418-1
    calls a tone prominent from 8 dB on, and more below 1 kHz.

    Parameters
    ----------
    original, protected : (frames,) int16
    sample_rate : int
        Hz.

    Returns
    -------
    float
        dB. High is bad.

    Raises
    ------
    UnmeasurableError
        If the clip is too short to have a tone: its critical bands are narrower than a tone's five bins.
    """
    size = min(len(original), round(TONE_SECONDS * sample_rate))
    window = np.hanning(size + 1)[:-1]
    frequencies = np.fft.rfftfreq(size, 1 / sample_rate)
    widths = 25 + 75 * (1 + 1.4 * (frequencies / 1000) ** 2) ** 0.69  # Hz, of critical bands
    reach = np.floor(widths * size / sample_rate / 2).astype(np.int64)  # bins to either side
    heard = (frequencies >= TONE_BAND[0]) & (frequencies <= TONE_BAND[1]) & (reach > TONE_BINS // 2)
    bins = np.flatnonzero(heard & (np.arange(len(frequencies)) >= TONE_BINS // 2))
    bins = bins[bins + TONE_BINS // 2 < len(frequencies)]
    if not len(bins):
        raise UnmeasurableError("too short for a tone")
    low, high = np.maximum(bins - reach[bins], 0), np.minimum(bins + reach[bins] + 1, len(frequencies))
    worst = -math.inf
    for first in range(0, len(original) - size + 1, max(1, size // 2)):
        before = original[first : first + size].astype(np.float64)
        edit = _running(np.abs(np.fft.rfft((protected[first : first + size] - before) * window)) ** 2)
        rest = _running(np.abs(np.fft.rfft(before * window)) ** 2 + ROUNDING * (window @ window))
        tones = edit[bins + TONE_BINS // 2 + 1] - edit[bins - TONE_BINS // 2]
        noise = rest[high] - rest[low] + np.maximum(0, edit[high] - edit[low] - tones)
        shares = (high - low) / (high - low - TONE_BINS)  # of the band, beside the tone
        worst = max(worst, float((10 * np.log10(np.maximum(tones, 1e-9) / (noise * shares))).max()))
    return worst


def visqol(original: Clip, protected: Clip, sample_rate: int) -> float:
    """MOS-LQO of ViSQOL in speech mode at 16 kHz, 1 to 5 (Chinen et al. 2020), by visqol-python.

    Half a second of silence is added on either side, as ViSQOL's guidelines ask: without it, ViSQOL finds no patch to
    compare in clips below 0.64 s. ViSQOL is made for 3 to 10 s of speech; on single words the score can compare
    edits, but is no opinion. It uses the polynomial mapping, which runs on every machine and saturates at 5.

    Raises
    ------
    UnmeasurableError
        If the clip is silent, before or after, or ViSQOL takes no patch of it for speech.
    ImportError
        If a package of the extra `quality` is missing.
    """
    _refuse_silence(original)
    if not protected.any():  # ViSQOL scales both to one level
        raise UnmeasurableError("silent after it was changed")
    silence = round(VISQOL_SILENCE_SECONDS * WIDE_BAND)
    before, after = (np.pad(_wide(clip, sample_rate), silence) for clip in (original, protected))
    try:
        return float(_visqol().measure_from_arrays(before, after, WIDE_BAND).moslqo)
    except (ValueError, IndexError) as error:  # ViSQOL takes the first of no patches
        raise UnmeasurableError("no patch that counts as speech") from error


def stoi(original: Clip, protected: Clip, sample_rate: int) -> float:
    """Short-time objective intelligibility, up to 1 (Taal et al. 2011), by pystoi.

    Raises
    ------
    UnmeasurableError
        If the clip was silent before, or has fewer than 30 windows of speech, about 0.4 s, as many single words do.
    ImportError
        If a package of the extra `quality` is missing.
    """
    package = _needed("pystoi")
    _refuse_silence(original)
    with _FILTERING, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pystoi only warns of a short clip, and scores it as bad
        try:
            return float(package.stoi(original / FULL_SCALE, protected / FULL_SCALE, sample_rate))
        except (RuntimeWarning, ValueError) as error:
            raise UnmeasurableError("fewer than 30 windows of speech") from error


def pesq(original: Clip, protected: Clip, sample_rate: int) -> float:
    """MOS-LQO of PESQ (ITU-T P.862), by the package pesq: narrow-band at 8 kHz, else wide-band at 16 kHz.

    Raises
    ------
    UnmeasurableError
        If the clip is shorter than 0.25 s, is all but silent before or after, or PESQ hears no utterance in it.
    ImportError
        If a package of the extra `quality` is missing.
    """
    package = _needed("pesq")
    _refuse_silence(original)
    narrow = sample_rate == NARROW_BAND
    before = original / FULL_SCALE if narrow else _wide(original, sample_rate)
    after = protected / FULL_SCALE if narrow else _wide(protected, sample_rate)
    rate, mode = (NARROW_BAND, "nb") if narrow else (WIDE_BAND, "wb")
    try:
        return float(package.pesq(rate, before, after, mode))
    except package.BufferTooShortError as error:
        raise UnmeasurableError("shorter than 0.25 s") from error
    except package.NoUtterancesError as error:
        raise UnmeasurableError("no utterance heard") from error
    except ValueError as error:  # PESQ divides by the level of silence and gets NaN
        raise UnmeasurableError("all but silent") from error


@dataclass(frozen=True)
class Metric:
    """A metric: how to compute it from (original, protected, sample_rate), and which end of it is bad."""

    compute: Callable[[Clip, Clip, int], float]
    unit: str
    bad: str = "low"
    package: str | None = None


METRICS = {
    "snr_db": Metric(lambda original, protected, _: snr_db(original, protected), "dB"),
    "changed_snr_db": Metric(lambda original, protected, _: changed_snr_db(original, protected), "dB"),
    "log_spectral_distance_db": Metric(log_spectral_distance_db, "dB", bad="high"),
    "tonality_db": Metric(tonality_db, "dB", bad="high"),
    "visqol": Metric(visqol, "MOS-LQO", package="visqol"),
    "stoi": Metric(stoi, "", package="pystoi"),
    "pesq": Metric(pesq, "MOS-LQO", package="pesq"),
}
OWN = tuple(name for name, metric in METRICS.items() if metric.package is None)


def installed() -> tuple[str, ...]:
    """The names of the metrics that can be computed here."""
    return tuple(
        name for name, metric in METRICS.items() if not metric.package or importlib.util.find_spec(metric.package)
    )


def measure(
    original: NDArray[np.int16],
    protected: NDArray[np.int16],
    lengths: ArrayLike,
    sample_rate: int,
    rows: ArrayLike | None = None,
    metrics: Sequence[str] = OWN,
) -> dict[str, dict[str, Any]]:
    """Measure some clips by each metric, and summarise.

    Parameters
    ----------
    original, protected : (n, L) int16
        Row i of both is the same clip. May be memory maps: one clip is in memory at a time.
    lengths : (n,) array_like of int
        True frames of each clip.
    sample_rate : int
        Hz.
    rows : (m,) array_like of int, optional
        Which clips; all of them if not given.
    metrics : sequence of str
        Names out of `METRICS`.

    Returns
    -------
    dict
        For each metric what `summarise` returns, and under "missing_because" how many clips could not be measured,
        by reason. JSON values.

    Raises
    ------
    ValueError
        If the shapes differ, a length or a row does not fit, or there is no such metric.
    TypeError
        If the clips are not int16.
    ImportError
        If the package of a metric is missing.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"There is no metric {unknown[0]!r}; there are {', '.join(METRICS)}.")
    if original.shape != protected.shape:
        raise ValueError(
            f"The originals have the shape {original.shape} and the protected clips {protected.shape}; row i of both "
            "must be the same clip."
        )
    lengths, rows = checked_lengths(original, lengths), checked_rows(original, rows)
    checked_lengths(protected, lengths)
    values = {name: np.full(len(rows), np.nan) for name in metrics}
    reasons: dict[str, Counter[str]] = {name: Counter() for name in metrics}
    for place, row in enumerate(rows):
        before, after = original[row, : lengths[row]], protected[row, : lengths[row]]
        same = np.array_equal(before, after)
        for name in metrics:
            try:
                values[name][place] = UNCHANGED if same else METRICS[name].compute(before, after, sample_rate)
            except UnmeasurableError as error:
                reasons[name][str(error)] += 1
    return {
        name: {
            "unit": METRICS[name].unit,
            **summarise(values[name], rows, bad=METRICS[name].bad),
            "missing_because": dict(reasons[name]),
        }
        for name in metrics
    }


def summarise(values: ArrayLike, rows: ArrayLike | None = None, *, bad: str = "low") -> dict[str, Any]:
    """Summarise a metric over many clips, in values that JSON can hold.

    Parameters
    ----------
    values : (n,) array_like of float
        One value a clip; infinite if the clip was not changed, NaN if it could not be measured.
    rows : (n,) array_like of int, optional
        The row number of each clip; 0 to n - 1 if not given.
    bad : {"low", "high"}
        Which end of the metric is bad.

    Returns
    -------
    dict
        "n", how many clips; "unchanged" and "missing", how many of them the rest leaves out; "median";
        "worst_5_percent", the 5th percentile from the bad end; "worst", the ten worst clips as {"row", "value"},
        the worst first. "median" and "worst_5_percent" are None if no clip was measured.

    Raises
    ------
    ValueError
        If the shapes differ, or `bad` is neither "low" nor "high".
    """
    values = np.asarray(values, dtype=np.float64)
    rows = np.arange(len(values)) if rows is None else np.asarray(rows)
    if values.ndim != 1 or rows.shape != values.shape:
        raise ValueError(f"values has the shape {values.shape} and rows {rows.shape}; give one of each per clip.")
    if bad not in {"low", "high"}:
        raise ValueError(f"bad is {bad!r}; expected 'low' or 'high'.")
    measured = np.flatnonzero(np.isfinite(values))
    signed = values[measured] if bad == "low" else -values[measured]
    worst = measured[np.argsort(signed, kind="stable")[:WORST]]
    return {
        "n": len(values),
        "unchanged": int(np.isinf(values).sum()),
        "missing": int(np.isnan(values).sum()),
        "median": float(np.median(values[measured])) if len(measured) else None,
        "worst_5_percent": (
            float(np.percentile(values[measured], 5 if bad == "low" else 95)) if len(measured) else None
        ),
        "worst": [{"row": int(rows[place]), "value": float(values[place])} for place in worst],
    }


def _ratio_db(original: Clip, protected: Clip) -> float:
    before = original.astype(np.float64)
    edit = protected - before
    signal, noise = float(before @ before), float(edit @ edit)
    if noise == 0:
        return UNCHANGED
    if signal == 0:
        raise UnmeasurableError("silent before it was changed")
    return 10 * math.log10(signal / noise)


def _spectra_db(clip: Clip, sample_rate: int) -> NDArray[np.float64]:
    size, hop = round(SPECTRUM_SECONDS * sample_rate), round(SPECTRUM_HOP_SECONDS * sample_rate)
    padded = np.pad(clip.astype(np.float64), (size // 2, size))
    window = np.hanning(size + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[: len(clip) : hop] * window  # (windows, size)
    power = np.abs(np.fft.rfft(frames)) ** 2  # (windows, bins)
    return 10 * np.log10(np.maximum(power, (window @ window) / 12))


def _running(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of the first 0, 1, 2, ... bins."""
    return np.concatenate([[0.0], np.cumsum(power)])


def _wide(clip: Clip, sample_rate: int) -> NDArray[np.float64]:
    samples = clip / FULL_SCALE
    if sample_rate == WIDE_BAND:
        return samples
    resampled: NDArray[np.float64] = _needed("soxr").resample(samples, sample_rate, WIDE_BAND)
    return resampled


def _refuse_silence(clip: Clip) -> None:
    if not clip.any():
        raise UnmeasurableError("silent before it was changed")


@functools.cache
def _visqol() -> Any:
    with _environment_kept():  # visqol sets numba's threading layer for the whole process
        api = _needed("visqol").VisqolApi()
    api.create(mode="speech", use_lattice_model=False)
    return api


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def _needed(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"This metric needs {package}: {how_to_install('quality')}.") from error
