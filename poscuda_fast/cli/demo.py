"""A demo on generated speech-like sounds: protect, verify, restore, and check every byte."""

from __future__ import annotations

import functools
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from poscuda_fast.arrays.verbs import protect_memmap, restore_memmap, verify_memmap
from poscuda_fast.cli import synth
from poscuda_fast.files.verbs import protect_folder, restore_folder, verify_folder
from poscuda_fast.key import Key
from poscuda_fast.undo.journal import manifest_of
from poscuda_fast.undo.manifest import Manifest

N_SPEAKERS = 3
N_TAKES = 3
SUBTYPES = ("PCM_16", "PCM_24", "FLOAT")
CLIP_FRAMES = 16_000


def run(folder: Path | None, say: Callable[[str], None]) -> bool:
    """Run the demo in a new folder and report each step; False if any byte is not as promised.

    Parameters
    ----------
    folder : path or None
        Where to put the files; it must not exist. None makes a temporary folder, which is kept.
    say : callable
        Called with each line to show.
    """
    begun = time.perf_counter()
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="poscuda-demo-"))
    else:
        _make_new(folder)
    key = Key.generate()
    key.save(folder / "demo.key")
    say(f"Key with fingerprint {key.fingerprint} saved to {folder / 'demo.key'}")
    good = _show_files(folder, key, say) & _show_memmap(folder, key, say)
    say(f"Everything is in {folder}; delete it when you have looked. {time.perf_counter() - begun:.1f} s in all.")
    say("Every byte is as promised." if good else "SOMETHING IS NOT AS PROMISED: please report this.")
    return good


def _make_new(folder: Path) -> None:
    """Make a folder; FileExistsError if its name is taken."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(f"{folder} exists, and the demo needs a new folder; choose another name.") from None


def _show_files(folder: Path, key: Key, say: Callable[[str], None]) -> bool:
    """Audio files: a protected copy, verified; then in place, and restored."""
    speech, copy = folder / "speech", folder / "protected"
    _write_speech(speech)
    before = _digests(speech)
    say(f"Made {len(before)} WAV files of {len(synth.WORDS)} words by {N_SPEAKERS} speakers in {speech}")
    report = protect_folder(speech, copy, key)
    changed = _digests(copy)
    n_changed = sum(before[name] != changed[name] for name in before)
    entries = Manifest.read(manifest_of(copy)).files.values()
    snr = [entry["snr_db"] for entry in entries if entry["snr_db"] is not None]
    verified = verify_folder(copy, key)
    say(
        f"Protected a copy in {copy}: {n_changed} files changed, {report.frames_changed:,} frames marked, "
        f"edit SNR {statistics.median(snr):.1f} dB (median); verified {verified.protected} protected"
    )
    protect_folder(speech, None, key)
    again = _digests(speech) == changed
    say(f"Protected in place: {'the same bytes as in the copy' if again else 'OTHER BYTES'}")
    restore_folder(speech, key)
    restored = _digests(speech) == before
    say(f"Restored: {'all bytes are those of the originals' if restored else 'BYTES DIFFER'}")
    return restored and again and n_changed == len(before) and verified.ok and verified.protected == len(before)


def _show_memmap(folder: Path, key: Key, say: Callable[[str], None]) -> bool:
    """One memory-mapped array: protected in place, verified and restored."""
    path = folder / "clips.npy"
    utterances = _utterances()
    clips = np.lib.format.open_memmap(path, "w+", np.int16, (len(utterances), CLIP_FRAMES))
    for row, (_, _, _, spoken) in zip(clips, utterances, strict=True):
        row[: len(spoken)] = spoken
    clips.flush()
    lengths = [len(spoken) for _, _, _, spoken in utterances]
    words = [word for word, _, _, _ in utterances]
    before = path.read_bytes()
    report = protect_memmap(clips, words, key, lengths=lengths, sample_rate=synth.SAMPLE_RATE)
    after = path.read_bytes()
    n_bytes = int((np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8)).sum())
    verified = verify_memmap(clips, key)
    say(
        f"Protected {path} {clips.shape} in place in {report.seconds:.2f} s: {n_bytes:,} of {len(before):,} bytes "
        f"changed; verified {verified.protected} protected"
    )
    restore_memmap(clips, key)
    restored = path.read_bytes() == before
    say(f"Restored it: {'all bytes are those of the original' if restored else 'BYTES DIFFER'}")
    return restored and after != before and verified.ok and verified.protected == len(words)


@functools.cache
def _utterances() -> list[tuple[str, int, int, np.ndarray]]:
    """(word, speaker, take, samples) of everything that is said."""
    return [
        (word, speaker, take, synth.speak(word, speaker, take))
        for word in synth.WORDS
        for speaker in range(N_SPEAKERS)
        for take in range(N_TAKES)
    ]


def _write_speech(folder: Path) -> None:
    """The utterances as WAV files in a folder for each word; the takes differ in sample format."""
    for word, speaker, take, spoken in _utterances():
        path = folder / word / f"speaker{speaker}_take{take}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        # As float: libsndfile would write integers into a float file as they are.
        soundfile.write(path, spoken / 32768, synth.SAMPLE_RATE, SUBTYPES[take % len(SUBTYPES)])


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every WAV file by its relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.wav"))
    }
