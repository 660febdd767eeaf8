"""The page for newcomers shows the layers that the test of imports enforces."""

from __future__ import annotations

import re

from tests.meta.test_layers import LAYERS
from tests.meta.test_readme import ROOT


def test_drawing_of_the_layers() -> None:
    (drawing,) = re.findall(r"```text\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL)
    names = [re.split(r"  +", line.strip())[0].strip(",") for line in drawing.splitlines()]
    rows: list[set[str]] = []
    for line, text in zip(drawing.splitlines(), names, strict=True):
        found = set(text.split(", "))
        if line.startswith(" "):  # goes on with the row above
            rows[-1] |= found
        else:
            rows.append(found)
    public = [{name for name in layer if not name.startswith("_")} for layer in reversed(LAYERS)]
    assert rows[-2:] == [{"_interface"}, {"_formulas"}]
    assert rows[:-2] == [layer for layer in public if layer]
