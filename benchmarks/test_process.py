"""What a whole process costs: imports, a small job on the command line, and memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import files
import pytest
from figures import quantity

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
    for what, name in {
        "import, beyond numpy's, ms": "poscuda_fast",
        "and protect_memmap, ms": "with protect_memmap",
    }.items():
        more = 1e3 * race.difference(name, "numpy")
        race.reach(what, more, at_most=60, ours=quantity(more, "ms"))


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
    seconds = race.median("poscuda protect")
    race.reach("100 WAV files, in s", seconds, at_most=0.6, ours=quantity(seconds, "s"))


MEASURE_MEMORY = """
import sys, threading, time
import numpy as np
import poscuda_fast as pf

what, path, n_clips, n_frames = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
recipe = pf.Recipe.paper() if sys.argv[5] == "paper" else pf.Recipe.strong()
labels, key = (np.arange(n_clips) % 35).astype(np.uint8), pf.Key(bytes(range(32)))
small = np.ones((2, 300), np.int16)
pf.protect(small, [0, 1], key, recipe=recipe)  # what is loaded once is not counted
pf.protect_folder, pf.verify_folder, pf.restore_folder

def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024

base = peak = anonymous()
done = threading.Event()
def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
try:
    if what == "folder":
        pf.protect_folder(path, path + "-copy", key, recipe=recipe)
        pf.protect_folder(path, None, key, recipe=recipe)
        pf.verify_folder(path, key)
        pf.restore_folder(path, key)
    else:
        arr = np.memmap(path, np.int16, "r+", shape=(n_clips, n_frames))
        if what == "protect":
            pf.protect(arr, labels, key, recipe=recipe)
        else:
            pf.protect_memmap(arr, labels, key, recipe=recipe)
            pf.verify_memmap(arr, key)
            pf.restore_memmap(arr, key)
finally:
    done.set()
    watcher.join()
print(peak - base)
"""

MOST = 64 * MIB
BYTES_A_CLIP = 24
HOUR = 3600 * 48_000  # frames
SIZES = {  # clips, and frames in each; of a folder, files
    "folder": {"1,000 files": (1000, 0), "7,100 files": (7100, 0)},
    "protect": {"100,000 clips": (100_000, 400), "1,000,000 clips": (1_000_000, 400), "a clip of an hour": (1, HOUR)},
}


@pytest.mark.parametrize("what", ["protect", "protect_memmap", "folder"])
def test_memory(race: Any, what: str, tmp_path: Path) -> None:
    """Anonymous memory beyond the caller's array while protecting, verifying and restoring."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the system does not report anonymous memory (no /proc/self/status)")
    grown: dict[str, tuple[int, int]] = {}

    def run() -> None:
        for name, (n_clips, n_frames) in SIZES.get(what, SIZES["protect"]).items():
            for recipe in ("default", "paper"):
                place = tmp_path / f"{what}{n_clips}{recipe}"
                if what == "folder":
                    shutil.rmtree(f"{place}-copy", ignore_errors=True)
                    if not place.exists():
                        files.make_folder(place, n_clips)
                else:
                    with open(place, "wb") as file:
                        file.truncate(n_clips * n_frames * 2)
                n_bytes = int(python("-c", MEASURE_MEMORY, what, str(place), str(n_clips), str(n_frames), recipe))
                grown[f"{recipe}, {name}"] = n_bytes, BYTES_A_CLIP * n_clips
                place.with_name(place.name + ".poscuda").unlink(missing_ok=True)

    race.run({"all sizes": run}, rounds=1)
    for name, (n_bytes, n_more) in grown.items():
        most = round((MOST + n_more) / MIB)
        race.reach(f"{name}, MiB", n_bytes / MIB, at_most=most, ours=quantity(n_bytes / MIB, "MiB"))
