"""Data that are large: a folder of very many tiny files, and a part of a sparse array of hundreds of gigabytes.

    python -m tests.trust.load [--files N ...] [--gigabytes G]

Everything is made by code in a temporary folder and taken away again. Each run is a child process whose anonymous
memory and progress are watched, and which is interrupted (SIGINT) at random moments before it may finish. What was
measured is stored in tests/trust/results/load.json.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from audiofiles import noise, wav  # noqa: E402 - the tests' own module is found from here on

CLASSES = 1_000
FRAMES = 16_000
PART = 5_000  # clips of the sparse array that are protected
MEBIBYTE = 1 << 20

CHILD = """
import json, signal, sys, time
import numpy as np
import poscuda_fast as pf
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a parent in the background ignores it
what, path, verb, n, seconds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), []
key = pf.Key(bytes(range(32)))
begun, last, half = time.monotonic(), (0, 0), None

def progress(done, total):
    global last
    assert last[0] <= done <= total, (last, done, total)
    last = done, total
    seconds.append((time.monotonic() - begun, done / total))

def anonymous():
    lines = open("/proc/self/status").read().split("\\n")
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))

pf.protect(np.ones((2, 300), np.int16), [0, 1], key)  # what is loaded once is not counted
import poscuda_fast.files.verbs, poscuda_fast.arrays.verbs
import threading
base, peak, done = anonymous(), 0.0, threading.Event()

def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, anonymous())

watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
print("ready", flush=True)
try:
    if what == "folder":
        if verb == "protect":
            pf.protect_folder(path, None, key, progress=progress)
        elif verb == "verify":
            found = pf.verify_folder(path, key)
            assert found.ok and found.protected == n, found
        else:
            pf.restore_folder(path, key, progress=progress)
    else:
        arr = np.memmap(path, np.int16, "r+", shape=(n, 16_000))
        begin, end = json.loads(sys.argv[5])
        part = arr[begin:end]
        if verb == "protect":
            pf.protect_memmap(part, np.arange(len(part)) % 10, key, progress=progress)
        else:
            pf.restore_memmap(part, key, progress=progress)
except KeyboardInterrupt:
    print(json.dumps({"interrupted": True}), flush=True)
    sys.exit(0)
done.set()
watcher.join()
total = time.monotonic() - begun
at_half = max((share for when, share in seconds if when <= total / 2), default=0.0)
ends = not seconds or last[0] == last[1]
print(json.dumps({"seconds": total, "peak": peak - base, "at_half": at_half, "ends": ends}), flush=True)
"""


def run(what: str, path: Path, verb: str, n: int, *more: Any, interrupt_after: float | None = None) -> dict[str, Any]:
    """One verb in a process of its own: how long, how much memory, and how far it said it was at half of the time."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, what, str(path), verb, str(n), *map(json.dumps, more)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if interrupt_after is not None:
            time.sleep(interrupt_after)
            process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    code = process.returncode
    if code != 0:
        if interrupt_after is not None and code in (-signal.SIGINT, 130, 1):
            return {"interrupted": True}
        raise AssertionError(f"{verb} ended with {code}: {said}")
    found: dict[str, Any] = json.loads(said)
    return found


def make_folder(root: Path, n_files: int) -> list[bytes]:
    """Tiny files in many class folders; file number i has content number i modulo their number."""
    contents = [wav(noise(64 + 8 * n, seed=n)) for n in range(16)]
    for label in range(min(CLASSES, n_files)):
        (root / f"{label:03}").mkdir(parents=True)
    for number in range(n_files):
        (root / f"{number % CLASSES:03}" / f"{number}.wav").write_bytes(contents[number % 16])
    return contents


def wrong_in_folder(root: Path, n_files: int, contents: Sequence[bytes]) -> int:
    """How many files are not what they were made to be."""
    return sum(
        (root / f"{number % CLASSES:03}" / f"{number}.wav").read_bytes() != contents[number % 16]
        for number in range(n_files)
    )


