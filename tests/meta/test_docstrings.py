"""Every public name says what it takes, gives and raises, in which shape, measure and unit, and where it comes from.

The rules are in :mod:`tests.meta.docstring_rules`; here they are put to all names, and to bad docstrings that must
fail.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tests.meta import docstring_rules as rules
from tests.meta.public_names import (
    APPLICATIONS,
    COMMANDS,
    PublicName,
    described_constants,
    exported,
    is_ours,
    public_constants,
    public_modules,
    public_names,
)

REPR_HOOK = "torch's hook for the representation of a module: no method that a reader calls"
# Complaints that stand: name and rule, and why.
EXCEPTIONS = {
    ("ConformalMetric.extra_repr", "summary"): REPR_HOOK,
    ("DistanceField.extra_repr", "summary"): REPR_HOOK,
    ("FlatTorus.extra_repr", "summary"): REPR_HOOK,
    ("GridMetric.extra_repr", "summary"): REPR_HOOK,
    ("KernelMetric.extra_repr", "summary"): REPR_HOOK,
    ("LocalMetric.extra_repr", "summary"): REPR_HOOK,
    ("SPD.extra_repr", "summary"): REPR_HOOK,
    ("ScaledMetric.extra_repr", "summary"): REPR_HOOK,
    ("SpaceForm.extra_repr", "summary"): REPR_HOOK,
    ("Sphere.extra_repr", "summary"): REPR_HOOK,
    ("autoencoders.LatentSampler", "source"): "an interface",
    ("evaluation.EncodingModel", "source"): "an interface",
    ("vae.Prior", "source"): "an interface",
    ("vae.Callback", "source"): "an interface",
    ("vae.DecoderProtocol", "source"): "an interface",
    ("vae.EncoderProtocol", "source"): "an interface",
    ("vae.LatentMetric", "source"): "an interface",
    ("vae.Likelihood", "source"): "an interface",
    ("vae.Posterior", "source"): "an interface",
    ("vae.ProgressBar", "source"): "a line on the terminal",
    ("vae.ScalarWriter", "source"): "an interface",
    ("brownian.default_method", "source"): "a choice by what is cheap, not a theorem",
    ("evaluation.stack_classes", "source"): "joins tensors",
    ("numpyro.sampling.LatentSampler", "source"): "an interface",
    ("numpyro.vae.Activation", "source"): "an elementwise function",
    ("numpyro.vae.Linear", "source"): "a matrix product",
    ("numpyro.vae.Sequential", "source"): "a composition of functions",
    ("vae.converged_share", "source"): "counts",
    ("vae.encode_all", "source"): "calls the encoder in batches",
    ("vae.load_checkpoint", "source"): "reads a file",
    ("vae.save_checkpoint", "source"): "writes a file",
    ("vae.solver_settings", "source"): "sets an attribute for a while",
    ("vae.Encoder", "errors"): "the TypeError is that of a network which does not end in a linear layer; its own do",
}
FOR_APPLICATIONS = [rules.summary, rules.arguments, rules.shapes]
API = Path(__file__).resolve().parents[2] / "docs" / "api"


def complaints(name: PublicName) -> dict[str, list[str]]:
    """What each rule has against a docstring."""
    asked = FOR_APPLICATIONS if name.path.startswith(APPLICATIONS) else rules.RULES
    return {rule.__name__: found for rule in asked if (found := list(rule(name)))}


def excepted(path: str, rule: str) -> tuple[str, str] | None:
    """The entry of the list of exceptions that lets a complaint pass."""
    return next((key for key in EXCEPTIONS if f".{path}".endswith(f".{key[0]}") and key[1] == rule), None)


@pytest.mark.parametrize("name", public_names(), ids=lambda name: name.path.removeprefix("pyro_riemann."))
def test_docstring_is_complete(name: PublicName) -> None:
    assert {rule: found for rule, found in complaints(name).items() if not excepted(name.path, rule)} == {}


def test_exceptions_are_needed() -> None:
    met = {excepted(name.path, rule) for name in public_names() for rule in complaints(name)}
    assert set(EXCEPTIONS) <= met


def test_the_walk_finds_both_twins_and_their_methods() -> None:
    paths = {name.path for name in public_names()}
    for twin in ("pyro_riemann", "pyro_riemann.numpyro"):
        assert {f"{twin}.KernelMetric", f"{twin}.KernelMetric.from_posterior", f"{twin}.RiemannianMetric.dist"} <= paths
        assert f"{twin}.RiemannianUniform.support" in paths  # a property of a kind of Pyro's and NumPyro's own
    assert {"pyro_riemann.Geodesic.__call__", "pyro_riemann.sampling.SamplingResult.r_hat"} <= paths
    assert len(paths) == len(public_names()) > 500
    assert set(COMMANDS).isdisjoint(public_modules())


@pytest.mark.parametrize("module, name", public_constants(), ids=lambda value: str(value))
def test_constant_is_described(module: str, name: str) -> None:
    assert name in described_constants(module)


# ------------------------------------------------------------------------------------ the rules bite


class Law:
    """A law on the manifold.

    Args:
        loc: centre.
        time: how long.

    Raises:
        TypeError: also by methods.
    """

    def __init__(self, loc: Tensor, time: float, width: float) -> None:
        if time <= 0:
            raise ValueError("`time` must be positive.")
        self.loc, self.time, self.width = loc, time, width

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at ``value``"""
        return self._checked(value)

    def _checked(self, value: Tensor) -> Tensor:
        if value.dim() == 0:
            raise ValueError("`value` has no axes.")
        raise TypeError("`value` is no tensor.")

    def kernel(self, z: Tensor, y: Tensor, scale: float) -> Tensor:
        """The kernel of a pair, ``kernel(z, y)``.

        Args:
            z: points ``(*batch, d)``.
            y: points.
            width: no such thing.
        """
        raise NotImplementedError("abstract")


