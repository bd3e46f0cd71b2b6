from __future__ import annotations

import importlib.util
import json
import math
import os
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from poscuda_fast import Key, Recipe, protect_folder
from poscuda_fast.cli.synth import SAMPLE_RATE, speak
from poscuda_fast.evaluation import quality

THREADING_LAYER = os.environ.get("NUMBA_THREADING_LAYER")
EPSILON = np.finfo(np.float64).eps


def noise(frames, top=8000, seed=0):
    return np.random.default_rng(seed).integers(-top, top + 1, frames).astype(np.int16)


def needs(package):
    """Skip without importing: only the module under test may."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def padded(*clips, frames):
    array = np.zeros((len(clips), frames), np.int16)
    for row, clip in zip(array, clips, strict=True):
        row[: len(clip)] = clip
    return array, [len(clip) for clip in clips]


def test_snr_of_a_hundredth_is_40_db():
    original = np.full(50, 1000, np.int16)
    assert quality.snr_db(original, original + np.int16(10)) == pytest.approx(40, abs=64 * EPSILON)


def test_snr_over_the_patch_leaves_out_what_was_not_changed():
    original = np.full(100, 1000, np.int16)
    protected = original.copy()
    protected[20:30] += 100
    assert quality.changed_snr_db(original, protected) == pytest.approx(20, abs=64 * EPSILON)
    assert quality.snr_db(original, protected) == pytest.approx(30, abs=64 * EPSILON)


def test_snr_does_not_overflow_at_full_scale():
    original = np.array([-32768, 32767], np.int16)
    protected = np.array([32767, -32768], np.int16)
    expected = 10 * math.log10((32768**2 + 32767**2) / (2 * 65535**2))
    assert quality.snr_db(original, protected) == pytest.approx(expected, abs=64 * EPSILON)


def test_snr_is_the_library_s(tmp_path):
    """The manifest has it to three decimals."""
    samples = speak("yes", 1, 2)
    (tmp_path / "in" / "yes").mkdir(parents=True)
    soundfile.write(tmp_path / "in" / "yes" / "a.wav", samples, SAMPLE_RATE, subtype="PCM_16")
    protect_folder(tmp_path / "in", tmp_path / "out", Key(bytes(32)), recipe=Recipe.paper(blur=0.3))
    protected, _ = soundfile.read(tmp_path / "out" / "yes" / "a.wav", dtype="int16")
    manifest = tmp_path / "out.poscuda.json"
    said = json.loads(manifest.read_text())["files"]["yes/a.wav"]["snr_db"]
    assert round(quality.snr_db(samples, protected), 3) == said


@pytest.mark.parametrize("metric", [quality.snr_db, quality.changed_snr_db])
def test_snr_of_an_unchanged_and_of_a_silent_clip(metric):
    clip = noise(20)
    assert metric(clip, clip) == math.inf
    with pytest.raises(quality.UnmeasurableError, match="silent"):
        metric(np.zeros(20, np.int16), clip)


@pytest.mark.parametrize("frames", [100, 199, 200, 201, 4000])
def test_half_the_amplitude_is_6_db_in_every_spectrum(frames):
    """Loud noise keeps every bin above the floor; even samples are halved exactly."""
    halved = noise(frames, seed=1)
    distance = quality.log_spectral_distance_db(halved * np.int16(2), halved, 8000)
    assert distance == pytest.approx(20 * math.log10(2), abs=1e4 * EPSILON)


@settings(max_examples=25, deadline=None)
@given(frames=st.integers(1, 2000), seed=st.integers(0, 2**32 - 1), top=st.sampled_from([1, 30, 30000]))
def test_log_spectral_distance_is_symmetric_and_blind_to_the_sign(frames, seed, top):
    a, b = noise(frames, top, seed), noise(frames, top, seed + 1)
    assert quality.log_spectral_distance_db(a, a, 8000) == 0
    assert quality.log_spectral_distance_db(a, b, 8000) == quality.log_spectral_distance_db(b, a, 8000)
    assert quality.log_spectral_distance_db(a, -b, 8000) == quality.log_spectral_distance_db(a, b, 8000) >= 0


def spectral_distance_by_the_definition(original, protected, rate):
    size, distances = round(0.025 * rate), []
    weights = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    basis = np.exp(-2j * np.pi * np.outer(np.arange(size // 2 + 1), np.arange(size)) / size)
    for centre in range(0, len(original), round(0.010 * rate)):
        spectra = []
        for clip in (original, protected):
            places = centre - size // 2 + np.arange(size)
            inside = (places >= 0) & (places < len(clip))
            frames = np.where(inside, clip[np.clip(places, 0, len(clip) - 1)], 0.0)
            power = np.abs(basis @ (frames * weights)) ** 2
            spectra.append(10 * np.log10(np.maximum(power, np.sum(weights**2) / 12)))
        distances.append(np.sqrt(np.mean((spectra[0] - spectra[1]) ** 2)))
    return np.mean(distances)


@pytest.mark.parametrize("rate", [8000, 16000, 22050])
@pytest.mark.parametrize("frames", [1, 79, 160, 161, 1000])
def test_log_spectral_distance_is_its_definition(frames, rate):
    """A transform errs by at most `size` roundings of the frame's sum, which counts most at the floor."""
    size, top = round(0.025 * rate), 20000
    tolerance = 20 / math.log(10) * size * EPSILON * (top * size / 2) / math.sqrt(size * 3 / 8 / 12)
    original, protected = noise(frames, seed=2), noise(frames, top, seed=3)
    protected[: frames // 2] = original[: frames // 2]
    expected = spectral_distance_by_the_definition(original, protected, rate)
    assert quality.log_spectral_distance_db(original, protected, rate) == pytest.approx(expected, abs=tolerance)


def test_log_spectral_distance_hears_the_first_and_the_last_frame():
    original = noise(1000)
    for place in (0, -1):
        protected = original.copy()
        protected[place] += 1000
        assert quality.log_spectral_distance_db(original, protected, 8000) > 0.01


def test_log_spectral_distance_has_a_floor_where_int16_ends():
    """The floor is 200 * 3 / 8 / 12 = 6.25; two steps in the middle of a window have a power of 4, three of 9."""
    silent = np.zeros(400, np.int16)
    faint = silent.copy()
    faint[160] = 2
    assert quality.log_spectral_distance_db(silent, faint, 8000) == 0
    faint[160] = 3
    assert quality.log_spectral_distance_db(silent, faint, 8000) > 0


def test_summary_counts_what_it_leaves_out():
    values = [30.0, math.inf, 10.0, math.nan, 20.0, math.nan]
    summary = quality.summarise(values, rows=[5, 6, 7, 8, 9, 10])
    assert summary == {
        "n": 6,
        "unchanged": 1,
        "missing": 2,
        "median": 20.0,
        "worst_5_percent": pytest.approx(11, abs=64 * EPSILON),
        "worst": [{"row": 7, "value": 10.0}, {"row": 9, "value": 20.0}, {"row": 5, "value": 30.0}],
    }


@pytest.mark.parametrize(("bad", "worst", "percentile"), [("low", range(10), 4.95), ("high", range(99, 89, -1), 94.05)])
def test_summary_knows_the_bad_end(bad, worst, percentile):
    summary = quality.summarise(np.arange(100.0), bad=bad)
    assert [clip["row"] for clip in summary["worst"]] == list(worst)
    assert summary["worst_5_percent"] == pytest.approx(percentile, abs=100 * EPSILON)


@given(st.lists(st.one_of(st.floats(-1e9, 1e9), st.just(math.nan), st.just(math.inf)), max_size=30))
def test_summary_is_fit_for_json(values):
    summary = quality.summarise(values)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["n"] == len(values)
    assert len(summary["worst"]) == min(10, summary["n"] - summary["unchanged"] - summary["missing"])


def test_summary_refuses_other_shapes():
    with pytest.raises(ValueError, match="one of each per clip"):
        quality.summarise([1.0, 2.0], rows=[1])
    with pytest.raises(ValueError, match="expected 'low' or 'high'"):
        quality.summarise([1.0], bad="small")


def test_measure_hears_true_frames_only_and_names_rows():
    original, lengths = padded(noise(500), noise(300), noise(400), np.zeros(200, np.int16), frames=600)
    protected = original.copy()
    protected[0, :10] += 50
    protected[1, 300:] = 99  # padding
    protected[2, 5:10] += 500
    protected[3, 0] = 7
    result = quality.measure(original, protected, lengths, 8000, rows=[3, 2, 1, 0])
    assert set(result) == set(quality.OWN)
    snr = result["snr_db"]
    assert (snr["n"], snr["unchanged"], snr["missing"]) == (4, 1, 1)
    assert snr["missing_because"] == {"silent before it was changed": 1}
    assert snr["worst"][0] == {"row": 2, "value": quality.snr_db(original[2, :400], protected[2, :400])}
    assert snr["worst"][1] == {"row": 0, "value": quality.snr_db(original[0, :500], protected[0, :500])}
    assert result["log_spectral_distance_db"]["missing"] == 0
    json.dumps(result, allow_nan=False)


def test_measure_takes_a_high_distance_for_the_worst():
    original, lengths = padded(noise(500), noise(500, seed=1), frames=500)
    protected = original.copy()
    protected[0, :10] += 1
    protected[1, :] = noise(500, seed=5)
    result = quality.measure(original, protected, lengths, 8000, metrics=["log_spectral_distance_db"])
    assert result["log_spectral_distance_db"]["worst"][0]["row"] == 1


def test_measure_of_no_clip():
    summary = quality.measure(np.zeros((0, 5), np.int16), np.zeros((0, 5), np.int16), [], 8000)["snr_db"]
    assert (summary["n"], summary["median"], summary["worst"]) == (0, None, [])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"protected": np.zeros((3, 9), np.int16)}, ValueError, "same clip"),
        ({"protected": np.zeros((2, 9), np.int32)}, TypeError, "int32"),
        ({"original": np.zeros((2, 9), np.float32)}, TypeError, "float32"),
        ({"original": np.zeros(9, np.int16), "protected": np.zeros(9, np.int16)}, ValueError, "one clip a row"),
        ({"lengths": [9]}, ValueError, "for 2 clips"),
        ({"lengths": [9, 10]}, ValueError, "Clip 1 has the length 10"),
        ({"lengths": [-1, 9]}, ValueError, "Clip 0 has the length -1"),
        ({"rows": [True, False]}, ValueError, "mask"),
        ({"rows": [0, 2]}, ValueError, "there are 2 clips"),
        ({"rows": [-1]}, ValueError, "there are 2 clips"),
        ({"metrics": ["snr"]}, ValueError, "no metric 'snr'"),
    ],
)
def test_measure_refuses(change, error, message):
    arguments = {"original": np.zeros((2, 9), np.int16), "protected": np.zeros((2, 9), np.int16), "lengths": [9, 9]}
    with pytest.raises(error, match=message):
        quality.measure(**{**arguments, "sample_rate": 8000, **change})


