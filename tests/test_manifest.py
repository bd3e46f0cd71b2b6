"""The manifest: what it tells, that it is true, and that it tells nothing else."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import audiofiles
import numpy as np
import pytest
from audiofiles import noise, wav, write_tree
from blake3 import blake3
from recipes import protect_folder

from poscuda_fast import DatasetError, Recipe, restore_folder, verify_folder
from poscuda_fast.undo.journal import manifest_of
from poscuda_fast.undo.manifest import Manifest

ENTRY = {
    "label": "yes",
    "bytes_before": 100,
    "bytes_after": 100,
    "blake3_before": "a" * 64,
    "blake3_after": "b" * 64,
    "snr_db": 21.5,
}


def sample_manifest() -> Manifest:
    files = {"yes/b.wav": ENTRY, "été/語.wav": {**ENTRY, "label": 3, "snr_db": None}}
    return Manifest("0123456789abcdef", Recipe.paper(blur=0.3, patches=2), files)


def text_without(field: str, *, inside: str | None = None) -> str:
    """The text of a manifest that lacks one field."""
    fields = {
        "poscuda": 2,
        "fingerprint": "0123456789abcdef",
        "recipe": Recipe.paper().to_dict(),
        "files": {"yes/b.wav": dict(ENTRY)},
    }
    place = {None: fields, "recipe": fields["recipe"], "entry": fields["files"]["yes/b.wav"]}[inside]
    del place[field]
    return json.dumps(fields)


def text_with(**changes: Any) -> str:
    """The text of a manifest with an impossible entry."""
    fields = json.loads(text_without("poscuda"))
    fields["files"]["yes/b.wav"] |= changes
    return json.dumps({"poscuda": 2, **fields})


def snr(before: np.ndarray, after: np.ndarray) -> float | None:
    """The edit's signal-to-noise ratio over a whole clip, in dB."""
    wide = before.astype(np.float64)
    noise_energy = np.sum((after.astype(np.float64) - wide) ** 2)
    return 10 * math.log10(np.sum(wide**2) / noise_energy) if noise_energy > 0 else None


def test_round_trip(tmp_path):
    path = tmp_path / "poscuda.json"
    sample_manifest().write(path)
    assert Manifest.read(path) == sample_manifest()


def test_the_file_is_sorted_readable_json(tmp_path):
    path = tmp_path / "poscuda.json"
    reverse = sample_manifest()
    Manifest(reverse.fingerprint, reverse.recipe, dict(reversed(reverse.files.items()))).write(path)
    fields = json.loads(path.read_text(encoding="utf-8"))
    assert list(fields["files"]) == ["yes/b.wav", "été/語.wav"]
    assert "été/語.wav" in path.read_text(encoding="utf-8")
    assert fields["recipe"] == {"format": 1, "patch": 240, "taps": 80, "blur": 0.3, "patches": 2, "every": None,
                                "identity": False}  # fmt: skip


