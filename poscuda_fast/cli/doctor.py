"""What this installation can do here, and why something is missing."""

from __future__ import annotations

import hashlib
import platform
import sqlite3
import sys
from importlib import metadata
from typing import Any

import numpy as np

from poscuda_fast import kernels
from poscuda_fast.cli import extras
from poscuda_fast.key import Key
from poscuda_fast.mark import labels
from poscuda_fast.mark.plan import Plan
from poscuda_fast.recipe import Recipe

PACKAGES = ("numpy", "numba", "soundfile", "cryptography", "click", "rich")
# FORMAT.md, "Vectors": label 0, 16,000 int16 frames.
VECTORS = ((Recipe.paper(), "51fc50df5f87fc86"), (Recipe.strong(), "89d59373307e2b5a"))
WRONG = "WRONG BITS"
COMPLETION = 'eval "$(poscuda completion bash)"; poscuda completion --help says where, and how for zsh and fish'


def examine() -> dict[str, Any]:
    """Versions, cores, backends and extras as plain JSON values; `ok` tells whether the library can work.

    Every backend marks one vector of each format, so "ok" means that its bits are right.
    """
    backends = {name: _try_backend(name) for name in kernels.BACKENDS}
    return {
        "poscuda-fast": metadata.version("poscuda-fast"),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": kernels.usable_cores(),
        "packages": {name: _version(name) for name in PACKAGES},
        "libsndfile": _libsndfile(),
        "sqlite": sqlite3.sqlite_version,
        "backends": backends,
        "extras": extras.states(),
        "completion": COMPLETION,
        "auto": next((name for name, state in backends.items() if state == "ok"), None),
        "ok": backends["reference"] == "ok" and not any(state.startswith(WRONG) for state in backends.values()),
    }


def _try_backend(name: str) -> str:
    """Mark one vector of each format: "ok", or what is wrong as a sentence."""
    problem = kernels.why_missing(name)
    if problem is not None:
        return problem
    for recipe, expected in VECTORS:
        plan = Plan(Key(bytes(range(32))), recipe, labels.encode([0], None, 1), np.array([16_000]))
        clip = ((7919 * np.arange(16_000)) % 65536 - 32768).astype(np.int16)
        for patches in plan.batches(plan.n_patches):
            kernels.Engine(name).mark_patches(clip, patches.starts, patches.sizes, patches.rows, plan.marks, 1)
        found = hashlib.sha256(clip.astype("<i2").tobytes()).hexdigest()[:16]
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