def tone(hertz, frames, rate, amplitude):
    return np.rint(amplitude * np.cos(2 * np.pi * hertz / rate * np.arange(frames))).astype(np.int16)


def expected_tonality(hertz, rate, amplitude, top):
    """Power of the tone over that of uniform noise, 0 to half the rate, in its critical band."""
    width = 25 + 75 * (1 + 1.4 * (hertz / 1000) ** 2) ** 0.69
    spread = top * (top + 1) / 3 * width / (rate / 2)
    return 10 * math.log10(amplitude**2 / 2 / spread)


@pytest.mark.parametrize(("hertz", "rate"), [(1000, 8000), (3000, 16000), (440, 44100)])
def test_a_tone_in_noise_has_the_ratio_of_its_critical_band(hertz, rate):
    """The largest of some windows of random noise is a little above: dozens of bins have their level to 1 dB."""
    original = noise(2 * rate, 1000, seed=4)
    found = quality.tonality_db(original, original + tone(hertz, 2 * rate, rate, 300), rate)
    assert found == pytest.approx(expected_tonality(hertz, rate, 300, 1000), abs=2)


def test_a_tone_of_twice_the_amplitude_is_6_db_more():
    original = noise(8000, 4000, seed=4)
    once, twice = (
        quality.tonality_db(original, original + tone(1000, 8000, 8000, amplitude), 8000) for amplitude in (500, 1000)
    )
    assert twice - once == pytest.approx(20 * math.log10(2), abs=0.02)  # rounding, a thousandth of the amplitude


