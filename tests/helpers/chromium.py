"""Pages in a headless Chromium, driven by its DevTools protocol."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run")


def browser(function):
    """Marks a test that opens pages, and skips it loudly where there is no browser."""
    reason = "there is no Chromium: pages are not opened (apt install chromium)"
    return pytest.mark.browser(pytest.mark.skipif(CHROMIUM is None, reason=reason)(function))


class Page:
    """A page that is open; its methods wait for what they do."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._number = socket, 0

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv())).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, or of what it promises."""
        found = self._ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str, seconds: float = 120) -> Any:
        """The value of an expression as soon as it is true; one that raises is not."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(f"(() => {{ try {{ return {expression}; }} catch {{ return null; }} }})()")):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.1)
        return value

    def press(self, key: str, code: int, modifiers: int = 0) -> None:
        """Press a key: its name and its number, and 8 for Shift."""
        for kind in ("rawKeyDown", "keyUp"):
            self._ask(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, modifiers=modifiers
            )


@contextlib.contextmanager
def opened(url: str, folder: Path, size: tuple[int, int] = (1200, 900)) -> Iterator[Page]:
    """A page in a browser of its own, whose profile is in the folder."""
    websocket = pytest.importorskip("websocket")  # of websocket-client, which Jupyter brings
    window = f"--window-size={size[0]},{size[1]}"
    command = [CHROMIUM, *OPTIONS, "--remote-debugging-port=0", f"--user-data-dir={folder}", window, "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = None
        while port is None:
            with contextlib.suppress(OSError, IndexError):
                port = (folder / "DevToolsActivePort").read_text().split()[0]
            assert process.poll() is None
            time.sleep(0.05)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            (target,) = [one for one in json.load(answer) if one["type"] == "page"]
        socket = websocket.create_connection(target["webSocketDebuggerUrl"], suppress_origin=True, timeout=120)
        try:
            page = Page(socket)
            page._ask("Page.navigate", url=url)
            yield page
        finally:
            socket.close()
    finally:
        process.terminate()
        process.wait()
