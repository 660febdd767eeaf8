"""What pages are made of: numbers with their spread, texts with fields, tables, records by their settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyro_riemann.experiments._jobs import Job, run_jobs
from pyro_riemann.experiments._report import Records, fill, page_of, prose, reach, setting, spread, table, table_of


def echo(settings: dict[str, Any], device: str) -> dict[str, Any]:
    return {"score": {"values": [settings["x"], -settings["x"]]}, "name": "echo"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Runs of two protocols and two models."""
    jobs = [
        Job(f"{model}-{x}-{name}", {"model": model, "x": x, "protocol": {"name": name}})
        for model in ("b", "a")
        for x in (1.0, 2.0, 6.0)
        for name in ("long", "short")
    ]
    run_jobs([*jobs, Job("c", {"model": "c", "x": 0.0, "scale": 2, "protocol": {"name": "long"}})], echo, tmp_path)
    return tmp_path


def test_a_field_of_several_runs_is_their_mean_and_standard_deviation() -> None:
    values = [0.5, 0.25, 0.9]
    results = [{"a": {"b": [0.0, value]}} for value in values]
    mean, deviation = np.mean(values), np.std(values, ddof=1)
    assert fill("{a[b][1]:.4f}", *results) == f"{mean:.4f} ± {deviation:.4f}"
    assert fill("{a[b][1]!p:.2f} %", *results) == f"{100 * mean:.2f} ± {100 * deviation:.2f} %"
    assert fill("{a[b][1]!n:.4f}", *results) == f"{-mean:.4f} ± {deviation:.4f}"
    assert fill("{a[b][1]:.4f}", results[0]) == "0.5000"
    assert fill("{a}{{b}}", *results, a="of values") == "of values{b}"
    with pytest.raises(KeyError, match="c"):
        fill("{a[c]}", *results)


def test_what_is_not_known_has_no_part_in_a_spread() -> None:
    assert f"{spread([None, 2.0, 4.0]):.2f}" == f"{spread([2.0, 4.0]):.2f}" == "3.00 ± 1.41"
    assert f"{spread([None]):.2f}" == f"{spread([]):.2f}" == ""
    assert reach([3, 1, 2]) == "1 to 3"
    assert reach([1000, 1000], ",") == "1,000"


def test_paragraphs_are_lines_and_what_is_filled_in_stays_as_it_is() -> None:
    text = prose("\n  One\n  two {x}.\n\n  {code}\n", x=3, code="```sh\nrun\n```")
    assert text == "One two 3.\n\n```sh\nrun\n```"


def test_a_table_has_a_rule_and_a_cell_for_each_column() -> None:
    assert table(["a", "b"], [["x", 1]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"
    runs = [{"y": 1.0}, {"y": 3.0}]
    assert table_of({"k": "{k}", "y": "{y:.1f}"}, [(runs, {"k": 5})], words=()).endswith("| 5 | 2.0 ± 1.4 |")


def test_records_are_found_by_their_settings(folder: Path) -> None:
    records = Records.read(folder)
    groups = records.by("model", "protocol.name")
    assert list(groups) == [("a", "long"), ("a", "short"), ("b", "long"), ("b", "short"), ("c", "long")]
    assert [setting(record, "x") for record in groups["a", "long"]] == [1.0, 2.0, 6.0]
    assert len(records.where(model="a", x=2.0)) == 2
    assert [record["name"] for record in records if record not in records.where(scale=None)] == ["c"]
    assert fill("{score[values][1]:.0f}", *records.where(model="b", x=2.0).results) == "-2 ± 0"
    assert records.minutes == pytest.approx(sum(record["cpu_seconds"] for record in records) / 60)


def test_a_page_is_made_of_a_folder_or_says_why_not(folder: Path, tmp_path: Path) -> None:
    report, write_report = page_of(lambda records: ["# Title", "", f"{len(records)} runs"])
    page = tmp_path / "pages" / "page.md"
    assert write_report(folder, page) == [page]
    assert page.read_text() == report(folder) == "# Title\n\n13 runs\n"
    lacking, _ = page_of(lambda records: [fill("{nothing}", *records.results)])
    with pytest.raises(ValueError, match=r"lacks what the report needs .* `--fresh`"):
        lacking(folder)
    with pytest.raises(FileNotFoundError, match="run the grid first"):
        report(tmp_path / "empty")
