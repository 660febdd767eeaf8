"""Distributions, and the transforms that they and warped metrics are made of."""

from __future__ import annotations

from typing import Any

import numpyro.distributions as dist

from pyro_riemann.numpyro import distributions, mixtures
from pyro_riemann.numpyro._convert._reader import Converter, Reader


def _affine(transform: Any, read: Reader) -> Any:
    numbers = (read.array(x) if hasattr(x, "detach") else x for x in (transform.loc, transform.scale))
    return dist.transforms.AffineTransform(*numbers)


def _compose(transform: Any, read: Reader) -> Any:
    return dist.transforms.ComposeTransform([read(part) for part in transform.parts])


def _independent_transform(transform: Any, read: Reader) -> Any:
    return dist.transforms.IndependentTransform(read(transform.base_transform), transform.reinterpreted_batch_ndims)


def _heat_kernel(law: Any, read: Reader) -> Any:
    names = ("correction", "num_steps", "normalize", "num_directions")
    settings = {name: getattr(law, name) for name in names} | {"validate_args": law._validate_args}
    return distributions.RiemannianHeatKernel(
        read.array(law.loc), read.array(law.time), read.metric_of(law), **settings
    )


def _wrapped_normal(law: Any, read: Reader) -> Any:
    known = {"validate_args": law._validate_args}
    if law.has_covariance:
        known["scale_tril"] = read.array(law.scale_tril)
    time = None if law.has_covariance else read.array(law.time)
    return distributions.RiemannianWrappedNormal(read.array(law.loc), time, read.metric_of(law), **known)


def _riemannian_normal(law: Any, read: Reader) -> Any:
    arguments = read.array(law.loc), read.array(law.scale), read.metric_of(law)
    settings = {"num_directions": law.num_directions, "validate_args": law._validate_args}
    return distributions.RiemannianNormal(*arguments, **settings)


def _uniform(law: Any, read: Reader) -> Any:
    arguments = read.metric_of(law), read.array(law.low), read.array(law.high)
    return distributions.RiemannianUniform(*arguments, validate_args=law._validate_args)


def _vamp_prior(law: Any, read: Reader) -> Any:
    return distributions.VampPrior(read(law.components), read.array(law.logits), validate_args=law._validate_args)


def _mixture(law: Any, read: Reader) -> Any:
    return mixtures.RiemannianMixture(read(law.components), read.array(law.logits), validate_args=law._validate_args)


def _heat_kernels(law: Any, read: Reader) -> Any:
    arrays = read.array(law.loc), read.array(law.time), read.array(law.logits)
    return mixtures.HeatKernelMixture(*arrays, read.metric_of(law), validate_args=law._validate_args)


def _normal(law: Any, read: Reader) -> Any:
    return dist.Normal(read.array(law.loc), read.array(law.scale), validate_args=law._validate_args)


def _independent(law: Any, read: Reader) -> Any:
    return read(law.base_dist).to_event(law.reinterpreted_batch_ndims)


LAWS: dict[str, Converter] = {
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
    "HeatKernelMixture": _heat_kernels,
    "Normal": _normal,
    "Independent": _independent,
}
