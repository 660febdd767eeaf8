"""Links within the project: every relative link, image, document and anchor of the prose leads somewhere.

External links are left to ``sphinx-build -b linkcheck``, which needs the network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BUILT = DOCS / "_build"
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")

LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
ROLE = re.compile(r"\{(doc|download)\}`(?:[^`<]*<)?([^`<>]+)>?`")
DIRECTIVE = re.compile(r"^`{3,}\{(?:figure|image|include|literalinclude)\}\s+(\S+)\s*$", re.MULTILINE)
NAMING = re.compile(r"`{3,}\{(?:figure|image|include|literalinclude|toctree)\}")
TOCTREE = re.compile(r"^`{3,}\{toctree\}\n(.*?)^`{3,}", re.MULTILINE | re.DOTALL)
HTML = re.compile(r"<(?:img|a)\s[^>]*?(?:src|href)=\"([^\"]+)\"")


def pages() -> list[Path]:
    """The prose: Markdown, and the tutorials in percent format."""
    found = [ROOT / name for name in TOP]
    found += [path for path in sorted(DOCS.rglob("*.md")) if BUILT not in path.parents]
    found += sorted((DOCS / "tutorials").glob("*.py")) + sorted(DOCS.glob("*.py"))
    return [path for path in found if path.name != "conf.py"]


def prose(path: Path) -> str:
    """The text of a page without its code: in a tutorial only the Markdown cells."""
    text = path.read_text()
    if path.suffix == ".py":
        cells = re.split(r"^# %%", text, flags=re.MULTILINE)
        text = "\n".join(
            re.sub(r"^# ?", "", cell.partition("\n")[2], flags=re.MULTILINE)
            for cell in cells
            if cell.startswith(" [markdown]")
        )
    return without_code(text)


def without_code(text: str) -> str:
    """The text with the contents of its fences removed, but for directives that name files."""
    kept: list[str] = []
    fence, keep = "", True
    for line in text.splitlines():
        ticks = re.match(r"`{3,}", line)
        if not fence and ticks:
            fence, keep = ticks[0], bool(NAMING.match(line))
        elif fence and line.rstrip() == fence:
            fence, line = "", line if keep else ""
            kept.append(line)
            keep = True
            continue
        if keep:
            kept.append(line)
    return "\n".join(kept) + "\n"


@cache
def anchors(path: Path) -> frozenset[str]:
    """Anchors of a page's headings, as GitHub and MyST make them, and its explicit targets."""
    text = prose(path)
    slugs = set(re.findall(r"^\(([\w-]+)\)=\s*$", text, re.MULTILINE))
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slugs.add(re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-"))
    return frozenset(slugs)


def locate(name: str, page: Path) -> Path:
    """The file of a link, relative to a page or, with a slash, to the docs.

    ``docs/tutorials`` is a link to ``tutorials``. To GitHub and to Sphinx a tutorial's ``..`` is the repository.
    """
    return (DOCS / name[1:] if name.startswith("/") else page.parent / name).resolve()


def document(name: str, page: Path) -> Path | None:
    """The file of a Sphinx document name: by the name alone, where a tutorial's ``..`` is the docs."""
    base = Path(os.path.normpath(DOCS / name[1:] if name.startswith("/") else page.parent / name))
    return next((file for suffix in (".md", ".py") if (file := base.with_name(base.name + suffix)).exists()), None)


def dead_link(target: str, page: Path) -> bool:
    if re.match(r"[a-z][a-z0-9+.-]*:", target):
        return False
    name, _, anchor = target.partition("#")
    file = locate(name, page) if name else page
    if not file.exists():
        return True
    return bool(anchor) and (file.is_dir() or anchor not in anchors(file))


def entries(path: Path, text: str) -> Iterator[tuple[str, list[Path]]]:
    """What a page's tables of contents name, and the files that these names stand for."""
    for entry in "".join(TOCTREE.findall(text)).splitlines():
        name = re.sub(r".*<(.+)>$", r"\1", entry.strip())
        if name and not name.startswith(":"):
            file = document(name, path)
            yield name, sorted(path.parent.glob(f"{name}.*")) if set("*?[") & set(name) else [file] if file else []


def dead(path: Path) -> Iterator[str]:
    """Every target of a page that leads nowhere."""
    text = prose(path)
    plain = re.sub(r"`[^`\n]*`", "", text)
    yield from (t for t in [*LINK.findall(plain), *HTML.findall(plain), *DIRECTIVE.findall(text)] if dead_link(t, path))
    for kind, target in ROLE.findall(text):
        if document(target, path) is None if kind == "doc" else dead_link(target, path):
            yield f"{kind}: {target}"
    yield from (f"toctree: {name}" for name, files in entries(path, text) if not files)


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    assert list(dead(path)) == []


@pytest.mark.parametrize(
    "text, expected",
    [
        ("[a](there.md)", []),
        ("[a](gone.md)", ["gone.md"]),
        ("[a](there.md#a-heading-with-code)", []),
        ("[a](there.md#another)", ["there.md#another"]),
        ("[here](#own)\n\n# Own", []),
        ("![figure](gone.png)", ["gone.png"]),
        ("[a [b]](gone.md)", ["gone.md"]),
        ("```{figure} gone.png\n:alt: x\n```", ["gone.png"]),
        ("{doc}`there` {doc}`text <gone>`", ["doc: gone"]),
        ("{download}`text <gone.json>`", ["download: gone.json"]),
        ("```{toctree}\n:hidden:\n\nthere\ngone\n```", ["toctree: gone"]),
        ("[web](https://example.org) `[code](gone.md)`", []),
        ("```python\ntable[0](gone)\n```\n[a](there.md)", []),
        ("```{figure} there.md\n```\n[a](gone.md)", ["gone.md"]),
        ("```python\nx\n```\n[`code`](gone.md)", ["gone.md"]),
    ],
)
def test_a_dead_link_is_found(text: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("## A heading, with `code`\n")
    page = tmp_path / "page.md"
    page.write_text(text)
    assert list(dead(page)) == expected


def test_every_page_is_in_a_toctree() -> None:
    """Sphinx says so too, but only when it builds."""
    listed = {file for path in pages() for _, files in entries(path, prose(path)) for file in files}
    included = {DOCS / "benchmarks" / "table.md", DOCS / "benchmarks" / "before_after.md"}
    unlisted = {DOCS / "index.md", DOCS / "paper.md", *included, *(ROOT / name for name in TOP)}
    assert sorted(str(path.relative_to(ROOT)) for path in set(pages()) - listed - unlisted) == []
