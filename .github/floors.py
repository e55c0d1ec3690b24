"""Prints the oldest supported version of every dependency, for pip: `array-api-compat==1.8 lazy-loader==0.4 ...`."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
print(*(requirement.replace(">=", "==") for requirement in project["dependencies"]))
