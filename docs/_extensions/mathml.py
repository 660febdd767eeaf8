"""Mathematics as MathML, which browsers show by themselves: no script, and nothing from a network."""

from __future__ import annotations

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

# the LaTeX goes along, for who copies it; commands that browsers show unreliably are refused
_CONVERTER = LatexToMathML(annotation=True, fancy_error=False)


def mathml(latex: str, display: bool) -> str:
    """The formula as a ``<math>`` element; an error ends the build, with the formula."""
    try:
        return _CONVERTER.convert_with_local_state(latex, displaystyle=display)
    except LatexError as error:
        raise ExtensionError(f"MathML has no form for {latex!r}: {error}") from error


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), display=False))
    raise nodes.SkipNode


def visit_math_block(self: HTML5Translator, node: nodes.math_block) -> None:
    latex = node.astext().strip()
    if "\\\\" in latex and "\\begin" not in latex:  # what Sphinx's own renderer does with several lines
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node["number"]:
        number = get_node_equation_number(self, node)
        self.body.append(f'<span class="eqno">({number})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append(mathml(latex, display=True) + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
