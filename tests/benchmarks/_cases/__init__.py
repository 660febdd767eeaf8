"""The benchmarks in small, as calls that an older checkout knows as well: ``compare.py`` runs them on two checkouts.

Each case is a function that sets up and returns the calls to time, by name. Nothing of ``tests`` is imported: the
checkout that is measured is whichever comes first on the path.
"""

from ._jax import jax_distances, jax_first_calls
from ._torch import brownian, geodesics, kernels, own_metric, sampling, training, volumes

CASES = {
    work.__name__: work
    for work in (
        brownian,
        geodesics,
        training,
        sampling,
        volumes,
        own_metric,
        kernels,
        jax_distances,
        jax_first_calls,
    )
}
