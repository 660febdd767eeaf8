"""Figures of latent spaces, geodesics, Brownian paths, decoded images and chains.

Every function draws on the axes it is given, or on a new figure, and returns the axes; none shows or saves anything,
and no global matplotlib setting is touched. The latent plots are for two-dimensional charts.
"""

from pyro_riemann.plotting._chains import plot_chains
from pyro_riemann.plotting._images import plot_decoded_curves, plot_images, plot_interpolations
from pyro_riemann.plotting._latent import log_volume_element, plot_brownian_paths, plot_geodesics, plot_latent_space

__all__ = [
    "log_volume_element",
    "plot_brownian_paths",
    "plot_chains",
    "plot_decoded_curves",
    "plot_geodesics",
    "plot_images",
    "plot_interpolations",
    "plot_latent_space",
]
