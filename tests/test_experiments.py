"""The stored results tell where they come from; the round trip's WAV files are the FLAC files to the sample."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
from installed import ROOT

from benchmarks import roundtrip
from poscuda_fast.cli import synth


def test_expanding_keeps_every_sample_and_every_other_file(tmp_path: Path) -> None:
    (tmp_path / "src" / "yes").mkdir(parents=True)
    (tmp_path / "src" / "testing_list.txt").write_text("yes/a_nohash_0.wav\n")
    spoken = synth.speak("yes", 0, 0)
    soundfile.write(tmp_path / "src" / "yes" / "a_nohash_0.flac", spoken, synth.SAMPLE_RATE, "PCM_16")
    roundtrip.expand(tmp_path / "src", tmp_path / "dst")
    path = tmp_path / "dst" / "yes" / "a_nohash_0.wav"
    assert np.array_equal(soundfile.read(path, dtype="int16")[0], spoken)
    assert soundfile.info(path).subtype == "PCM_16"
    assert (tmp_path / "dst" / "testing_list.txt").read_text() == "yes/a_nohash_0.wav\n"


def test_every_stored_result_tells_where_it_comes_from() -> None:
    stored = sorted((ROOT / "experiments" / "results").rglob("*.json"))
    assert stored
    for path in stored:
        result = json.loads(path.read_text())
        assert {"command", "date", "machine", "python", "versions"} <= set(result)
        assert result["command"].startswith("python -m experiments.")
