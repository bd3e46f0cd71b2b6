"""The command line as a user meets it: a real process, real files, documented exit codes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audiofiles import lossy, untouched

from poscuda_fast import Key, Recipe
from poscuda_fast.cli import main, synth
from poscuda_fast.kernels import AUTO, BACKENDS, why_missing

WORDS = ("no", "yes")
OF_PYTHON = r"\w+=(?:True|None|PATH|')|Recipe\.|(?<!-)\b(?:sample_rate|labels_from|skip_unusable|without_sidecar)\b"


COMMAND = (sys.executable, "-W", "error", "-c", "from poscuda_fast.cli import main; main()")


def poscuda(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process: its exit code and what it printed."""
    words = ["poscuda", *map(str, arguments)]
    out, errors = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, words
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as end:
            main()
    finally:
        sys.argv = argv
    return subprocess.CompletedProcess(words, int(end.value.code or 0), out.getvalue(), errors.getvalue())


def poscuda_process(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False)


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder: its bytes and its time of change."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    folder = tmp_path / "speech"
    for word in WORDS:
        (folder / word).mkdir(parents=True)
        for take in range(3):
            soundfile.write(folder / word / f"{take}.wav", synth.speak(word, 0, take), synth.SAMPLE_RATE)
    return folder


@pytest.fixture
def key_file(tmp_path: Path, key: Key) -> Path:
    path = tmp_path / "my.key"
    key.save(path)
    return path


@pytest.fixture
def array(tmp_path: Path) -> Path:
    folder = tmp_path / "array"
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "clips.npy", rng.integers(-3000, 3000, (20, 800)).astype(np.int16))
    np.save(folder / "labels.npy", np.arange(20) % 3)
    return folder


def test_keygen_writes_a_private_key_once(tmp_path: Path) -> None:
    path = tmp_path / "new.key"
    done = poscuda("keygen", path)
    assert done.returncode == 0
    assert Key.load(path).fingerprint in done.stdout
    content = path.read_bytes()
    again = poscuda("keygen", path)
    assert again.returncode == 2
    assert "never overwritten" in again.stderr
    assert path.read_bytes() == content


