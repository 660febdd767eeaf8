"""Sphinx settings. Build with ``sphinx-build -W docs docs/_build``."""

import json
import os
import re
import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

import pyro_riemann

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

# the backend of the kernel that runs the tutorials: figures go into the page, whatever CI has set
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"

_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

project = _project["name"]
author = _project["authors"][0]["name"]
release = version = pyro_riemann.__version__
copyright = author

extensions = [
    "mathml",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "_extensions", "conf.py", "paper.md", "benchmarks/table.md", "benchmarks/before_after.md"]
exclude_patterns += ["howto/programs"]  # shown by the pages of the how-to, and run by `tests/test_programs.py`

html_theme = "furo"
html_title = "pyro-riemann"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["style.css"]

myst_enable_extensions = ["amsmath", "dollarmath", "deflist", "substitution"]
myst_heading_anchors = 3

# Every number of the quickstart's page comes from the result that lies beside its figures.
_mnist = json.loads((Path(__file__).parent / "figures" / "mnist" / "result.json").read_text())
_normalised_kl = _mnist["rvae"]["kl"] + _mnist["rvae"]["elbo"] - _mnist["rvae"]["elbo_normalised"]
myst_substitutions = {
    **{
        f"{model}_{name}": f"{_mnist[model][name]:.2f}"
        for model in ("rvae", "vae", "vae_gaussian_prior")
        for name in ("reconstruction", "kl", "elbo")
    },
    **{f"{model}_iwae": f"{_mnist[model]['iwae']['value']:.2f}" for model in ("rvae", "vae", "vae_gaussian_prior")},
    "rvae_kl_normalised": f"{_normalised_kl:.2f}",
    "rvae_elbo_normalised": f"{_mnist['rvae']['elbo_normalised']:.2f}",
    "rvae_iwae_normalised": f"{_mnist['rvae']['iwae']['value_normalised']:.2f}",
    "train": f"{_mnist['dataset']['train']:,}",
    "test": f"{_mnist['dataset']['test']:,}",
    "warm_up": _mnist["epochs"]["warm_up"],
    "phase_two": _mnist["epochs"]["phase_two"],
    "iwae_images": _mnist["rvae"]["iwae"]["images"],
    "time": f"{_mnist['prior']['time']:.2f}",
    "mass": f"{_mnist['prior']['mass']:.4f} ± {_mnist['prior']['mass_error']:.4f}",
    "converged": f"{100 * _mnist['geodesics']['converged_share']:.1f} %",
    "detour": f"{_mnist['geodesics']['shown_straight_over_geodesic']:.2f}",
    "rows": f"{_mnist['geodesics']['shown_difference_of_rows']:.2f}",
    "rows_median": f"{_mnist['geodesics']['median_difference_of_rows']:.2f}",
    "chains": _mnist["chains"]["chains"],
    "draws": _mnist["chains"]["draws"],
    "r_hat": f"{_mnist['chains']['max_r_hat']:.4f}",
    "ess": f"{_mnist['chains']['min_ess_bulk']:.0f}",
    "divergences": _mnist["chains"]["divergences"],
    "minutes": f"{sum(_mnist['timings_cpu_seconds'].values()) / 60:.0f}",
}

_digits = json.loads((Path(__file__).parent / "figures" / "digits" / "result.json").read_text())
_log_mass = _digits["rvae"]["elbo"] - _digits["rvae"]["elbo_normalised"]
for _name, _model, _shift in (
    ("rvae", "rvae", 0.0),
    ("normalised", "rvae", _log_mass),
    ("vae", "vae", 0.0),
    ("fitted", "vae_gaussian_prior", 0.0),
):
    _row = _digits[_model]
    _values = (_row["reconstruction"], _row["kl"] + _shift, _row["elbo"] - _shift, _row["iwae"]["value"] - _shift)
    for _term, _value in zip(("reconstruction", "kl", "elbo", "iwae"), _values, strict=True):
        myst_substitutions[f"digits_{_name}_{_term}"] = f"{_value:.2f}"
myst_substitutions |= {
    "digits_test": _digits["dataset"]["test"],
    "digits_lead_elbo": f"{_digits['vae']['elbo'] - _digits['rvae']['elbo_normalised']:.1f}",
    "digits_lead_iwae": f"{_digits['vae']['iwae']['value'] - _digits['rvae']['iwae']['value_normalised']:.1f}",
    "digits_error": f"{_digits['vae']['elbo_standard_error']:.1f}",
    "digits_time": f"{_digits['prior']['time']:.2f}",
    "digits_mass": f"{_digits['prior']['mass']:.4f} ± {_digits['prior']['mass_error']:.4f}",
    "digits_detour": f"{_digits['geodesics']['shown_straight_over_geodesic']:.2f}",
    "digits_rows": f"{_digits['geodesics']['shown_difference_of_rows']:.2f}",
    "digits_rows_median": f"{_digits['geodesics']['median_difference_of_rows']:.2f}",
    "digits_r_hat": f"{_digits['chains']['max_r_hat']:.4f}",
    "digits_ess": f"{_digits['chains']['min_ess_bulk']:.0f}",
    "digits_divergences": _digits["chains"]["divergences"],
}

# Tutorials are Python files in jupytext's percent format; they run with every build, and an error ends it.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars

# `sphinx-build -b linkcheck -D nb_execution_mode=off docs docs/_build/linkcheck`, where there is a network
linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_workers = 4
linkcheck_rate_limit_timeout = 60.0
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]  # anchors there are made by scripts
linkcheck_report_timeouts_as_broken = True

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
# a name without its module is that of both twins: the first match, torch's, is right on torch's own pages
suppress_warnings = ["ref.python"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of named tuples are documented once, in the docstring of the class


def keep_errors_with_values(app: Sphinx, page: str, source: list[str]) -> None:
    """No line of a table of results begins with a sign."""
    if page.startswith("results/"):
        source[0] = re.sub(r"(?<=\d) / (?=\d)", "\u00a0/ ", source[0].replace(" ± ", "\u00a0±\u00a0"))


def setup(app: Sphinx) -> None:
    app.connect("source-read", keep_errors_with_values)
