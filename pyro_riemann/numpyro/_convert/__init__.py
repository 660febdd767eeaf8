"""From torch to JAX: the twin of a trained metric or of a distribution on it."""

from __future__ import annotations

from typing import Any

from pyro_riemann.numpyro import metrics
from pyro_riemann.numpyro._convert._laws import LAWS
from pyro_riemann.numpyro._convert._metrics import METRICS
from pyro_riemann.numpyro._convert._models import MODELS, NETWORKS
from pyro_riemann.numpyro._convert._reader import Converter, Reader, package_name, title

_CONVERTERS: dict[str, Converter] = METRICS | NETWORKS | MODELS | LAWS


def to_numpyro(value: Any, *, dtype: Any = None, metric: metrics.RiemannianMetric | None = None) -> Any:
    """The JAX twin of a metric or distribution of :mod:`pyro_riemann`, a copy of its present numbers.

    Converts every metric of the package (kernel, pullback, conformal, tabulated, flat, warped, scaled, products, the
    manifolds),
    pullbacks through ``nn.Sequential`` of linear layers and elementwise activations or through the decoders of
    :mod:`pyro_riemann.vae`, these networks themselves, VAEs with a normal posterior and their parts, and the package's
    distributions with their settings. The settings of the geodesic solver come along. Twins agree to rounding.

    Args:
        value: the torch object.
        dtype: floating dtype of all arrays; that of each tensor by default.
        metric: for a distribution, the twin of its metric where that cannot be converted.

    Raises:
        TypeError: for an object of which no twin is known, such as a pullback through a plain function; the message
            says how to build one.
        ValueError: for float64 tensors while JAX works in float32.

    Example:
        >>> import torch, pyro_riemann
        >>> metric = pyro_riemann.KernelMetric(torch.zeros(1, 2), torch.ones(1, 2), 1.0, 0.1)
        >>> to_numpyro(metric).logdet(jnp.zeros(2)).round(4).item()  # 2 log 1.1
        0.19059999287128448
    """
    read = Reader(_CONVERTERS, dtype, metric)
    name = package_name(value)
    if name not in _CONVERTERS:
        known = sorted(name for name in _CONVERTERS if not name.startswith("_"))
        raise TypeError(
            f"`to_numpyro` knows no twin of {title(value)}. It converts the metrics, manifolds, networks, VAEs and "
            f"distributions of pyro_riemann ({', '.join(known)}). A metric of your own is a subclass of "
            "pyro_riemann.numpyro.RiemannianMetric that implements `metric(z)`; give it as `metric=` to convert a "
            "distribution on it."
        )
    return read(value)
