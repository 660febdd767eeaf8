"""Manifolds with closed-form geometry, and metrics made of others: scaled, products, in other coordinates."""

from pyro_riemann.numpyro.manifolds._charts import HalfSpace, Hyperboloid
from pyro_riemann.numpyro.manifolds._hyperbolic import Hyperbolic
from pyro_riemann.numpyro.manifolds._product import ProductMetric
from pyro_riemann.numpyro.manifolds._scaled import ScaledMetric
from pyro_riemann.numpyro.manifolds._spd import SPD
from pyro_riemann.numpyro.manifolds._sphere import Sphere
from pyro_riemann.numpyro.manifolds._torus import FlatTorus
from pyro_riemann.numpyro.manifolds._warped import WarpedMetric

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
