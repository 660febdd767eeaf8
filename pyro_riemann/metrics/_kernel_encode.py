"""Posteriors of a whole data set, from a loader and whatever kind of encoder a user has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, LowRankMultivariateNormal, MultivariateNormal

from pyro_riemann._checks import check_finite
from pyro_riemann._formulas.medoids import moments_of_draws, scale_fault, triangular_fault

Select = str | Callable[[object], object] | None
_MIN_DRAWS = 256

# Names by which encoders call what they return; case and underscores do not count.
_LOCS = ("loc", "mean", "mu", "embedding", "zmean", "zmu", "zloc")
_SPREADS: dict[str, Callable[[Tensor], Tensor]] = {
    **dict.fromkeys(("scale", "std", "stddev", "sigma", "scaletril", "zscale", "zstd"), lambda value: value),
    **dict.fromkeys(
        ("logcovariance", "logvar", "logvariance", "logsigma2", "zlogvar", "zlogvariance"),
        lambda value: (0.5 * value).exp(),
    ),
    **dict.fromkeys(("logscale", "logstd", "logstddev", "logsigma", "zlogstd"), torch.exp),
    **dict.fromkeys(("var", "variance", "zvar"), torch.sqrt),
    **dict.fromkeys(("covariance", "covariancematrix"), torch.linalg.cholesky),
}


def encode(
    loader: Iterable[object], encoder: Callable[..., object], select: Select = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Posterior means ``(N, d)`` and standard deviations ``(N, d)`` or Cholesky factors ``(N, d, d)`` of all batches.

    They come in the order of the loader. A module is put into evaluation mode meanwhile, and its batches go to the
    device of its parameters.

    Args:
        loader: batches: tensors, or tuples, lists or mappings.
        encoder: see :meth:`KernelMetric.from_posterior`.
        select: what of a batch the encoder is given: the name of an entry, or a function of the batch; by default the
            first entry of tuples, lists and mappings.
        seed: of the draws of a posterior that has no moments of its own.

    Raises:
        TypeError, ValueError: if a batch, or what the encoder returns, is none of these.
    """
    locs, scales = [], []
    with evaluating(encoder) as device, torch.no_grad():
        for batch in loader:
            data, rows = moved(chosen(batch, select), device)
            loc, scale = _location_scale(encoder(data), seed)
            if loc.dim() != 2 or loc.shape[0] != rows:
                raise ValueError(
                    f"`encoder` must map a batch of {rows} to locations ({rows}, d), got {tuple(loc.shape)}."
                )
            if scale.shape not in (loc.shape, (*loc.shape[:1], 1), (*loc.shape, loc.shape[-1])):
                raise ValueError(
                    f"`encoder` returned locations {tuple(loc.shape)} and scales {tuple(scale.shape)}; scales need the "
                    "same shape, one for each row, or a Cholesky factor (n, d, d)."
                )
            locs.append(loc)
            scales.append(scale.expand_as(loc) if scale.dim() == 2 else scale)
    if not locs:
        raise ValueError("the data loader gave no batch.")
    return torch.cat(locs), torch.cat(scales)


def draws_of(output: object) -> Tensor:
    """One draw of each posterior that an encoder returned, or the points themselves; by the global generator.

    Args:
        output: as :func:`encode` takes it, or points ``(n, d)``, a tensor or the only one in what was returned.

    Raises:
        TypeError, ValueError: if it is none of these.
    """
    if isinstance(output, Tensor) and output.dim() == 2:
        return output
    fields = {} if isinstance(output, Tensor | Distribution) else _fields(output)
    laws = [value for value in (output, *fields.values()) if isinstance(value, Distribution)]
    if len(laws) == 1:
        return laws[0].sample()
    tensors = [value for value in fields.values() if isinstance(value, Tensor)]
    if len(tensors) == 1:
        return tensors[0]
    loc, scale = _location_scale(output, 0)
    noise = torch.randn_like(loc)
    return loc + (scale * noise if scale.dim() == loc.dim() else (scale @ noise.unsqueeze(-1)).squeeze(-1))


def check_posterior(loc: Tensor, scale: Tensor) -> None:
    """Raise unless these are means ``(N, d)`` with standard deviations or Cholesky factors."""
    if loc.dim() != 2 or scale.shape not in (loc.shape, (*loc.shape, loc.shape[-1])):
        raise ValueError(
            "`loc` and `scale` must have the same shape (N, d), or `scale` (N, d, d) for Cholesky factors of "
            f"covariances; got {tuple(loc.shape)} and {tuple(scale.shape)}."
        )
    check_finite("loc", loc)
    check_finite("scale", scale)
    if fault := (scale_fault if scale.dim() == 2 else triangular_fault)(scale.cpu().numpy()):
        raise ValueError(fault)


