"""README and the docs' front page: their code runs, and CI finds README's two commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def blocks(path: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / path).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", ["README.md", "docs/index.md"])
def test_python_blocks_run(path: str) -> None:
    found = blocks(path, "python")
    assert found
    for block in found:
        exec(compile(block, path, "exec"), {})


def test_commands_that_ci_runs() -> None:
    first, second = blocks("README.md", "sh")
    assert first.startswith("pip install")
    assert first.rstrip().endswith("python -m pyro_riemann quickstart")
    assert second.startswith("pip install")
    assert second.rstrip().endswith("pytest")
    assert all(len(block.splitlines()) == 1 for block in (first, second))


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
