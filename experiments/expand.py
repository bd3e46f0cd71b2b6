"""Expand a folder of FLAC files to WAV, as the data set's publisher distributes it.

    python -m experiments.expand SRC DST

SRC in the layout of Google's Speech Commands (WORD/SPEAKER_nohash_TAKE.flac and the two lists); DST must
not exist. Samples are kept exactly; other files are copied.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import soundfile


def expand(src: Path, dst: Path) -> int:
    """Write every FLAC file below `src` as WAV below `dst`; returns how many there were."""
    dst.mkdir()
    n_files = 0
    for path in sorted(src.rglob("*")):
        target = dst / path.relative_to(src)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif path.suffix == ".flac":
            subtype = soundfile.info(path).subtype
            samples, rate = soundfile.read(path, dtype="int16" if subtype == "PCM_16" else "int32")
            soundfile.write(target.with_suffix(".wav"), samples, rate, subtype)
            n_files += 1
        else:
            shutil.copyfile(path, target)
    return n_files


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(f"{expand(Path(sys.argv[1]), Path(sys.argv[2]))} files written to {sys.argv[2]}")
