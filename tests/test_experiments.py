"""The experiments' own tools, run as their command lines."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import soundfile
from installed import ROOT, run_module

from poscuda_fast.cli import synth


def run(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = run_module(f"experiments.{module}", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_expand_keeps_every_sample_and_every_other_file(tmp_path: Path) -> None:
    (tmp_path / "src" / "yes").mkdir(parents=True)
    (tmp_path / "src" / "testing_list.txt").write_text("yes/a_nohash_0.wav\n")
    spoken = synth.speak("yes", 0, 0)
    wide = spoken.astype(np.int32) << 16 | 0x5500
    soundfile.write(tmp_path / "src" / "yes" / "a_nohash_0.flac", spoken, synth.SAMPLE_RATE, "PCM_16")
    soundfile.write(tmp_path / "src" / "yes" / "b_nohash_0.flac", wide, synth.SAMPLE_RATE, "PCM_24")
    done = run("expand", tmp_path / "src", tmp_path / "dst")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 files")
    for name, samples, subtype in (("a", spoken, "PCM_16"), ("b", wide, "PCM_24")):
        path = tmp_path / "dst" / "yes" / f"{name}_nohash_0.wav"
        assert soundfile.info(path).subtype == subtype
        assert np.array_equal(soundfile.read(path, dtype=samples.dtype.name)[0], samples)
    assert (tmp_path / "dst" / "testing_list.txt").read_text() == "yes/a_nohash_0.wav\n"
    assert run("expand", tmp_path / "src", tmp_path / "dst").returncode != 0


def test_every_stored_result_tells_where_it_comes_from() -> None:
    stored = sorted((ROOT / "experiments" / "results").glob("*.json"))
    assert stored
    for path in stored:
        result = json.loads(path.read_text())
        assert {"command", "date", "machine", "python", "versions"} <= set(result)
        assert result["command"].startswith("python -m experiments.")
