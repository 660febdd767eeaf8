"""The list of cases that only slow runs do names cases of tests that are there, and leaves each test a case."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conftest import SLOW

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("case", sorted(SLOW))
def test_the_test_is_there(case: str) -> None:
    path, *names = case.partition("[")[0].split("::")
    source = (ROOT / path).read_text()
    assert all(re.search(rf"^ *(def|class) {name}\b", source, re.MULTILINE) for name in names)


@pytest.mark.slow
def test_every_test_keeps_a_case() -> None:
    listed = defaultdict(set)
    for case in SLOW:
        listed[case.partition("[")[0]].add(case)
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *{test.split("::")[0] for test in listed}], cwd=ROOT, capture_output=True, text=True
    )
    kept = {line.partition("[")[0] for line in done.stdout.splitlines()}
    assert listed.keys() <= kept
    every = subprocess.run([*command, "-m", "", *listed], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    assert set(every) >= SLOW
