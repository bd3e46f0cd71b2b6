"""Which files of a folder are audio, and where their labels come from."""

from __future__ import annotations

import gzip
import os
import re
import unicodedata

import audiofiles
import numpy as np
import pytest
import soundfile
from audiofiles import noise, untouched, wav, write_tree
from recipes import protect_folder

from poscuda_fast import AudioFileError, DatasetError, Recipe, verify_folder
from poscuda_fast.files.containers import Uncompressed
from poscuda_fast.files.encoded import Encoding
from poscuda_fast.files.label_sources import find_labels
from poscuda_fast.files.layouts import AUDIO_SUFFIXES
from poscuda_fast.files.listing import collisions, find_files, find_named, find_parts, read_layout, refuse, unmarkable
from poscuda_fast.files.preflight import unsafe
from poscuda_fast.files.table import FileTable

NAMES = ["no/1.wav", "yes/1.wav", "yes/2.flac"]


def csv_source(tmp_path, content: str | bytes) -> str:
    path = tmp_path / "labels.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return f"csv:{path}"


def layouts_of(root, names):
    return FileTable(read_layout(root, name) for name in names)


def found(root):
    audio, others = find_files(root)
    return list(audio), list(others)


def test_find_files_tells_audio_from_other_files_and_sorts_both(tmp_path):
    write_tree(
        tmp_path, {"b/2.wav": b"", "b/10.wav": b"", "a.wav": b"", "Z/x.flac": b"", "notes.txt": b"", "LICENSE": b""}
    )
    assert found(tmp_path) == (["Z/x.flac", "a.wav", "b/10.wav", "b/2.wav"], ["LICENSE", "notes.txt"])


@pytest.mark.parametrize("suffix", sorted(AUDIO_SUFFIXES))
def test_every_audio_suffix_counts_in_any_case(tmp_path, suffix):
    write_tree(tmp_path, {f"one{suffix}": b"", f"two{suffix.upper()}": b"", f"three{suffix}.txt": b""})
    assert found(tmp_path) == ([f"one{suffix}", f"two{suffix.upper()}"], [f"three{suffix}.txt"])


def test_hidden_files_and_folders_are_left_out(tmp_path):
    write_tree(tmp_path, {"yes/a.wav": b"", ".poscuda": b"", "yes/._a.wav": b"", ".git/b.wav": b"", ".DS_Store": b""})
    (tmp_path / ".link").symlink_to(tmp_path / "yes")
    assert found(tmp_path) == (["yes/a.wav"], [])


def test_manifests_and_sidecars_are_left_out(tmp_path):
    write_tree(tmp_path, {"a.wav": b"", "a.wav.poscuda": b"", "b/c.poscuda.json": b"{}", "b/poscuda.json": b"{}"})
    assert found(tmp_path) == (["a.wav"], ["b/poscuda.json"])


def test_sidecars_and_parts_of_killed_runs_are_found(tmp_path):
    names = ["a.wav.poscuda", "in/.poscuda", "in/b.poscuda", ".in/c.poscuda", "in/.d.flac.poscuda-part",
             "in/.e.wav.poscuda-part", "in/f.flac.poscuda-part", ".in/.g.flac.poscuda-part",
             ".txt.poscuda-part"]  # fmt: skip
    write_tree(tmp_path, dict.fromkeys(names, b""))
    sidecars = [tmp_path / name for name in ("a.wav.poscuda", "in/.poscuda", "in/b.poscuda")]
    assert find_named(tmp_path, ".poscuda") == sidecars
    assert find_parts(tmp_path) == ["in/d.flac", "in/e.wav"]


def test_an_empty_folder_has_no_files(tmp_path):
    (tmp_path / "empty/inside").mkdir(parents=True)
    assert found(tmp_path) == ([], [])


def test_names_with_spaces_and_letters_of_any_script(tmp_path):
    names = ["a b/c d.wav", "été/naïve.wav", "日本/語.wav"]
    write_tree(tmp_path, dict.fromkeys(names, b""))
    assert found(tmp_path) == (sorted(names), [])


