"""Protect, verify and restore whole data sets with the command line, and compare every file's SHA-256.

    python -m experiments.roundtrip SPEECH [WORK]

SPEECH holds `fsdd/recordings` (Free Spoken Digit Dataset) and `speech_commands` (FLAC or WAV, in the layout
of Google's Speech Commands). Everything is done in WORK, by default a temporary folder. The result is
stored in experiments/results/roundtrip.json.
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

from benchmarks import stored
from experiments.expand import expand

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
    print(stored.store(stored.EXPERIMENTS, "roundtrip", "python -m experiments.roundtrip SPEECH", {"rows": rows}))


def run_copy(name: str, source: Path, target: Path, key: Path) -> dict[str, Any]:
    """`poscuda protect SRC DST`, then verify and restore the copy."""
    return run(name, "copy", source, target, ["protect", source, target, "--key", key], key)


def run_in_place(name: str, source: Path, target: Path, key: Path) -> dict[str, Any]:
    """`poscuda protect SRC --in-place` on a plain copy, then verify and restore it."""
    shutil.copytree(source, target)
    return run(name, "in place", source, target, ["protect", target, "--in-place", "--key", key], key)


def run(name: str, mode: str, source: Path, target: Path, command: list[str | Path], key: Path) -> dict[str, Any]:
    """One row of the result."""
    before = digests(source)
    begun = time.perf_counter()
    report = poscuda(*command, "--labels-from", LABELS[name])
    seconds = time.perf_counter() - begun
    protected = digests(target)
    verified = poscuda("verify", target, "--key", key)
    manifest = json.loads((target / "poscuda.json").read_text())["files"]
    snr = [entry["snr_db"] for entry in manifest.values() if entry["snr_db"] is not None]
    begun = time.perf_counter()
    poscuda("restore", target, "--key", key)
    restore_seconds = time.perf_counter() - begun
    after = digests(target)
    return {
        "dataset": name,
        "mode": mode,
        "files": len(before),
        "bytes": sum(entry["bytes_before"] for entry in manifest.values()),
        "changed": sum(protected[file] != before[file] for file in before),
        "recipe": report["recipe"],
        "sample_rates": report["sample_rates"],
        "saturated_samples": report["saturated_samples"],
        "verified_protected": verified["protected"],
        "verified_unchanged": verified["unchanged"],
        "verified_neither": len(verified["neither"]),
        "restored_sha256_equal": sum(after[file] == before[file] for file in before),
        "snr_db_median": round(statistics.median(snr), 1),
        "protect_seconds": round(seconds, 2),
        "restore_seconds": round(restore_seconds, 2),
    }


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
