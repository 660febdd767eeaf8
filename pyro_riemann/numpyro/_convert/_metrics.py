"""Metrics and manifolds."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from pyro_riemann._formulas.peaks import Peaks
from pyro_riemann.numpyro import manifolds, metrics
from pyro_riemann.numpyro._convert._reader import Converter, Foreign, Reader
from pyro_riemann.numpyro.geodesics import GeodesicSolver
from pyro_riemann.numpyro.metrics._spline_table import SplineTable


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


def _kernel(metric: Foreign, read: Reader) -> metrics.KernelMetric:
    names = ("centroids", "precisions", "bandwidth", "regularization")
    return metrics.KernelMetric(*(read.array(getattr(metric, name)) for name in names))


def _local(metric: Foreign, read: Reader) -> metrics.LocalMetric:
    return metrics.LocalMetric(read.array(metric.data), metric.bandwidth, metric.regularization)


def _pullback(metric: Foreign, read: Reader) -> metrics.PullbackMetric:
    ambient = metric.ambient if metric.ambient is None or isinstance(metric.ambient, str) else read(metric.ambient)
    return metrics.PullbackMetric(read.immersion(metric.immersion), metric.dim, metric.jitter, metric.output, ambient)


def _conformal(metric: Foreign, read: Reader) -> metrics.ConformalMetric:
    return metrics.ConformalMetric(read(metric.base), metric.log_scale)


def _grid(metric: Foreign, read: Reader) -> metrics.GridMetric:
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


def _warped(metric: Foreign, read: Reader) -> manifolds.WarpedMetric:
    transform = metric._transform
    pair = (
        read.immersion(transform) if transform is not None else tuple(map(read.immersion, (metric._to, metric._back)))
    )
    return manifolds.WarpedMetric(read(metric.base), pair)


def _scaled(metric: Foreign, read: Reader) -> manifolds.ScaledMetric:
    return manifolds.ScaledMetric(read(metric.base), np.asarray(metric.factor.detach().cpu().numpy()))


def _product(metric: Foreign, read: Reader) -> manifolds.ProductMetric:
    return manifolds.ProductMetric([read(factor) for factor in metric.factors])


def _torus(metric: Foreign, read: Reader) -> manifolds.FlatTorus:
    return manifolds.FlatTorus(metric.dim, metric.periods.detach().cpu().numpy())


_METRICS: dict[str, Converter] = {
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


def _metric_converter(convert: Converter) -> Converter:
    return lambda metric, read: _with_settings(metric, convert(metric, read))


METRICS: dict[str, Converter] = {name: _metric_converter(convert) for name, convert in _METRICS.items()}