def test_collisions_by_case_and_by_unicode_form():
    composed, decomposed = (unicodedata.normalize(form, "café.wav") for form in ("NFC", "NFD"))
    assert collisions(["a/x.wav", "b/x.wav", "a/y.wav"]) == []
    assert collisions(["Yes.wav", "yes.wav"]) == ["Yes.wav and yes.wav differ only in case or Unicode form; rename one"]
    assert len(collisions([composed, decomposed])) == 1
    assert len(collisions(["straße.wav", "STRASSE.wav"])) == 1
    assert len(collisions(["A/x.wav", "a/x.wav", "a/X.wav"])) == 2
    assert len(collisions(["a.flac", "a.flac"])) == 1


def test_read_layout_of_wav_lossless_and_lossy_files(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s/a.WAV").write_bytes(wav(noise(100, 2), rate=8000))
    audiofiles.encoded(tmp_path / "s/b.flac", noise(200), "FLAC", "PCM_24")
    audiofiles.lossy(tmp_path / "s/c.x.mp3", "MP3", "MPEG_LAYER_III", 8000)
    found = layouts_of(tmp_path, ["s/a.WAV", "s/b.flac", "s/c.x.mp3"])
    assert [file.name for file in found] == ["s/a.WAV", "s/b.flac", "s/c.x.mp3"]
    assert [file.size for file in found] == [(tmp_path / file.name).stat().st_size for file in found]
    assert found[0].layout == Uncompressed(44, 100, 2, "PCM_16", 8000)
    assert found[1].layout == Encoding("FLAC", "PCM_24", 200, 1, 16000)
    assert [file.output_name for file in found] == ["s/a.WAV", "s/b.flac", "s/c.x.flac"]
    assert [file.lossy for file in found] == [False, False, True]
    assert [file.coding for file in found] == ["PCM_16", "PCM_24", "PCM_16"]
    assert [file.frames for file in found] == [100, 200, found[2].layout.frames]


def test_content_tells_the_format_whatever_the_name_says(tmp_path):
    audiofiles.encoded(tmp_path / "a.wav", noise(200), "FLAC", "PCM_16")
    (tmp_path / "b.flac").write_bytes(wav(noise(200)))
    (tmp_path / "c.txt").write_bytes(wav(noise(200)))
    (tmp_path / "d").write_bytes(wav(noise(200)))
    assert found(tmp_path) == (["a.wav", "b.flac", "c.txt", "d"], [])
    assert read_layout(tmp_path, "a.wav").layout.format == "FLAC"
    assert {read_layout(tmp_path, name).layout for name in ("b.flac", "c.txt", "d")} == {
        Uncompressed(44, 200, 1, "PCM_16", 16000)
    }


SOUND = {
    "AIFF": b"FORM\0\0\0\x20AIFFCOMM",
    "AMR": b"#!AMR\n\x3c",
    "WebM": b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1",
    "MP4": b"\0\0\0\x20ftypM4A \0\0\2\0",
    "Ogg": b"OggS\0\2" + bytes(22),
    "WavPack": b"wvpk\x30\0\0\0",
    "MP3 behind a tag": b"ID3\3\0\0\0\0\0\0",
    "MP2": (b"\xff\xfd\x84\0" + bytes(384 - 4)) * 2,
    "AAC": (b"\xff\xf1\x50\x80\2\x1f\xfc" + bytes(9)) * 2,
    "VOC": b"Creative Voice File\x1a\x1a\0",
    "SPHERE": b"NIST_1A\n   1024\n",
}
NO_SOUND = {
    "text": b"a table of files\n",
    "JSON": b'{"RIFF": 1}',
    "NumPy": b"\x93NUMPY\1\0v\0{'descr': '<i2'}",
    "PNG": b"\x89PNG\r\n\x1a\n" + bytes(20),
    "JPEG": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(20),
    "UTF-16": "some text, in two bytes each".encode("utf-16"),
    "ZIP": b"PK\3\4" + bytes(30),
    "pickle": b"\x80\4\x95\x10\0\0\0\0\0\0\0",
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0",
    "empty": b"",
    "gzip of text": b"\x1f\x8b\x08\0" + bytes(30),
}


@pytest.mark.parametrize("content", SOUND.values(), ids=SOUND)
def test_a_file_that_holds_sound_is_audio_under_any_name(tmp_path, key, content):
    write_tree(tmp_path, {"noext": content, "x.bin": content, "x.wav.bak": content, "a.wav": wav(noise(99))})
    assert found(tmp_path) == (["a.wav", "noext", "x.bin", "x.wav.bak"], [])
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"3 of 4 files in .* cannot be used") as caught:
        protect_folder(tmp_path, None, key)
    assert all(name in str(caught.value) for name in ("noext", "x.bin", "x.wav.bak"))
    report = protect_folder(tmp_path, None, key, skip_unusable=True)
    assert (report.clips, len(report.unprotected), report.state) == (1, 3, "protected")
    assert verify_folder(tmp_path, key).unprotected == ("noext", "x.bin", "x.wav.bak")
    assert (tmp_path / "noext").read_bytes() == content