def test_a_copy_is_protected_and_verified_and_its_source_is_its_undo(
    tmp_path: Path, speech: Path, key_file: Path
) -> None:
    before = tree(speech)
    out = tmp_path / "out"
    done = poscuda("protect", speech, out, "--key", key_file, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # not a terminal: no progress
    report = json.loads(done.stdout)
    frames = sum(soundfile.info(speech / name).frames for name in before)
    assert (report["clips"], report["frames_changed"], report["state"]) == (6, frames, "protected")
    level, last = report["notes"]
    assert level.endswith("dB above its mark")
    assert last == f"{out} may be published; {speech} is its undo: keep it"
    assert report["recipe"] == {"format": 2, "strength": 1.0}
    assert (report["sample_rates"], report["rate_assumed"]) == ([16_000], False)
    assert tree(speech) == before
    assert all((out / name).read_bytes() != content for name, (content, _) in before.items())

    for options in ((), ("--key", key_file), ("--key", key_file, "--source", speech)):
        verified = poscuda("verify", out, *options, "--json")
        assert verified.returncode == 0
        assert json.loads(verified.stdout)["protected"] == 6

    again = poscuda("protect", speech, out, "--key", key_file)
    assert again.returncode == 0
    assert "already protected" in again.stdout
    assert f"note               {last}\n" in again.stdout

    restored = poscuda("restore", out, "--key", key_file)
    assert restored.returncode == 2
    assert f"is a copy, which keeps no originals: your originals are at {speech};" in restored.stderr
    assert poscuda("drop-undo", out, "--key", key_file, "--yes").returncode == 2
    assert {path.name for path in tmp_path.iterdir()} == {
        "my.key", "speech", "out", "out.poscuda", "out.poscuda.json"
    }  # fmt: skip


def test_one_class_for_all_clips_is_pointed_out(tmp_path: Path, speech: Path, key_file: Path) -> None:
    one = poscuda("protect", speech / "yes", tmp_path / "one", "--key", key_file)
    assert "classes            1: yes (3)\n" in one.stdout
    assert "note               there is a single class: a model can learn nothing from the mark\n" in one.stdout
    assert "single class" not in poscuda("protect", speech, tmp_path / "two", "--key", key_file).stdout


def test_a_folder_is_protected_in_place_and_restored(speech: Path, key_file: Path) -> None:
    before = tree(speech)
    assert poscuda("protect", speech, "--in-place", "--key", key_file, "--quiet").stdout == ""
    assert all((speech / name).read_bytes() != content for name, (content, _) in before.items())
    assert poscuda("restore", speech, "--key", key_file).returncode == 0
    assert all((speech / name).read_bytes() == content for name, (content, _) in before.items())


def test_an_array_is_protected_in_place_and_restored(array: Path, key_file: Path) -> None:
    clips = array / "clips.npy"
    before = clips.read_bytes()
    common = ("--key", key_file)
    done = poscuda("protect", clips, "--in-place", "--labels", array / "labels.npy", "--patches", 2, *common)
    assert done.returncode == 0, done.stderr
    assert "patches            40\n" in done.stdout
    assert "sample rate" not in done.stdout  # format 1 has no use for it
    assert clips.read_bytes() != before
    verified = poscuda("verify", clips, *common)
    assert verified.returncode == 0
    assert "protected          20" in verified.stdout
    assert poscuda("restore", clips, *common).returncode == 0
    assert clips.read_bytes() == before


@pytest.mark.parametrize(("options", "shown"), [((), "16,000 Hz (assumed)"), (("--sample-rate", 8000), "8,000 Hz")])
def test_a_report_says_whether_the_sample_rate_of_an_array_is_assumed(
    array: Path, key_file: Path, options: tuple[object, ...], shown: str
) -> None:
    clips = array / "clips.npy"
    done = poscuda("protect", clips, "--in-place", "--key", key_file, "--labels", array / "labels.npy", *options)
    assert f"recipe             format 2, strength 1\nsample rate        {shown}\n" in done.stdout, done.stderr
    assert f"sample rate        {shown}\n" in poscuda("restore", clips, "--key", key_file).stdout


def test_the_strength_is_set_by_an_snr_and_kept(tmp_path: Path, array: Path, speech: Path, key_file: Path) -> None:
    options = ("--key", key_file, "--snr", 20, "--json")
    of_array = (array / "clips.npy", "--in-place", "--labels", array / "labels.npy")
    strengths = []
    for words in (of_array, (speech, tmp_path / "out")):
        found = [json.loads(poscuda("protect", *words, *options).stdout) for _ in range(2)]
        assert [one["state"] for one in found] == ["protected", "already protected"]
        assert found[0]["recipe"] == found[1]["recipe"]
        strengths.append(found[0]["recipe"]["strength"])
    manifest = json.loads((tmp_path / "out.poscuda.json").read_text())
    assert manifest["recipe"]["strength"] == strengths[1]
    ratios = [10 ** (entry["snr_db"] / 10) for entry in manifest["files"].values()]
    assert 10 * np.log10(np.median(ratios)) == pytest.approx(20, abs=0.05)


def test_what_would_not_protect_is_refused_or_noted(array: Path, key_file: Path) -> None:
    rest = ("--in-place", "--key", key_file, "--labels", array / "labels.npy")
    before = tree(array)
    np.save(array / "loud.npy", np.full((20, 800), 300.0, np.float32))
    done = poscuda("protect", array / "loud.npy", *rest)
    assert done.returncode == 2
    assert "The median clip has a peak of 300, and float32 samples have a full scale of 1" in done.stderr
    assert {name: content for name, content in tree(array).items() if name in before} == before
    noted = poscuda("protect", array / "clips.npy", *rest, "--strength", 20)
    assert noted.returncode == 0, noted.stderr
    assert "note               the mark is louder than the recordings" in noted.stdout
    assert "note               quieter than their mark: 20 of the 20 clips that were looked at" in noted.stdout


def test_an_array_is_copied_and_never_overwritten(array: Path, key_file: Path) -> None:
    clips, out = array / "clips.npy", array / "out.npy"
    names, lengths = array / "names.txt", array / "lengths.npy"
    names.write_text("no\nyes\nmaybe\n")
    np.save(lengths, np.full(20, 700))
    before = tree(array)
    words = ("--key", key_file, "--labels", array / "labels.npy", "--classes", names, "--lengths", lengths)
    assert poscuda("protect", clips, out, *words).returncode == 0
    assert {name: content for name, content in tree(array).items() if name in before} == before
    assert "already protected" in poscuda("protect", clips, out, *words).stdout
    taken = array / "taken.npy"
    taken.write_bytes(b"mine")
    refused = poscuda("protect", clips, taken, *words)
    assert refused.returncode == 2
    assert "nothing is ever overwritten" in refused.stderr
    assert taken.read_bytes() == b"mine"


def test_one_file_takes_its_label_from_an_option(tmp_path: Path, speech: Path, key_file: Path) -> None:
    out = tmp_path / "one.wav"
    source = speech / "yes" / "0.wav"
    done = poscuda("protect", source, out, "--key", key_file, "--label", "yes")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "folder"
    assert poscuda("protect", speech, folder, "--key", key_file).returncode == 0
    assert out.read_bytes() == (folder / "yes" / "0.wav").read_bytes() != source.read_bytes()


@pytest.mark.parametrize("kind", ["folder", "array"])
def test_a_dry_run_reports_what_would_be_done_and_writes_nothing(
    tmp_path: Path, speech: Path, array: Path, key_file: Path, kind: str
) -> None:
    source = [speech] if kind == "folder" else [array / "clips.npy", "--labels", array / "labels.npy"]
    before = tree(tmp_path)
    dry = poscuda("protect", *source, "--in-place", "--key", key_file, "--blur", 0.3, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.endswith("No files were modified.\n")
    quiet = poscuda("protect", *source, "--in-place", "--key", key_file, "--blur", 0.3, "--dry-run", "--quiet")
    assert quiet.stdout == ""
    assert tree(tmp_path) == before
    arguments = ("protect", *source, "--in-place", "--key", key_file, "--blur", 0.3, "--json")
    would = json.loads(poscuda(*arguments, "--dry-run").stdout)
    did = json.loads(poscuda(*arguments).stdout)
    assert would.pop("state") == "untouched"
    assert did.pop("state") == "protected"
    assert would.pop("seconds") >= 0
    assert did.pop("seconds") >= 0
    assert would == did


@pytest.mark.parametrize(
    ("options", "recipe"),
    [
        ((), Recipe.strong()),
        (("--strength", 2), Recipe.strong(2.0)),
        (("--strength", 0.5), Recipe.strong(0.5)),
        (("--paper",), Recipe.paper()),
        (("--blur", 0.3, "--identity"), Recipe.paper(blur=0.3, identity=True)),
        (("--paper", "--patch", 100, "--every", 500, "--taps", 9), Recipe.paper(patch=100, every=500, taps=9)),
    ],
)
def test_options_make_the_recipe(tmp_path: Path, speech: Path, key_file: Path, options, recipe) -> None:
    poscuda("protect", speech, tmp_path / "out", "--key", key_file, *options)
    manifest = json.loads((tmp_path / "out.poscuda.json").read_text())
    assert Recipe.from_dict(manifest["recipe"]) == recipe


def test_files_tell_their_sample_rates(tmp_path: Path, key_file: Path) -> None:
    for label, rate in (("yes", 8000), ("no", 44_100)):
        (tmp_path / "in" / label).mkdir(parents=True)
        soundfile.write(tmp_path / "in" / label / "a.wav", np.ones(640, np.int16), rate)
    done = poscuda("protect", tmp_path / "in", tmp_path / "out", "--key", key_file, "--strength", 3)
    assert "recipe             format 2, strength 3\nsample rate        8,000, 44,100 Hz\n" in done.stdout
    facts = json.loads(poscuda("inspect", tmp_path / "in", "--json", "--strength", 3).stdout)
    assert facts["mark"] == {"format": 2, "strength": 3.0, "level_db": -36.48, "frames": 1280}
    assert (facts["usable"], facts["unusable"], facts["left_unprotected"]) == (True, [], 0)
    soundfile.write(tmp_path / "in" / "no" / "b.wav", np.ones(640, np.int16), 1000)
    facts = json.loads(poscuda("inspect", tmp_path / "in", "--json").stdout)
    problem = "has a sample rate of 1,000 Hz; it must be from 2,000 to 512,000 Hz, so resample it or leave it out"
    assert facts["unusable"] == [{"name": "no/b.wav", "problem": problem}]
    assert (facts["usable"], facts["left_unprotected"]) == (False, 1)
    alone = json.loads(poscuda("inspect", tmp_path / "in" / "no" / "b.wav", "--json").stdout)
    assert (alone["usable"], alone["problem"]) == (False, problem)
    assert json.loads(poscuda("inspect", tmp_path / "in" / "no" / "b.wav", "--json", "--paper").stdout)["usable"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["protect", "SPEECH", "--key", "KEY"], "Give either DST, for a copy, or --in-place"),
        (["protect", "SPEECH", "OUT", "--in-place", "--key", "KEY"], "Give either DST"),
        (["protect", "SPEECH", "OUT", "--key", "NOKEY"], "There is no key file"),
        (["protect", "MISSING", "OUT", "--key", "KEY"], "does not exist"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--taps", "0"], "--taps is 0"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--blur", "nan"], "--blur is nan"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--strength", "0"], "--strength is 0.0"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--sample-rate", "8000"], "audio files have their own"),
        (["protect", "CLIPS", "OUT", "--key", "KEY", "--labels", "LABELS", "--sample-rate", "0"], "--sample-rate is 0"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--strength", "1", "--blur", "1"], "--blur of format 1"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--strength", "51"], "it must be from 0.01 to 50"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--share", "1.5"], "--share is 1.5; it must be above 0"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--share", "0"], "--share is 0.0; it must be above 0"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--share", "5%"], "is not a valid float"),
        (["protect", "SPEECH/yes/0.wav", "OUT.wav", "--key", "KEY", "--share", "0.5"], "is one file; give a folder"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--share", "0.5", "--lossy-to-flac"], "and --lossy-to-flac is"),
        (["restore", "SPEECH", "--key", "KEY", "--share", "0.5"], "--share is for --without-sidecar"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--strength", "1", "--snr", "20"], "give one of them"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--snr", "20", "--paper"], "--snr is of format 2"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--snr", "nan"], "--snr is nan"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--snr", "99"], "for which the strength would be"),
        (["inspect", "SPEECH", "--sample-rate", "8000"], "is not an array; audio files have their own"),
        (["inspect", "CLIPS", "--sample-rate", "8"], "--sample-rate is 8 Hz; it must be from 2000"),
        (
            ["protect", "SPEECH", "OUT", "--key", "KEY", "--backend", "gpu"],
            "'gpu' is not one of 'auto', 'native', 'cpu'",
        ),
        (
            ["protect", "SPEECH", "OUT", "--key", "KEY", "--threads", "0"],
            "--threads is 0; expected a whole number from 1; leave it out",
        ),
        (
            ["protect", "SPEECH", "OUT", "--key", "KEY", "--labels-from", "xml:a"],
            "--labels-from is 'xml:a'; expected 'folder', 'csv:FILE' or 'regex:RE'.",
        ),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--labels-from", "regex:^x"], "no group"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--labels", "LABELS"], "--labels is for an array SRC"),
        (["protect", "SPEECH", "OUT", "--key", "KEY", "--label", "yes"], "--label is for a single audio file"),
        (["protect", "CLIPS", "OUT", "--key", "KEY"], "needs --labels"),
        (["protect", "CLIPS", "OUT", "--key", "KEY", "--labels", "LABELS", "--label", "yes"], "is for audio files"),
        (
            ["protect", "SPEECH/yes/0.wav/x.npy", "--in-place", "--key", "KEY", "--labels", "LABELS"],
            "does not exist; give a .npy",
        ),
        (["protect", "CLIPS", "--in-place", "--key", "KEY", "--labels", "KEY"], "is not a .npy file"),
        (["protect", "CLIPS", "--in-place", "--key", "KEY", "--labels", "CLIPS"], "--labels has shape"),
        (["protect", "LABELS", "--in-place", "--key", "KEY", "--labels", "LABELS"], "expected int16"),
        (["restore", "SPEECH", "--key", "KEY"], "does not exist: nothing can be restored by it"),
        (["restore", "CLIPS", "--key", "KEY"], "sidecar"),
        (["verify", "SPEECH"], "There is no manifest"),
        (["verify", "CLIPS"], "There is no manifest"),
        (["verify", "SPEECH", "--source", "SPEECH"], "which needs --key"),
        (["verify", "SPEECH", "--key", "KEY"], "does not exist: nothing can be restored by it"),
        (["restore", "SPEECH", "OUT", "--key", "KEY"], "DST is for --without-sidecar"),
        (["restore", "SPEECH", "--key", "KEY", "--strength", "2"], "--strength is for --without-sidecar"),
        (["restore", "SPEECH", "--key", "KEY", "--without-sidecar", "--partial"], "leave one of them out"),
        (["restore", "SPEECH", "--key", "KEY", "--without-sidecar"], "do not look marked with this key"),
        (["commit", "SPEECH", "--key", "KEY", "-o", "OUT"], "does not exist: nothing can be restored by it"),
        (["commit", "CLIPS", "--key", "KEY", "-o", "OUT"], "does not exist: nothing can be restored by it"),
        (["commit", "SPEECH", "--key", "KEY", "-o", "MISSING/a.key"], "choose another path with --out"),
        (["inspect", "MISSING"], "does not exist"),
        (["inspect", "KEY"], "cannot be used"),
        (["demo", "--out", "SPEECH"], "exists, and the demo needs a new folder"),
        (["keygen", "MISSING/a.key"], "The folder of"),
        (["dance"], "No such command"),
    ],
)
def test_bad_input_is_refused_with_a_sentence_and_code_2(
    tmp_path: Path, speech: Path, array: Path, key_file: Path, arguments: list[str], message: str
) -> None:
    places = {
        "MISSING/a.key": tmp_path / "missing" / "a.key",
        "SPEECH": speech,
        "OUT": tmp_path / "out",
        "KEY": key_file,
        "NOKEY": tmp_path / "no.key",
        "MISSING": tmp_path / "missing",
        "CLIPS": array / "clips.npy",
        "LABELS": array / "labels.npy",
    }
    before = tree(tmp_path)
    done = poscuda(*[places.get(word, word.replace("SPEECH", str(speech))) for word in arguments])
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert re.findall(OF_PYTHON, done.stderr) == []
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_share_is_marked_and_the_rest_is_no_failure(
    tmp_path: Path, speech: Path, array: Path, key_file: Path
) -> None:
    before, out = tree(speech), tmp_path / "out"
    options = ("--key", key_file, "--share", "0.5", "--json")
    for words, target in (([speech, out], out), ([speech, "--in-place"], speech)):
        done = poscuda("protect", *words, *options)
        assert (done.returncode, done.stderr) == (0, "")
        report = json.loads(done.stdout)
        n_marked = report["clips"] - report["untagged"]
        assert 0 < n_marked < report["clips"] == len(before)
        assert sum(before[name] != content for name, content in tree(target).items()) == n_marked
        done = poscuda("verify", target, "--key", key_file, "--json")
        assert done.returncode == 0
        verified = json.loads(done.stdout)
        assert (verified["protected"], verified["unchanged"]) == (n_marked, report["untagged"])
        assert poscuda("protect", *words, *options).returncode == 0
        assert poscuda("protect", *words, "--key", key_file).returncode == 2
    shown = poscuda("protect", speech, "--in-place", "--key", key_file, "--share", "0.5").stdout
    assert f"untagged           {report['untagged']}\n" in shown
    assert "does not make the data unlearnable" in shown
    assert poscuda("restore", speech, "--key", key_file).returncode == 0
    assert tree(speech) == before
    labels = ("--labels", array / "labels.npy")
    original = (array / "clips.npy").read_bytes()
    done = poscuda("protect", array / "clips.npy", "--in-place", *options, *labels)
    assert json.loads(done.stdout)["untagged"] == 9  # of 20
    (array / "clips.npy.poscuda").rename(tmp_path / "safe")
    lost = ("--key", key_file, "--without-sidecar", *labels)
    assert poscuda("restore", array / "clips.npy", tmp_path / "back.npy", *lost).returncode == 2
    done = poscuda("restore", array / "clips.npy", tmp_path / "back.npy", *lost, "--share", "0.5")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back.npy").read_bytes() == original


