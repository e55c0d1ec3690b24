"""Screenshots of the explorer for this folder: `make screenshots`, which needs Chromium.

python -m docs.screenshots [FOLDER]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import constrained_vae as cv

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_SHOTS = {"explorer-light": (1, 1000, 720), "explorer-dark-phone": (0, 500, 1000)}  # colour scheme, width, height


def main() -> int:
    """Write the screenshots; the exit code."""
    browser = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if browser is None:
        print(
            f"none of {', '.join(_PROGRAMS)} is installed, so there is nothing to take screenshots with",
            file=sys.stderr,
        )
        return 1
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "pictures").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / "page.html"
        cv.explore(cv.datasets.four_clusters().x, title="Four clusters").save(page)
        for name, (scheme, width, height) in _SHOTS.items():
            options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={place}/p"]
            options += [f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={width},{height}"]
            target = folder / f"{name}.png"
            subprocess.run(
                [browser, *options, f"--screenshot={target}", page.as_uri()], check=True, capture_output=True
            )
            print(f"wrote {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