@pytest.mark.parametrize("content", NO_SOUND.values(), ids=NO_SOUND)
def test_a_file_that_holds_something_else_is_another_file(tmp_path, content):
    write_tree(tmp_path, {"noext": content, "x.bin": content})
    assert found(tmp_path) == ([], ["noext", "x.bin"])


def test_sound_that_is_compressed_as_a_whole_is_audio_if_its_name_says_so(tmp_path):
    write_tree(tmp_path, {"a.wav.gz": gzip.compress(wav(noise(9))), "b.csv.gz": gzip.compress(b"a,b")})
    assert found(tmp_path) == (["a.wav.gz"], ["b.csv.gz"])
    with pytest.raises(
        AudioFileError, match=r"a\.wav\.gz cannot be used: it is compressed as a whole, by gzip; unpack it"
    ):
        read_layout(tmp_path, "a.wav.gz")


@pytest.mark.parametrize(("n", "last"), [(50, "  p49"), (51, "  and 1 more"), (2050, "  and 2,000 more")])
def test_a_refusal_shows_the_first_fifty_problems(n, last):
    with pytest.raises(DatasetError) as caught:
        refuse([f"p{i}" for i in range(n)], "It cannot be used")
    lines = str(caught.value).split("\n")
    assert lines[:2] == ["It cannot be used; nothing was written:", "  p0"]
    assert lines[-1] == last
    assert len(lines) == 1 + min(n, 51)


def test_nothing_to_refuse_is_not_refused():
    assert refuse([], "It cannot be used") is None


def test_hard_links_are_unsafe_to_edit_in_place(tmp_path):
    write_tree(tmp_path, {"a.wav": wav(noise(9)), "b.wav": wav(noise(9))})
    files = layouts_of(tmp_path, ["a.wav", "b.wav"])
    assert list(unsafe(tmp_path, files)) == []
    os.link(tmp_path / "a.wav", tmp_path / "c.txt")
    ((name, problem),) = unsafe(tmp_path, files)
    assert name == "a.wav"
    assert re.fullmatch(r"a\.wav has 2 names \(hard links\).* copy it", problem)


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may write every file")
def test_files_that_may_not_be_written_are_unsafe_to_edit_in_place(tmp_path):
    write_tree(tmp_path, {"a.wav": wav(noise(9)), "b.wav": wav(noise(9))})
    files = layouts_of(tmp_path, ["a.wav", "b.wav"])
    (tmp_path / "a.wav").chmod(0o444)
    assert list(unsafe(tmp_path, files)) == [("a.wav", "you may not read and write a.wav; change its permissions")]


def test_labels_from_folders_are_the_nearest_folder(tmp_path):
    assert find_labels(tmp_path, ["no/1.wav", "deep/er/yes/2.wav"], "folder") == ["no", "yes"]


def test_labels_from_folders_of_a_folder_that_is_a_class_itself(tmp_path):
    assert find_labels(tmp_path / "yes", ["1.wav", "2.wav"], "folder") == ["yes", "yes"]


def test_loose_files_beside_class_folders_have_no_label(tmp_path):
    with pytest.raises(DatasetError, match=r"nothing was written:\n  loose\.wav lies outside every class folder$"):
        find_labels(tmp_path, ["loose.wav", "yes/1.wav"], "folder")