def test_commit_writes_a_statement_once_and_says_what_makes_its_date_worth_something(
    tmp_path: Path, speech: Path, key_file: Path
) -> None:
    out, statement = tmp_path / "out", tmp_path / "statement.json"
    poscuda("protect", speech, out, "--key", key_file)
    before = tree(out)
    done = poscuda("commit", out, "--key", key_file, "-o", statement)
    assert (done.returncode, done.stderr) == (0, "")
    fields = json.loads(statement.read_text())
    assert fields["digest"] in done.stdout
    assert "time-stamped by somebody else" in done.stdout
    assert (fields["labels"], fields["clips"]) == (sorted(WORDS), 3 * len(WORDS))
    content = statement.read_bytes()
    again = poscuda("commit", out, "--key", key_file, "-o", statement)
    assert again.returncode == 2
    assert "nothing is overwritten; choose another name with --out" in again.stderr
    assert statement.read_bytes() == content
    hidden = poscuda("commit", out, "--key", key_file, "-o", tmp_path / "h.json", "--hide-labels", "--json")
    assert json.loads(hidden.stdout) == json.loads((tmp_path / "h.json").read_text())
    assert json.loads(hidden.stdout)["labels_hidden"]
    assert poscuda("commit", out, "--key", key_file, "-o", tmp_path / "q.json", "--quiet").stdout == ""
    assert tree(out) == before
    refused = poscuda("commit", speech, "--key", key_file, "-o", tmp_path / "no.json", "--sidecar", "out.poscuda")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    (out / "yes" / "1.wav").unlink()
    refused = poscuda("commit", out, "--key", key_file, "-o", tmp_path / "no.json")
    assert refused.returncode == 2
    assert "is not protected, so that there is nothing to state" in refused.stderr
    assert not (tmp_path / "no.json").exists()


