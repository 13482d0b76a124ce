"""Headless Chromium, asked through its DevTools pipe: no driver, and nothing to install beside it.

It is started so that it can reach no other computer, and it reports every request that it makes.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
ANSWER_SECONDS = 60
WITH_THE_PIPE = (
    "import fcntl, os, sys;"
    "ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]];"
    "os.dup2(ends[0], 3); os.dup2(ends[1], 4);"
    "os.execvp(sys.argv[3], sys.argv[3:])"
)
"""Chromium reads its pipe from 3 and answers to 4, whatever numbers the ends have here."""


class Browser:
    """One Chromium with one page.  Use ``open_browser``."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, answers: int) -> None:
        self._process, self._to, self._answers = process, to, answers
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def begin(self) -> Self:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Audits"):
            self.call(f"{domain}.enable")
        return self

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; events that come before are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            said = self._next()
            if said.get("id") == self._number:
                assert "error" not in said, f"{method}: {said['error']}"
                result: dict[str, Any] = said["result"]
                return result
            self.events.append(said)

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_SECONDS
        while b"\0" not in self._buffer:
            ready = select.select([self._answers], [], [], max(deadline - time.monotonic(), 0))[0]
            assert ready, "Chromium does not answer"
            read = os.read(self._answers, 1 << 20)
            assert read, f"Chromium ended with {self._process.wait()}"
            self._buffer += read
        message, _, self._buffer = self._buffer.partition(b"\0")
        said: dict[str, Any] = json.loads(message)
        return said

    # --- the page --------------------------------------------------------------------------------

    def show(
        self, *, width: int = 1200, height: int = 900, scheme: str = "light", media: str = "screen"
    ) -> None:
        """The window's size in CSS pixels, the colour scheme asked for, and the medium."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            media=media,
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def open(self, path: Path) -> None:
        """Load the file and wait until it is there."""
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression on the page; the page's own policy does not bind."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)

    def requests(self) -> list[str]:
        """The addresses that the page asked for since it was opened."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        """What the browser has to say about the page: errors, breaches of its policy."""
        said = [event for event in self.events if event.get("method") == "Log.entryAdded"]
        return [str(event["params"]["entry"]["text"]) for event in said]

    def screenshot(self, path: Path) -> None:
        """The whole page, however long, as PNG."""
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def print(self, path: Path) -> None:
        """The page on A4, as PDF."""
        self.call("Emulation.setEmulatedMedia", media="")  # what ``show`` asked for would win
        sheet = {"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": True}
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", **sheet)["data"]))


@contextmanager
def open_browser(program: str, profile: Path) -> Iterator[Browser]:
    """A new Chromium with an empty profile; it ends with the block."""
    read_by_chromium, to = os.pipe()
    answers, written_by_chromium = os.pipe()
    ends = (read_by_chromium, written_by_chromium)
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", WITH_THE_PIPE, *map(str, ends), program),
            *(*OPTIONS, f"--user-data-dir={profile}", "about:blank"),
        ],
        pass_fds=ends,
        env={**os.environ, "HOME": str(profile)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in ends:
        os.close(end)
    try:
        yield Browser(process, to, answers).begin()
    finally:
        os.close(to)
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(answers)
