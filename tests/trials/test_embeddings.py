from __future__ import annotations

import hashlib
import io
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from torch.nn import functional

from experiments import cnn14, embeddings
from poscuda_fast.cli.synth import speak

pytest.importorskip("speechmos")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("torchlibrosa")

RATE = 16000
SHORT, LONG = speak("one", 1, 1), speak("sun", 2, 1)
FRAMES = 14000


@pytest.fixture(autouse=True)
def _one_onnx_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv(cnn14.CHECKPOINT_VARIABLE, raising=False)


def padded(*clips, frames=FRAMES):
    array = np.zeros((len(clips), frames), np.int16)
    for row, clip in zip(array, clips, strict=True):
        row[: len(clip)] = clip
    return array, [len(clip) for clip in clips]


@pytest.fixture(scope="module")
def spoken():
    clips, lengths = padded(SHORT, LONG)
    return clips, lengths, embeddings.embed("dnsmos-128", clips, lengths, RATE)


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
    again = embeddings.embed("dnsmos-128", noisy, lengths, RATE, batch=1, rows=[1, 0])
    scale = 1e3 * np.finfo(np.float32).eps * np.abs(embedded).max()  # for sums that a batch may order otherwise
    np.testing.assert_allclose(again, embedded[::-1], atol=scale)
    assert np.abs(embedded[0] - embedded[1]).max() > 1e3 * scale


def test_other_rates_are_resampled(spoken):
    """Every other frame of a clip with nothing above 5 kHz, at 8 kHz, is nearer to it than another clip is."""
    _, _, embedded = spoken
    clips, lengths = padded(SHORT[::2])
    slower = embeddings.embed("dnsmos-128", clips, lengths, RATE // 2)
    assert np.linalg.norm(slower - embedded[0]) < 0.5 * np.linalg.norm(embedded[1] - embedded[0])


def test_a_memory_map_is_read_row_by_row(tmp_path, spoken):
    _, _, embedded = spoken
    np.lib.format.open_memmap(tmp_path / "clips.npy", "w+", np.int16, (4000, FRAMES))[7, : len(SHORT)] = SHORT
    clips = np.load(tmp_path / "clips.npy", mmap_mode="r")
    lengths = np.full(4000, len(SHORT))
    tracemalloc.start()
    one = embeddings.embed("dnsmos-128", clips, lengths, RATE, rows=[7])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(one[0], embeddings.embed("dnsmos-128", *padded(SHORT), RATE)[0])
    assert peak < clips.nbytes / 10
    assert np.abs(one[0] - embedded[0]).max() < 1e-3 * np.abs(embedded).max()


def test_batches_hold_clips_of_one_length_and_no_more_than_asked(monkeypatch):
    seen = []

    def network(samples):
        seen.append(samples.shape)
        return samples[:, :1].repeat(2048, axis=1)

    monkeypatch.setattr(embeddings, "_pann", lambda _name, _checkpoint: (network, 100))
    clips = np.arange(1, 8, dtype=np.int16)[:, None].repeat(300, axis=1)
    lengths = [300, 10, 99, 100, 300, 50, 150]
    found = embeddings.embed("pann-16k", clips, lengths, 100, batch=3)
    assert seen == [(3, 100), (1, 100), (1, 150), (2, 300)]  # one second is 100 frames here
    np.testing.assert_array_equal(found[:, 0] * 32768, np.arange(1, 8))


def test_no_rows_need_no_network():
    clips, lengths = padded(SHORT)
    assert embeddings.embed("pann-32k", clips, lengths, RATE, rows=[]).shape == (0, 2048)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": "vggish"}, ValueError, "no embedding 'vggish'; there are dnsmos-128, pann-16k, pann-32k"),
        ({"clips": np.zeros((1, 9), np.float32)}, TypeError, "float32"),
        ({"lengths": [0]}, ValueError, "Clip 0 has no frames"),
        ({"lengths": [10]}, ValueError, "length 10 in a row of 9"),
        ({"lengths": [9, 9]}, ValueError, "for 1 clips"),
        ({"rows": [1]}, ValueError, "there are 1 clips"),
        ({"clips": np.ones((1, 144161), np.int16), "lengths": [144161]}, ValueError, "hears 144160: cut it"),
        ({"name": "pann-16k"}, FileNotFoundError, "set POSCUDA_PANN_CHECKPOINT"),
    ],
)
def test_refuses(change, error, message):
    arguments = {"name": "dnsmos-128", "clips": np.ones((1, 9), np.int16), "lengths": [9], "sample_rate": RATE}
    with pytest.raises(error, match=message):
        embeddings.embed(**{**arguments, **change})


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    embeddings._dnsmos.cache_clear()
    with pytest.raises(ImportError, match=r"need onnxruntime: pip install 'poscuda-fast\[experiments\]'"):
        embeddings.embed("dnsmos-128", *padded(SHORT), RATE)


