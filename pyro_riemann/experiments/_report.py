"""What the pages of all experiments are made of: saved runs, numbers with their spread, paragraphs, tables, files."""

from __future__ import annotations

import io
import re
import statistics
import string
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from pyro_riemann._files import make_folder, write_file
from pyro_riemann.experiments._jobs import Record, load, understood

Row = tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]
"""Results of the runs that a row of a table is about, and further values."""
NAMES = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "digits": "digits"}

# -------------------------------------------------------------------- saved runs


class Records(list[Record]):
    """Records of runs, by name; ``folder`` is where they were read."""

    folder = Path()

    @classmethod
    def read(cls, folder: Path, load: Callable[[Path], Record] = load) -> Records:
        """All of a folder.

        Raises:
            FileNotFoundError: if there are none.
        """
        found = cls(load(path) for path in sorted(folder.glob("*.json")))
        if not found:
            raise FileNotFoundError(f"there are no results in {folder}: run the grid first, without `--report`.")
        found.folder = folder
        return found

    def by(self, *settings: str) -> dict[Any, Records]:
        """Records that have these settings in common, in order; the keys are their values, a tuple if several."""
        groups: dict[Any, Records] = {}
        for record in self:
            values = tuple(setting(record, name) for name in settings)
            groups.setdefault(values if len(values) > 1 else values[0], Records()).append(record)
        return groups

    def where(self, **settings: Any) -> Records:
        """Those with these settings; None stands for one that is not there."""
        return Records(r for r in self if all(r["settings"].get(name) == value for name, value in settings.items()))

    @property
    def results(self) -> list[dict[str, Any]]:
        """What the runs have measured."""
        return [record["result"] for record in self]

    @property
    def minutes(self) -> float:
        """Processor time of all."""
        return sum(record["cpu_seconds"] for record in self) / 60


def setting(record: Record, name: str) -> Any:
    """A setting of a run; ``"protocol.name"`` is one of its protocol."""
    value: Any = record["settings"]
    for part in name.split("."):
        value = value[part]
    return value


# -------------------------------------------------------------------- numbers and texts


class Spread(NamedTuple):
    """Mean and standard deviation of runs, and how many there are.

    Example:
        >>> f"{spread([1.0, 3.0]):.1f}, {spread([1.0, None]):.1f}"
        '2.0 ± 1.4, 1.0'
    """

    mean: float
    std: float
    runs: int

    def times(self, factor: float) -> Spread:
        """In another unit."""
        return Spread(factor * self.mean, abs(factor) * self.std, self.runs)

    def __format__(self, spec: str) -> str:
        return " ± ".join(format(part, spec) for part in self[: min(self.runs, 2)])


def spread(values: Iterable[float | None]) -> Spread:
    """Of the numbers that are known."""
    known = [value for value in values if value is not None]
    mean = statistics.mean(known) if known else 0.0
    return Spread(mean, statistics.stdev(known) if len(known) > 1 else 0.0, len(known))


def reach(values: Collection[float], spec: str = "") -> str:
    """``"least to largest"``, or the one value that all have."""
    return " to ".join(format(value, spec) for value in dict.fromkeys((min(values), max(values))))


class _Fields(string.Formatter):
    """``{name[key]:.2f}``; of several runs the mean ± standard deviation; ``!p`` in percent, ``!n`` with minus."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        key = re.split(r"[.\[]", field_name)[0]
        if key in kwargs:
            return super().get_field(field_name, (), kwargs)
        found = [super(_Fields, self).get_field(field_name, (), result)[0] for result in args]
        return found[0] if isinstance(found[0], str) else spread(found), key

    def convert_field(self, value: Any, conversion: Any) -> Any:
        factor = {"p": 100, "n": -1}.get(conversion)
        if factor is None:
            return super().convert_field(value, conversion)
        return value.times(factor) if isinstance(value, Spread) else factor * value


def fill(text: str, *results: Mapping[str, Any], **values: Any) -> str:
    """A text with its fields filled in, from ``values`` or, averaged, from the results of some runs.

    Example:
        >>> fill("of {n:,}: {share!p:.0f} %", {"share": 0.25}, {"share": 0.75}, n=1000)
        'of 1,000: 50 ± 35 %'
    """
    return _Fields().vformat(text, results, values)


def prose(text: str, *results: Mapping[str, Any], **values: Any) -> str:
    """Paragraphs, each on one line however it is broken here; fields as in :func:`fill`."""
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))
    return fill("\n\n".join(paragraphs), *results, **values)


def table(header: Iterable[str], rows: Iterable[Iterable[Any]], words: Collection[int] = (0,)) -> str:
    """A table in Markdown; the columns at ``words`` are words, the others numbers."""
    header = list(header)
    rules = ["---" if column in words else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (header, rules, *rows))


def table_of(columns: Mapping[str, str], rows: Iterable[Row], words: Collection[int] = (0,)) -> str:
    """A table whose cells are texts with fields, by the head of their column."""
    cells = ([fill(cell, *results, **values) for cell in columns.values()] for results, values in rows)
    return table(columns, cells, words)


def join(parts: Iterable[str]) -> str:
    """Sections of a page; those that have nothing to say are empty."""
    return "\n\n".join(part for part in parts if part)


# -------------------------------------------------------------------- files


def new_figure(width: float, height: float) -> Figure:
    """A figure outside pyplot's registry, so that none stays open."""
    return Figure(figsize=(width, height), layout="constrained")


def panels(width: float, height: float, rows: int = 1, columns: int = 1, **settings: Any) -> tuple[Figure, Any]:
    """A figure and its axes."""
    figure = new_figure(width, height)
    return figure, figure.subplots(rows, columns, **settings)


def save(figure: Figure, path: Path, dpi: int = 130) -> None:
    """Write a figure in one step; errors as :func:`pyro_riemann._files.write_file`."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix[1:], dpi=dpi, bbox_inches="tight")
    make_folder(path.parent)
    write_file(path, drawn.getvalue())


def write(
    page: Path, text: str, figures: Iterable[tuple[str, Figure]] = (), folder: Path = Path(), dpi: int = 90
) -> list[Path]:
    """Write a page and its figures, by their names, to a folder; the files."""
    written = [page]
    for name, figure in figures:
        written.append(folder / f"{name}.png")
        save(figure, written[-1], dpi=dpi)
    make_folder(page.parent)
    write_file(page, text)
    return written


def page_of(
    sections: Callable[[Records], Iterable[str]],
    figures: Callable[[Records], Iterable[tuple[str, Figure]]] = lambda records: (),
    load: Callable[[Path], Record] = load,
) -> tuple[Callable[[Path], str], Callable[[Path, Path], list[Path]]]:
    """Text and writer of the page of one folder: ``report`` and ``write_report``."""

    def text(records: Records) -> str:
        return join(sections(records)) + "\n"

    def report(results: Path) -> str:
        """Text of the page.

        Args:
            results: folder of the JSON files.

        Raises:
            FileNotFoundError: if there are no results.
            ValueError: if a file is damaged, or lacks what the page needs.
        """
        with understood(results):
            return text(Records.read(results, load))

    def write_report(results: Path, page: Path) -> list[Path]:
        """Write the ``page`` from the files in ``results``.

        Args:
            results: folder of the JSON files; figures go to ``figures`` in it.
            page: Markdown file.

        Returns:
            What was written.

        Raises:
            FileNotFoundError: if there are no results.
            ValueError: if a file is damaged, or lacks what the page needs.
        """
        with understood(results):
            records = Records.read(results, load)
            return write(page, text(records), figures(records), results / "figures", dpi=130)

    return report, write_report