@pytest.mark.parametrize(
    "content",
    [
        "path,label\nyes/1.wav,yes\nno/1.wav,no\nyes/2.flac,yes\n",
        "\ufeffpath,label\nyes/1.wav,yes\nno/1.wav,no\nyes/2.flac,yes\n",
        "path,label\r\nyes/1.wav,yes\r\nno/1.wav,no\r\nyes/2.flac,yes",
        'speaker,label,path\n1,yes,yes/1.wav\n2,"no","no/1.wav"\n3,yes,yes/2.flac\n',
        "path,label\n./yes/1.wav,yes\nno//1.wav,no\nyes/2.flac,yes\n\n",
        "path,label\nyes/1.wav,yes\nyes/1.wav,yes\nno/1.wav,no\nyes/2.flac,yes\n",
    ],
    ids=["plain", "BOM", "CRLF", "other columns", "./ and //", "same line twice"],
)
def test_labels_from_csv(tmp_path, content):
    assert find_labels(tmp_path, NAMES, csv_source(tmp_path, content)) == ["no", "yes", "yes"]


def test_labels_from_csv_are_stripped_and_names_match_in_any_unicode_form(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café.wav") for form in ("NFC", "NFD"))
    source = csv_source(tmp_path, f"path,label\n{composed}, yes \n")
    assert find_labels(tmp_path, [decomposed], source) == ["yes"]
    assert find_labels(tmp_path, [composed], {decomposed: "no"}) == ["no"]


def test_labels_from_csv_may_hold_commas_and_any_script(tmp_path):
    source = csv_source(tmp_path, 'path,label\n"a, b.wav","one, two"\n語.wav,日本\n')
    assert find_labels(tmp_path, ["a, b.wav", "語.wav"], source) == ["one, two", "日本"]


GOOD = "no/1.wav,no\nyes/1.wav,yes\nyes/2.flac,yes\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("path,label\n/etc/1.wav,yes\n" + GOOD, "line 2: '/etc/1.wav' is not a path inside the folder"),
        ("path,label\n" + GOOD + "../1.wav,yes\n", "line 5: '../1.wav' is not a path inside the folder"),
        ("path,label\nyes/../no/1.wav,yes\n", "line 2: 'yes/../no/1.wav' is not a path inside the folder"),
        ("path,label\n,yes\n", "line 2: '' is not a path inside the folder"),
        ("path,label\n.,yes\n", "line 2: '.' is not a path inside the folder"),
        ("path,label\n" + GOOD + "no/1.wav,yes\n", "line 5: 'no/1.wav' has two labels"),
        ("path,label\nno/1.wav,no,extra\n", "line 2: 'no/1.wav'"),
        ("path,label\nno/1.wav,\n", "line 2: 'no/1.wav' has an empty label"),
        ("path,label\nno/1.wav\n", "line 2: 'no/1.wav' has an empty label"),
        ("path,class\n" + GOOD, "has the columns ['path', 'class']; its first line must name path and label"),
        (GOOD, "its first line must name path and label"),
        ("", "has the columns None; its first line must name path and label"),
        ("path,label\nno/1.wav,no\nyes/1.wav,yes\n", "yes/2.flac has no label"),
        ("path,label\nyes/3.wav,yes\n" + GOOD, "yes/3.wav has a label but is not an audio file there"),
        ("path,label\nYes/1.wav,yes\n" + GOOD, "Yes/1.wav has a label but is not an audio file there"),
        ("path,label\nno/1.wav,caf\xe9\n".encode("latin1"), "is not a CSV file in UTF-8"),
        ("path,label\n".encode("utf-16"), "is not a CSV file in UTF-8"),
        ('path,label\n"no/1.wav,no\n', "is not a CSV file in UTF-8"),
        (f"path,label\nno/1.wav,{'x' * 100_000}\n", "is not a CSV file in UTF-8: line 2 has a field of more"),
        ("path,label\nno/1\0.wav,no\n" + GOOD, "labels.csv"),
        ("path,label\nno/1.wav,n\0o\nyes/1.wav,yes\nyes/2.flac,yes\n", "labels.csv"),
    ],
    ids=[
        "absolute", "parent", "parent inside", "no path", "the folder itself", "two labels", "too many fields", "empty",
        "too few fields", "missing column", "no header", "empty file", "missing file", "unknown file", "other case",
        "Latin-1", "UTF-16", "open quote", "huge field", "NUL in a path", "NUL in a label",
    ],
)  # fmt: skip
def test_csv_files_that_are_refused(tmp_path, content, sentence):
    with pytest.raises(DatasetError, match=re.escape(sentence)):
        find_labels(tmp_path, NAMES, csv_source(tmp_path, content))