def test_describes_dnsmos_by_its_file():
    said = {"embedding": "dnsmos-128", "sha256": hashlib.sha256(dnsmos_bytes()).hexdigest()}
    assert embeddings.describe("dnsmos-128") == said


FRONT = {"pann-16k": (257, 512), "pann-32k": (513, 1024)}


def published_shapes(name):
    """Names and shapes of the authors' state dict."""
    bins, size = FRONT[name]
    shapes = {
        "spectrogram_extractor.stft.conv_real.weight": (bins, 1, size),
        "spectrogram_extractor.stft.conv_imag.weight": (bins, 1, size),
        "logmel_extractor.melW": (bins, 64),
        "fc1.weight": (2048, 2048),
        "fc1.bias": (2048,),
        "fc_audioset.weight": (527, 2048),
        "fc_audioset.bias": (527,),
    }
    norms = {"bn0": 64}
    widths = (1, 64, 128, 256, 512, 1024, 2048)
    for block in range(1, 7):
        for layer in (1, 2):
            wide_in = widths[block - 1] if layer == 1 else widths[block]
            shapes[f"conv_block{block}.conv{layer}.weight"] = (widths[block], wide_in, 3, 3)
            norms[f"conv_block{block}.bn{layer}"] = widths[block]
    for norm, width in norms.items():
        shapes |= {f"{norm}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{norm}.num_batches_tracked"] = ()
    return shapes


def checkpoint(name):
    """Random weights of the published shape; of large ones one value an output, so that the file is small."""
    generator = torch.Generator().manual_seed(5)
    state = {}
    for key, shape in published_shapes(name).items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(3)
        elif len(shape) > 1:
            few = shape if len(shape) == 2 else (shape[0], *[1] * (len(shape) - 1))
            state[key] = (torch.randn(few, generator=generator) / np.prod(shape[1:]) ** 0.5).expand(shape)
        else:
            state[key] = torch.rand(shape, generator=generator) + 0.5
        if "melW" in key:
            state[key] = state[key].abs()
    sampler = {"indexes_per_class": [np.arange(3)], "queue": [1], "scalar": np.float64(1)}
    return {"iteration": 6, "model": state, "sampler": sampler}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The two files as of 2020: torch's old format, with arrays under the module's name in NumPy 1."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, file in (("pann-16k", "Cnn14_16k_mAP%3D0.438.pth"), ("pann-32k", "Cnn14_mAP=0.431.pth")):
        content = io.BytesIO()
        torch.save(checkpoint(name), content, _use_new_zipfile_serialization=False)
        old = content.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
        assert old.count(b"cnumpy.core.multiarray\n") == 2
        (folder / file).write_bytes(old)
    return folder