def test_verify_tells_by_its_exit_code(tmp_path: Path, speech: Path, key_file: Path) -> None:
    out = tmp_path / "out"
    poscuda("protect", speech, out, "--key", key_file)
    assert poscuda("verify", out).returncode == 0
    path = out / "yes" / "1.wav"
    path.write_bytes(path.read_bytes()[:-2] + b"\1\1")
    changed = poscuda("verify", out, "--key", key_file)
    assert changed.returncode == 1
    assert "yes/1.wav" in changed.stdout


def test_a_failed_write_ends_with_code_3_and_the_next_run_finishes(
    tmp_path: Path, speech: Path, key_file: Path
) -> None:
    out = tmp_path / "out"
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); import signal; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from poscuda_fast.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, "protect", speech, out, "--key", key_file, "--backend", "reference"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "Run the same command again" in done.stderr
    assert ": File too large; raise the limit on the size of files" in done.stderr
    assert str(out) in done.stderr
    assert "[Errno" not in done.stderr
    assert poscuda("protect", speech, out, "--key", key_file).returncode == 0
    assert poscuda("verify", out, "--key", key_file).returncode == 0


def test_an_interrupt_ends_with_code_130_and_the_next_run_finishes(tmp_path: Path, key_file: Path) -> None:
    speech, out = tmp_path / "many", tmp_path / "out"
    (speech / "yes").mkdir(parents=True)
    for take in range(1500):
        soundfile.write(speech / "yes" / f"{take}.wav", np.full(400, take, np.int16), 8000)
    command = [*COMMAND, "protect", speech, out]
    with subprocess.Popen([*command, "--key", key_file], stderr=subprocess.PIPE, text=True) as child:
        while not (tmp_path / "out.poscuda").exists():
            assert child.poll() is None
            time.sleep(0.005)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    assert "interrupted" in errors
    assert poscuda("protect", speech, out, "--key", key_file).returncode == 0
    assert poscuda("verify", out, "--key", key_file).returncode == 0