def test_a_csv_file_that_is_missing_is_named(tmp_path):
    with pytest.raises((DatasetError, OSError), match=r"gone\.csv"):
        find_labels(tmp_path, NAMES, f"csv:{tmp_path}/gone.csv")


def test_labels_from_a_regular_expression_search_the_name_of_the_file(tmp_path):
    names = ["7/3_george_1.wav", "8/x_4_.wav"]
    assert find_labels(tmp_path, names, r"regex:(\d)_") == ["3", "4"]


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("(", "The regular expression '(' is not valid: "),
        ("a{99999999999}", "The regular expression 'a{99999999999}' is not valid: "),
        (r"^\d", r"The regular expression '^\\d' has no group; put the label in parentheses."),
        (r"^(\d)", r"yes/x.flac does not match '^(\\d)'"),
        (r"(x*)", r"no/1.wav does not match '(x*)'"),
        (r"(x)?\d", r"no/1.wav does not match '(x)?\\d'"),
    ],
    ids=["invalid", "too large", "no group", "no match", "empty match", "group without match"],
)
def test_regular_expressions_that_are_refused(tmp_path, pattern, sentence):
    with pytest.raises(DatasetError, match=re.escape(sentence)):
        find_labels(tmp_path, ["no/1.wav", "yes/2x.wav", "yes/x.flac"], f"regex:{pattern}")


def test_labels_from_a_mapping_may_be_numbers(tmp_path):
    mapping = {"yes/2.flac": 2, "yes/1.wav": 2, "no/1.wav": 0}
    assert find_labels(tmp_path, NAMES, mapping) == [0, 2, 2]


@pytest.mark.parametrize(
    ("mapping", "sentence"),
    [
        ({}, "no/1.wav has no label"),
        ({"no/1.wav": 0, "yes/1.wav": 1}, "yes/2.flac has no label"),
        (dict.fromkeys([*NAMES, "more.wav"], 1), "more.wav has a label but is not an audio file there"),
    ],
    ids=["empty", "too few", "too many"],
)
def test_mappings_that_do_not_match_the_files(tmp_path, mapping, sentence):
    with pytest.raises(DatasetError, match=re.escape("Labels and files do not match (the mapping of labels")) as caught:
        find_labels(tmp_path, NAMES, mapping)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("source", ["", "folders", "csv", "csv:", "regex:", "FOLDER", "json:x"])
def test_other_sources_of_labels_are_refused(tmp_path, source):
    sentence = f"labels_from is {source!r}; expected 'folder', 'csv:FILE', 'regex:RE' or a mapping."
    with pytest.raises(DatasetError, match=re.escape(sentence)):
        find_labels(tmp_path, NAMES, source)


@pytest.mark.parametrize("source", [None, 3, ["yes", "no", "yes"]], ids=["None", "number", "list"])
def test_a_source_of_labels_that_is_no_text_is_refused(tmp_path, source):
    with pytest.raises((TypeError, DatasetError), match=r"labels_from is .*expected"):
        find_labels(tmp_path, NAMES, source)


def test_files_whose_rate_has_no_mark_are_listed(tmp_path):
    for name, rate in {"a": 1999, "b": 2000, "c": 512_000, "d": 512_001}.items():
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(50, np.int16), rate)
    files = layouts_of(tmp_path, ["a.wav", "b.wav", "c.wav", "d.wav"])
    assert list(unmarkable(files, Recipe.paper())) == []
    assert list(unmarkable(files[1:3], Recipe.strong())) == []
    (low, _), (high, problem) = unmarkable(files, Recipe.strong())
    assert (low, high) == ("a.wav", "d.wav")
    assert problem.startswith("d.wav has a sample rate of 512,001 Hz")
