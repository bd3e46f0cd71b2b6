"""The private page: what it says is so, it stands alone, and making it changes nothing."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import io
import json
import os
import re
import shutil
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from audiofiles import encoded, untouched, wav, write_tree
from secret_forms import forms_of
from test_cli import poscuda

import poscuda_fast
from poscuda_fast import DatasetError, Key, Recipe, SidecarError, Verdict, drop_undo, protect_folder, protect_memmap
from poscuda_fast.cli import synth
from poscuda_fast.files.originals import open_files
from poscuda_fast.text import one_line
from poscuda_fast.undo.journal import manifest_of
from poscuda_fast.undo.manifest import Manifest

if os.environ.get("POSCUDA_REQUIRE_REPORT") != "1":
    pytest.importorskip("jinja2", reason="the report's tests need pip install '.[report]'")
    pytest.importorskip("matplotlib", reason="the report's tests need pip install '.[report]'")

from poscuda_fast import reporting
from poscuda_fast.reporting import page as paging
from poscuda_fast.reporting import pictures, sounds
from poscuda_fast.reporting import survey as surveying
from poscuda_fast.reporting.histogram import LEFT, histogram
from poscuda_fast.reporting.survey import Excerpt, Named, Survey

KEY = Key(bytes(range(32)))
ODD = "<b>&'\u202e.wav"  # its sixth character would turn the direction of what follows
VOID = {"meta", "img", "line", "br"}


class Page(HTMLParser):
    """A page taken apart: its tags with their attributes, and its text; AssertionError if a tag is not closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.parts: list[str] = []
        self._open: list[str] = []
        self.parents: list[tuple[str, list[tuple[str, str]]]] = []
        self._path: list[tuple[str, str]] = []
        self.feed(self.source)
        self.close()
        assert self._open == []
        self.text = " ".join(" ".join(self.parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = {name: value or "" for name, value in attrs}
        self.tags.append((tag, fields))
        self.parents.append((tag, list(self._path)))
        if tag not in VOID:
            self._open.append(tag)
            self._path.append((tag, fields.get("class", "")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self._path.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.parts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [fields for name, fields in self.tags if name == tag]


def samples_of(uri: str) -> tuple[np.ndarray, int]:
    """The samples (frames, channels) int16 that a player holds, and their rate."""
    head, _, content = uri.partition(",")
    assert head == "data:audio/wav;base64"
    return soundfile.read(io.BytesIO(base64.b64decode(content)), dtype="int16", always_2d=True)


def tone(frames: int, channels: int = 1, level: float = 3000.0) -> np.ndarray:
    """A sweep, int16 (frames, channels)."""
    wave = level * np.sin(np.arange(frames) ** 2 / 30_000)
    return np.stack([wave / (1 + n) for n in range(channels)], 1).astype(np.int16)


def make_audio(root: Path) -> None:
    speech = {
        f"{word}/{take}.wav": wav(synth.speak(word, take, take)[:, None]) for word in ("no", "yes") for take in (0, 1)
    }
    write_tree(root, {
        **speech,
        f"no/{ODD}": wav(tone(4000, 2, 40)),
        "no/24.wav": wav((tone(4000).astype(np.int32) << 8), "PCM_24"),
        "yes/float.wav": wav((tone(4000) / 32768).astype(np.float32), "FLOAT", 8000),
        "yes/loud.wav": wav(np.tile(np.array([[32767], [-32768]], np.int16), (200, 1))),
        "yes/silent.wav": wav(np.zeros((1280, 1), np.int16)),
        "yes/tiny.wav": wav(tone(20)),
        "yes/one.wav": wav(np.full((1, 1), 500, np.int16)),
    })  # fmt: skip
    encoded(root / "no" / "a.flac", tone(5000, 2), "FLAC", "PCM_16")


class Made:
    """A protected folder and its page."""

    def __init__(self, root: Path) -> None:
        self.source, self.folder, self.path = root / "audio", root / "protected", root / "report.html"
        make_audio(self.source)
        self.report = protect_folder(self.source, self.folder, KEY)
        self.seen: list[tuple[int, int]] = []
        with untouched(self.folder):
            reporting.write_report(self.folder, KEY, self.path, progress=lambda *n: self.seen.append(n))
        self.page = Page(self.path)
        self.manifest = Manifest.read(manifest_of(self.folder))
        ratios = {name: entry["snr_db"] for name, entry in self.manifest.files.items()}
        self.ratios = {name: ratio for name, ratio in ratios.items() if ratio is not None}
        self.worst = ["yes/silent.wav", *sorted(self.ratios, key=self.ratios.__getitem__)[:9]]
        # Of an odd number, so one of them is the median.
        self.typical = sorted(self.ratios, key=self.ratios.__getitem__)[len(self.ratios) // 2]
        self.shown = [self.typical, *(name for name in self.worst if name != self.typical)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("report"))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clips are drawn at most: enough where pictures are not what is tested."""
    monkeypatch.setattr(surveying, "WORST", 1)


# The page stands alone, and is private.


def test_it_is_marked_as_private_and_only_its_owner_may_read_it(made: Made) -> None:
    body = made.page.text.partition("(private) ")[2]  # behind the title
    assert body.startswith("Private This page shows the marks of the classes, and originals beside")
    assert "Keep it as secret as the sidecar." in made.page.text
    assert {"name": "robots", "content": "noindex, nofollow"} in made.page.all("meta")
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert os.listdir(made.path.parent).count("report.html") == 1
    assert not list(made.path.parent.glob(".*"))


def test_it_needs_no_network_and_no_other_file(made: Made) -> None:
    page = made.page
    assert not {"link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    for _, fields in page.tags:
        for name in ("src", "href", "srcset", "poster", "action"):
            assert fields.get(name, "data:").startswith(("data:", "#"))
        assert not [name for name in fields if name.startswith("on")]
    style = re.search(r"<style>(.*?)</style>", page.source, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; media-src data:"
    )
    assert script == (importlib.resources.files("poscuda_fast.reporting") / paging.SCRIPT).read_text(encoding="utf-8")
    assert page.all("script") == [{}]
    assert not re.search(r"https?://", page.source)
    assert made.path.stat().st_size < 6e6


def test_the_key_is_not_on_it(made: Made) -> None:
    content = made.path.read_bytes()
    assert not any(form in content for form in forms_of(bytes(range(32))))
    assert KEY.fingerprint in made.page.text
    assert str(made.folder.parent) not in made.page.source


def test_what_is_wide_can_be_scrolled_on_a_phone(made: Made) -> None:
    for tag, path in made.page.parents:
        if tag == "table":
            assert ("div", "scroll") in path
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", made.page.source)
    (viewport,) = [meta["content"] for meta in made.page.all("meta") if meta.get("name") == "viewport"]
    assert viewport == "width=device-width, initial-scale=1"


def test_names_are_escaped(made: Made) -> None:
    assert "<b>&" not in made.page.source
    assert "\u202e" not in made.page.source
    assert f"no/{one_line(ODD)}" in made.page.text
    assert any(one_line(ODD) in fields["alt"] for fields in made.page.all("img"))


# What it says is so.


def test_its_facts_are_those_of_the_run(made: Made) -> None:
    text, report = made.page.text, made.report
    assert f"{made.folder.name}: what was protected" in text
    assert f"Run complete Key fingerprint {KEY.fingerprint} Sample rate 8,000, 16,000 Hz This page made 20" in text
    assert f" UTC by poscuda-fast {poscuda_fast.__version__}" in text
    assert "Format 2. Every class has two steady lines of its own, between 625 and 3,875 Hz." in text
    assert "together an RMS of \N{MINUS SIGN}46.0 dB of full scale (strength 1;" in text
    assert "format 2, strength 1.0 Facts" in text.replace("\N{NO-BREAK SPACE}", " ")
    frames = sum(soundfile.info(str(made.source / name)).frames for name in made.manifest.files)
    assert report.frames_changed == frames
    n_quiet = sum(ratio < 0 for ratio in made.ratios.values())
    median, worst = np.median(list(made.ratios.values())), np.percentile(list(made.ratios.values()), 5)
    assert n_quiet == 2
    assert report.saturated_samples > 0
    for fact in (
        "12 files 12 protected", "2 classes",
        f"{frames:,} frames of protected files; all of them are marked",
        f"{median:.1f} dB median SNR of {len(made.ratios)} protected files with sound",
        f"{worst:.1f} dB 5th percentile of the SNR 1 in 20 has less",
        "2 quiet files quieter than the mark", f"{report.saturated_samples:,} saturated samples",
    ):  # fmt: skip
        assert fact.replace("-", "\N{MINUS SIGN}") in text, fact
    assert "patch" not in text
    assert made.seen == [(n, 12) for n in range(1, 13)]


def test_its_classes_have_their_medians(made: Made) -> None:
    for label in ("no", "yes"):
        some = [ratio for name, ratio in made.ratios.items() if name.startswith(label + "/")]
        files = [name for name in made.manifest.files if name.startswith(label + "/")]
        assert f"{label} {len(files)} {np.median(some):.1f} dB".replace("-", "\N{MINUS SIGN}") in made.page.text


def test_a_typical_clip_is_shown_and_then_those_that_changed_most_in_order(made: Made) -> None:
    text, typical = made.page.text, one_line(made.typical)
    assert len(made.ratios) % 2 == 1
    assert f"A typical file The one whose SNR is nearest the median of all protected files. {typical} class" in text
    assert (
        "The 10 files with the lowest SNR Those that were silent before come first. The typical file above is one of "
        "them. yes/silent.wav class yes SNR silent before: no ratio 0.08 s"
    ) in text
    places = [text.index(f"{one_line(name)} class") for name in made.shown]
    assert places == sorted(places)
    assert len(made.shown) == 10
    assert text.count(f"{typical} class") == 1
    for name in made.worst[1:]:
        assert f"SNR {made.ratios[name]:.1f} dB".replace("-", "\N{MINUS SIGN}") in text
    assert len(made.page.all("img")) == 31
    assert all(image["alt"] and image["src"].startswith("data:image/png;base64,") for image in made.page.all("img"))
    assert sum(image["alt"].startswith("Difference: waveform and spectrogram") for image in made.page.all("img")) == 10


def test_what_is_heard_are_the_samples_before_and_after_and_their_difference(made: Made) -> None:
    players = {fields["aria-label"]: fields["src"] for fields in made.page.all("audio")}
    assert len(players) == 30
    assert "All three play at the same gain" in made.page.text
    for name in made.shown:
        kept = [soundfile.read(root / name, dtype="float32", always_2d=True) for root in (made.source, made.folder)]
        (before, true_rate), (after, _) = kept
        for word, samples in (("before", before), ("after", after), ("difference", after - before)):
            heard, rate = samples_of(players[f"{one_line(name)} {word}"])
            assert rate == true_rate
            assert np.array_equal(heard, np.rint(samples * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16))


def test_all_spectrograms_have_one_scale(made: Made) -> None:
    (scale,) = [image["alt"] for image in made.page.all("img") if "waveform" not in image["alt"]]
    low, high = re.fullmatch(r"Colours from (-?\d+) dB, dark, to (0|-?[1-9]\d*) dB, light\.", scale).groups()
    levels = [
        pictures.spectrogram(samples_of(fields["src"])[0][:, 0] / 2**15, samples_of(fields["src"])[1])[0].max()
        for fields in made.page.all("audio")
    ]
    assert int(high) - 10 < max(levels) <= int(high) == int(low) + 80


def test_its_lists_name_files(made: Made) -> None:
    text = made.page.text[made.page.text.index("Lists ") :]
    assert re.search(r"Files with saturated samples 1 yes/loud\.wav [\d,]+ saturated samples", text)
    assert "Files that are not in their protected state none" in text
    assert "does not know: not protected none" in text


@pytest.mark.usefixtures("few")
def test_files_that_changed_are_listed(tmp_path: Path) -> None:
    make_audio(tmp_path / "in")
    out = tmp_path / "out"
    protect_folder(tmp_path / "in", out, KEY)
    (out / "no" / "0.wav").write_bytes((out / "no" / "0.wav").read_bytes() + b"x")
    (out / "no" / "1.wav").unlink()
    (out / "no" / ODD).write_bytes((tmp_path / "in" / "no" / ODD).read_bytes())
    (out / "more.wav").write_bytes(wav(tone(30)))
    reporting.write_report(out, KEY, tmp_path / "page.html")
    text = Page(tmp_path / "page.html").text
    assert "not in their protected state 3 no/0.wav changed: neither original nor protected no/1.wav missing" in text
    assert f"no/{one_line(ODD)} the original" in text
    assert "does not know: not protected 1 more.wav" in text
    assert "12 files 9 protected, 1 original, 1 changed since, 1 missing" in text


@pytest.mark.usefixtures("few")
def test_long_lists_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert surveying.NAMES_KEPT == 200
    monkeypatch.setattr(surveying, "NAMES_KEPT", 3)
    write_tree(
        tmp_path / "in", {f"{n % 30:02d}/{n:04d}.wav": wav(np.zeros((n // 30 + 1, 1), np.int16)) for n in range(90)}
    )
    protect_folder(tmp_path / "in", None, KEY, recipe=Recipe.paper(patch=2, taps=3))
    reporting.write_report(tmp_path / "in", KEY, tmp_path / "page.html")
    text = Page(tmp_path / "page.html").text
    assert "Files with silent patches 90" in text
    assert "and 87 more" in text
    assert "30 classes" in text
    assert "90 files 0 protected, 90 unchanged by protection" in text
    assert "0 patches no file is protected" in text
    assert "90 silent patches zeros only: they carry no mark" in text
    assert "There is no ratio to show: nothing is protected, nothing changed, or everything was silent before." in text
    assert (
        "Files with the lowest SNR There is nothing to show: nothing is protected, nothing changed, or samples are not "
        "finite." in text
    )
    assert "Format 1, the paper's method. Patches of 2 frames, 1 in each clip" in text


# Arrays, single files, unfinished runs.


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("channels", [None, 2])
def test_an_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, channels: int | None) -> None:
    monkeypatch.setattr(surveying, "WORST", 2)
    rng = np.random.default_rng(1)
    clips = rng.integers(-4000, 4000, (6, 2000) if channels is None else (6, 2000, channels)).astype(dtype)
    if dtype is np.float32:
        clips /= 32768
    clips[2] = (clips[2] / 40).astype(dtype)
    clips[4] = 0
    lengths = np.array([2000, 2000, 2000, 10, 2000, 0])
    np.save(tmp_path / "clips.npy", clips)
    mapped = np.load(tmp_path / "clips.npy", mmap_mode="r+")
    protect_memmap(mapped, [3, 1, 3, 1, 1, 3], KEY, classes=["a", "b<i>", "c", "d"], lengths=lengths, sample_rate=8000)
    seen = []
    (tmp_path / "pages").mkdir()
    out = tmp_path / "pages" / "page.html"
    before = {path: path.read_bytes() for path in tmp_path.glob("clips.npy*")}
    with pytest.raises(ValueError, match=r"sample_rate is 16000, and .* records 8,000 Hz"):
        reporting.write_report(tmp_path / "clips.npy", KEY, out, sample_rate=16_000)
    reporting.write_report(tmp_path / "clips.npy", KEY, out, progress=lambda *n: seen.append(n))
    assert {path: path.read_bytes() for path in tmp_path.glob("clips.npy*")} == before
    page = Page(out)
    assert seen == [(n, 6) for n in range(1, 6)]
    assert "clips.npy: what was protected" in page.text
    assert "6 clips 5 protected, 1 empty 2 classes 8,010 frames of protected clips; all of them" in page.text
    assert "Sample rate 8,000 Hz This page" in page.text
    lowest = page.text.partition("The 2 clips with the lowest SNR")[2]
    assert re.search(r"clip 4 class b<i> SNR silent before: no ratio 0\.25 s .* clip 2 class d SNR", lowest)
    assert "Left out, since they have no ratio: 1 clip silent before." in page.text
    assert "b<i> 3" in page.text
    assert "does not know" not in page.text
    power = {n: np.var(clips[n, :end] / 1.0) for n, end in enumerate(lengths) if clips[n, :end].any()}
    typical = min(sorted(power, key=power.__getitem__)[1:3])  # two of the four are as far from the median
    assert f"A typical clip The one whose SNR is nearest the median of all protected clips. clip {typical}" in page.text
    shown = [(array[n, : lengths[n]]) for n in (typical, 4, 2) for array in (clips, mapped, mapped - clips)]
    for fields, samples in zip(page.all("audio"), shown, strict=True):
        heard, rate = samples_of(fields["src"])
        scale = 1 if dtype is np.int16 else 2**15
        assert rate == 8000
        assert np.array_equal(heard, np.rint(samples.reshape(len(heard), -1) * scale).astype(np.int16))


def written(source: Path, out: Path) -> str:
    """The text of the page of what was protected."""
    reporting.write_report(source, KEY, out)
    return Page(out).text


@pytest.mark.usefixtures("few")
def test_the_length_of_clips_with_padding_is_a_bound(tmp_path: Path) -> None:
    clips = np.random.default_rng(1).integers(-4000, 4000, (6, 40_000)).astype(np.int16)
    clips[:, 16_000:] = 0
    labels = [0, 1] * 3
    for name, lengths in (("padded", np.full(6, 16_000)), ("whole", None)):
        np.save(tmp_path / f"{name}.npy", clips)
        mapped = np.load(tmp_path / f"{name}.npy", mmap_mode="r+")
        protect_memmap(mapped, labels, KEY, lengths=lengths, recipe=Recipe.paper(patch=400, every=1600))
    padded = written(tmp_path / "padded.npy", tmp_path / "padded.html")
    (share,) = re.findall(r"60 patches at most ([\d.]+) % of the frames of protected clips are in patches", padded)
    assert 25 <= float(share) < 28
    seconds = re.findall(r"at least ([\d.]+) s Lengths are not stored: what is shown may end with padding\.", padded)
    assert len(seconds) == 2
    assert all(0.9 < float(one) <= 1 for one in seconds)
    whole = written(tmp_path / "whole.npy", tmp_path / "whole.html")
    assert "150 patches 25.0 % of the frames of protected clips are in patches" in whole
    assert re.search(r"SNR \S+ dB 2\.50 s Before", whole)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("recipe", [Recipe.strong(), Recipe.paper()], ids=["2", "1"])
def test_a_short_clip_is_shown_without_its_padding(tmp_path: Path, recipe: Recipe) -> None:
    np.save(tmp_path / "clips.npy", np.full((1, 500), 700, np.int16))
    mapped = np.load(tmp_path / "clips.npy", mmap_mode="r+")
    protect_memmap(mapped, [0], KEY, lengths=[20], recipe=recipe)
    reporting.write_report(tmp_path / "clips.npy", KEY, tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    marked = "1 patch 100.0 % of the frames" if recipe.format == 1 else "20 frames of protected clips"
    assert f"1 clip 1 protected 1 class {marked}" in page.text
    assert "Sample rate taken to be 16,000 Hz (assumed)" in page.text
    assert re.search(r"dB less than 0\.01 s Before", page.text)
    assert [len(samples_of(fields["src"])[0]) for fields in page.all("audio")] == [20] * 3


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("recipe", [Recipe.strong(), Recipe.paper()], ids=["2", "1"])
def test_samples_that_are_not_finite_leave_a_clip_without_a_ratio(tmp_path: Path, recipe: Recipe) -> None:
    """Of the paper's recipe, which marks patches, such samples outside them."""
    clips = np.random.default_rng(1).normal(0, 0.1, (3, 2000)).astype(np.float32)
    wet = clips.copy()
    poscuda_fast.protect(wet, [0, 1, 1], KEY, recipe=Recipe.paper())
    outside = np.flatnonzero(wet[1] == clips[1])[:2]
    clips[1, outside] = np.inf, np.nan
    np.save(tmp_path / "clips.npy", clips)
    protect_memmap(np.load(tmp_path / "clips.npy", mmap_mode="r+"), [0, 1, 1], KEY, recipe=recipe)
    text = written(tmp_path / "clips.npy", tmp_path / "page.html")
    assert "3 clips 3 protected" in text
    assert "Left out, since they have no ratio: 1 clip with samples that are not finite." in text
    assert "Those that were silent before" not in text
    assert ("2 samples not finite, left as they were" in text) == (recipe.format == 2)


@pytest.mark.usefixtures("few")
def test_a_clip_of_an_array_that_changed(tmp_path: Path) -> None:
    clips = np.random.default_rng(1).integers(-4000, 4000, (3, 2000)).astype(np.int16)
    np.save(tmp_path / "clips.npy", clips)
    mapped = np.load(tmp_path / "clips.npy", mmap_mode="r+")
    protect_memmap(mapped, [0, 1, 1], KEY)
    mapped[1][mapped[1] != clips[1]] += 1
    text = written(tmp_path / "clips.npy", tmp_path / "page.html")
    assert "3 clips 2 protected, 1 half written or changed" in text
    assert "not in their protected state 1 clip 1 half written, or changed where it was marked" in text


@pytest.mark.usefixtures("few")
def test_what_nothing_changed_in_is_not_protected(tmp_path: Path) -> None:
    make_audio(tmp_path / "in")
    shutil.rmtree(tmp_path / "in" / "no")  # leaves one file that has room for an edit so small
    for path in (tmp_path / "in" / "yes").glob("[!s]*"):
        path.unlink()
    write_tree(tmp_path / "in", {"no/a.wav": wav(np.zeros((700, 1), np.int16))})
    protect_folder(tmp_path / "in", None, KEY, recipe=Recipe.paper())
    text = written(tmp_path / "in", tmp_path / "page.html")
    assert "2 files 0 protected, 2 unchanged by protection 2 classes 0 patches no file is protected" in text
    assert "\N{EN DASH} median SNR of 0 protected files with sound" in text
    assert "no 0 \N{EN DASH} yes 0 \N{EN DASH}" in text
    assert "Left out" not in text


@pytest.mark.usefixtures("few")
def test_what_was_put_back_is_not_counted_as_protected(tmp_path: Path) -> None:
    originals = {f"{n % 2}/{n}.wav": wav(tone(4096 + 128 * n)) for n in range(4)}
    write_tree(tmp_path / "out", originals)
    protect_folder(tmp_path / "out", None, KEY)
    write_tree(tmp_path / "out", {name: originals[name] for name in ("1/1.wav", "0/2.wav", "1/3.wav")})
    text = written(tmp_path / "out", tmp_path / "some.html")
    assert "4 files 1 protected, 3 original 2 classes 4,096 frames of protected files; all of" in text
    assert "median SNR of 1 protected file with sound" in text
    assert re.search(r"Protected files Median SNR 0 1 \S+ dB 1 0 \N{EN DASH}", text)

    (tmp_path / "out" / "0" / "0.wav").write_bytes(b"changed")
    poscuda_fast.restore_folder(tmp_path / "out", KEY, partial=True)
    text = written(tmp_path / "out", tmp_path / "none.html")
    assert "Run undone in part: run restore again for the rest" in text
    assert "4 files 0 protected, 3 original, 1 changed since 2 classes 0 frames no file is protected" in text


def test_more_than_two_channels(tmp_path: Path, few: None) -> None:
    write_tree(tmp_path / "in", {"a/a.wav": wav(tone(4000, 3))})
    protect_folder(tmp_path / "in", None, KEY)
    text = written(tmp_path / "in", tmp_path / "page.html")
    assert "Pictures show the first of 3 channels, sounds are the first 2." in text


def test_one_file_with_a_sidecar_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(tone(3000), rate=44100))
    protect_folder(
        tmp_path / "a.wav", None, KEY, labels_from={"a.wav": 5}, sidecar=tmp_path / "kept",
        recipe=Recipe.paper(every=500, identity=True),
    )  # fmt: skip
    reporting.write_report(tmp_path / "a.wav", KEY, tmp_path / "page.html", sidecar=tmp_path / "kept")
    text = Page(tmp_path / "page.html").text
    assert "The file with the lowest SNR a.wav class 5" in text
    assert "one for each 500 frames, are convolved" in text
    assert "centre tap is 1" in text


@pytest.mark.usefixtures("few")
def test_a_folder_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    write_tree(folder, {"a/a.wav": wav(tone(300))})
    protect_folder(folder, None, KEY, sidecar=tmp_path / "kept")
    reporting.write_report(folder, KEY, tmp_path / "page.html", sidecar=tmp_path / "kept")
    assert "caf\N{REPLACEMENT CHARACTER}: what was protected" in Page(tmp_path / "page.html").text


@pytest.mark.usefixtures("few")
def test_a_run_that_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poscuda_fast.files.target.PIECES_PER_BATCH", 1)
    make_audio(tmp_path / "in")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        protect_folder(tmp_path / "in", None, KEY, progress=stop)
    reporting.write_report(tmp_path / "in", KEY, tmp_path / "page.html")
    text = Page(tmp_path / "page.html").text
    assert "Run not finished: run protect again" in text
    assert re.search(r"12 files \d protected, \d+ not reached 2 classes", text)
    assert re.search(r"Audio files that the run does not know or has not reached: not protected \d+ no/", text)
    assert re.search(r"yes 0 \N{EN DASH}", text)


@pytest.mark.usefixtures("few")
def test_a_long_clip_is_shown_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "PAGE_BYTES", 3 * 2 * 3 * 8000 + 10)
    write_tree(tmp_path / "in", {"a/a.wav": wav(tone(8000 * 13, 2), rate=8000)})
    protect_folder(tmp_path / "in", None, KEY)
    reporting.write_report(tmp_path / "in", KEY, tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert "The first 3.0 s are shown. Pictures and sounds are the first of 2 channels." in page.text
    assert [samples_of(fields["src"])[0].shape for fields in page.all("audio")] == [(24000, 1)] * 3


# Evaluations.


def evaluation(made: Made, **changes: Any) -> dict[str, Any]:
    with open_files(made.folder, KEY) as run:
        labels = run.labels_mac
    fields = {
        "kind": "poscuda evaluation",
        "version": 1,
        "date": "2026-11-25",
        "fingerprint": KEY.fingerprint,
        "recipe": made.manifest.recipe.to_dict(),
        "labels": labels,
        "verdict": {"word": "in part", "sentence": "It <em>helps</em>.", "uncertainty": "One training."},
        "data": {"training_clips": 2400, "test_clips": 600, "classes": 10, "chance": 10.0},
        "models": [
            {"model": "M5", "clean": 92.14, "plain": 37.2, "default": 31.0,
             "protected": 37.2, "protected_interval": [33.0, 41.5], "keyed": 99.5,
             "miskeyed": 3.1},
            {"model": "other", "clean": 90},
        ],
        "attacks": [{"attack": "class lines notched out", "model": "M5", "protected": 80.2,
                     "protected_interval": [76.0, 84.0]}],
        "quality": {"snr_db": {"median": 19.71, "worst_5_percent": 11, "unit": "dB"}, "pesq": {"median": None}},
    } | changes  # fmt: skip
    return {name: value for name, value in fields.items() if value is not None}


@pytest.mark.usefixtures("few")
def test_an_evaluation_is_shown(made: Made, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(json.dumps(evaluation(made)))
    reporting.write_report(made.folder, KEY, tmp_path / "page.html", evaluation=tmp_path / "e.json")
    text = Page(tmp_path / "page.html").text
    assert "in part It <em>helps</em>. One training." in text
    assert "Clips to train on: 2,400. Clips to test on: 600. Classes: 10. Accuracy by chance: 10.0 %." in text
    assert (
        "M5 92.1 37.2 31.0 33.0 to 41.5 99.5 3.1 other 90.0 \N{EN DASH} \N{EN DASH} \N{EN DASH} \N{EN DASH} \N{EN DASH}"
        in text
    )
    assert "class lines notched out M5 80.2 76.0 to 84.0" in text
    assert "SNR dB 19.71 11.00 PESQ \N{EN DASH} \N{EN DASH} \N{EN DASH}" in text


@pytest.mark.usefixtures("few")
def test_an_evaluation_may_lack_what_is_optional(made: Made, tmp_path: Path) -> None:
    lacking = dict.fromkeys(("date", "verdict", "data", "models", "attacks", "quality", "version"))
    fields = evaluation(made, **lacking)
    (tmp_path / "e.json").write_text(json.dumps(fields))
    nulls = {"date": None, "verdict": {"word": None}, "data": None, "models": None, "attacks": [{"attack": "a"}]}
    (tmp_path / "nulls.json").write_text(json.dumps(fields | nulls))
    reporting.write_report(made.folder, KEY, tmp_path / "other.html", evaluation=tmp_path / "nulls.json")
    assert "None" not in Page(tmp_path / "other.html").text.partition("Facts")[2]
    reporting.write_report(made.folder, KEY, tmp_path / "page.html", evaluation=tmp_path / "e.json")
    assert "No verdict" in Page(tmp_path / "page.html").text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "other"}, "is of kind 'other', not 'poscuda evaluation'"),
        ({"kind": None}, "is of kind None"),
        ({"version": 2}, "has version 2; update poscuda-fast"),
        ({"fingerprint": "00ff"}, "evaluates the key '00ff', and the data are protected with"),
        ({"recipe": {"format": 1}}, "evaluates the recipe {'format': 1}"),
        ({"recipe": None}, "evaluates the recipe None"),
        ({"labels": "00ff"}, "evaluates other clips: their labels or lengths"),
        ({"labels": None}, "evaluates other clips"),
        ({"models": [{"clean": 1}]}, r"is damaged \('model'\); evaluate again"),
        ({"models": 5}, "is damaged"),
        ({"data": {"classes": float("inf")}}, r"is damaged \(cannot convert float infinity to integer\)"),
        ({"verdict": "no"}, "is damaged"),
        ({"quality": {"snr_db": 5}}, "is damaged"),
        ({"attacks": [{"attack": "a", "protected": "much"}]}, "is damaged"),
        ({"attacks": [{"attack": "a", "protected_interval": [1]}]}, "is damaged"),
    ],
)
def test_an_evaluation_of_something_else_is_refused(made: Made, tmp_path: Path, changes, message: str) -> None:
    (tmp_path / "e.json").write_text(json.dumps(evaluation(made, **changes)))
    with pytest.raises(DatasetError, match=message):
        reporting.write_report(made.folder, KEY, tmp_path / "page.html", evaluation=tmp_path / "e.json")
    assert os.listdir(tmp_path) == ["e.json"]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"[]", b"null"])
