"""How objects of torch are read: tensors as arrays of one dtype, the rest by the names of their classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pyro_riemann.numpyro import metrics

Foreign = Any  # an object of the torch face, which nothing here can import: read by the names of the twins
Converter = Callable[[Any, Any], Any]  # of an object and the reader of its parts


def title(value: Any) -> str:
    cls = type(value)
    return f"{cls.__module__}.{cls.__qualname__}"


def package_name(value: Any) -> str:
    """Name of the value's class if it is one of torch's, Pyro's or ours: a subclass may mean something else."""
    cls = type(value)
    return cls.__name__ if cls.__module__.split(".")[0] in ("pyro_riemann", "torch", "pyro") else ""


class Reader:
    """Reads tensors as arrays of one dtype, and objects as their twins."""

    def __init__(
        self, converters: Mapping[str, Converter], dtype: Any, metric: metrics.RiemannianMetric | None
    ) -> None:
        self.converters, self.dtype, self.metric = converters, dtype, metric

    def __call__(self, value: Any) -> Any:
        name = package_name(value)
        if name not in self.converters:
            raise TypeError(f"`to_numpyro` knows no twin of {title(value)}.")
        return self.converters[name](value, self)

    def array(self, tensor: Any) -> jax.Array:
        array = tensor.detach().cpu().numpy()
        dtype = array.dtype if self.dtype is None else np.dtype(self.dtype)
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise ValueError(
                "a float64 tensor has no twin while JAX works in float32: enable double precision "
                '(`jax.config.update("jax_enable_x64", True)`), or give `dtype=jnp.float32` to round.'
            )
        return jnp.asarray(array, dtype)

    def immersion(self, value: Any) -> Any:
        """An immersion or a map between charts."""
        try:
            return self(value)
        except TypeError as error:
            raise TypeError(
                f"{error} Of immersions it knows nn.Sequential of linear layers and elementwise activations, "
                "GaussianDecoder, DistanceImmersion and RBFPrecision. Write the function in jax.numpy (or load the "
                "weights into an equinox or flax module) and build the twin as "
                "pyro_riemann.numpyro.PullbackMetric(immersion, dim, jitter); for a distribution, give it as `metric=`."
            ) from error

    def metric_of(self, distribution: Any) -> metrics.RiemannianMetric:
        converted: metrics.RiemannianMetric = self(distribution.metric) if self.metric is None else self.metric
        return converted
