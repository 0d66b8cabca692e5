"""Headless Chromium, asked through the pipe of its debugging protocol: what a page does."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

FOUND = shutil.which("chromium") or shutil.which("chromium-browser")
TIMEOUT = 120.0


def _pipe() -> tuple[int, int]:
    """A pipe whose descriptors are none of those that a shell's redirections name."""
    ends = os.pipe()
    above = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return above[0], above[1]


class Page:
    """A page in a browser of its own; it is closed with the `with` block."""

    def __init__(self, path: Path, profile: Path, *, width: int = 1200, height: int = 700) -> None:
        ours_in, theirs_out = _pipe()
        theirs_in, ours_out = _pipe()
        # The browser reads from descriptor 3 and writes to 4.
        shell = f'exec 3<&{theirs_in} 4>&{theirs_out} {theirs_in}<&- {theirs_out}>&-; exec "$@"'
        self.browser = subprocess.Popen(
            ["bash", "-c", shell, "bash", FOUND, "--headless", "--no-sandbox", "--disable-gpu"]
            + ["--disable-dev-shm-usage", "--remote-debugging-pipe", "--no-first-run"]
            + [f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.input, self.output = ours_in, ours_out
        self.came = b""
        self.number = 0
        self.session: str | None = None
        self.requested: list[str] = []
        self.exceptions: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        self.call("Runtime.enable")
        self.call("Network.enable")
        self.call("Page.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("document.readyState === 'complete' && !!window.timeline")

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.output)  # which ends it
        os.close(self.input)
        try:
            self.browser.wait(20)
        except subprocess.TimeoutExpired:
            self.browser.kill()
            self.browser.wait()

    def call(self, method: str, **params: object) -> dict:
        """Call a method of the protocol, and return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.output, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            if answer.get("method") == "Network.requestWillBeSent":
                self.requested.append(answer["params"]["request"]["url"])
            if answer.get("method") == "Runtime.exceptionThrown":
                self.exceptions.append(json.dumps(answer["params"]))

    def _receive(self) -> dict:
        while b"\0" not in self.came:
            assert select.select([self.input], [], [], TIMEOUT)[0], "the browser does not answer"
            part = os.read(self.input, 1 << 16)
            assert part, "the browser has ended"
            self.came += part
        message, _, self.came = self.came.partition(b"\0")
        return json.loads(message)

    def js(self, expression: str):
        """The value of an expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        until = time.monotonic() + TIMEOUT
        while not self.js(expression):
            assert time.monotonic() < until, f"it never became true: {expression}"
            time.sleep(0.02)

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def wheel(self, x: float, y: float, delta: float, *, ctrl: bool = False) -> None:
        self.call(
            "Input.dispatchMouseEvent",
            type="mouseWheel",
            x=x,
            y=y,
            deltaX=0,
            deltaY=delta,
            modifiers=2 if ctrl else 0,
        )

    def screenshot(self) -> bytes:
        """A PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def dark(self) -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark"}]
        self.call("Emulation.setEmulatedMedia", features=features)
