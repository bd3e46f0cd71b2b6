"""Two hundred files at random, of every kind that libsndfile writes, go through everything and come back exactly."""

from __future__ import annotations

import contextlib
import io
import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audiofiles import chunk, contents, noise
from recipes import protect_folder

from poscuda_fast import Recipe, restore_folder, verify_folder

PLAIN = {"AIFF", "AU", "CAF", "NIST", "RF64", "W64", "WAV", "WAVEX"}
CODINGS = {"PCM_16", "PCM_24", "FLOAT"}
RATES = [1, 1_999, 2_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 88_200, 96_000, 192_000, 512_000, 600_000]
TAGS = ("title", "artist", "album", "date", "tracknumber", "genre", "comment", "copyright")
N_FILES = 200


def random_file(rng: random.Random) -> tuple[bytes, str, str, int] | None:
    """(content, format, subtype, rate) of a file; None if libsndfile does not write it."""
    form = rng.choice([*soundfile.available_formats(), *PLAIN, "FLAC"])
    if form == "SD2":  # two files
        return None
    subtypes = list(soundfile.available_subtypes(form))
    subtype = rng.choice([*subtypes, *(CODINGS.intersection(subtypes) if rng.random() < 0.8 else ())])
    endian = rng.choice([one for one in ("FILE", "LITTLE", "BIG") if soundfile.check_format(form, subtype, one)])
    channels, rate = rng.choice([1, 1, 2, 3, 6, 8]), rng.choice(RATES)
    coding = subtype if subtype in CODINGS else "PCM_16"
    samples = noise(rng.choice([0, 1, 100, 3_000, 5_000]), channels, coding, seed=rng.randrange(99))
    samples = samples // 4 if coding != "FLOAT" else samples / np.float32(4)
    file = io.BytesIO()
    try:
        with soundfile.SoundFile(file, "w", rate, channels, subtype, endian, form) as out:
            for tag in rng.sample(TAGS, rng.randrange(4)):
                with contextlib.suppress(soundfile.LibsndfileError):
                    setattr(out, tag, "".join(rng.choices("abc xyzäöü✓", k=rng.randrange(1, 40))))
            for first in range(0, len(samples), 1_000):  # libsndfile writes longer runs of Vorbis to the stack
                part = samples[first : first + 1_000]
                out.write(part << 8 if coding == "PCM_24" else part)
    except (soundfile.LibsndfileError, RuntimeError):
        return None
    return decorated(rng, file.getvalue(), form), form, subtype, rate


def decorated(rng: random.Random, content: bytes, form: str) -> bytes:
    """The file with more chunks or blocks, and a header that is wrong as those of others are."""
    body = rng.randbytes(rng.randrange(60))
    if form in ("WAV", "WAVEX") and content[:4] == b"RIFF":
        content += bytes(len(content) % 2)
        for tag in rng.sample([b"LIST", b"cue ", b"bext", b"id3 ", b"junk"], rng.randrange(3)):
            content += chunk(tag, body)
        size = rng.choice([len(content) - 8, len(content) - 8, 0, 2**32 - 1])
        return content[:4] + struct.pack("<I", size) + content[8:]
    if form == "AIFF":
        content += bytes(len(content) % 2) + b"MARK" + struct.pack(">I", len(body)) + body + bytes(len(body) % 2)
        return content[:4] + struct.pack(">I", len(content) - 8) + content[8:]
    if form == "FLAC" and rng.random() < 0.7:
        first = 4 + 4 + 34
        block = bytes([2]) + (4 + len(body)).to_bytes(3, "big") + b"test" + body
        seek = bytes([3]) + (18).to_bytes(3, "big") + struct.pack(">QQH", 0, 0, 1)
        return rng.choice([b"", b"ID3\3\0\0\0\0\0\5" + bytes(5)]) + content[:first] + block + seek + content[first:]
    return content


def can_be_marked(form: str, subtype: str, rate: int) -> bool:
    if not 2_000 <= rate <= 512_000:
        return False
    return (form in PLAIN and subtype in CODINGS) or (form == "FLAC" and subtype in ("PCM_16", "PCM_24"))


@pytest.mark.parametrize("recipe", [Recipe.strong(), Recipe.paper(patch=200, taps=20, every=900)], ids=["2", "1"])
def test_any_file_is_protected_and_comes_back_or_is_named(tmp_path: Path, key, recipe) -> None:
    rng = random.Random(18)
    src, copy = tmp_path / "src", tmp_path / "copy"
    made: dict[str, tuple[str, str, int]] = {}
    while len(made) < N_FILES:
        found = random_file(rng)
        if found is not None:
            content, *kind = found
            suffix = rng.choice([f".{kind[0].lower()}", ".wav", "", ".dat"])
            name = f"{rng.choice(['no', 'yes'])}/{len(made)}{suffix}"
            (src / name).parent.mkdir(parents=True, exist_ok=True)
            (src / name).write_bytes(content)
            os.utime(src / name, ns=(0, 10**18 + len(made)))
            made[name] = (kind[0], kind[1], kind[2])
    before = contents(src)
    times = {name: (src / name).stat().st_mtime_ns for name in made}
    copied = protect_folder(src, copy, key, recipe=recipe, skip_unusable=True, lossy="refuse")
    report = protect_folder(src, None, key, recipe=recipe, skip_unusable=True)
    assert copied.unprotected == report.unprotected
    assert contents(copy) == contents(src)
    is_paper = recipe.format == 1
    for name, (form, subtype, rate) in made.items():
        named = any(f"{name} " in line for line in report.unprotected)
        markable = can_be_marked(form, subtype, 8_000 if is_paper else rate)
        if markable and form == "FLAC" and rate in (1, 1_999, 600_000):
            continue  # libsndfile writes only some of these
        assert not (markable and named), report.unprotected
        if not markable and form != "RAW":
            assert named, (name, form, subtype, rate)
        if contents(src)[name] == before[name]:
            assert named or form == "RAW" or soundfile.info(str(src / name)).frames in (0, 1)
    assert verify_folder(src, key).recorded_ok
    restore_folder(src, key)
    assert contents(src) == before
    assert {name: (src / name).stat().st_mtime_ns for name in made} == times
    assert verify_folder(copy, key, source=src).recorded_ok
