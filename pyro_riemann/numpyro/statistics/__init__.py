"""Statistics of points on a manifold, for any metric: means, transport of vectors, principal geodesics, clusters."""

from pyro_riemann.numpyro.statistics._means import Clusters, frechet_mean, kmeans
from pyro_riemann.numpyro.statistics._tangent_pca import TangentPCA, tangent_pca
from pyro_riemann.numpyro.statistics._transport import parallel_transport

__all__ = ["frechet_mean", "parallel_transport", "tangent_pca", "TangentPCA", "kmeans", "Clusters"]
