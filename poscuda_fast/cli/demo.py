"""A demo on generated speech-like sounds: protect, verify, let a toy learn, restore, and check every byte."""

from __future__ import annotations

import functools
import hashlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from poscuda_fast.arrays.memory import protect
from poscuda_fast.arrays.verbs import protect_memmap, restore_memmap, verify_memmap
from poscuda_fast.cli import synth, toy
from poscuda_fast.files.verbs import protect_folder, restore_folder, verify_folder
from poscuda_fast.key import Key
from poscuda_fast.undo.journal import manifest_of
from poscuda_fast.undo.manifest import Manifest

N_SPEAKERS = 6
N_TAKES = 6
TEST_SPEAKERS = 2  # the last ones, whom the toy does not hear while it learns
LEAST_EFFECT = 10.0  # points of accuracy that protection must cost the toy
SUBTYPES = ("PCM_16", "PCM_24", "FLOAT")
CLIP_FRAMES = 16_000


def run(folder: Path | None, say: Callable[[str], None]) -> bool:
    """Run the demo in a new folder and report each step; False if a byte, or the toy, is not as promised.

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
    say(f"Making {len(synth.WORDS)} words by {N_SPEAKERS} invented speakers, {N_TAKES} times each ...")
    _write(folder)
    key = Key.generate()
    key.save(folder / "demo.key")
    say(
        f"{folder} has speech/ (WAV files, a folder for each word), the same sounds as clips.npy, with labels.npy and "
        f"lengths.npy, and demo.key, of fingerprint {key.fingerprint}."
    )
    bytes_good = _show_files(folder, key, say) & _show_memmap(folder / "clips.npy", key, say)
    learns = show_learning(key, say)
    say(f"Delete {folder} when you have looked. {time.perf_counter() - begun:.1f} s in all.")
    say("Every byte is as promised." if bytes_good else "SOME BYTES ARE NOT AS PROMISED: please report this.")
    if not learns:
        say("THE MARK DID NOT KEEP THE TOY FROM LEARNING, with this key: please report this.")
    return bytes_good and learns


def _make_new(folder: Path) -> None:
    """Make a folder; FileExistsError if its name is taken."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(f"{folder} exists, and the demo needs a new folder; choose another name.") from None


def _show_files(folder: Path, key: Key, say: Callable[[str], None]) -> bool:
    """Audio files: a protected copy, verified; then in place, and restored."""
    speech, copy, edited = folder / "speech", folder / "protected", folder / "in_place"
    before = _digests(speech)
    report = protect_folder(speech, copy, key)
    changed = _digests(copy)
    n_changed = sum(before[name] != changed[name] for name in before)
    entries = Manifest.read(manifest_of(copy)).files.values()
    snr = [entry["snr_db"] for entry in entries if entry["snr_db"] is not None]
    verified = verify_folder(copy, key)
    say(
        f"Protected a copy, protected/: {n_changed} of {len(before)} files changed, {report.frames_changed:,} frames "
        f"marked, edit SNR {statistics.median(snr):.1f} dB (median); verified: {verified.protected} protected."
    )
    shutil.copytree(speech, edited)
    protect_folder(edited, None, key)
    again = _digests(edited) == changed
    restore_folder(edited, key)
    restored = _digests(edited) == before
    say(
        f"Protected in_place/, {'the same bytes as the copy' if again else 'OTHER BYTES THAN THE COPY'}; restored it: "
        f"{'all bytes are those of the originals' if restored else 'BYTES DIFFER'}."
    )
    return restored and again and n_changed == len(before) and verified.ok and verified.protected == len(before)


