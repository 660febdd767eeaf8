"""From torch to JAX: the twin of a trained metric or of a distribution on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from pyro_riemann._formulas.peaks import Peaks
from pyro_riemann.numpyro import distributions, manifolds, metrics, mixtures, vae
from pyro_riemann.numpyro.geodesics import GeodesicSolver
from pyro_riemann.numpyro.metrics._spline_table import SplineTable

Foreign = Any  # an object of the torch face, which this module cannot import: read by the names of the twins
_Reader = Callable[[Any], Any]


def to_numpyro(value: Any, *, dtype: Any = None, metric: metrics.RiemannianMetric | None = None) -> Any:
    """The JAX twin of a metric or distribution of :mod:`pyro_riemann`, a copy of its present numbers.

    Converts every metric of the package (kernel, pullback, conformal, tabulated, flat, warped, scaled, products, the
    manifolds),
    pullbacks through ``nn.Sequential`` of linear layers and elementwise activations or through the decoders of
    :mod:`pyro_riemann.vae`, these networks themselves, and the package's distributions with their settings. The
    settings of the geodesic solver come along. Twins agree to rounding.

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
    read = _Converter(dtype, metric)
    name = _package_name(value)
    if name not in _CONVERTERS:
        raise TypeError(
            f"`to_numpyro` knows no twin of {_title(value)}. It converts the metrics, manifolds, decoder networks and "
            f"distributions of pyro_riemann ({', '.join(sorted(_CONVERTERS))}). A metric of your own is a subclass of "
            "pyro_riemann.numpyro.RiemannianMetric that implements `metric(z)`; give it as `metric=` to convert a "
            "distribution on it."
        )
    return read(value)


def _title(value: Any) -> str:
    cls = type(value)
    return f"{cls.__module__}.{cls.__qualname__}"


def _package_name(value: Any) -> str:
    """Name of the value's class if it is one of torch's, Pyro's or ours: a subclass may mean something else."""
    cls = type(value)
    return cls.__name__ if cls.__module__.split(".")[0] in ("pyro_riemann", "torch", "pyro") else ""


class _Converter:
    """Reads tensors as arrays of one dtype, and objects as their twins."""

    def __init__(self, dtype: Any, metric: metrics.RiemannianMetric | None) -> None:
        self.dtype, self.metric = dtype, metric

    def __call__(self, value: Any) -> Any:
        name = _package_name(value)
        if name not in _CONVERTERS:
            raise TypeError(f"`to_numpyro` knows no twin of {_title(value)}.")
        return _CONVERTERS[name](value, self)

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


# ---------------------------------------------------------------- networks


def _linear(layer: Any, read: _Converter) -> vae.Linear:
    return vae.Linear(read.array(layer.weight), None if layer.bias is None else read.array(layer.bias))


def _activation(*names: str) -> Callable[[Any, _Converter], vae.Activation]:
    """Converter of an elementwise layer with these settings."""

    def convert(layer: Any, read: _Converter) -> vae.Activation:
        return vae.Activation(type(layer).__name__, **{name: getattr(layer, name) for name in names})

    return convert


def _rescale(layer: Any, read: _Converter) -> vae.Rescale:
    return vae.Rescale(read.array(layer.loc), read.array(layer.scale))


def _sequential(network: Any, read: _Converter) -> vae.Sequential:
    return vae.Sequential([read(layer) for layer in network])


def _rbf_precision(network: Any, read: _Converter) -> vae.RBFPrecision:
    centers, bandwidth, log_weight = map(read.array, (network.centers, network.bandwidth, network.log_weight))
    return vae.RBFPrecision(centers, bandwidth, log_weight, network.floor, network.min_scale)


def _gaussian_decoder(network: Any, read: _Converter) -> vae.GaussianDecoder:
    return vae.GaussianDecoder(read(network.mean), read(network.std), read.array(network.log_warm_up_scale))


def _distance_immersion(network: Any, read: _Converter) -> vae.DistanceImmersion:
    twin = object.__new__(vae.DistanceImmersion)  # reduced already
    twin.mean, twin.std = read(network.mean), read(network.std)
    return twin


# ---------------------------------------------------------------- metrics


