"""What a whole process costs: imports, a small job on the command line, and memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import files
import pytest

from poscuda_fast import Key

MIB = 1 << 20


def python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def test_import(race: Any) -> None:
    race.run(
        {
            "poscuda_fast": lambda: python("-c", "import numpy, poscuda_fast"),
            "with protect_memmap": lambda: python("-c", "import numpy; from poscuda_fast import protect_memmap"),
            "numpy": lambda: python("-c", "import numpy"),
        },
        rounds=15,
    )
    race.reach("import over import numpy, ms", 1e3 * race.difference("poscuda_fast", "numpy"), at_most=60)
    race.reach("with protect_memmap loaded, ms", 1e3 * race.difference("with protect_memmap", "numpy"), at_most=60)


def test_small_job(race: Any, tmp_path: Path) -> None:
    """`poscuda protect` of 100 WAV files: interpreter, imports, everything."""
    source, target = files.make_folder(tmp_path / "source", 100), tmp_path / "target"
    Key(bytes(range(32))).save(tmp_path / "key")
    command = [Path(sys.executable).with_name("poscuda"), "protect", source, target, "--key", tmp_path / "key"]

    def clear() -> None:
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["sync", "-f", tmp_path], check=True)

    race.run(
        {"poscuda protect": lambda: subprocess.run(command, check=True, capture_output=True)}, rounds=11, prepare=clear
    )
    race.reach("poscuda protect of 100 WAV files, seconds", race.median("poscuda protect"), at_most=0.6)


MEASURE_MEMORY = """
import sys, threading, time
import numpy as np
import poscuda_fast as pf

what, path, n_clips = sys.argv[1], sys.argv[2], int(sys.argv[3])
labels, key = (np.arange(n_clips) % 35).astype(np.uint8), pf.Key(bytes(range(32)))
small = np.ones((2, 300), np.int16)
pf.protect(small, [0, 1], key)  # what is loaded once is not counted
pf.Verification, pf.protect_folder, pf.restore_folder

def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024

base, peak, done = anonymous(), 0, threading.Event()
def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
try:
    if what == "folder":
        pf.protect_folder(path, path + "-copy", key)
        pf.restore_folder(path + "-copy", key)
    else:
        arr = np.memmap(path, np.int16, "r+", shape=(n_clips, 400))
        if what == "protect":
            pf.protect(arr, labels, key)
        else:
            pf.protect_memmap(arr, labels, key)
            pf.verify_memmap(arr, key)
            pf.restore_memmap(arr, key)
finally:
    done.set()
    watcher.join()
print(peak - base)
"""


@pytest.mark.parametrize("what", ["protect_memmap", "protect", "folder"])
def test_memory(race: Any, what: str, tmp_path: Path) -> None:
    """Anonymous memory beyond the caller's array while protecting, verifying and restoring."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the system does not report anonymous memory (no /proc/self/status)")
    sizes = {"folder": (1000, 7100)}.get(what, (100_000, 1_000_000))
    grown: dict[int, int] = {}

    def run() -> None:
        for size in sizes:
            place = tmp_path / f"{what}{size}"
            if what == "folder":
                shutil.rmtree(str(place) + "-copy", ignore_errors=True)
                if not place.exists():
                    files.make_folder(place, size)
            else:
                with open(place, "wb") as file:
                    file.truncate(size * 400 * 2)
            grown[size] = int(python("-c", MEASURE_MEMORY, what, str(place), str(size)))
            place.with_name(place.name + ".poscuda").unlink(missing_ok=True)

    race.run({"all sizes": run}, rounds=1)
    for size, n_bytes in grown.items():
        race.reach(f"{what}, {size:,}: MiB", n_bytes / MIB, at_most=64)