def by_the_paper(state, samples, hop):
    """CNN14 from its description (Kong et al. 2020, table 1), in float64."""
    s = {key: value.double() for key, value in state.items()}

    def norm(x, name, axis=1):
        shape = [1] * x.ndim
        shape[axis] = -1
        mean, var, gain, bias = (
            s[f"{name}.{part}"].reshape(shape) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gain + bias

    size = s["spectrogram_extractor.stft.conv_real.weight"].shape[-1]
    frames = functional.pad(samples[:, None], (size // 2, size // 2), mode="reflect")[:, 0].unfold(1, size, hop)
    power = sum((frames @ s[f"spectrogram_extractor.stft.conv_{p}.weight"][:, 0].T) ** 2 for p in ("real", "imag"))
    x = 10 * torch.log10((power @ s["logmel_extractor.melW"]).clamp(min=1e-10))[:, None]  # (n, 1, steps, bands)
    x = norm(x, "bn0", axis=3)
    for block in range(1, 7):
        for layer in (1, 2):
            x = functional.conv2d(x, s[f"conv_block{block}.conv{layer}.weight"], padding=1)
            x = norm(x, f"conv_block{block}.bn{layer}").clamp(min=0)
        if block < 6:
            x = x[..., : x.shape[2] // 2 * 2, :].unflatten(2, (-1, 2)).mean(3).unflatten(3, (-1, 2)).mean(4)
    x = x.mean(3)
    return ((x.max(2).values + x.mean(2)) @ s["fc1.weight"].T + s["fc1.bias"]).clamp(min=0)


def test_pann_16k_is_cnn14_of_the_clip_padded_to_a_second(saved):
    clips, lengths = padded(SHORT)
    found = embeddings.embed("pann-16k", clips, lengths, RATE, checkpoint=saved)
    second = torch.zeros(1, RATE, dtype=torch.float64)
    second[0, : len(SHORT)] = torch.from_numpy(SHORT / 32768)
    expected = by_the_paper(checkpoint("pann-16k")["model"], second, 160).numpy()
    assert (expected > 0).mean() > 0.1
    np.testing.assert_allclose(found, expected, atol=100 * np.finfo(np.float32).eps * expected.max())


def test_pann_32k_resamples_and_finds_its_file_by_the_environment(saved, monkeypatch):
    monkeypatch.setenv("POSCUDA_PANN_CHECKPOINT", str(saved / "Cnn14_mAP=0.431.pth"))
    found = embeddings.embed("pann-32k", *padded(SHORT), RATE)
    assert found.shape == (1, 2048)
    assert np.isfinite(found).all()
    digest = hashlib.sha256((saved / "Cnn14_mAP=0.431.pth").read_bytes()).hexdigest()
    assert embeddings.describe("pann-32k") == {"embedding": "pann-32k", "sha256": digest}


def test_either_spelling_is_found_in_a_folder(saved):
    assert cnn14.find("pann-16k", saved).name == "Cnn14_16k_mAP%3D0.438.pth"
    assert cnn14.find("pann-32k", saved).name == "Cnn14_mAP=0.431.pth"


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Cnn14_mAP=0\.431\.pth .*zenodo"):
        cnn14.find("pann-32k")
    with pytest.raises(FileNotFoundError, match="neither a file"):
        cnn14.find("pann-32k", tmp_path)


def test_a_replaced_checkpoint_is_described_anew(tmp_path):
    path = tmp_path / "Cnn14_mAP=0.431.pth"
    for content in (b"one", b"three"):
        path.write_bytes(content)
        assert embeddings.describe("pann-32k", path)["sha256"] == hashlib.sha256(content).hexdigest()


class Foreign:
    def __reduce__(self):
        return (print, ("run by the file",))


def test_a_file_with_other_weights_or_with_code_is_refused(tmp_path, capsys):
    for content in ({"model": {"fc1.bias": torch.zeros(3)}}, {"weights": {}}, {"model": {}, "sampler": Foreign()}):
        torch.save(content, tmp_path / "Cnn14_mAP=0.431.pth")
        with pytest.raises(ValueError, match="does not hold the weights of pann-32k"):
            cnn14.load("pann-32k", tmp_path)
    assert capsys.readouterr().out == ""
