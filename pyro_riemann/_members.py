"""What a face puts around all public methods of a class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

from pyro_riemann._formulas.metric import MetricAlgebra

C = TypeVar("C", bound=type)

ANSWERS = frozenset(
    ("metric", "logdet", "cholesky", "inner", "norm", "logdet_gradient", "metric_jacobian", "metric_derivatives")
    + ("speed_hessian", "christoffel", "drift", "scalar_curvature", "expmap", "expmap_log_van_vleck", "squared_dist")
    + ("dist", "logmap", "log_van_vleck")
)
"""Methods of a metric whose results are finite wherever they are right."""


def each_public(cls: C, decorate: Callable[[Callable[..., object]], Callable[..., object]]) -> C:
    """The class with ``decorate`` around every public method and property that it writes, and around its constructor.

    Args:
        cls: it.
        decorate: what keeps the signature.
    """
    for name, member in list(vars(cls).items()):
        if (name.startswith("_") and name not in ("__init__", "__call__")) or name.startswith("tree_"):
            continue
        if inspect.isfunction(member):
            decorated = decorate(member)
            # also what it has adopted is its own by name, so that a pickle of a bound method finds it
            decorated.__module__, decorated.__qualname__ = cls.__module__, f"{cls.__qualname__}.{name}"
            setattr(cls, name, decorated)
        elif type(member) is property and member.fget is not None:
            setattr(cls, name, property(decorate(member.fget), member.fset, member.fdel, member.__doc__))
        elif isinstance(member, classmethod):
            setattr(cls, name, classmethod(decorate(member.__func__)))
    return cls


def adopt(cls: type, own: type) -> None:
    """Let a class of metrics have as its own what it has from algebra that is no metric of its face.

    What a face puts around the methods that a class writes (bounded memory, checks of what comes out) is then around
    these as well.

    Args:
        cls: the class.
        own: the base of all metrics of its face.
    """
    for base in cls.__mro__:
        if issubclass(base, MetricAlgebra) and not issubclass(base, own):
            for name, member in vars(base).items():
                of_class = inspect.isfunction(member) or isinstance(member, property)
                if of_class and inspect.getattr_static(cls, name) is member:
                    setattr(cls, name, member)