def folder(where: Path, n_files: int, interrupts: int, rng: np.random.Generator) -> dict[str, Any]:
    """Protect, verify and restore a folder in place, interrupted now and then."""
    root = where / "many"
    contents = make_folder(root, n_files)
    clean = run("folder", root, "protect", n_files)
    verified = run("folder", root, "verify", n_files)
    restored = run("folder", root, "restore", n_files)
    wrong = wrong_in_folder(root, n_files, contents)
    interrupted = 0
    for verb in ("protect", "restore"):
        for _ in range(interrupts):
            after = float(rng.uniform(0, (clean if verb == "protect" else restored)["seconds"]))
            interrupted += run("folder", root, verb, n_files, interrupt_after=after).get("interrupted", False)
        run("folder", root, verb, n_files)
        if verb == "protect":
            run("folder", root, "verify", n_files)
    wrong += wrong_in_folder(root, n_files, contents)
    shutil.rmtree(root)
    return {
        "files": n_files,
        "seconds": {"protect": clean["seconds"], "verify": verified["seconds"], "restore": restored["seconds"]},
        "peak_mib": max(clean["peak"], verified["peak"], restored["peak"]),
        "at_half": {"protect": clean["at_half"], "restore": restored["at_half"]},
        "ends": clean["ends"] and restored["ends"],
        "interrupted": interrupted,
        "wrong": wrong,
    }


def bytes_set(path: Path, begin: int, end: int) -> int:
    """How many bytes of a part of a file are not 0; holes are not read."""
    total = 0
    with open(path, "rb") as file:
        place = begin
        while place < end:
            try:
                place = os.lseek(file.fileno(), place, os.SEEK_DATA)
            except OSError:  # no data behind it
                break
            hole = min(os.lseek(file.fileno(), place, os.SEEK_HOLE), end)
            if place < hole:
                file.seek(place)
                total += int(np.count_nonzero(np.frombuffer(file.read(hole - place), np.uint8)))
            place = hole
    return total


def sparse(where: Path, gigabytes: float, interrupts: int, rng: np.random.Generator) -> dict[str, Any]:
    """Protect and restore some clips in the middle of a file that is nearly all hole."""
    path = where / "sparse.raw"
    clip_bytes = FRAMES * 2
    n_clips = int(gigabytes * 1e9 // clip_bytes)
    part = min(PART, n_clips // 4)
    begin = n_clips // 2
    with open(path, "wb") as file:
        file.truncate(n_clips * clip_bytes)
    size = path.stat().st_size
    arr = np.memmap(path, np.int16, "r+", shape=(n_clips, FRAMES))
    for clip in range(begin, begin + part):
        arr[clip] = np.arange(FRAMES) * (clip % 7 + 1) % 2000
    arr.flush()
    before = [arr[clip].copy() for clip in range(begin, begin + part, max(1, part // 50))]
    del arr
    data_before = path.stat().st_blocks * 512
    clean = run("array", path, "protect", n_clips, [begin, begin + part])
    interrupted = 0
    restored = run("array", path, "restore", n_clips, [begin, begin + part])
    for verb in ("protect", "restore"):
        for _ in range(interrupts):
            after = float(rng.uniform(0, clean["seconds"]))
            ended = run("array", path, verb, n_clips, [begin, begin + part], interrupt_after=after)
            interrupted += ended.get("interrupted", False)
        run("array", path, verb, n_clips, [begin, begin + part])
    arr = np.memmap(path, np.int16, "r", shape=(n_clips, FRAMES))
    after = [arr[clip] for clip in range(begin, begin + part, max(1, part // 50))]
    wrong = sum(not np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    wrong += bytes_set(path, 0, begin * clip_bytes) + bytes_set(path, (begin + part) * clip_bytes, size)
    wrong += path.stat().st_size != size
    found = {
        "gigabytes": size / 1e9,
        "part_megabytes": part * clip_bytes / 1e6,
        "seconds": {"protect": clean["seconds"], "restore": restored["seconds"]},
        "peak_mib": max(clean["peak"], restored["peak"]),
        "at_half": {"protect": clean["at_half"], "restore": restored["at_half"]},
        "ends": clean["ends"] and restored["ends"],
        "disk_bytes_grown": path.stat().st_blocks * 512 - data_before,
        "interrupted": interrupted,
        "wrong": int(wrong),
    }
    del arr, after
    path.unlink()
    path.with_name("sparse.raw.poscuda").unlink()
    return found


def main() -> None:
    """Measure and store."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--files", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    options.add_argument("--gigabytes", type=float, default=200)
    given = options.parse_args()
    seed = secrets.randbits(32)
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        where = Path(name)
        array = sparse(where, given.gigabytes, 3, rng)
        sys.stdout.write(f"{array}\n")
        folders = []
        for n_files in given.files:
            folders.append(folder(where, n_files, 2, rng))
            sys.stdout.write(f"{folders[-1]}\n")
            sys.stdout.flush()
    from benchmarks import stored

    fields = {"seed": seed, "sparse": array, "folders": folders}
    stored.store(Path(__file__).parent / "results", "load", "python -m tests.trust.load", fields)


if __name__ == "__main__":
    main()