@contextmanager
def evaluating(encoder: Callable[..., object]) -> Iterator[torch.device | None]:
    """Evaluation mode for every submodule, put back afterwards; the encoder's device, if it has one."""
    if not isinstance(encoder, nn.Module):
        yield None
        return
    training = [module for module in encoder.modules() if module.training]
    encoder.eval()
    try:
        state = next(encoder.parameters(), next(encoder.buffers(), None))
        yield None if state is None else state.device
    finally:
        for module in training:
            module.training = True


def chosen(batch: object, select: Select) -> object:
    """What of a batch the encoder is given."""
    if callable(select):
        return select(batch)
    if select is not None:
        if not isinstance(batch, Mapping) or select not in batch:
            names = sorted(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
            raise ValueError(f"`select` names the entry {select!r} of batches that are mappings, got {names}.")
        return batch[select]
    if isinstance(batch, Mapping):
        return next(iter(batch.values()), None)
    return batch[0] if isinstance(batch, tuple | list) and batch else batch


def moved(data: object, device: torch.device | None) -> tuple[object, int]:
    """A tensor, or a mapping with tensors, on the device of the encoder; how many rows it has."""
    if isinstance(data, Tensor):
        return (data if device is None else data.to(device)), len(data)
    entries = data if isinstance(data, Mapping) else {}
    tensors = {name: value for name, value in entries.items() if isinstance(value, Tensor)}
    if not tensors:
        raise TypeError(
            "the data loader must give tensors, or tuples, lists or mappings whose first entry is one; got "
            f"{type(data).__name__}. `select` says what of a batch the encoder is given."
        )
    there = {name: value if device is None else value.to(device) for name, value in tensors.items()}
    return {**entries, **there}, len(next(iter(tensors.values())))


def _location_scale(output: object, seed: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviations, or Cholesky factors, of what an encoder returned."""
    if isinstance(output, Distribution):
        return _of_distribution(output, seed)
    if isinstance(output, Tensor) and output.dim() == 3:
        return moments_of_draws(torch, output)
    fields = _fields(output)
    named = {name.lower().replace("_", ""): value for name, value in fields.items() if isinstance(value, Tensor)}
    loc = next((named[name] for name in _LOCS if name in named), None)
    spread = next((convert(named[name]) for name, convert in _SPREADS.items() if name in named), None)
    if loc is not None and spread is not None:
        return loc, spread
    inner = [value for value in fields.values() if isinstance(value, Distribution)]
    if len(inner) == 1:
        return _of_distribution(inner[0], seed)
    if isinstance(output, tuple | list) and len(output) >= 2:
        loc, scale = output[:2]
        if isinstance(loc, Tensor) and isinstance(scale, Tensor):
            if bool((scale < 0).any()) and scale.dim() == 2:
                raise ValueError(
                    "`encoder` returned a pair whose second entry is negative in places, no `scale`. If it is the "
                    "log-variance, return (loc, (0.5 * log_variance).exp()), or a mapping with `loc` and `logvar`."
                )
            return loc, scale
    raise TypeError(
        "`encoder` must return (loc, scale), a distribution, draws (num_draws, n, d), or a mapping or an object that "
        f"names `loc` and `scale`, or `loc` and `logvar`; got {type(output).__name__}"
        + (f" with {sorted(fields)}." if fields else ".")
    )


def _fields(output: object) -> dict[str, object]:
    """Entries of a mapping, a named tuple or an object by name; those of an object that is only a shell, too."""
    if isinstance(output, Mapping):
        found = {str(name): value for name, value in output.items()}
    elif isinstance(output, tuple) and getattr(output, "_fields", None):
        found = dict(zip(type(output)._fields, output, strict=True))  # type: ignore[attr-defined]  # a named tuple
    else:
        found = dict(getattr(output, "__dict__", {}))
    if len(found) == 1 and not isinstance(only := next(iter(found.values())), Tensor | Distribution | None):
        return _fields(only)  # for instance the `latent_dist` of diffusers
    return found


def _of_distribution(law: Distribution, seed: int) -> tuple[Tensor, Tensor]:
    """Moments of a distribution over ``(n, d)``: its own, or those of draws where it knows none or correlates."""
    inner = law
    while isinstance(inner, Independent):
        inner = inner.base_dist
    if isinstance(inner, MultivariateNormal | LowRankMultivariateNormal):
        return inner.loc, inner.scale_tril
    if not inner.event_shape:
        try:
            return law.mean, law.stddev
        except NotImplementedError:
            loc, tril = _of_draws(law, seed)
            return loc, tril.square().sum(-1).sqrt()
    return _of_draws(law, seed)


def _of_draws(law: Distribution, seed: int) -> tuple[Tensor, Tensor]:
    """Moments of draws, which leave the global random state as it was."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        draws = law.sample((_MIN_DRAWS,))
        if len(draws) < (wanted := 20 * draws.shape[-1]):  # keeps the bias of precisions below about 5 %
            draws = torch.cat([draws, law.sample((wanted - len(draws),))])
    return moments_of_draws(torch, draws)