def test_what_is_no_evaluation_is_refused(made: Made, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "e.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"is not JSON|is of kind None"):
        reporting.write_report(made.folder, KEY, tmp_path / "page.html", evaluation=tmp_path / "e.json")
    with pytest.raises(DatasetError, match=r"none\.json does not exist or is not a file; give what poscuda evaluate"):
        reporting.write_report(made.folder, KEY, tmp_path / "page.html", evaluation=tmp_path / "none.json")


# Refusals.


def test_nothing_is_overwritten_and_nothing_is_put_into_the_data(made: Made, tmp_path: Path) -> None:
    taken = tmp_path / "taken.html"
    taken.write_text("mine")
    (tmp_path / "link.html").symlink_to(tmp_path / "nowhere")
    with untouched(tmp_path, made.folder):
        for name in ("taken.html", "link.html"):
            with pytest.raises(FileExistsError, match="nothing is ever overwritten"):
                reporting.write_report(made.folder, KEY, tmp_path / name)
        for name in ("page.html", "no/page.html"):
            with pytest.raises(DatasetError, match="private and must not be published"):
                reporting.write_report(made.folder, KEY, made.folder / name)
        with pytest.raises(DatasetError, match="does not exist; make it"):
            reporting.write_report(made.folder, KEY, tmp_path / "none" / "page.html")


def test_runs_without_originals_are_refused(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "page.html"
    write_tree(source, {"a/a.wav": wav(tone(900))})
    with pytest.raises(SidecarError, match="does not exist: nothing can be restored by it"):
        reporting.write_report(source, KEY, out)
    for name in ("final", "undone"):
        write_tree(tmp_path / name, {"a/a.wav": wav(tone(900))})
        protect_folder(tmp_path / name, None, KEY)
    drop_undo(tmp_path / "final", KEY)
    with pytest.raises(SidecarError, match="was dropped: what tells the originals is gone"):
        reporting.write_report(tmp_path / "final", KEY, out)
    poscuda_fast.restore_folder(tmp_path / "undone", KEY)
    with pytest.raises(SidecarError, match="was undone: the data are the originals again"):
        reporting.write_report(tmp_path / "undone", KEY, out)
    with pytest.raises(SidecarError, match=f"was made with the key of fingerprint {KEY.fingerprint}"):
        reporting.write_report(tmp_path / "final", Key.generate(), out)
    with pytest.raises(TypeError, match=r"expected a poscuda_fast\.Key"):
        reporting.write_report(source, "secret", out)
    with pytest.raises(DatasetError, match="does not exist"):
        reporting.write_report(tmp_path / "none", KEY, out)
    for rate in (0, -1, 10**9, True, 8000.0):
        with pytest.raises((TypeError, ValueError), match="sample_rate is"):
            reporting.write_report(source, KEY, out, sample_rate=rate)
    assert not out.exists()


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == missing else find(name, *rest))
    message = (
        r"^poscuda report needs jinja2 and matplotlib: run pip install '\.\[report\]' in a checkout of poscuda_fast\.$"
    )
    with pytest.raises(ImportError, match=message):
        reporting.write_report(tmp_path, KEY, tmp_path / "page.html")


# The command.


@pytest.mark.usefixtures("few")
def test_the_command(made: Made, tmp_path: Path) -> None:
    KEY.save(tmp_path / "my.key")
    words = ("report", made.folder, "--key", tmp_path / "my.key", "-o", tmp_path / "page.html")
    done = poscuda(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "keep it as secret as the sidecar" in done.stdout
    assert "what was protected" in Page(tmp_path / "page.html").text
    again = poscuda(*words)
    assert again.returncode == 2
    assert "nothing is ever overwritten" in again.stderr
    assert poscuda(*words[:-1], tmp_path / "quiet.html", "--quiet").stdout == ""
    rate = poscuda(*words[:-1], tmp_path / "other.html", "--sample-rate", 8000)
    assert rate.returncode == 2
    assert "--sample-rate is for an array SRC" in rate.stderr
    bad = poscuda("report", tmp_path / "a.npy", *words[2:-1], tmp_path / "other.html", "--sample-rate", 0)
    assert bad.returncode == 2
    assert "--sample-rate is 0" in bad.stderr
    assert "--key" in poscuda("report", made.folder, "-o", tmp_path / "other.html").stderr
    assert not (tmp_path / "other.html").exists()


def test_the_rate_of_an_array_stands_under_arrays() -> None:
    for command in ("report", "protect"):
        assert re.search(r"An array SRC:\n( .*\n)*  --sample-rate ", poscuda(command, "--help-all").stdout)


# Its parts.


@pytest.mark.parametrize("name", [paging.TEMPLATE, paging.SCRIPT])
def test_the_template_and_its_script_lie_beside_the_module(name: str) -> None:
    assert (importlib.resources.files("poscuda_fast.reporting") / name).is_file()


@pytest.mark.usefixtures("few")
def test_the_template_is_given_what_it_uses_and_no_more(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jinja2
    import jinja2.meta

    given = {}
    render = jinja2.Template.render
    monkeypatch.setattr("jinja2.Template.render", lambda page, **fields: given.update(fields) or render(page, **fields))
    reporting.write_report(made.folder, KEY, tmp_path / "page.html")
    source = (importlib.resources.files("poscuda_fast.reporting") / paging.TEMPLATE).read_text(encoding="utf-8")
    assert set(given) == jinja2.meta.find_undeclared_variables(jinja2.Environment(autoescape=True).parse(source))


@pytest.mark.parametrize("rate", [1, 100, 8000, 16_000, 48_000, 512_000])
@pytest.mark.parametrize("frames", [1, 2, 100, 30_000])
def test_a_spectrogram_has_any_length_and_rate(rate: int, frames: int) -> None:
    levels, step = pictures.spectrogram(np.zeros(frames), rate)
    assert np.all(levels == 20 * np.log10(pictures.FLOOR))
    assert 1 <= levels.shape[1] <= pictures.MOST_COLUMNS + 1
    assert (levels.shape[1] - 1) * step * rate < frames <= levels.shape[1] * step * rate


def test_a_full_scale_sine_is_0_db_at_its_place() -> None:
    levels, _ = pictures.spectrogram(np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000), 16_000)
    column = levels[:, levels.shape[1] // 2]
    assert np.argmax(column) == 1000 * 512 // 16_000
    assert abs(column.max()) < 1e-6


def test_pictures_leave_the_style_of_their_user_alone() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    drawn = pictures.draw(excerpt(5, 1, 8000), pictures.top_of([]))
    assert [picture.title for picture in drawn] == ["Before", "After", "Difference"]
    assert pictures.scale_to(-10).alt == "Colours from -90 dB, dark, to -10 dB, light."
    assert dict(mpl.rcParams) == before


def test_a_player_is_limited_to_full_scale() -> None:
    samples = np.array([[0.5, -2], [2, np.nan], [-1, 1]], np.float32)
    heard, rate = samples_of(sounds.player(samples, 22_050))
    assert rate == 22_050
    assert heard.tolist() == [[16384, -32768], [32767, 0], [-32768, 32767]]


def excerpt(frames: int, channels: int, rate: int) -> Excerpt:
    samples = np.zeros((frames, channels), np.float32)
    return Excerpt("a", 0, 0.0, frames / rate, at_least=False, sample_rate=rate, before=samples, after=samples)


@pytest.mark.parametrize(
    ("excerpts", "expected"),
    [
        ([], (10, 2)),
        ([excerpt(16_000, 1, 16_000)] * 10, (10, 2)),
        ([excerpt(160_000, 1, 16_000)] * 11, (4, 2)),
        ([excerpt(160_000, 2, 16_000)] * 11, (4, 1)),
        ([excerpt(480_000, 2, 48_000)] * 11, (2, 1)),
    ],
)
def test_long_clips_are_cut_so_that_the_page_stays_small(excerpts: list[Excerpt], expected: tuple[int, int]) -> None:
    assert sounds.what_fits(excerpts) == expected


@pytest.mark.parametrize(
    "ratios", [[3.0], [1.0] * 9, [-5.0, 40.0], list(np.linspace(-90, 90, 1000)), [0.01, 0.02], [-1e4, 1e4], [0.5, 1.0]]
)
def test_a_histogram_counts_every_clip_once_and_stays_in_its_frame(ratios: list[float]) -> None:
    drawn = histogram(ratios, "files")
    counts = [int(re.search(r"([\d,]+) files?$", bar.title)[1].replace(",", "")) for bar in drawn.bars]
    assert sum(counts) == len(ratios)
    for bar in drawn.bars:
        assert LEFT <= bar.x <= bar.x + bar.width <= 353
        assert 10 <= bar.y <= bar.y + bar.height <= 155
    assert 1 <= len(drawn.x_ticks) <= 8
    assert all(LEFT <= x <= 352.1 for x, _ in drawn.x_ticks)
    assert LEFT <= drawn.median_x <= 352.1
    assert len({y for y, _ in drawn.y_ticks}) == 3


def test_no_clip_no_histogram() -> None:
    assert histogram([], "clips") is None


def measured(clip: str | int, label: int, ratio: float) -> surveying.Measured:
    samples = np.zeros((1, 1), np.float32)
    return surveying.Measured(
        clip=clip, label=label, verdict=Verdict.PROTECTED, frames=1, at_least=False, patch_frames=1, sample_rate=8000,
        snr_db=ratio, tally=surveying.Tally(), short=False, excerpt=lambda: (samples, samples),
    )  # fmt: skip


@pytest.mark.parametrize("different", [1, 2, 20, 60])
def test_the_worst_are_kept_in_order_and_ties_in_the_order_of_the_run(different: int) -> None:
    found = Survey([2, 1, 0])
    rng = np.random.default_rng(3)
    ratios = rng.permutation(np.repeat(np.arange(float(different)), 60 // different))
    ratios[ratios == different - 1] = -np.inf  # silent before
    for n, ratio in enumerate(ratios.tolist()):
        found.add(measured(str(n), n % 3, ratio))
    order = sorted(range(60), key=lambda n: (ratios[n], n))[:10]
    assert [one.name for one in found.worst] == [str(n) for n in order]
    assert [row.label for row in found.classes] == [0, 1, 2]
    assert (found.silent_before, len(found.snr_db)) == (60 // different, 60 - 60 // different)


@pytest.mark.parametrize(
    ("clips", "typical"),
    [
        ({"b": 10.0, "c": 11.0, "a": 90.0}, "c"),
        ({"b": 0.1, "a": 0.3, "c": -50.0, "d": 50.0}, "a"),  # the two in the middle are as far from the median
        ({10: 5.0, 2: 5.0, 3: 4.0}, 2),  # numbers have the order of numbers
        ({"a": 20.0, "silent": -np.inf}, "a"),
        ({"silent": -np.inf, "odd": np.nan}, None),
        ({}, None),
    ],
)
def test_the_typical_clip_is_nearest_the_median(clips: dict[str | int, float], typical: str | int | None) -> None:
    found = Survey([0])
    for clip, ratio in clips.items():
        found.add(measured(clip, 0, ratio))
    assert found.nearest_the_median == typical


@pytest.mark.parametrize("state", [None, 20.0], ids=["changed", "as it was"])
def test_a_typical_clip_that_changes_meanwhile_is_left_out(state: float | None) -> None:
    found = Survey([0])
    found.add(measured(7, 0, 20.0))
    found.add_typical(one for one in (measured(5, 0, 1.0), measured(7, 0, 20.0)._replace(snr_db=state)))
    assert (None if found.typical is None else found.typical.name) == (state and "clip 7")


def test_names_are_counted_and_some_are_kept() -> None:
    names = Named()
    for n in range(surveying.NAMES_KEPT + 5):
        names.add(str(n))
    assert (len(names.items), names.more, names.total) == (200, 5, 205)


def test_an_excerpt_shows_nothing() -> None:
    assert "array" not in repr(excerpt(5, 1, 8000))
