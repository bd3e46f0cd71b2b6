"""The report in a real browser, Chromium: no complaint, and nothing cut off on a phone or a desktop."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audiofiles import wav, write_tree

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
    "models": [{"model": "CNN (log-mel)", "clean": 100, "protected": 90.1, "protected_interval": [88.8, 100],
                "keyed": 100, "miskeyed": 100}],
    "attacks": [{"attack": "class lines notched out", "model": "CNN (log-mel)", "protected": 100,
                 "protected_interval": [88.8, 100]}],
    "quality": {"log_spectral_distance_db": {"median": 11.59, "worst_5_percent": 21.76, "unit": "dB"},
                "visqol": {"median": 4.49, "worst_5_percent": -3.61, "unit": "MOS-LQO"}},
}  # fmt: skip
PATIENCE = 120  # seconds, many times what the browser takes
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
