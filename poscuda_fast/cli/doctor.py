"""What this installation can do here, and why something is missing."""

from __future__ import annotations

import hashlib
import platform
import sys
from importlib import metadata
from typing import Any

import numpy as np

from poscuda_fast import kernels
from poscuda_fast.arrays.memory import mark_batch
from poscuda_fast.cli import extras
from poscuda_fast.key import Key
from poscuda_fast.recipe import Recipe

PACKAGES = ("numpy", "numba", "soundfile", "blake3", "cryptography", "click", "rich")
# FORMAT.md, "Vectors": label 0, 16,000 frames at 16 kHz.
VECTORS = (
    (Recipe.paper(), "<i2", "51fc50df5f87fc86"),
    (Recipe.paper(), "<f4", "2e5279dc8a6a1fa3"),
    (Recipe.strong(), "<i2", "55603054b123e663"),
    (Recipe.strong(), "<f4", "b76c8f48d568ee55"),
)
WRONG = "WRONG BITS"
COMPLETION = 'eval "$(poscuda completion bash)"; poscuda completion --help says where, and how for zsh and fish'


def examine() -> dict[str, Any]:
    """Versions, cores, backends and extras as plain JSON values; `ok` tells whether the library can work.

    Every backend marks vectors of both formats, so "ok" means that its bits are right.
    """
    backends = {name: _try_backend(name) for name in kernels.BACKENDS}
    return {
        "poscuda-fast": metadata.version("poscuda-fast"),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": kernels.usable_cores(),
        "packages": {name: _version(name) for name in PACKAGES},
        "libsndfile": _libsndfile(),
        "backends": backends,
        "extras": extras.states(),
        "completion": COMPLETION,
        "auto": next((name for name, state in backends.items() if state == "ok"), None),
        "ok": backends["reference"] == "ok" and not any(state.startswith(WRONG) for state in backends.values()),
    }


def _try_backend(name: str) -> str:
    """Mark vectors of both formats: "ok", or what is wrong as a sentence."""
    problem = kernels.why_missing(name)
    if problem is not None:
        return problem
    for recipe, stored, expected in VECTORS:
        clips = (7919 * np.arange(16_000)[None]) % 65536 - 32768
        clips = (clips / 32768).astype(np.float32) if stored == "<f4" else clips.astype(np.int16)
        mark_batch(clips, [0], Key(bytes(range(32))), recipe=recipe, engine=kernels.Engine(name), sample_rate=16_000)
        found = hashlib.sha256(clips.astype(stored).tobytes()).hexdigest()[:16]
        if found != expected:
            return f"{WRONG} ({found}, expected {expected}): do not use it, please report this."
    return "ok"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"missing: run pip install {name}"


def _libsndfile() -> str:
    try:
        import soundfile  # noqa: PLC0415 - it loads a shared library, which may be missing

        return str(soundfile.__libsndfile_version__)
    except (ImportError, OSError) as error:
        return f"missing: {error}"