def test_progress_shows_on_a_terminal_only(tmp_path: Path, speech: Path, key_file: Path) -> None:
    control, terminal = pty.openpty()
    command = [*COMMAND, "protect", speech, tmp_path / "out"]
    with subprocess.Popen([*command, "--key", key_file], stdout=subprocess.PIPE, stderr=terminal) as child:
        os.close(terminal)
        shown = b""
        try:
            while part := os.read(control, 4096):
                shown += part
        except OSError:  # the terminal's other side was closed
            pass
        os.close(control)
        assert b"protected" in child.communicate()[0]
    assert b"6/6" in shown


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_inspect_tells_what_a_file_is(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((1000, 2), np.int16), 8000, subtype)
    done = poscuda("inspect", path, "--patches", 2, "--json")
    size = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}[subtype]
    facts = json.loads(done.stdout)
    assert facts["mark"] == {"format": 1, "patches": 2, "frames": 480, "bytes": 480 * 2 * size}
    facts = json.loads(poscuda("inspect", path, "--json").stdout)
    mark = {"format": 2, "strength": 1.0, "level_db": -46.02, "frames": 1000, "bytes": 2000 * size}
    assert facts == {
        "kind": "audio_file", "path": str(path), "format": "WAV", "coding": subtype, "channels": 2, "sample_rate": 8000,
        "lossy": False, "frames": 1000, "seconds": 0.125, "mark": mark, "edit": "samples_in_place", "usable": True,
        "problem": None, "sidecar": None, "sidecars": 0, "manifest": None, "state": None,
    }  # fmt: skip
    shown = poscuda("inspect", path).stdout
    assert f"samples            {subtype}, 2 channels, 8000 Hz\n" in shown
    assert "edit               only the bytes of samples, in place\n" in shown
    assert "protected          not by this library, or" in shown


