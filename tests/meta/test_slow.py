"""The lists of tests that only longer runs do name cases that are there; the slow ones leave each test a case."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conftest import LONG, SLOW

ROOT = Path(__file__).parents[2]


def test_the_tests_are_there() -> None:
    missing = []
    for case in sorted(SLOW | LONG):
        path, *names = case.partition("[")[0].split("::")
        source = "" if path.endswith("/") and (ROOT / path).is_dir() else (ROOT / path).read_text()
        if not all(re.search(rf"^ *(def|class) {name}\b", source, re.MULTILINE) for name in names):
            missing.append(case)
    assert not missing


@pytest.mark.slow
def test_every_test_keeps_a_case() -> None:
    listed = defaultdict(set)
    assert not SLOW & LONG
    for case in SLOW:
        listed[case.partition("[")[0]].add(case)
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    files = {test.split("::")[0] for test in listed}
    done = subprocess.run(
        [*command, "-m", "not slow and not upstream and not gpu and not benchmark", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    kept = {line.partition("[")[0] for line in done.stdout.splitlines()}
    assert listed.keys() <= kept
    cases = {case for case in SLOW | LONG if "::" in case}
    tests = {case.partition("[")[0] for case in cases}
    every = subprocess.run([*command, "-m", "", *tests], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    assert set(every) >= cases
