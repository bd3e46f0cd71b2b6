"""An embedding of clips for the Fréchet distance, from a network that comes in a package and works offline.

dnsmos-128 is the last hidden layer but one of DNSMOS P.835 (Reddy et al. 2022), which was trained to rate speech
quality. Call its distance FAD[dnsmos-128]. The paper's own embedding, of the PANNs, cannot be had from a package.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.resources
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from poscuda_fast.evaluation.padded import FULL_SCALE, checked_lengths
from poscuda_fast.text import how_to_install

NAME, DIMENSIONS = "dnsmos-128", 128
BATCH = 16  # with one clip per call DNSMOS takes 1.5 times as long
RATE = 16_000
FRAMES = 144_160  # 9.01 s; the graph takes no other length
LAYER = "mos_estimator_logpow/dense/Relu:0"

Samples = NDArray[np.float32]


def embed(clips: NDArray[np.int16], lengths: ArrayLike, sample_rate: int) -> NDArray[np.float32]:
    """One embedding (DIMENSIONS,) per int16 clip (n, L), of its true frames only; at most `BATCH` clips are in memory.

    Clips of another rate than the network's are resampled with soxr ("HQ"), and repeated to fill its window. ValueError
    if shapes do not fit, a clip has no frames, or is longer than 9.01 s: the network hears no more than that.
    """
    lengths = checked_lengths(clips, lengths)
    if not lengths.all():
        raise ValueError(f"Clip {np.flatnonzero(lengths == 0)[0]} has no frames, and no embedding; leave it out.")
    embeddings = np.empty((len(clips), DIMENSIONS), dtype=np.float32)
    network = _dnsmos() if len(clips) else None
    for first in range(0, len(clips), BATCH):
        rows = range(first, min(first + BATCH, len(clips)))
        assert network is not None
        embeddings[first : first + BATCH] = network(
            np.stack([_filled(clips[row, : lengths[row]], sample_rate) for row in rows])
        )
    return embeddings


def describe() -> dict[str, str]:
    """What a result stores about the embedding: its name, and the SHA-256 of the file with the weights."""
    return {"embedding": NAME, "sha256": hashlib.sha256(_file()).hexdigest()}


def _filled(clip: NDArray[np.int16], sample_rate: int) -> Samples:
    """A clip in [-1, 1) at the network's rate, repeated to fill its window, as speechmos does."""
    samples = clip.astype(np.float32) / np.float32(FULL_SCALE)
    if sample_rate != RATE:
        samples = _needed("soxr").resample(samples, sample_rate, RATE)
    if len(samples) > FRAMES:
        raise ValueError(f"A clip has {len(samples)} frames at {RATE} Hz; {NAME} hears {FRAMES}: cut it.")
    return np.resize(samples, FRAMES)


def _needed(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"Embeddings need {package}: {how_to_install('experiments')}.") from error


def _file() -> bytes:
    _needed("speechmos")
    return (importlib.resources.files("speechmos") / "dnsmos_models" / "sig_bak_ovr.onnx").read_bytes()


@functools.cache
def _dnsmos() -> Callable[[Samples], Samples]:
    """DNSMOS with one of its hidden layers as the output: (n, FRAMES) -> (n, DIMENSIONS)."""
    onnx, runtime = _needed("onnx"), _needed("onnxruntime")
    model = onnx.load_from_string(_file())
    model.graph.output.append(onnx.ValueInfoProto(name=LAYER))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # 0: as many as there are cores
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda samples: session.run([LAYER], {"input_1": samples})[0]
