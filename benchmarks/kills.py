"""Kill `protect_memmap` at random moments on real speech; the next call must always finish the job.

    python -m benchmarks.kills SPEECH [N_KILLS] [SEED]

SPEECH/speech_commands becomes one (N, 16000) int16 array in a temporary folder. A child process protects it and
is killed with SIGKILL at a random moment; then the same call is made again, and the array is restored. The file's
SHA-256 is checked after each. The result is stored in benchmarks/results/kills.json.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import stored
from poscuda_fast import Key, Recipe, protect_memmap, restore_memmap

FRAMES = 16_000
RECIPE = Recipe.strong()  # dozens of batches, so that kills also fall between them


def main(speech: Path, n_kills: int, seed: int) -> None:
    """Run all kills and store what was seen."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clips.npy"
        words, lengths = prepare(speech / "speech_commands", path)
        key = Key.generate()
        job: dict[str, Any] = {"path": path, "words": words, "lengths": lengths, "key": key}
        original = digest(path)
        full = protect(**job)
        protected = digest(path)
        restore(path, key)
        assert digest(path) == original
        rng = np.random.default_rng(seed)
        states: dict[str, int] = {}
        wrong = 0
        for _ in range(n_kills):
            state = kill_once(job, rng.uniform(0, 1.1 * full), original, protected)
            states[state] = states.get(state, 0) + 1
            protect(**job)
            wrong += digest(path) != protected
            restore(path, key)
            wrong += digest(path) != original
            print(f"killed with the file {state}; {wrong} wrong so far", flush=True)
    fields = {
        "clips": len(words),
        "recipe": RECIPE.to_dict(),
        "kills": n_kills,
        "seed": seed,
        "file_when_killed": states,
        "wrong_after_next_call": wrong,
    }
    print(stored.store(stored.BENCHMARKS, "kills", f"python -m benchmarks.kills SPEECH {n_kills} {seed}", fields))


def prepare(source: Path, path: Path) -> tuple[list[str], list[int]]:
    """All clips as one array file, padded with zeros; returns their words and true lengths."""
    files = sorted(source.rglob("*.flac")) or sorted(source.rglob("*.wav"))
    clips = np.lib.format.open_memmap(path, "w+", np.int16, (len(files), FRAMES))
    lengths = []
    for row, file in zip(clips, files, strict=True):
        samples, _ = soundfile.read(file, dtype="int16")
        row[: len(samples)] = samples[:FRAMES]
        lengths.append(min(len(samples), FRAMES))
    clips.flush()
    return [file.parent.name for file in files], lengths


def protect(path: Path, words: list[str], lengths: list[int], key: Key) -> float:
    """One call, as a user makes it; returns its seconds."""
    begun = time.perf_counter()
    protect_memmap(np.load(path, mmap_mode="r+"), words, key, lengths=lengths, recipe=RECIPE)
    return time.perf_counter() - begun


def restore(path: Path, key: Key) -> None:
    """Restore the original."""
    restore_memmap(np.load(path, mmap_mode="r+"), key)


def kill_once(job: dict[str, Any], delay: float, original: str, protected: str) -> str:
    """Protect in a child that is killed after `delay` seconds; returns the state in which it left the file."""
    child = os.fork()
    if child == 0:
        protect(**job)
        os._exit(0)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return {original: "original", protected: "protected"}.get(digest(job["path"]), "half protected")


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3, 4):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50, int(sys.argv[3]) if len(sys.argv) > 3 else 0)
