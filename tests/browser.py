"""A page in Chromium without a window, with real clicks and keys, driven by the DevTools protocol on a pipe."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATIENCE = 120  # seconds, many times what the browser takes
# Chromium reads commands from file 3 and writes answers to file 4; ours may have these numbers.
_START = """import fcntl, os, sys
for number, file in enumerate([fcntl.fcntl(int(file), fcntl.F_DUPFD, 10) for file in sys.argv[1:3]], 3):
    os.dup2(file, number)
os.execvp(sys.argv[3], sys.argv[3:])"""


class Tab:
    """One page; `events` are all that the browser has told of it: (method, parameters)."""

    def __init__(self, commands: int, answers: int) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._commands, self._answers = commands, answers
        self._numbers, self._rest = itertools.count(1), b""
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **fields: Any) -> dict[str, Any]:
        """The result of a command; events that come before it are kept."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": fields}
        if self._session is not None:
            command["sessionId"] = self._session
        content = json.dumps(command).encode() + b"\0"
        while content:
            content = content[os.write(self._commands, content) :]
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            more = os.read(self._answers, 1 << 20) if ready else b""
            assert more, "the browser says nothing more"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        if "method" in found:
            self.events.append((found["method"], found["params"]))
        return found

    def open(self, page: Path, width: int, height: int) -> None:
        """Load a page anew, in a screen of this size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        n_before = len(self.events)
        self.call("Page.navigate", url=page.as_uri())
        while not any(method == "Page.loadEventFired" for method, _ in self.events[n_before:]):
            self._next()

    def ask(self, script: str) -> Any:
        """The value of an expression in the page."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def click(self, selector: str) -> None:
        """Click into the middle of an element, which is scrolled to."""
        place = self.ask(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.scrollIntoView("
            "{block: 'center'}); const box = one.getBoundingClientRect();"
            "return [box.left + box.width / 2, box.top + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def press(self, key: str, **fields: Any) -> None:
        """Press a key where the focus is."""
        code, text = {"Enter": (13, "\r"), "Tab": (9, "")}.get(key) or (ord(key.upper()), key)
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, windowsVirtualKeyCode=code, **fields)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code, **fields)

    def complaints(self) -> list[dict[str, Any]]:
        """What is in the console."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [fields for method, fields in self.events if method in kinds]

    def requests(self) -> set[str]:
        """The addresses of all that the page asked for, without what data: ones hold."""
        sent = [fields["request"]["url"] for method, fields in self.events if method == "Network.requestWillBeSent"]
        return {"data:" if url.startswith("data:") else url for url in sent}


@contextlib.contextmanager
def browsing(program: str, profile: Path) -> Iterator[Tab]:
    """A browser with one page, ended afterwards."""
    command = [
        program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={profile}", "--remote-debugging-pipe",
    ]  # fmt: skip
    (theirs_in, commands), (answers, theirs_out) = os.pipe(), os.pipe()
    launch = [sys.executable, "-c", _START, str(theirs_in), str(theirs_out), *command]
    process = subprocess.Popen(launch, pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL)
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        tab = Tab(commands, answers)
        yield tab
        os.write(commands, b'{"id": 0, "method": "Browser.close"}\0')
    finally:
        os.close(commands)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
            os.close(answers)
