"""Sphinx settings. Build with ``sphinx-build -W docs docs/_build``."""

import os
import tomllib
from pathlib import Path

# the backend of the kernel that runs the tutorials: figures go into the page, whatever CI has set
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"

_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

project = _project["name"]
author = _project["authors"][0]["name"]
release = version = _project["version"]
copyright = author

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "conf.py", "benchmarks/table.md"]

html_theme = "furo"
html_title = "pyro-riemann"

myst_enable_extensions = ["amsmath", "dollarmath", "deflist"]
myst_heading_anchors = 3

# Tutorials are Python files in jupytext's percent format; they run with every build, and an error ends it.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