def _show_memmap(path: Path, key: Key, say: Callable[[str], None]) -> bool:
    """One memory-mapped array: protected in place, verified and restored."""
    clips = np.load(path, mmap_mode="r+")
    labels, lengths = _arrays()[1:]
    before = path.read_bytes()
    report = protect_memmap(clips, labels, key, lengths=lengths, sample_rate=synth.SAMPLE_RATE)
    after = path.read_bytes()
    n_bytes = int((np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8)).sum())
    verified = verify_memmap(clips, key)
    restore_memmap(clips, key)
    restored = path.read_bytes() == before
    say(
        f"Protected clips.npy {clips.shape} in {report.seconds:.2f} s: {n_bytes:,} of {len(before):,} bytes changed; "
        f"verified: {verified.protected} protected; restored it: "
        f"{'all bytes are those of the original' if restored else 'BYTES DIFFER'}."
    )
    return restored and after != before and verified.ok and verified.protected == len(clips)


def show_learning(key: Key, say: Callable[[str], None]) -> bool:
    """A toy trained on original, protected and control sounds; False if protection costs it too little."""
    clips, labels, lengths = _arrays()
    shuffled = np.random.default_rng().permutation(labels)
    sets = {"original": clips}
    for name, marked_as in (("protected", labels), ("control", shuffled)):
        sets[name] = clips.copy()
        protect(sets[name], marked_as, key, lengths=lengths, sample_rate=synth.SAMPLE_RATE)
    spectra = {name: toy.features(each, lengths) for name, each in sets.items()}
    heard = np.arange(len(clips)) % (N_SPEAKERS * N_TAKES) < (N_SPEAKERS - TEST_SPEAKERS) * N_TAKES
    models = {name: toy.Forest(each[heard], labels[heard]) for name, each in spectra.items()}
    found = {name: model.accuracy(spectra["original"][~heard], labels[~heard]) for name, model in models.items()}
    keyed = models["protected"].accuracy(spectra["protected"][~heard], labels[~heard])
    say(
        f"A toy, {toy.N_TREES} decision trees, learns the words of {N_SPEAKERS - TEST_SPEAKERS} speakers, and is asked "
        f"about {TEST_SPEAKERS} others. It is right, in % (guessing: {100 / len(synth.WORDS):.0f}):"
    )
    say(f"  {found['original']:3.0f}  trained on original sounds")
    say(f"  {found['protected']:3.0f}  trained on protected sounds, asked about originals")
    say(f"  {keyed:3.0f}  trained on protected sounds, asked about protected ones")
    say(f"  {found['control']:3.0f}  control: the same marks, but dealt out without regard to the word")
    kept = found["protected"] <= min(found["original"], found["control"]) - LEAST_EFFECT
    if kept:
        say("So it learnt the marks instead of the words.")
    say("That is a toy on easy sounds; for networks on your own files: poscuda evaluate")
    return kept


@functools.cache
def _utterances() -> list[tuple[str, int, int, NDArray[np.int16]]]:
    """(word, speaker, take, samples) of everything that is said."""
    return [
        (word, speaker, take, synth.speak(word, speaker, take))
        for word in synth.WORDS
        for speaker in range(N_SPEAKERS)
        for take in range(N_TAKES)
    ]


def _arrays() -> tuple[NDArray[np.int16], NDArray[np.int64], NDArray[np.int64]]:
    """The utterances as clips, filled up with zeros, their labels and lengths."""
    spoken = [each for _, _, _, each in _utterances()]
    clips = np.zeros((len(spoken), CLIP_FRAMES), np.int16)
    for row, each in zip(clips, spoken, strict=True):
        row[: len(each)] = each
    labels = np.repeat(np.arange(len(synth.WORDS)), N_SPEAKERS * N_TAKES)
    return clips, labels, np.array([len(each) for each in spoken])


def _write(folder: Path) -> None:
    """The utterances as WAV files in a folder for each word, and as arrays; the takes differ in sample format."""
    for word, speaker, take, spoken in _utterances():
        path = folder / "speech" / word / f"speaker{speaker}_take{take}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        # As float: libsndfile would write integers into a float file as they are.
        soundfile.write(path, spoken / 32768, synth.SAMPLE_RATE, SUBTYPES[take % len(SUBTYPES)])
    arrays: tuple[NDArray[Any], ...] = _arrays()
    for name, array in zip(("clips", "labels", "lengths"), arrays, strict=True):
        np.save(folder / f"{name}.npy", array)


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every WAV file by its relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.wav"))
    }
