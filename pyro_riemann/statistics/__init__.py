"""Statistics of points on a manifold, for any metric: means, transport of vectors, principal geodesics, clusters."""

from pyro_riemann.statistics._means import Clusters, frechet_mean, kmeans
from pyro_riemann.statistics._tangent_pca import TangentPCA, tangent_pca
from pyro_riemann.statistics._transport import parallel_transport

__all__ = ["Clusters", "TangentPCA", "frechet_mean", "kmeans", "parallel_transport", "tangent_pca"]
