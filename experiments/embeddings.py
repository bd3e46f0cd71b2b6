"""Embeddings of clips for the Fréchet distance, named after the network that makes them.

- dnsmos-128: the last hidden layer but one of DNSMOS P.835 (Reddy et al. 2022), which comes inside the package
  speechmos. It was trained to rate speech quality, and works offline. Call its distance FAD[dnsmos-128].
- pann-16k, pann-32k: CNN14 of the PANNs (Kong et al. 2020), as for the paper's FAD. Needs the published checkpoint.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from poscuda_fast.evaluation.padded import FULL_SCALE, checked_lengths, checked_rows

BATCH = 16  # with one clip per call DNSMOS takes 1.5 times as long
PANN_SHORTEST = 1.0  # seconds: shorter clips are padded with zeros
DNSMOS_RATE = 16_000
DNSMOS_FRAMES = 144_160  # 9.01 s; the graph takes no other length
DNSMOS_LAYER = "mos_estimator_logpow/dense/Relu:0"
DIMENSIONS = {"dnsmos-128": 128, "pann-16k": 2048, "pann-32k": 2048}

Samples = NDArray[np.float32]


def embed(
    name: str,
    clips: NDArray[np.int16],
    lengths: ArrayLike,
    sample_rate: int,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    batch: int = BATCH,
    rows: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """One embedding per clip, of its true frames only.

    Parameters
    ----------
    name : {"dnsmos-128", "pann-16k", "pann-32k"}
    clips : (n, L) int16
        May be a memory map: at most `batch` clips are in memory at once.
    lengths : (n,) array_like of int
        True frames of each clip; the padding after them is ignored.
    sample_rate : int
        Hz. Clips of another rate than the network's are resampled with soxr ("HQ").
    checkpoint : path, optional
        The file or folder of the PANN checkpoint; without it, the environment's POSCUDA_PANN_CHECKPOINT.
    batch : int
        Clips per call of the network.
    rows : (m,) array_like of int, optional
        Which clips, in this order; all of them if not given.

    Returns
    -------
    (m, d) float32
        d is 128 for dnsmos-128 and 2048 for the PANNs.

    Raises
    ------
    ValueError
        If the name is unknown, shapes or rows do not fit, a clip has no frames, or, for dnsmos-128, one is longer
        than 9.01 s: the network hears no more than that.
    TypeError
        If the clips are not int16.
    FileNotFoundError
        If the PANN checkpoint is not there.
    ImportError
        If a package of the extra `experiments` is missing.
    """
    _known(name)
    lengths, rows = checked_lengths(clips, lengths), checked_rows(clips, rows)
    empty = rows[lengths[rows] == 0]
    if len(empty):
        raise ValueError(f"Clip {empty[0]} has no frames, and no embedding; leave it out of rows.")
    embeddings = np.empty((len(rows), DIMENSIONS[name]), dtype=np.float32)
    if len(rows) == 0:
        return embeddings
    if name == "dnsmos-128":
        network, rate, fit = _dnsmos(), DNSMOS_RATE, _tile
    else:
        network, rate = _pann(name, checkpoint)
        shortest = round(PANN_SHORTEST * rate)

        def fit(samples: Samples) -> Samples:
            return np.pad(samples, (0, max(0, shortest - len(samples))))

    # Sorted by length, so that a batch holds clips of one length: padding would change the embedding.
    order = np.argsort(lengths[rows], kind="stable")
    fitted = ((place, fit(_samples(clips, lengths, rows[place], sample_rate, rate))) for place in order)
    for places, together in _batches(fitted, batch):
        embeddings[places] = network(together)
    return embeddings


def describe(name: str, checkpoint: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """What a result stores about an embedding: its name, and the SHA-256 of the file with the weights.

    Raises
    ------
    ValueError, FileNotFoundError, ImportError
        As in `embed`.
    """
    _known(name)
    if name == "dnsmos-128":
        return {"embedding": name, "sha256": hashlib.sha256(_dnsmos_file()).hexdigest()}
    path = _cnn14().find(name, checkpoint)
    stat = path.stat()
    return {"embedding": name, "sha256": _sha256(path, stat.st_size, stat.st_mtime_ns)}


def _known(name: str) -> None:
    if name not in DIMENSIONS:
        raise ValueError(f"There is no embedding {name!r}; there are {', '.join(DIMENSIONS)}.")


def _samples(clips: NDArray[np.int16], lengths: NDArray[np.int64], row: int, rate: int, wanted: int) -> Samples:
    """A clip's true frames in [-1, 1), at the wanted rate."""
    samples = clips[row, : lengths[row]].astype(np.float32) / np.float32(FULL_SCALE)
    if rate == wanted:
        return samples
    resampled: Samples = _needed("soxr").resample(samples, rate, wanted)
    return resampled


def _tile(samples: Samples) -> Samples:
    """The clip, repeated to fill the window, as speechmos does."""
    if len(samples) > DNSMOS_FRAMES:
        raise ValueError(
            f"A clip has {len(samples)} frames at {DNSMOS_RATE} Hz; dnsmos-128 hears {DNSMOS_FRAMES}: cut it."
        )
    return np.resize(samples, DNSMOS_FRAMES)


def _batches(fitted: Iterator[tuple[int, Samples]], batch: int) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """Neighbours of one length together, `batch` at most."""
    places: list[int] = []
    together: list[Samples] = []
    for place, samples in fitted:
        if together and (len(together) == batch or len(together[0]) != len(samples)):
            yield places, np.stack(together)
            places, together = [], []
        places.append(place)
        together.append(samples)
    yield places, np.stack(together)


def _needed(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"Embeddings need {package}: pip install 'poscuda-fast[experiments]'.") from error


def _dnsmos_file() -> bytes:
    _needed("speechmos")
    return (importlib.resources.files("speechmos") / "dnsmos_models" / "sig_bak_ovr.onnx").read_bytes()


@functools.cache
def _dnsmos() -> Callable[[Samples], Samples]:
    """DNSMOS with one of its hidden layers as the output: (n, 144160) -> (n, 128)."""
    onnx, runtime = _needed("onnx"), _needed("onnxruntime")
    model = onnx.load_from_string(_dnsmos_file())
    model.graph.output.append(onnx.ValueInfoProto(name=DNSMOS_LAYER))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # 0: as many as there are cores
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda samples: session.run([DNSMOS_LAYER], {"input_1": samples})[0]


def _pann(name: str, checkpoint: str | os.PathLike[str] | None) -> tuple[Callable[[Samples], Samples], int]:
    torch, cnn14 = _needed("torch"), _cnn14()
    model = cnn14.load(name, checkpoint)

    def network(samples: Samples) -> Samples:
        with torch.inference_mode():
            embedding: Samples = model(torch.from_numpy(samples)).numpy()
        return embedding

    return network, cnn14.CONFIGS[name].sample_rate


def _cnn14() -> Any:
    _needed("torchlibrosa")
    return importlib.import_module("experiments.cnn14")


@functools.lru_cache
def _sha256(path: Path, size: int, modified: int) -> str:
    """SHA-256 of a file; `size` and `modified` are keys of the cache, so that a replaced file is read again."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()