def _with_settings(metric: Foreign, twin: metrics.RiemannianMetric) -> metrics.RiemannianMetric:
    """The twin with the settings of geodesics that were changed on this metric."""
    if "solver" in vars(metric):
        names = [field.name for field in dataclasses.fields(GeodesicSolver)]
        twin.solver = GeodesicSolver(**{name: getattr(metric.solver, name) for name in names})
    if "max_memory" in vars(metric):
        twin.max_memory = metric.max_memory
    if "flow_steps" in vars(metric):
        twin.flow_steps = metric.flow_steps
    return twin


def _kernel(metric: Foreign, read: _Converter) -> metrics.KernelMetric:
    names = ("centroids", "precisions", "bandwidth", "regularization")
    return metrics.KernelMetric(*(read.array(getattr(metric, name)) for name in names))


def _local(metric: Foreign, read: _Converter) -> metrics.LocalMetric:
    return metrics.LocalMetric(read.array(metric.data), metric.bandwidth, metric.regularization)


def _pullback(metric: Foreign, read: _Converter) -> metrics.PullbackMetric:
    ambient = metric.ambient if metric.ambient is None or isinstance(metric.ambient, str) else read(metric.ambient)
    return metrics.PullbackMetric(read.immersion(metric.immersion), metric.dim, metric.jitter, metric.output, ambient)


def _conformal(metric: Foreign, read: _Converter) -> metrics.ConformalMetric:
    return metrics.ConformalMetric(read(metric.base), metric.log_scale)


def _grid(metric: Foreign, read: _Converter) -> metrics.GridMetric:
    table = object.__new__(SplineTable)
    table.coefficients = read.array(metric.table.coefficients.movedim(0, -1))
    table.low, table.high = read.array(metric.table.low), read.array(metric.table.high)
    grid = object.__new__(metrics.GridMetric)
    grid.dim, grid.outside, grid.table = metric.dim, metric.outside, table
    grid.solver = metrics.GridMetric.solver  # the true one follows with the settings
    grid.base = None if metric.base is None else read(metric.base)
    known = (metric._peak_loc, metric._peak_covariance)
    grid._floor = None if metric._floor is None else jnp.asarray(metric._floor.to(metric.table.low).cpu().numpy())
    grid._peaks = None if known[0] is None else Peaks(*map(read.array, known))
    grid.interpolation_error = read.array(metric.interpolation_error)
    grid.mean_interpolation_error = read.array(metric.mean_interpolation_error)
    return grid


def _warped(metric: Foreign, read: _Converter) -> manifolds.WarpedMetric:
    transform = metric._transform
    pair = (
        read.immersion(transform) if transform is not None else tuple(map(read.immersion, (metric._to, metric._back)))
    )
    return manifolds.WarpedMetric(read(metric.base), pair)


def _scaled(metric: Foreign, read: _Converter) -> manifolds.ScaledMetric:
    return manifolds.ScaledMetric(read(metric.base), np.asarray(metric.factor.detach().cpu().numpy()))


def _product(metric: Foreign, read: _Converter) -> manifolds.ProductMetric:
    return manifolds.ProductMetric([read(factor) for factor in metric.factors])


def _torus(metric: Foreign, read: _Converter) -> manifolds.FlatTorus:
    return manifolds.FlatTorus(metric.dim, metric.periods.detach().cpu().numpy())


_METRICS: dict[str, Callable[[Any, _Converter], Any]] = {
    "ConformalMetric": _conformal,
    "ConstantMetric": lambda metric, read: metrics.ConstantMetric(read.array(metric.matrix)),
    "EuclideanMetric": lambda metric, read: metrics.EuclideanMetric(metric.dim),
    "FlatTorus": _torus,
    "GridMetric": _grid,
    "HalfSpace": lambda metric, read: manifolds.HalfSpace(metric.dim, metric.curvature),
    "Hyperbolic": lambda metric, read: manifolds.Hyperbolic(metric.dim, metric.curvature),
    "Hyperboloid": lambda metric, read: manifolds.Hyperboloid(metric.dim, metric.curvature),
    "KernelMetric": _kernel,
    "LocalMetric": _local,
    "ProductMetric": _product,
    "PullbackMetric": _pullback,
    "SPD": lambda metric, read: manifolds.SPD(metric.size),
    "ScaledMetric": _scaled,
    "Sphere": lambda metric, read: manifolds.Sphere(metric.dim, metric.radius),
    "WarpedMetric": _warped,
}


