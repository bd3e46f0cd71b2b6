"""The report in a real browser, Chromium: no complaint, nothing cut off on any screen, and a fair blind test."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from math import comb, floor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audiofiles import wav, write_tree
from browser import PATIENCE, Tab, browsing

from poscuda_fast import Key, protect_folder
from poscuda_fast.cli import synth
from poscuda_fast.files.originals import open_files

CHROMIUM = shutil.which("chromium")
if os.environ.get("POSCUDA_REQUIRE_REPORT") != "1":
    pytest.importorskip("jinja2", reason="the report's tests need pip install '.[report]'")
    pytest.importorskip("matplotlib", reason="the report's tests need pip install '.[report]'")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH")

from poscuda_fast import reporting  # noqa: E402 - it may be skipped

PHONE, DESKTOP = (390, 844), (1280, 800)
# As wide as `poscuda evaluate` makes its tables.
EVALUATION = {
    "kind": "poscuda evaluation",
    "models": [{"model": "CNN (log-mel)", "clean": 100, "plain": 90.1, "default": 88.0,
                "protected": 90.1, "protected_interval": [88.8, 100],
                "keyed": 100, "miskeyed": 100}],
    "attacks": [{"attack": "class lines notched out", "model": "CNN (log-mel)", "protected": 100,
                 "protected_interval": [88.8, 100]}],
    "quality": {"log_spectral_distance_db": {"median": 11.59, "worst_5_percent": 21.76, "unit": "dB"},
                "visqol": {"median": 4.49, "worst_5_percent": -3.61, "unit": "MOS-LQO"}},
}  # fmt: skip
# What every element's right edge must not pass; asked by a script that is put into a copy of the page.
PROBE = """<script>
addEventListener("load", () => {
  const over = [...document.querySelectorAll("main *")].filter(one => {
    for (let above = one; above; above = above.parentElement) if (above.classList.contains("scroll")) return false;
    return one.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5;
  }).map(one => one.tagName);
  const cut = [...document.querySelectorAll(".scroll")].filter(one => one.scrollWidth > one.clientWidth).length;
  const blind = [...document.images].filter(image => !image.complete || !image.naturalWidth).length;
  parent.postMessage(JSON.stringify({
    width: document.documentElement.clientWidth, content: document.documentElement.scrollWidth, over, cut, blind,
    sounds: [...document.querySelectorAll("audio")].map(one => one.error === null ? 1 : 0),
  }), "*");
});
</script>"""
# A window has a least width; a frame in it has not.
FRAME = """<!DOCTYPE html><title>frame</title><body>
<script>addEventListener("message", event => {{ document.body.dataset.probe = event.data; }});</script>
<iframe src="{page}" style="width: {width}px; height: 900px; border: 0"></iframe>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    rng = np.random.default_rng(0)
    long_name = "a_name_without_a_space_that_is_far_longer_than_a_phone_is_wide_" * 3
    write_tree(root, {
        **{f"in/{word}/{n}.wav": wav(synth.speak(word, n, n)[:, None]) for word in ("no", "yes") for n in range(3)},
        f"in/{'class' * 20}/{long_name}.wav": wav(rng.integers(-90, 90, (9000, 2)).astype(np.int16)),
        "in/yes/<b>&'.wav": wav(np.zeros((900, 1), np.int16)),
    })  # fmt: skip
    soundfile.write(root / "in" / "no" / "a.flac", rng.integers(-90, 90, 9000).astype(np.int16), 48_000)
    key = Key(bytes(range(32)))
    protect_folder(root / "in", root / "out", key)
    with open_files(root / "out", key) as run:
        of_run = {"fingerprint": key.fingerprint, "recipe": run.recipe.to_dict(), "labels": run.labels_mac}
    (root / "e.json").write_text(json.dumps(EVALUATION | of_run), encoding="utf-8")
    reporting.write_report(root / "out", key, root / "page.html", evaluation=root / "e.json")
    return root / "page.html"


