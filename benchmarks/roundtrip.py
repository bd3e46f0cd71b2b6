"""Protect and verify whole data sets with the command line, undo what was done in place, and compare every SHA-256.

    python -m benchmarks.roundtrip SPEECH [WORK]

SPEECH holds `fsdd/recordings` (Free Spoken Digit Dataset) and `speech_commands` (FLAC or WAV, in the layout
of Google's Speech Commands). Everything is done in WORK, by default a temporary folder. The result is
stored in benchmarks/results/roundtrip.json.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import soundfile

from benchmarks import stored

LABELS = {"FSDD": r"regex:^(\d)_", "Speech Commands subset": "folder"}


def main(speech: Path, work: Path) -> None:
    """Run every data set as a copy and in place, and store what was seen."""
    sources = {"FSDD": speech / "fsdd" / "recordings", "Speech Commands subset": work / "speech_commands"}
    expand(speech / "speech_commands", sources["Speech Commands subset"])
    key = work / "experiment.key"
    poscuda("keygen", key)
    rows = []
    for name, source in sources.items():
        rows.append(run_copy(name, source, work / f"{source.name}-copy", key))
        rows.append(run_in_place(name, source, work / f"{source.name}-in-place", key))
        print(json.dumps(rows[-2:], indent=1))
    print(stored.store(stored.BENCHMARKS, "roundtrip", "python -m benchmarks.roundtrip SPEECH", {"rows": rows}))


def run_copy(name: str, source: Path, target: Path, key: Path) -> dict[str, Any]:
    """`poscuda protect SRC DST`, then verify the copy against its source, which must be as it was."""
    before = digests(source)
    row = run(name, source, ["protect", source, target], ["verify", target, "--source", source], key)
    return {**row, "mode": "copy", "originals_equal": same(digests(source), before)}


def run_in_place(name: str, source: Path, target: Path, key: Path) -> dict[str, Any]:
    """`poscuda protect SRC --in-place` on a plain copy, then verify and restore it."""
    shutil.copytree(source, target)
    before = digests(source)
    row = run(name, source, ["protect", target, "--in-place"], ["verify", target], key)
    begun = time.perf_counter()
    poscuda("restore", target, "--key", key)
    seconds = round(time.perf_counter() - begun, 2)
    return {**row, "mode": "in place", "originals_equal": same(digests(target), before), "restore_seconds": seconds}


def run(name: str, source: Path, protect: list[str | Path], verify: list[str | Path], key: Path) -> dict[str, Any]:
    """Protect and verify; what a row of the result says of that."""
    target = Path(verify[1])
    before = digests(source)
    begun = time.perf_counter()
    report = poscuda(*protect, "--key", key, "--labels-from", LABELS[name])
    seconds = time.perf_counter() - begun
    verified = poscuda(*verify, "--key", key)
    manifest = json.loads(target.with_name(target.name + ".poscuda.json").read_text())["files"]
    snr = [entry["snr_db"] for entry in manifest.values() if entry["snr_db"] is not None]
    return {
        "dataset": name,
        "files": len(before),
        "bytes": sum(entry["bytes_before"] for entry in manifest.values()),
        "changed": len(before) - same(digests(target), before),
        "recipe": report["recipe"],
        "sample_rates": report["sample_rates"],
        "saturated_samples": report["saturated_samples"],
        "verified_protected": verified["protected"],
        "verified_unchanged": verified["unchanged"],
        "verified_neither": len(verified["neither"]),
        "snr_db_median": round(statistics.median(snr), 1),
        "protect_seconds": round(seconds, 2),
    }


def expand(src: Path, dst: Path) -> None:
    """Write every FLAC file below `src` as WAV below `dst`, as it is published; copy the others."""
    for path in sorted(src.rglob("*")):
        target = dst / path.relative_to(src)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".flac":
            samples, rate = soundfile.read(path, dtype="int16")
            soundfile.write(target.with_suffix(".wav"), samples, rate, "PCM_16")
        elif path.is_file():
            shutil.copyfile(path, target)


def same(found: dict[str, str], expected: dict[str, str]) -> int:
    """How many files are equal."""
    return sum(found[file] == digest for file, digest in expected.items())


def poscuda(*arguments: str | Path) -> dict[str, Any]:
    """Run the command line as a user would; returns its JSON, if it prints any."""
    words = ["poscuda", *map(str, arguments)]
    if arguments[0] != "keygen":
        words.append("--json")
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return json.loads(printed) if arguments[0] != "keygen" else {}


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every WAV file by its relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.wav"))
    }


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    if len(sys.argv) == 3:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(sys.argv[1]), Path(folder))
