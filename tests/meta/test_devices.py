"""Every tensor that the library makes says where: one without ``device=`` would lie on torch's default device."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "pyro_riemann"
FACTORIES = {
    *("tensor", "as_tensor", "asarray", "zeros", "ones", "empty", "full", "arange", "linspace", "logspace", "eye"),
    *("rand", "randn", "randint", "randperm", "tril_indices", "triu_indices", "scalar_tensor"),
}
#: Where nothing is given whose device would be the right one: these follow torch's default, as modules of torch do.
FOLLOW_THE_DEFAULT = {
    "_rescale.py": "__init__",
    "autoencoders/_hamiltonian.py": "__init__",
    "sampling/_codes.py": "sample",  # of a standard normal law
    "autoencoders/_variational.py": "__init__",
    "_box.py": "check_box",  # of a metric without state, between numbers
    "manifolds/_torus.py": "__init__",
    "metrics/_flat.py": "__init__",
    "metrics/_grid.py": "_corners",  # likewise
    "plotting/_latent.py": "_like",  # likewise
    "vae/_counts.py": "__init__",
    "vae/_decoders.py": "__init__",
    "vae/_latent_metric.py": "attach",
    "vae/_likelihoods.py": "__init__",
    "vae/_make.py": "make_prior _likelihood",
    "vae/_posteriors.py": "__init__",
    "vae/_precision.py": "__init__",
    "vae/_priors.py": "__init__",
}


def made_anywhere(source: str) -> Iterator[tuple[str, int]]:
    """Function and line of every call of a factory without a device."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if ast.unparse(node.func.value) == "torch" and node.func.attr in FACTORIES:
                if not any(keyword.arg in ("device", None) for keyword in node.keywords):
                    yield function.name, node.lineno


LIBRARY = sorted(
    path for path in PACKAGE.rglob("*.py") if not {"numpyro", "experiments"} & set(path.relative_to(PACKAGE).parts)
)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_tensor_says_where(path: Path) -> None:
    allowed = FOLLOW_THE_DEFAULT.get(str(path.relative_to(PACKAGE)), "").split()
    assert [(name, line) for name, line in made_anywhere(path.read_text()) if name not in allowed] == []


def test_the_rule_sees_one() -> None:
    assert list(made_anywhere("def f():\n    return torch.zeros(3)")) == [("f", 2)]
    assert list(made_anywhere("def f(x):\n    return torch.zeros(3, device=x.device)")) == []