def _metric_converter(convert: Callable[[Any, _Converter], Any]) -> Callable[[Any, _Converter], Any]:
    return lambda metric, read: _with_settings(metric, convert(metric, read))


# ---------------------------------------------------------------- transforms and distributions


def _affine(transform: Any, read: _Converter) -> Any:
    numbers = (read.array(x) if hasattr(x, "detach") else x for x in (transform.loc, transform.scale))
    return dist.transforms.AffineTransform(*numbers)


def _compose(transform: Any, read: _Converter) -> Any:
    return dist.transforms.ComposeTransform([read(part) for part in transform.parts])


def _independent_transform(transform: Any, read: _Converter) -> Any:
    return dist.transforms.IndependentTransform(read(transform.base_transform), transform.reinterpreted_batch_ndims)


def _heat_kernel(law: Any, read: _Converter) -> Any:
    names = ("correction", "num_steps", "normalize", "num_directions")
    settings = {name: getattr(law, name) for name in names} | {"validate_args": law._validate_args}
    return distributions.RiemannianHeatKernel(
        read.array(law.loc), read.array(law.time), read.metric_of(law), **settings
    )


def _wrapped_normal(law: Any, read: _Converter) -> Any:
    known = {"validate_args": law._validate_args}
    if law.has_covariance:
        known["scale_tril"] = read.array(law.scale_tril)
    time = None if law.has_covariance else read.array(law.time)
    return distributions.RiemannianWrappedNormal(read.array(law.loc), time, read.metric_of(law), **known)


def _riemannian_normal(law: Any, read: _Converter) -> Any:
    arguments = read.array(law.loc), read.array(law.scale), read.metric_of(law)
    settings = {"num_directions": law.num_directions, "validate_args": law._validate_args}
    return distributions.RiemannianNormal(*arguments, **settings)


def _uniform(law: Any, read: _Converter) -> Any:
    arguments = read.metric_of(law), read.array(law.low), read.array(law.high)
    return distributions.RiemannianUniform(*arguments, validate_args=law._validate_args)


def _vamp_prior(law: Any, read: _Converter) -> Any:
    return distributions.VampPrior(read(law.components), read.array(law.logits), validate_args=law._validate_args)


def _mixture(law: Any, read: _Converter) -> Any:
    return mixtures.RiemannianMixture(read(law.components), read.array(law.logits), validate_args=law._validate_args)


def _normal(law: Any, read: _Converter) -> Any:
    return dist.Normal(read.array(law.loc), read.array(law.scale), validate_args=law._validate_args)


def _independent(law: Any, read: _Converter) -> Any:
    return read(law.base_dist).to_event(law.reinterpreted_batch_ndims)


_CONVERTERS: dict[str, Callable[[Any, _Converter], Any]] = {
    **{name: _metric_converter(convert) for name, convert in _METRICS.items()},
    "Linear": _linear,
    "Rescale": _rescale,
    "Sequential": _sequential,
    "ELU": _activation("alpha"),
    "GELU": _activation("approximate"),
    "LeakyReLU": _activation("negative_slope"),
    "Softplus": _activation("beta", "threshold"),
    **{name: _activation() for name in ("Identity", "ReLU", "SiLU", "Sigmoid", "Tanh")},
    "RBFPrecision": _rbf_precision,
    "GaussianDecoder": _gaussian_decoder,
    "DistanceImmersion": _distance_immersion,
    "AffineTransform": _affine,
    "ComposeTransform": _compose,
    "ExpTransform": lambda transform, read: dist.transforms.ExpTransform(),
    "IndependentTransform": _independent_transform,
    "SigmoidTransform": lambda transform, read: dist.transforms.SigmoidTransform(),
    "_InverseTransform": lambda transform, read: read(transform.inv).inv,
    "RiemannianHeatKernel": _heat_kernel,
    "RiemannianWrappedNormal": _wrapped_normal,
    "RiemannianNormal": _riemannian_normal,
    "RiemannianUniform": _uniform,
    "VampPrior": _vamp_prior,
    "RiemannianMixture": _mixture,
    "Normal": _normal,
    "Independent": _independent,
}