def test_inspect_tells_what_an_array_and_a_folder_are(array: Path, speech: Path) -> None:
    facts = json.loads(poscuda("inspect", array / "clips.npy", "--json").stdout)
    assert (facts["kind"], facts["clips"], facts["frames"], facts["dtype"]) == ("npy_array", 20, 800, "int16")
    assert (facts["mark"]["frames"], facts["mark"]["bytes"]) == (16000, 32000)
    assert (facts["sample_rate"], facts["sample_rate_assumed"]) == (16_000, True)
    assert "16,000 Hz (assumed; --sample-rate tells it)" in poscuda("inspect", array / "clips.npy").stdout
    facts = json.loads(poscuda("inspect", array / "clips.npy", "--json", "--sample-rate", 8000).stdout)
    assert (facts["sample_rate"], facts["sample_rate_assumed"]) == (8000, False)
    facts = json.loads(poscuda("inspect", array / "clips.npy", "--json", "--paper").stdout)
    assert facts["mark"] == {"format": 1, "patches": 20, "frames": 4800, "bytes": 9600}
    assert (facts["sample_rate"], facts["sample_rate_assumed"]) == (None, False)
    (speech / "notes.txt").write_text("of the speakers")
    facts = json.loads(poscuda("inspect", speech, "--json").stdout)
    assert (facts["kind"], facts["audio_files"], facts["other_files"]) == ("folder", 6, 1)
    kind = {"format": "WAV", "coding": "PCM_16", "channels": 1, "sample_rate": 16_000, "lossy": False, "files": 6}
    assert facts["kinds"] == [kind]
    assert facts["classes"] == {"no": 3, "yes": 3}
    assert "6 x WAV PCM_16" in poscuda("inspect", speech).stdout
    assert "classes            2 by folder: no 3, yes 3\n" in poscuda("inspect", speech).stdout
    (speech / "yes" / "0.wav").rename(speech / "0.wav")
    assert json.loads(poscuda("inspect", speech, "--json").stdout)["classes"] is None


def test_inspect_finds_the_sidecar_of_the_folder_above_and_counts_lossy_files(speech: Path, key_file: Path) -> None:
    lossy(speech / "yes" / "a.mp3", "MP3", "MPEG_LAYER_III")
    assert poscuda("protect", speech, "--in-place", "--key", key_file).returncode == 2
    (speech / "yes" / "b.mp3").write_bytes((speech / "yes" / "a.mp3").read_bytes())
    shown = "  2 of them        yes/a.mp3, yes/b.mp3: is lossy; a copy can turn it into FLAC (--lossy-to-flac)\n"
    assert f"left unprotected   2\n{shown}" in poscuda("inspect", speech).stdout
    alone = json.loads(poscuda("inspect", speech / "yes" / "a.mp3", "--json").stdout)
    assert (alone["lossy"], alone["usable"], alone["edit"]) == (True, False, "flac_copy")
    (speech / "yes" / "a.mp3").write_bytes(b"RIFF")
    broken = json.loads(poscuda("inspect", speech / "yes" / "a.mp3", "--json").stdout)
    assert (broken["usable"], broken["problem"]) == (False, "it holds text; move it away, or give it another name")
    (speech / "yes" / "a.mp3").unlink()
    (speech / "yes" / "b.mp3").unlink()
    assert poscuda("protect", speech, "--in-place", "--key", key_file).returncode == 0
    for path in (speech, speech / "yes", speech / "yes" / "0.wav"):
        facts = json.loads(poscuda("inspect", path, "--json").stdout)
        assert (facts["sidecar"], facts["sidecars"], facts["state"]) == (f"{speech}.poscuda", 1, "unknown")
        assert facts["manifest"] == {
            "path": f"{speech}.poscuda.json",
            "files": 6,
            "fingerprint": Key.load(key_file).fingerprint,
            "recipe": {"format": 2, "strength": 1.0},
            "problem": None,
        }
        shown = poscuda("inspect", path).stdout
        assert "protected          unknown: a run is recorded beside it; poscuda verify tells" in shown
        assert f"sidecar            {speech}.poscuda\nmanifest           {speech}.poscuda.json: 6 files, key " in shown
    Path(f"{speech}.poscuda.json").write_text("{")
    problem = json.loads(poscuda("inspect", speech, "--json").stdout)["manifest"]["problem"]
    assert "is damaged" in problem
    assert f"manifest           {problem}\n" in poscuda("inspect", speech).stdout


@pytest.mark.parametrize("way", ["copy", "in place"])
def test_a_key_that_lies_among_the_files_is_not_published(tmp_path: Path, speech: Path, key_file: Path, way) -> None:
    (speech / "notes.txt").write_text("a POSCUDA-KEY-1: is what a key line begins with")
    inside = key_file.rename(speech / "my.key")
    before = tree(tmp_path)
    where = [tmp_path / "out"] if way == "copy" else ["--in-place"]
    done = poscuda("protect", speech, *where, "--key", inside)
    assert done.returncode == 2
    assert "my.key holds a key; move it" in done.stderr
    assert "notes.txt" not in done.stderr
    assert tree(tmp_path) == before
    outside = inside.rename(tmp_path / "my.key")
    assert poscuda("protect", speech, *where, "--key", outside).returncode == 0


def test_a_sidecar_is_that_of_its_own_run(tmp_path: Path, speech: Path, key_file: Path) -> None:
    out = tmp_path / "out"
    done = poscuda("protect", speech, out, "--key", key_file, "--sidecar", speech / "x.poscuda")
    assert done.returncode == 2
    assert "would be, or lie inside" in done.stderr
    assert poscuda("protect", speech, out, "--key", key_file).returncode == 0
    done = poscuda("protect", out, "--in-place", "--key", key_file)
    assert done.returncode == 2
    assert f"{out} is a copy of {speech} and is protected already" in done.stderr