def test_an_edit_of_the_whole_band_is_no_tone():
    original = noise(8000, 1000, seed=4)
    hiss = noise(8000, 1000, seed=5)
    tonal = tone(1000, 8000, 8000, round(1000 / 3**0.5 * 2**0.5))  # as loud
    assert quality.tonality_db(original, original + hiss, 8000) < 2
    assert quality.tonality_db(original, original + tonal, 8000) > 12


def test_a_tone_of_the_voice_itself_is_none_of_the_edits():
    original = noise(8000, 100, seed=4) + tone(1000, 8000, 8000, 8000)
    faint = noise(8000, 100, seed=5)
    assert quality.tonality_db(original, original + faint, 8000) < 5


def test_the_half_second_where_the_tone_stands_out_most_counts():
    original = noise(16000, 3000, seed=4)
    original[8000:] //= 100
    protected = original + tone(1000, 16000, 8000, 100)
    wanted = quality.tonality_db(original[8000:], protected[8000:], 8000)
    assert quality.tonality_db(original, protected, 8000) == pytest.approx(wanted, abs=0.5)
    assert quality.tonality_db(original[:8000], protected[:8000], 8000) < wanted - 30


@pytest.mark.parametrize("frames", [1, 5, 30])
def test_a_clip_too_short_for_a_tone_is_missing(frames):
    original, lengths = padded(noise(frames), frames=frames)
    with pytest.raises(quality.UnmeasurableError, match="too short for a tone"):
        quality.tonality_db(original[0], original[0] + np.int16(1), 16000)
    summary = quality.measure(original, original + np.int16(1), lengths, 16000, metrics=["tonality_db"])
    assert summary["tonality_db"]["missing_because"] == {"too short for a tone": 1}


