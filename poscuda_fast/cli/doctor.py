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


def examine() -> dict[str, Any]:
    """Versions, cores, backends and extras as plain JSON values; `ok` tells whether the library can work.

    Every backend marks vectors of both formats, so that one is "ok" only if its bits are right; "code" is "ok",
    "missing" or "wrong_bits". Only problems are sentences, and null where there is none.
    """
    backends = {name: _try_backend(name) for name in kernels.BACKENDS}
    is_wrong = any(state["code"] == "wrong_bits" for state in backends.values())
    return {
        "ok": backends["reference"]["ok"] and not is_wrong,
        "versions": {
            "poscuda_fast": metadata.version("poscuda-fast"),
            "python": sys.version.split()[0],
            **{name: _version(name) for name in PACKAGES},
            "libsndfile": _libsndfile(),
        },
        "platform": platform.platform(),
        "cores": kernels.usable_cores(),
        "backends": backends,
        "auto": next((name for name, state in backends.items() if state["ok"]), None),
        "extras": {name: {"ok": problem is None, "problem": problem} for name, problem in extras.problems().items()},
    }


def _try_backend(name: str) -> dict[str, Any]:
    """Mark vectors of both formats, and tell whether that went well."""
    problem = kernels.why_missing(name)
    if problem is not None:
        return {"ok": False, "code": "missing", "problem": problem}
    for recipe, stored, expected in VECTORS:
        clips = (7919 * np.arange(16_000)[None]) % 65536 - 32768
        clips = (clips / 32768).astype(np.float32) if stored == "<f4" else clips.astype(np.int16)
        mark_batch(clips, [0], Key(bytes(range(32))), recipe=recipe, engine=kernels.Engine(name), sample_rate=16_000)
        found = hashlib.sha256(clips.astype(stored).tobytes()).hexdigest()[:16]
        if found != expected:
            problem = f"WRONG BITS ({found}, expected {expected}): do not use it, please report this."
            return {"ok": False, "code": "wrong_bits", "problem": problem}
    return {"ok": True, "code": "ok", "problem": None}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _libsndfile() -> str | None:
    try:
        import soundfile  # noqa: PLC0415 - it loads a shared library, which may be missing

        return str(soundfile.__libsndfile_version__)
    except (ImportError, OSError):
        return None
