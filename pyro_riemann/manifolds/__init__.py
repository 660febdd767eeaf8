"""Manifolds with closed-form geometry: sphere, hyperbolic space, flat torus, and any metric in other coordinates."""

from pyro_riemann.manifolds._charts import HalfSpace, Hyperboloid
from pyro_riemann.manifolds._hyperbolic import Hyperbolic
from pyro_riemann.manifolds._sphere import Sphere
from pyro_riemann.manifolds._torus import FlatTorus
from pyro_riemann.manifolds._warped import WarpedMetric

__all__ = ["Sphere", "Hyperbolic", "Hyperboloid", "HalfSpace", "FlatTorus", "WarpedMetric"]