def test_what_was_changed_is_left_out_by_partial_and_taken_later(speech: Path, key_file: Path) -> None:
    before = tree(speech)
    path = speech / "yes" / "1.wav"
    assert poscuda("protect", speech, "--in-place", "--key", key_file).returncode == 0
    wet = path.read_bytes()
    path.write_bytes(wet[:-2] + b"\1\1")
    for command in (["protect", speech, "--in-place"], ["restore", speech]):
        refused = poscuda(*command, "--key", key_file)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.endswith("go on with the others alone (--partial):\n  yes/1.wav\n")
    for command, state in ((["protect", speech, "--in-place"], "partly protected"), (["restore", speech], "partly")):
        done = poscuda(*command, "--key", key_file, "--partial")
        assert done.returncode == 0, done.stderr
        assert f"state              {state}" in done.stdout
        assert "left out           1\n  left out         yes/1.wav\n" in done.stdout
        assert poscuda("verify", speech, "--key", key_file).returncode == 1
    path.write_bytes(wet)
    assert "restored" in poscuda("restore", speech, "--key", key_file).stdout
    assert {name: content for name, (content, _) in tree(speech).items()} == {
        name: content for name, (content, _) in before.items()
    }


def test_a_lost_sidecar_is_made_up_for_by_the_key(tmp_path: Path, speech: Path, key_file: Path) -> None:
    before = {name: content for name, (content, _) in tree(speech).items()}
    assert poscuda("protect", speech, "--in-place", "--key", key_file, "--strength", 2).returncode == 0
    (tmp_path / "speech.poscuda").unlink()
    wet = tree(speech)
    options = ("--key", key_file, "--without-sidecar", "--strength", 2)
    done = poscuda("restore", speech, tmp_path / "found", *options)
    assert done.returncode == 0, done.stderr
    assert "confirmed exact by the manifest: 6 of 6 files" in done.stdout
    assert {name: content for name, (content, _) in tree(tmp_path / "found").items()} == before
    assert tree(speech) == wet
    assert poscuda("restore", speech, *options).returncode == 0
    assert {name: content for name, (content, _) in tree(speech).items()} == before


def test_the_undo_is_not_dropped_if_nobody_answers(tmp_path: Path, speech: Path, key_file: Path) -> None:
    assert poscuda("protect", speech, "--in-place", "--key", key_file, "--quiet").returncode == 0
    command = [*COMMAND, "drop-undo", speech, "--key", key_file]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "The undo was not dropped; --yes" in done.stderr
    assert poscuda("restore", speech, "--key", key_file).returncode == 0