@settings(max_examples=25, deadline=None)
@given(frames=st.integers(400, 6000), rate=st.sampled_from([8000, 16000, 44100]), seed=st.integers(0, 99))
def test_tonality_is_finite_or_said_to_be_missing(frames, rate, seed):
    original = noise(frames, 1 + 300 * (seed % 3), seed)
    for clip in (original, np.zeros_like(original)):
        try:
            assert math.isfinite(quality.tonality_db(clip, clip + noise(frames, 50, seed + 1), rate))
        except quality.UnmeasurableError:
            assert frames < rate / 2


@pytest.fixture(scope="module")
def speech():
    return np.concatenate([speak("one", 3, 1), speak("yes", 3, 1)])


@pytest.mark.parametrize("name", ["visqol", "stoi", "pesq"])
@pytest.mark.parametrize("rate", [8000, 16000])
def test_packages_hear_a_worse_edit(name, rate, speech):
    needs(quality.METRICS[name].package)
    speech = speech[:: 16000 // rate]
    original, lengths = padded(speech, speech, frames=len(speech))
    protected = original.copy()
    protected[0] += noise(len(speech), 60)
    protected[1] += noise(len(speech), 1500)
    summary = quality.measure(original, protected, lengths, rate, metrics=[name])[name]
    assert (summary["n"], summary["missing"]) == (2, 0)
    assert [clip["row"] for clip in summary["worst"]] == [1, 0]
    assert summary["worst"][0]["value"] < summary["worst"][1]["value"]


@pytest.mark.parametrize(
    ("name", "frames", "reason"),
    [("stoi", 5000, "fewer than 30 windows of speech"), ("pesq", 3000, "shorter than 0.25 s")],
)
def test_a_clip_that_a_package_cannot_take_is_missing_with_its_reason(name, frames, reason, speech):
    needs(quality.METRICS[name].package)
    original, lengths = padded(speech[2000 : 2000 + frames], np.zeros(frames, np.int16), frames=frames)
    protected = original + np.int16(1)
    summary = quality.measure(original, protected, lengths, 16000, metrics=[name])[name]
    assert (summary["missing"], summary["median"]) == (2, None)
    assert summary["missing_because"] == {reason: 1, "silent before it was changed": 1}


def test_pesq_leaves_out_a_clip_that_became_silent(speech):
    needs("pesq")
    with pytest.raises(quality.UnmeasurableError, match="all but silent"):
        quality.pesq(speech, np.zeros_like(speech), 16000)


def test_visqol_leaves_out_a_clip_that_became_silent(speech):
    needs("visqol")
    with pytest.raises(quality.UnmeasurableError, match="silent after it was changed"):
        quality.visqol(speech, np.zeros_like(speech), 16000)


def test_visqol_takes_a_short_clip_and_leaves_the_environment_alone(speech):
    needs("visqol")
    clip = speech[2000:6000]
    assert 1 <= quality.visqol(clip, clip + noise(4000, 200), 16000) < 5
    assert os.environ.get("NUMBA_THREADING_LAYER") == THREADING_LAYER


@pytest.mark.parametrize("name", ["visqol", "stoi", "pesq"])
def test_a_missing_package_is_named_with_its_extra(name, monkeypatch, speech):
    monkeypatch.setitem(sys.modules, quality.METRICS[name].package, None)
    quality._visqol.cache_clear()
    original, lengths = padded(speech, frames=len(speech))
    with pytest.raises(ImportError, match=r"\.\[quality\]"):
        quality.measure(original, original + np.int16(1), lengths, 16000, metrics=[name])


def test_installed_names_the_own_metrics_everywhere(monkeypatch):
    monkeypatch.setattr(quality.importlib.util, "find_spec", lambda _: None)
    assert quality.installed() == quality.OWN == (
        "snr_db", "changed_snr_db", "log_spectral_distance_db", "tonality_db",
    )  # fmt: skip
