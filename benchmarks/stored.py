"""Stored results: one JSON file each, with the command, machine, versions and date that made it."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parent / "results"
EXPERIMENTS = Path(__file__).parents[1] / "experiments" / "results"
PACKAGES = ("poscuda-fast", "numpy", "numba", "soundfile")
PEERS = ("scipy", "torch", "torchaudio")


def store(folder: Path, name: str, command: str, fields: dict[str, Any]) -> Path:
    """Write a result under its name, replacing an earlier one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    write(path, {**made_by(command), **fields})
    return path


def made_by(command: str) -> dict[str, Any]:
    """Where a result comes from: the command, the date, the machine and the versions."""
    return {
        "command": command,
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {package: metadata.version(package) for package in (*PACKAGES, *PEERS) if _installed(package)},
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result as it is."""
    part = path.with_suffix(".part")  # an interrupted write leaves a whole result or none
    part.write_text(_one_line_lists(json.dumps(result, indent=1)) + "\n")
    part.replace(path)


def _one_line_lists(text: str) -> str:
    """JSON with every list of numbers on one line."""
    return re.sub(r"\[[\d\s.,eE+-]*\]", lambda match: " ".join(match[0].split()), text)


def load(folder: Path, name: str) -> dict[str, Any]:
    """A stored result."""
    fields: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return fields


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