def test_writing_replaces_an_older_manifest_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "poscuda.json"
    path.write_text("old")
    sample_manifest().write(path)
    assert Manifest.read(path) == sample_manifest()
    assert [entry.name for entry in tmp_path.iterdir()] == ["poscuda.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "null",
        "1",
        "[]",
        '"text"',
        "{}",
        "[" * 100_000,
        '{"poscuda": 2, "files": ' + "[" * 100_000,
        '{"poscuda": 2}',
        text_without("poscuda"),
        text_without("fingerprint"),
        text_without("recipe"),
        text_without("files"),
        text_without("format", inside="recipe"),
        *(text_without(field, inside="entry") for field in ENTRY),
        *(text_with(label=label) for label in (True, -1, 2**64, 1.5, [], {"a": 1}, "\ud800")),
        *(text_with(**{field: value}) for field in ("blake3_before", "blake3_after") for value in (None, 1, ["a"])),
        '{"poscuda": 2, "fingerprint": "0", "recipe": {"format": 1}, "files": []}',
        '{"poscuda": 2, "fingerprint": "0", "recipe": {"format": 1}, "files": {"a.wav": null}}',
        '{"poscuda": 2, "fingerprint": "0", "recipe": {"format": 1}, "files": {"a.wav": "label"}}',
        json.dumps({"poscuda": 2, "fingerprint": "0", "recipe": {"format": 1}, "files": {"a.wav": list(ENTRY)}}),
        '{"poscuda": 2, "fingerprint": "0", "recipe": {"format": 1, "patch": -1}, "files": {}}',
        '{"poscuda": 2, "fingerprint": "0", "recipe": {"format": 1, "patch": "240"}, "files": {}}',
        '{"poscuda": 2, "fingerprint": "0", "recipe": {"format": 1, "blur": NaN}, "files": {}}',
        '{"poscuda": 2, "fingerprint": "0", "recipe": {"format": 1, "future": 1}, "files": {}}',
        '{"poscuda": 2, "fingerprint": "0", "recipe": "default", "files": {}}',
        '{"poscuda": 2, "fingerprint": "0", "recipe": null, "files": {}}',
        '{"poscuda": 2, "fingerprint": "0", "recipe": {"format": 2}, "files": {}}',
        '{"poscuda": ' + "1" * 10_000 + "}",
    ],
    ids=lambda text: text[:60] or "empty",
)
def test_damaged_manifests_are_refused(tmp_path, text):
    path = tmp_path / "poscuda.json"
    path.write_text(text)
    with pytest.raises(
        DatasetError, match=r"The manifest .*poscuda\.json is damaged \(.*\); restore it from a backup\."
    ):
        Manifest.read(path)
    assert path.read_text() == text


def test_a_manifest_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "poscuda.json"
    path.write_bytes(b"\xff\xfe\x00\x01" * 100)
    with pytest.raises(DatasetError, match="is damaged"):
        Manifest.read(path)


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_a_manifest_of_another_version_is_refused(tmp_path, version):
    path = tmp_path / "poscuda.json"
    sample_manifest().write(path)
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "poscuda": version}))
    with pytest.raises(DatasetError, match=rf"has version {version!r} and this poscuda-fast reads version 2"):
        Manifest.read(path)


def test_a_manifest_that_was_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "poscuda.json"
    sample_manifest().write(path)
    content = path.read_bytes().rstrip()
    for end in [*range(0, len(content), 11), len(content) - 1]:
        path.write_bytes(content[:end])
        with pytest.raises(DatasetError, match="is damaged"):
            Manifest.read(path)


@pytest.mark.parametrize(
    "recipe", [Recipe.paper(), Recipe.paper(blur=0.3, patches=3, identity=True)], ids=["default", "strong"]
)
@pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])
def test_all_that_a_manifest_says_is_true_and_nothing_more(tmp_path, key, recipe, copying):
    clips = {
        "yes/a.wav": ("PCM_16", noise(4000)),
        "yes/b.wav": ("PCM_24", noise(3000, 2, "PCM_24")),
        "no/c.wav": ("FLOAT", noise(2000, 3, "FLOAT")),
        "no/short.wav": ("PCM_16", noise(100)),
        "no/silent.wav": ("PCM_16", np.zeros((3000, 1), np.int16)),
        "no/empty.wav": ("PCM_16", noise(0)),
        "no/d.flac": ("PCM_16", noise(2500)),
    }
    src = tmp_path / "src"
    write_tree(src, {name: wav(samples, coding) for name, (coding, samples) in clips.items() if name.endswith("wav")})
    audiofiles.encoded(src / "no/d.flac", clips["no/d.flac"][1], "FLAC", "PCM_16")
    before = audiofiles.contents(src)
    dst = tmp_path / "dst" if copying else src
    protect_folder(src, dst if copying else None, key, recipe=recipe)
    after = audiofiles.contents(dst)

    fields = json.loads(manifest_of(dst).read_text(encoding="utf-8"))
    assert set(fields) == {"poscuda", "fingerprint", "recipe", "files"}
    assert fields["poscuda"] == 2
    assert fields["fingerprint"] == key.fingerprint
    assert fields["recipe"] == recipe.to_dict()
    assert set(fields["files"]) == set(clips)
    for name, (coding, samples) in clips.items():
        entry = fields["files"][name]
        label = name.split("/")[0]
        wet, _ = audiofiles.protected(samples, coding, label, key, recipe)
        expected = snr(samples, wet)
        found = entry.pop("snr_db")
        # Every field is compared, so no other value (a position, a tap, a word of the key) can stand beside them.
        assert entry == {
            "label": label,
            "bytes_before": len(before[name]),
            "bytes_after": len(after[name]),
            "blake3_before": blake3(before[name]).hexdigest(),
            "blake3_after": blake3(after[name]).hexdigest(),
        }
        if expected is None:
            assert found is None, name
        else:
            assert abs(found - expected) <= 0.5005e-3, name  # it is rounded to three places


@pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])
@pytest.mark.parametrize("mode", [0o755, 0o750, 0o700], ids=oct)
def test_the_manifest_is_readable_by_those_who_read_the_data_and_the_sidecar_is_not(tmp_path, key, mode, copying):
    write_tree(tmp_path / "yes", {"a.wav": wav(noise(900))})
    (tmp_path / "yes").chmod(mode)
    protect_folder(tmp_path / "yes", tmp_path / "dst" if copying else None, key)
    name = "dst" if copying else "yes"
    assert (tmp_path / f"{name}.poscuda.json").stat().st_mode & 0o777 == mode & 0o644
    assert (tmp_path / f"{name}.poscuda").stat().st_mode & 0o777 == 0o600


def test_number_labels_stay_numbers(tmp_path, key):
    write_tree(tmp_path / "s", {"a.wav": wav(noise(900)), "b.wav": wav(noise(800))})
    protect_folder(tmp_path / "s", None, key, labels_from={"a.wav": 3, "b.wav": 0})
    files = Manifest.read(tmp_path / "s.poscuda.json").files
    assert {name: entry["label"] for name, entry in files.items()} == {"a.wav": 3, "b.wav": 0}
    wet, _ = audiofiles.protected(noise(900), "PCM_16", 3, key)
    assert audiofiles.read_samples(tmp_path / "s/a.wav", "PCM_16").tobytes() == wet.tobytes()


def test_after_restore_in_place_the_manifest_still_tells_originals_from_protected(tmp_path, key):
    write_tree(tmp_path / "yes", {"a.wav": wav(noise(900))})
    protect_folder(tmp_path / "yes", None, key)
    restore_folder(tmp_path / "yes", key)
    found = verify_folder(tmp_path / "yes")
    assert (found.original, found.protected, found.ok) == (1, 0, True)


@pytest.mark.parametrize("name", ["../outside.wav", "/outside.wav", "a/../../outside.wav"])
def test_a_manifest_does_not_speak_for_files_outside_its_folder(tmp_path, key, name):
    write_tree(tmp_path, {"in/a.wav": wav(noise(900)), "outside.wav": wav(noise(800))})
    protect_folder(tmp_path / "in", None, key)
    path = tmp_path / "in.poscuda.json"
    name = name.replace("/outside", f"{tmp_path}/outside") if name.startswith("/") else name
    fields = json.loads(path.read_text(encoding="utf-8"))
    digest = blake3((tmp_path / "outside.wav").read_bytes()).hexdigest()
    fields["files"][name] = {**fields["files"]["a.wav"], "blake3_after": digest}
    path.write_text(json.dumps(fields))
    with pytest.raises(DatasetError, match=re.escape(name)):
        verify_folder(tmp_path / "in")


@pytest.mark.parametrize("n", [1, 2])
def test_the_text_is_that_of_json(tmp_path, n):
    odd = {"label": 'a "quoted"\n\\ \x00\u2028 label', "snr_db": 1e-07, **{f: ENTRY[f] for f in list(ENTRY)[1:5]}}
    files = dict(list({"a\\b\t.wav": {**ENTRY, **odd}, "é.wav": {**ENTRY, "label": 2**63, "snr_db": None}}.items())[:n])
    Manifest("0123456789abcdef", Recipe.paper(), files).write(tmp_path / "m.json")
    fields = {"poscuda": 2, "fingerprint": "0123456789abcdef", "recipe": Recipe.paper().to_dict(), "files": files}
    expected = json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
    assert (tmp_path / "m.json").read_text(encoding="utf-8") == expected
