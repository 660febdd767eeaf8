"""The docs' table of the twin is what the package exports, and README does not promise more."""

from __future__ import annotations

import re

from tests.meta.test_readme import ROOT
from tests.meta.twins import PAGE, rows, table


def test_page_is_the_table() -> None:
    assert PAGE.read_text() == table(), "run `python -m tests.meta.twins`"


def test_readme_says_which_modules_are_torch_alone() -> None:
    alone = {module for module, both, _ in rows() if not both}
    (sentence,) = re.findall(r"The twin has no ([^;.]+)[;.]", (ROOT / "README.md").read_text())
    assert set(re.findall(r"`(\w+)`", sentence)) == alone