def as_a_user(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line as somebody whom permissions bind: they do not bind root, who drops that privilege."""
    bound = () if os.geteuid() else ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")
    if bound and shutil.which("setpriv") is None:
        pytest.skip("root is not bound by permissions, and setpriv is not installed")
    return subprocess.run(
        [*bound, *COMMAND, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("verb", ["restore", "drop-undo", "grow", "grow a copy"])
def test_a_sidecar_that_may_only_be_read_is_refused_before_anything(
    tmp_path: Path, speech: Path, key_file: Path, verb: str
) -> None:
    dst = [tmp_path / "dst"] if verb == "grow a copy" else ["--in-place"]
    target = tmp_path / "dst" if verb == "grow a copy" else speech
    protect = ["protect", speech, *dst, "--key", key_file, "--quiet"]
    one = next(speech.rglob("*.wav"))
    original = one.read_bytes()
    assert as_a_user(*protect).returncode == 0
    if verb.startswith("grow"):
        one.with_name("new.wav").write_bytes(original)
        again = protect
    else:
        again = [verb, speech, "--key", key_file, *(["--yes"] if verb == "drop-undo" else [])]
    sidecar = target.with_name(f"{target.name}.poscuda")
    sidecar.chmod(0o400)
    with untouched(tmp_path):
        done = as_a_user(*again)
    assert done.returncode == 2
    assert "may only be read" in done.stderr
    assert "chmod u+w" in done.stderr
    sidecar.chmod(0o600)
    assert as_a_user(*again).returncode == 0


def test_what_may_not_be_looked_into_is_a_refusal(tmp_path: Path, speech: Path, key_file: Path) -> None:
    assert as_a_user("protect", speech, "--in-place", "--key", key_file, "--quiet").returncode == 0
    folder = next(path for path in speech.iterdir() if path.is_dir())
    folder.chmod(0)
    try:
        for verb in (["protect", "--in-place"], ["verify"]):
            done = as_a_user(verb[0], speech, *verb[1:], "--key", key_file)
            assert (done.returncode, "You may not look into" in done.stderr) == (2, True), done.stderr
    finally:
        folder.chmod(0o755)


def test_a_file_that_may_not_be_read_is_named_with_advice(tmp_path: Path, speech: Path, key_file: Path) -> None:
    (speech / "no" / "0.wav").chmod(0)
    advice = "Permission denied; change its permissions, or those of its folder"
    done = as_a_user("protect", speech, tmp_path / "out", "--key", key_file)
    assert (done.returncode, f"\n  {speech}/no/0.wav: {advice}" in done.stderr) == (2, True), done.stderr
    found = json.loads(as_a_user("inspect", speech, "--json").stdout)
    assert [one["name"] for one in found["unusable"]] == ["no/0.wav"]
    assert found["unusable"][0]["problem"].startswith(advice)


@pytest.mark.parametrize("kind", ["original", "changed", "missing"])
def test_the_undo_is_not_dropped_unless_all_is_protected(
    tmp_path: Path, speech: Path, key_file: Path, kind: str
) -> None:
    before = {path: path.read_bytes() for path in sorted(speech.rglob("*.wav"))}
    assert poscuda("protect", speech, "--in-place", "--key", key_file, "--quiet").returncode == 0
    one = next(iter(before))
    protected = one.read_bytes()
    if kind == "missing":
        one.unlink()
    else:
        one.write_bytes(before[one] if kind == "original" else protected[:-2] + b"xx")
    with untouched(tmp_path):
        done = poscuda("drop-undo", speech, "--key", key_file, "--yes")
    assert done.returncode == 2
    assert "The undo was not dropped, because not all of" in done.stderr
    one.write_bytes(protected)
    for _ in range(2):
        assert poscuda("drop-undo", speech, "--key", key_file, "--yes").returncode == 0


def test_demo_keeps_every_promise_in_an_empty_folder(tmp_path: Path) -> None:
    done = poscuda_process("demo", "--out", "demo", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("Every byte is as promised.\n")
    shown = [float(number) for number in re.findall(r"^ +(\d+)  ", done.stdout, re.MULTILINE)]
    original, protected, keyed, control = shown
    assert protected < min(original, control, keyed) - 10
    again = poscuda("verify", tmp_path / "demo" / "protected", "--key", tmp_path / "demo" / "demo.key", "--json")
    assert json.loads(again.stdout)["protected"] == 180


def test_doctor_examines_every_backend() -> None:
    done = poscuda("doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert list(found["backends"]) == list(BACKENDS)
    for backend, state in found["backends"].items():
        problem = why_missing(backend)
        code = "ok" if problem is None else "missing"
        assert state == {"ok": problem is None, "code": code, "problem": problem}
    assert found["versions"]["numpy"] == np.__version__
    assert found["auto"] == next(name for name in AUTO if why_missing(name) is None)
    assert "backend cpu" in poscuda("doctor").stdout


def names_of(value: object) -> list[str]:
    """All names in JSON, at any depth, but those that are data."""
    if isinstance(value, list):
        return [name for one in value for name in names_of(one)]
    if not isinstance(value, dict):
        return []
    inner = [name for key, one in value.items() if key not in {"classes", "extras"} for name in names_of(one)]
    return [*value, *inner]


def test_names_in_json_are_identifiers(array: Path, speech: Path, key_file: Path) -> None:
    assert poscuda("protect", speech, "--in-place", "--key", key_file, "--quiet").returncode == 0
    for words in (["doctor"], ["inspect", speech], ["inspect", array / "clips.npy"], ["inspect", speech / "no/0.wav"]):
        found = json.loads(poscuda(*words, "--json").stdout)
        assert [name for name in names_of(found) if not re.fullmatch(r"[a-z][a-z0-9_]*", name)] == []


def test_doctor_fails_where_a_backend_gives_other_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    def idle(*_: object) -> int:
        return 0

    monkeypatch.setattr("poscuda_fast.kernels.cpu.filter_patches", idle)
    done = poscuda("doctor")
    assert done.returncode == 1
    assert "WRONG BITS" in done.stdout
    found = json.loads(poscuda("doctor", "--json").stdout)
    assert (found["ok"], found["backends"]["cpu"]["code"]) == (False, "wrong_bits")


def test_help_and_version() -> None:
    assert poscuda("--version").stdout.startswith("poscuda, version ")
    commands = ("", "keygen", "protect", "restore", "verify", "drop-undo", "commit", "evaluate", "report", "inspect",
                "demo", "doctor", "completion")  # fmt: skip
    for command in commands:
        done = poscuda(*command.split(), "--help")
        assert done.returncode == 0
        assert "Usage:" in done.stdout
        assert all(len(line) <= 120 for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("ImportError('No module named torch', name='torch')", "poscuda evaluate needs torch: run pip install"),
        ("OSError('libc10_cuda.so: cannot open')", "they must fit each other: in a fresh environment"),
    ],
)
def test_evaluate_says_what_it_lacks(tmp_path: Path, error: str, sentence: str) -> None:
    Key(bytes(range(32))).save(tmp_path / "my.key")
    (tmp_path / "torch.py").write_text(f"raise {error}")
    (tmp_path / "soxr.py").write_text("")  # is asked for first, where neither is installed
    done = subprocess.run(
        [*COMMAND, "evaluate", "nowhere", "--key", "my.key"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--model", "m6"], "'m6' is not one of"),
        (["--epochs", "0"], "0 is not in the range"),
        (["--seeds", "0"], "0 is not in the range"),
        (["--clips", "1"], "1 is not in the range"),
        (["-o", "nowhere/found.json"], "The folder of nowhere/found.json does not exist"),
        (["-o", "found.svg"], "--out found.svg is a name for the plot"),
        (["-o", "."], ". exists, and nothing is overwritten"),
    ],
)
def test_evaluate_refuses_before_it_trains(tmp_path: Path, options: list[str], sentence: str) -> None:
    Key(bytes(range(32))).save(tmp_path / "my.key")
    command = [*COMMAND, "evaluate", "src", "--key", "my.key", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert sentence in done.stderr
