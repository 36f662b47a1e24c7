"""A headless Chromium that opens a file, and tells all that it had to complain of.

Lives here: starting it, the DevTools protocol over a pipe, ending it. Does not live here: what is
opened, and what must be seen (test_page_browser.py). Nothing but the standard library is needed.

    with Browser(folder) as browser:
        browser.open(path, dark=True)
        assert browser.complaints == []
        browser.screenshot(path.with_suffix(".png"))

The browser has a profile of its own in the folder, a group of processes of its own, which is
killed at the end, and a deadline on every answer.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 40.0
"""Seconds for an answer; the first one waits for the start of the browser."""
# The pipe of the protocol is descriptors 3 and 4 of the browser.
TRAMPOLINE = (
    "import fcntl, os, sys;"
    "ends = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]];"
    "[os.dup2(end, 3 + n) for n, end in enumerate(ends)];"
    "[os.close(end) for end in ends];"
    "os.execv(sys.argv[3], sys.argv[3:])"
)


def find_browser() -> str | None:
    """Return the path of the first browser that this machine has."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """A browser with one tab."""

    def __init__(self, folder: Path) -> None:
        path = find_browser()
        assert path is not None
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._read = bytearray()
        self._session: str | None = None
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # A profile that outlives a browser may be in use still: each has its own.
        profile = folder / f"profile-{time.monotonic_ns()}"
        flags = (
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-breakpad", "--disable-crash-reporter", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-extensions", "--remote-debugging-pipe", f"--user-data-dir={profile}",
        )  # fmt: skip
        ends = [str(theirs_in), str(theirs_out)]
        self._log = (folder / "browser.log").open("wb")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", TRAMPOLINE, *ends, path, *flags, "about:blank"],
                pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=self._log,
                stderr=self._log, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(theirs_in)
            os.close(theirs_out)

    def __enter__(self) -> Self:
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for end in (self._in, self._out):
            os.close(end)
        # All of its processes are in the group that it leads.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._await_the_group()
        self._log.close()

    def _await_the_group(self) -> None:
        """Wait until its other processes have gone as well: whoever adopted them reaps them."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                os.killpg(self._process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.01)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come before it are noted."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, path: Path, *, width: int = 1000, height: int = 900, dark: bool = False) -> None:
        """Open a file in a window of that size and wait until it is loaded."""
        self.complaints.clear()
        self.requests.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + PATIENCE
        while self._next(deadline).get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def point_at(self, x: float, y: float) -> None:
        """Move the mouse to a place of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Save what is seen as PNG: the window, or all of the page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(data["data"]))

    def _next(self, deadline: float) -> dict[str, Any]:
        """Return the next message; complaints and requests are noted."""
        while (end := self._read.find(b"\0")) < 0:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._in], [], [], left)[0]:
                raise TimeoutError("the browser did not answer")
            data = os.read(self._in, 1 << 16)
            assert data, "the browser has ended"
            self._read += data
        message: dict[str, Any] = json.loads(self._read[:end])
        del self._read[: end + 1]
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(params))
            case "Log.entryAdded":
                self.complaints.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
        return message