for _part in (Law, Law.__init__, Law.log_prob, Law._checked, Law.kernel):
    _part.__module__ = "pyro_riemann.metrics"  # rules look at what this package has written


@pytest.mark.parametrize(
    "member, rule, expected",
    [
        ("", "arguments", ["`width` is not described under Args"]),
        ("", "shapes", ["the tensor `loc` has no shape"]),
        ("", "errors", ["ValueError is not announced under Raises"]),
        ("", "measure", ["a density without its measure: dz (Lebesgue) or dM (Riemannian volume)"]),
        ("", "units", [r"`time` has no unit: expected \bvariance\b|\bsquared length\b"]),
        ("", "source", ["has no source: a paper with equation, section or title, or a book"]),
        ("", "example", ["has no example"]),
        ("log_prob", "summary", ["the summary does not end with a full stop: 'Log density at ``value``'"]),
        ("log_prob", "shapes", ["the tensor `value` has no shape", "the tensor that it returns has no shape"]),
        ("log_prob", "errors", ["ValueError is not announced under Raises"]),  # the class speaks of the TypeError
        ("log_prob", "measure", ["a density without its measure: dz (Lebesgue) or dM (Riemannian volume)"]),
        (
            "kernel",
            "arguments",
            ["`scale` is not described under Args", "`width` is described under Args, but is no parameter"],
        ),
        ("kernel", "shapes", ["the tensor `y` has no shape", "the tensor that it returns has no shape"]),
        ("kernel", "errors", []),  # abstract
    ],
)
def test_rule_bites(member: str, rule: str, expected: list[str]) -> None:
    target = getattr(Law, member) if member else Law
    kind, owner = ("method", Law) if member else ("class", None)
    path = f"pyro_riemann.metrics.Law.{member}".removesuffix(".")
    name = PublicName(path, kind, inspect.cleandoc(str(target.__doc__)), target, owner)
    assert list(getattr(rules, rule)(name)) == expected


@pytest.mark.parametrize(
    "text, holds",
    [
        ("``(*batch, d)``", True),
        ("``(P, num_knots + 3, d)`` of a curve", True),
        ("``()``, one value", True),
        ("a scalar", True),
        ("``expmap(z, v)``", False),  # a call
        ("(*batch, d) outside a literal", False),
        ("``(first argument, second argument)``", False),
    ],
)
def test_what_counts_as_a_shape(text: str, holds: bool) -> None:
    assert rules.has_shape(text) is holds


# ------------------------------------------------------------------------------------ the reference


def shown() -> dict[str, list[str]]:
    """Modules and dotted names that the pages of docs/api show, each with its pages."""
    found: dict[str, list[str]] = {}
    directive = re.compile(r"^\.\. (automodule|autoclass|autofunction|py:data):: (\S+)\n((?:   :.*\n)*)", re.MULTILINE)
    for page in sorted(API.glob("*.md")):
        for kind, target, options in directive.findall(page.read_text()):
            home = re.search(r":module: (.*)", options)
            names = [target if home is None else f"{home[1]}.{target}"]
            if kind == "automodule":
                match = re.search(r":exclude-members: (.*)", options)
                excluded = [] if match is None else match[1].split(", ")
                loaded = importlib.import_module(target)
                assert set(excluded) <= set(loaded.__all__)
                is_package = hasattr(loaded, "__path__")  # autodoc does not see what describes a constant elsewhere
                described = [name for name in loaded.__all__ if not is_package or is_ours(getattr(loaded, name))]
                names += [f"{target}.{name}" for name in described if name not in excluded]
            for name in names:
                found.setdefault(name, []).append(page.name)
    return found


def test_reference_shows_every_public_module() -> None:
    faces = {"pyro_riemann", "pyro_riemann.numpyro"}  # whose names are those of their modules
    assert set(public_modules()) - set(shown()) == faces


def test_reference_shows_every_public_name_once() -> None:
    """Under one of its names: what a package exports again from a module is shown with the module."""
    pages: dict[Any, list[str]] = {}
    for path, where in shown().items():
        if path not in public_modules():
            pages.setdefault(identity(*path.rsplit(".", 1)), []).extend(where)
    wrong = {f"{module}.{name}": pages.get(identity(module, name), []) for module, name, _ in exported()}
    assert {path: where for path, where in wrong.items() if len(where) != 1} == {}


def identity(module: str, name: str) -> Any:
    """What a name stands for: a class or function is one wherever it is found, a constant is where it stands."""
    value = getattr(importlib.import_module(module), name)
    return value if callable(value) and is_ours(value) else (module, name)