def chromium(page: Path, size: tuple[int, int], profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What Chromium says of a page, without a network."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}",
        "--enable-logging=stderr", "--v=0", f"--window-size={size[0]},{size[1]}", "--virtual-time-budget=5000",
        *options, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
@pytest.mark.parametrize("scheme", ["0", "1"])
def test_the_browser_has_nothing_to_complain_of(page: Path, tmp_path: Path, size: tuple[int, int], scheme: str) -> None:
    picture = tmp_path / "page.png"
    scheme_option = f"--blink-settings=preferredColorScheme={scheme}"
    done = chromium(page, size, tmp_path / "profile", f"--screenshot={picture}", scheme_option)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    head = picture.read_bytes()[16:24]
    assert (int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")) == size


def test_a_complaint_would_be_seen(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<!DOCTYPE html><title>bad</title><script>console.warn('odd')</script>", encoding="utf-8")
    done = chromium(bad, PHONE, tmp_path / "profile", f"--screenshot={tmp_path / 'page.png'}")
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("width", [PHONE[0], 768, DESKTOP[0]])
def test_nothing_is_wider_than_the_screen(page: Path, tmp_path: Path, width: int) -> None:
    source = page.read_text(encoding="utf-8")
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    assert policy.search(source)
    probed = tmp_path / "probed.html"
    opened = policy.sub("", source).replace("<details>", "<details open>").replace('loading="lazy"', "")
    probed.write_text(opened.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=width, page=probed.as_uri()), encoding="utf-8")
    found = chromium(frame, DESKTOP, tmp_path / "profile", "--dump-dom", "--hide-scrollbars").stdout
    probe = re.search(r'data-probe="([^"]*)"', found)[1].replace("&quot;", '"')
    assert f'"width":{width},"content":{width},' in probe
    assert '"over":[],"cut":0,"blind":0,' in probe
    assert probe.endswith('"sounds":[' + ",".join(["1"] * 27) + "]}")


# The blind test.

# What is played, as places among the players of the clip: 0 is the original, 1 the protected one.
RECORDER = """window.played = [];
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () {
  const clip = document.querySelectorAll(".clip")[document.getElementById("clip").selectedIndex];
  played.push([...clip.querySelectorAll("audio")].findIndex(one => one.src === this.src));
  return play.call(this);
};"""
ENDED = """new Promise(done => setInterval(() => {
  if (!document.querySelector("[aria-pressed=true]")) done(played);
}, 20))"""
A, B, X = '[data-play="A"]', '[data-play="B"]', '[data-play="X"]'
VOTES = ('[data-vote="A"]', '[data-vote="B"]')
SAID = "['result', 'score', 'chance'].map(id => document.getElementById(id).textContent)"
NO_VOTE = ["0 of 0 right", "no p-value yet"]
FIVE_SIGMA = 2.5  # of n fair draws, over the root of n


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browsing(str(CHROMIUM), tmp_path_factory.mktemp("browser") / "profile") as tab:
        tab.call("Page.addScriptToEvaluateOnNewDocument", source=RECORDER)
        yield tab


@pytest.fixture
def blind(tab: Tab, page: Path) -> Iterator[Tab]:
    """The report, loaded anew; afterwards, nothing has left it, and there was no complaint."""
    tab.events.clear()
    tab.open(page, *DESKTOP)
    yield tab
    assert tab.requests() == {page.as_uri(), "data:"}
    assert tab.complaints() == []


def p_value(right: int, votes: int) -> str:
    """What the page says of them: exact, rounded half up to four digits."""
    exact = Fraction(sum(comb(votes, k) for k in range(right, votes + 1)), 2**votes)
    rounded = floor(exact * 10_000 + Fraction(1, 2))
    return f"p = {rounded / 10_000:.4f}" if rounded else "p < 0.0001"


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_a_trial_by_mouse(blind: Tab, page: Path, size: tuple[int, int]) -> None:
    blind.open(page, *size)
    assert blind.ask(SAID) == ["Trial 1: play A, B and X, as often as you like.", *NO_VOTE]
    for vote in VOTES:
        blind.click(vote)
        assert blind.ask(SAID) == ["Trial 1: play X first.", *NO_VOTE]
    for n, player in enumerate((A, B, X)):
        blind.click(player)
        assert blind.ask("document.querySelector('[aria-pressed=true]').dataset.play") == "ABX"[n]
        assert len(blind.ask(ENDED)) == n + 1  # it was heard to its end
    x = blind.ask("played")[2]
    assert blind.ask("played") == [0, 1, x]
    assert x in (0, 1)
    blind.click(VOTES[1])
    was = ("A, the original", "B, the protected clip")[x]
    assert blind.ask(SAID) == [
        f"{('Wrong', 'Right')[x]}: X was {was}. Trial 2: X is drawn anew.", f"{x} of 1 right", p_value(x, 1),
    ]  # fmt: skip
    blind.click(VOTES[1])
    assert blind.ask(SAID)[:2] == ["Trial 2: play X first.", f"{x} of 1 right"]
    blind.click("#again")
    assert blind.ask(SAID) == ["Trial 1: play A, B and X, as often as you like.", *NO_VOTE]


def test_a_trial_by_keys(blind: Tab) -> None:
    blind.ask("document.getElementById('clip').focus()")
    for key in "x1":
        blind.press(key)  # they choose clips there
    assert blind.ask("played") == []
    blind.press("Tab")
    blind.press("Enter")
    assert blind.ask("document.activeElement.dataset.play") == "A"
    for key in "Bx":
        blind.press(key)
    blind.press("1", modifiers=2)  # Ctrl+1 is the browser's
    assert blind.ask(SAID)[1:] == NO_VOTE
    blind.press("1")
    original, protected, x = blind.ask("played")
    assert (original, protected) == (0, 1)
    assert blind.ask(SAID)[1:] == [f"{1 - x} of 1 right", p_value(1 - x, 1)]
    blind.press("2")
    assert blind.ask(SAID)[0] == "Trial 2: play X first."
    blind.ask("document.activeElement.blur()")
    blind.press("x")
    assert blind.ask("played.length") == 3


def test_the_score_and_its_p_value(blind: Tab) -> None:
    right = 0
    for votes in range(1, 41):
        blind.ask(f"document.querySelector('{X}').click()")
        x = blind.ask("played.at(-1)")
        good = votes % 7 > 0
        right += good
        blind.ask(f"document.querySelector('{VOTES[x if good else 1 - x]}').click()")
        assert blind.ask(SAID)[1:] == [f"{right} of {votes} right", p_value(right, votes)]
    assert blind.ask(SAID)[2] == "p < 0.0001"


def test_x_is_drawn_at_random(blind: Tab) -> None:
    """Fails twice in a million runs of a fair page."""
    n = 400
    vote = f"document.querySelector('{X}').click(); document.querySelector('{VOTES[0]}').click();"
    xs = np.array(blind.ask(f"for (let n = 0; n < {n}; n++) {{ {vote} }} played"))
    right = int((xs == 0).sum())
    assert blind.ask(SAID)[1:] == [f"{right} of {n} right", p_value(right, n)]
    assert set(xs.tolist()) == {0, 1}
    for lag in range(4):
        ones = xs.sum() if lag == 0 else (xs[lag:] != xs[:-lag]).sum()
        assert abs(ones - (n - lag) / 2) < FIVE_SIGMA * n**0.5


def test_before_a_vote_the_page_is_the_same_whatever_x_is(blind: Tab, page: Path) -> None:
    pages: dict[int, set[str]] = {0: set(), 1: set()}
    for _ in range(40):
        blind.open(page, *DESKTOP)
        look = "document.documentElement.outerHTML + Object.getOwnPropertyNames(window)"
        seen = blind.ask(f"document.querySelector('{X}').click(); {look}")
        pages[blind.ask("played")[0]].add(seen)
        if all(pages.values()):
            break
    assert pages[0] == pages[1]
    assert len(pages[0]) == 1


def test_every_shown_clip_can_be_chosen_and_starts_over(blind: Tab) -> None:
    names = blind.ask("[...document.querySelectorAll('.clip h3')].map(one => one.textContent)")
    assert blind.ask("[...document.getElementById('clip').options].map(one => one.textContent)") == names
    assert "yes/<b>&'.wav" in names
    assert blind.ask("document.querySelector('h2 + p + .clip h3').textContent") == names[0]
    blind.ask(f"document.querySelector('{X}').click(); document.querySelector('{VOTES[0]}').click()")
    assert blind.ask(SAID)[1:] != NO_VOTE
    for number in range(len(names)):
        change = "clip.dispatchEvent(new Event('change'))"
        blind.ask(f"clip.selectedIndex = {number}; {change}; played.length = 0")
        assert blind.ask(SAID)[1:] == NO_VOTE
        played = blind.ask(f"for (const one of ['{A}', '{B}']) document.querySelector(one).click(); played")
        assert played == [0, 1]


def test_no_other_script_runs_and_nothing_can_be_fetched(tab: Tab, page: Path) -> None:
    tab.open(page, *DESKTOP)
    script = "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    assert tab.ask(f"{script}; window.ran") is None
    assert tab.ask("fetch('http://127.0.0.1:1/').then(() => 'sent', error => error.name)") == "TypeError"
    said = [fields["entry"]["text"] for fields in tab.complaints() if "entry" in fields]
    assert sum("Content Security Policy" in text for text in said) >= 2
