"""Trained models of other packages as immersions, known by their attributes: none of these packages is imported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import cast

from pyro.distributions import ZeroInflatedNegativeBinomial
from torch import Tensor
from torch.distributions import Distribution, NegativeBinomial

Decode = Callable[..., object]
_DIMS = ("latent_dim", "n_latent", "z_dim", "latent_size")
_OWNERS = ("", "hparams.", "config.", "model_config.")
_COUNTS = 10_000.0  # of a cell to which others are commonly scaled


def decoding(
    model: object,
    dim: int | None,
    latent_shape: Sequence[int] | None,
    conditions: Mapping[str, float] | None,
    as_law: bool,
) -> tuple[Callable[[Tensor], object], int]:
    """What decodes points ``(n, d)`` in a model, and d.

    Args:
        model: as :meth:`PullbackMetric.from_vae` takes it.
        dim: d, if the model does not tell.
        latent_shape: shape of a code, if it is not ``(d,)``.
        conditions: what the decoder takes besides.
        as_law: whether a distribution of counts is to be one of torch's.

    Raises:
        TypeError: if the model has nothing to decode with.
        ValueError: if d is not told, or differs from ``latent_shape``.
    """
    shape = tuple(latent_shape or ()) or _image_shape(model)
    given = dict(conditions or {})
    if callable(generative := _first(model, "module.generative")):
        given = {"library": math.log(_COUNTS), "batch_index": 0.0} | given
        decode: Decode = partial(_counts, generative, as_law)
        known = _first(model, "module.n_latent")
    else:
        found = _first(model, "decode", "decoder")
        if not callable(found):
            raise TypeError(
                f"`model`, a {type(model).__name__}, has no `decode` or `decoder` that can be called, and no "
                "`module.generative`: give its decoder to PullbackMetric itself."
            )
        decode = found
        known = _first(model, *(owner + name for owner in _OWNERS for name in _DIMS))
    size = math.prod(shape) if shape else known if dim is None else dim
    if not isinstance(size, int) or isinstance(size, bool):
        raise ValueError(
            f"`model`, a {type(model).__name__}, does not tell the dimension of its codes by `latent_dim` or the "
            "like: give `dim`, or `latent_shape` for codes that are no vectors."
        )
    if dim not in (None, size):
        raise ValueError(f"`dim` is {dim}, but codes of shape {shape} have {size} entries.")
    return partial(_decode, decode, shape or (size,), given), size


def _first(model: object, *names: str) -> object:
    """The first of these attributes, dotted or not, that the model has; else None."""
    for name in names:
        try:
            found: object = attrgetter(name)(model)
        except AttributeError:
            continue
        if found is not None:
            return found
    return None


def _image_shape(model: object) -> tuple[int, ...]:
    """Channels, height and width of a code, from the configuration of diffusers' convolutional autoencoders."""
    channels, size, blocks = (
        _first(model, f"config.{name}") for name in ("latent_channels", "sample_size", "block_out_channels")
    )
    if not isinstance(channels, int) or not isinstance(size, int) or not isinstance(blocks, list | tuple):
        return ()
    side = size // 2 ** (len(blocks) - 1)
    return channels, side, side


def _decode(decode: Decode, shape: tuple[int, ...], conditions: dict[str, float], z: Tensor) -> object:
    columns = {name: z.new_full((len(z), 1), value) for name, value in conditions.items()}
    return decode(z.reshape(len(z), *shape), **columns)


def _counts(generative: Decode, as_law: bool, z: Tensor, **conditions: Tensor) -> object:
    """The distribution of counts of a model of scvi-tools, as one of torch's where it has a class of its own."""
    law = cast(Mapping[str, object], generative(z, **conditions))["px"]
    if not as_law:
        return law
    mean, dispersion, gate = _first(law, "mu"), _first(law, "theta"), _first(law, "zi_logits")
    if isinstance(law, Distribution) and isinstance(mean, Tensor) and isinstance(dispersion, Tensor):
        logits = mean.log() - dispersion.log()
        if isinstance(gate, Tensor):
            return ZeroInflatedNegativeBinomial(dispersion, logits=logits, gate_logits=gate, validate_args=False)
        return NegativeBinomial(dispersion, logits=logits, validate_args=False)
    return law
