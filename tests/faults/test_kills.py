"""Fifty SIGKILLs at random moments: nothing lost, and bit for bit what an undisturbed run gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults._kills import kill_and_resume

pytestmark = pytest.mark.slow


def test_fifty_kills(tmp_path: Path) -> None:
    count = kill_and_resume(tmp_path, 50)
    assert count.kills == 50
    assert count.lost_epochs == 0
    assert count.unlike == 0
    assert count.in_writes >= 5, "some in the middle of a file"
