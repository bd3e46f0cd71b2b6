from __future__ import annotations

import hashlib
import sys
import tracemalloc

import numpy as np
import pytest

from experiments.measures import embeddings
from poscuda_fast.cli.synth import speak

pytest.importorskip("speechmos")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

RATE = 16000
SHORT, LONG = speak("one", 1, 1), speak("sun", 2, 1)
FRAMES = 14000


@pytest.fixture(autouse=True)
def _one_onnx_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def padded(*clips, frames=FRAMES):
    array = np.zeros((len(clips), frames), np.int16)
    for row, clip in zip(array, clips, strict=True):
        row[: len(clip)] = clip
    return array, [len(clip) for clip in clips]


@pytest.fixture(scope="module")
def spoken():
    clips, lengths = padded(SHORT, LONG)
    return clips, lengths, embeddings.embed(clips, lengths, RATE)


def dnsmos_bytes():
    return embeddings.importlib.resources.files("speechmos").joinpath("dnsmos_models/sig_bak_ovr.onnx").read_bytes()


def test_is_the_layer_before_the_scores(spoken):
    """The two layers behind it, done by hand, give the network's own scores of the clip over and over for 9.01 s."""
    _, _, embedded = spoken
    assert embedded.shape == (2, 128)
    assert embedded.dtype == np.float32
    session = onnxruntime.InferenceSession(dnsmos_bytes(), providers=["CPUExecutionProvider"])
    over = np.concatenate([SHORT / np.float32(32768)] * (1 + 144160 // len(SHORT)))[:144160]
    (scores,) = session.run(None, {"input_1": over[None].astype(np.float32)})
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in onnx.load_from_string(dnsmos_bytes()).graph.initializer}
    x = embedded[:1].astype(np.float64)
    for layer in ("dense_1", "dense_3"):
        name = f"mos_estimator_logpow/{layer}/{{}}/ReadVariableOp/resource:0"
        x = np.maximum(x, 0) @ weights[name.format("MatMul")] + weights[name.format("BiasAdd")]
    np.testing.assert_allclose(x, scores, rtol=1e3 * np.finfo(np.float32).eps)


def test_padding_is_not_heard_and_rows_keep_their_order(spoken):
    clips, lengths, embedded = spoken
    noisy = clips.copy()
    noisy[0, len(SHORT) :] = 12345
    again = embeddings.embed(noisy[::-1], lengths[::-1], RATE)
    scale = 1e3 * np.finfo(np.float32).eps * np.abs(embedded).max()  # for sums that a batch may order otherwise
    np.testing.assert_allclose(again, embedded[::-1], atol=scale)
    assert np.abs(embedded[0] - embedded[1]).max() > 1e3 * scale


def test_other_rates_are_resampled(spoken):
    """Every other frame of a clip with nothing above 5 kHz, at 8 kHz, is nearer to it than another clip is."""
    _, _, embedded = spoken
    clips, lengths = padded(SHORT[::2])
    slower = embeddings.embed(clips, lengths, RATE // 2)
    assert np.linalg.norm(slower - embedded[0]) < 0.5 * np.linalg.norm(embedded[1] - embedded[0])


def test_a_memory_map_is_read_row_by_row(tmp_path, spoken):
    _, _, embedded = spoken
    np.lib.format.open_memmap(tmp_path / "clips.npy", "w+", np.int16, (4000, FRAMES))[7, : len(SHORT)] = SHORT
    clips = np.load(tmp_path / "clips.npy", mmap_mode="r")
    lengths = np.full(4000, len(SHORT))
    tracemalloc.start()
    one = embeddings.embed(clips[7:8], lengths[7:8], RATE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(one[0], embeddings.embed(*padded(SHORT), RATE)[0])
    assert peak < clips.nbytes / 10
    assert np.abs(one[0] - embedded[0]).max() < 1e-3 * np.abs(embedded).max()


def test_no_clips_need_no_network(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    embeddings._dnsmos.cache_clear()
    assert embeddings.embed(np.zeros((0, 9), np.int16), [], RATE).shape == (0, 128)


def test_more_clips_than_a_batch(monkeypatch, spoken):
    clips, lengths, embedded = spoken
    monkeypatch.setattr(embeddings, "BATCH", 1)
    scale = 1e3 * np.finfo(np.float32).eps * np.abs(embedded).max()
    np.testing.assert_allclose(embeddings.embed(clips, lengths, RATE), embedded, atol=scale)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"clips": np.zeros((1, 9), np.float32)}, TypeError, "float32"),
        ({"lengths": [0]}, ValueError, "Clip 0 has no frames"),
        ({"lengths": [10]}, ValueError, "length 10 in a row of 9"),
        ({"lengths": [9, 9]}, ValueError, "for 1 clips"),
        ({"clips": np.ones((1, 144161), np.int16), "lengths": [144161]}, ValueError, "hears 144160: cut it"),
    ],
)
def test_refuses(change, error, message):
    arguments = {"clips": np.ones((1, 9), np.int16), "lengths": [9], "sample_rate": RATE}
    with pytest.raises(error, match=message):
        embeddings.embed(**{**arguments, **change})


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    embeddings._dnsmos.cache_clear()
    with pytest.raises(ImportError, match=r"need onnxruntime: run pip install '\.\[experiments\]'"):
        embeddings.embed(*padded(SHORT), RATE)


def test_describes_dnsmos_by_its_file():
    said = {"embedding": "dnsmos-128", "sha256": hashlib.sha256(dnsmos_bytes()).hexdigest()}
    assert embeddings.describe() == said
