"""The conda recipe says what pyproject.toml says: version, lower bounds, summary, command."""

from __future__ import annotations

import re
import tomllib

import pyro_riemann
from tests.meta.test_readme import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RECIPE = (ROOT / ".github" / "conda" / "recipe.yaml").read_text()
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # what conda-forge calls them


def bounds(lines: list[str]) -> set[str]:
    """Requirements with conda's names; our own extras are left out."""
    found = set()
    for line in lines:
        name, _, bound = line.partition(">=")
        if not name.startswith("pyro-riemann["):
            found.add(f"{CONDA.get(name, name)} >={bound}")
    return found


def listed(section: str) -> set[str]:
    block = re.search(rf"^  {section}:\n((?:    - .*\n)+)", RECIPE, re.MULTILINE)
    assert block is not None
    return set(re.findall(r"- (.*)", block[1]))


def test_lower_bounds() -> None:
    project = PROJECT["project"]
    python = f"python {project['requires-python']}"
    assert listed("run") == {python} | bounds(project["dependencies"])
    assert listed("run_constraints") == bounds(
        [line for extra in project["optional-dependencies"].values() for line in extra]
    )
    assert listed("host") == {python, "pip"} | bounds(PROJECT["build-system"]["requires"])


def test_the_rest() -> None:
    project = PROJECT["project"]
    assert f'version: "{pyro_riemann.__version__}"\n' in RECIPE
    assert f"summary: {project['description']}\n" in RECIPE
    (command,) = project["scripts"].items()
    assert f"- {command[0]} = {command[1]}\n" in RECIPE
