"""Statistics of points on a manifold, for any metric: means, transport of vectors, principal geodesics, clusters."""

from pyro_riemann.statistics._frechet import frechet_mean
from pyro_riemann.statistics._kmeans import Clusters, kmeans
from pyro_riemann.statistics._tangent_pca import TangentPCA, tangent_pca
from pyro_riemann.statistics._transport import parallel_transport

__all__ = ["Clusters", "TangentPCA", "frechet_mean", "kmeans", "parallel_transport", "tangent_pca"]
