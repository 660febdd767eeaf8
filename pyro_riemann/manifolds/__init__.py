"""Manifolds with closed-form geometry, and metrics made of others: scaled, products, in other coordinates."""

from pyro_riemann.manifolds._made_of_others import ProductMetric, ScaledMetric
from pyro_riemann.manifolds._symmetric import SPD, HalfSpace, Hyperbolic, Hyperboloid, Sphere
from pyro_riemann.manifolds._torus import FlatTorus
from pyro_riemann.manifolds._warped import WarpedMetric

__all__ = [
    "Sphere",
    "Hyperbolic",
    "Hyperboloid",
    "HalfSpace",
    "FlatTorus",
    "SPD",
    "ProductMetric",
    "ScaledMetric",
    "WarpedMetric",
]
