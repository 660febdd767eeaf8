"""Chains of any sampler as ArviZ data, and the table that judges them: what both array libraries share.

Chains are NumPy arrays here, whoever drew them. ArviZ and its dependencies take a second to import and are loaded on
first use.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from pyro_riemann._lazy import needs

Draws = Mapping[str, np.ndarray]
Groups = dict[str, dict[str, np.ndarray]]

#: What NumPyro and ArviZ call the same quantity.
_NUMPYRO_FIELDS = {
    "diverging": "diverging",
    "accept_prob": "acceptance_rate",
    "mean_accept_prob": "mean_acceptance_rate",
    "num_steps": "n_steps",
    "adapt_state.step_size": "step_size",
    "energy": "energy",
}
_COLUMNS = ["mean", "sd", "mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "r_hat"]
_DECIMALS = {"ess_bulk": 0, "ess_tail": 0, "r_hat": 4}


class Summary(pd.DataFrame):  # type: ignore[misc]  # pandas ships no types
    """The table of :func:`summary`: one row a scalar, and whole-run checks as attributes.

    A slice of it is an ordinary ``DataFrame``. The checks live in ``attrs``; one that could not be
    made is ``None``.

    Example:
        >>> import numpy as np
        >>> summary({"z": np.random.default_rng(0).normal(size=(4, 500, 2))}).passed()
        True
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    @property
    def divergences(self) -> int | None:
        """Number of divergent transitions after warm-up, over all chains."""
        return self.attrs["divergences"]

    @property
    def floor_share(self) -> float | None:
        """Share of draws where the metric is only its floor, so that the draw ignores the data."""
        return self.attrs["floor_share"]

    @property
    def converged_share(self) -> float | None:
        """Share of the geodesics from the centre to the draws that converged."""
        return self.attrs["converged_share"]

    def passed(self, max_r_hat: float = 1.01, min_ess: float = 400.0) -> bool:
        """Whether R-hats are at most ``max_r_hat``, bulk ESS at least ``min_ess``, and no transition diverged.

        A NaN (constant or too short chains) fails; divergences that were not recorded do not.
        """
        mixed = bool((self["r_hat"] <= max_r_hat).all() and (self["ess_bulk"] >= min_ess).all())
        return mixed and not self.divergences

    def __str__(self) -> str:
        formats = {name: f"{{:.{_DECIMALS.get(name, 3)}f}}".format for name in self.columns}
        checks = [f"{self.attrs['chains']} chains of {self.attrs['draws']} draws"]
        checks.append("divergences not recorded" if self.divergences is None else f"divergences: {self.divergences}")
        if self.floor_share is not None:
            checks.append(f"draws on the metric's floor: {self.floor_share:.1%}")
        if self.converged_share is not None:
            checks.append(f"converged geodesics: {self.converged_share:.1%}")
        return pd.DataFrame(self).to_string(formatters=formats) + "\n" + "; ".join(checks)

    __repr__ = __str__


def converted(
    result: Any, sample_stats: Mapping[str, Any] | None, more: Callable[[Draws], Groups] | None = None
) -> Any:
    """The two functions ``to_arviz``.

    Args:
        result: as there.
        sample_stats: as there.
        more: further groups from the posterior's draws, ``(chains, draws, *event)`` each; None for no more.
    """
    if _is_arviz(result):
        if more is not None:
            raise ValueError("`model` adds groups to draws; `result` is ArviZ data already.")
        return result
    if isinstance(result, list | tuple):
        posterior, stats, attributes = _joined([_parts(run) for run in result])
    else:
        posterior, stats, attributes = _parts(result)
    stats |= {name: _array(value) for name, value in (sample_stats or {}).items()}
    _check_shapes(posterior, stats)
    groups = {"posterior": posterior} | ({"sample_stats": stats} if stats else {})
    data = _from_dict(groups | (more(posterior) if more is not None else {}))
    if stats:
        data["sample_stats"].attrs.update(attributes)
    return data


Shares = Callable[[np.ndarray, np.ndarray], dict[str, float | None]]


def judge(
    result: Any,
    var_names: str | Sequence[str] | None = None,
    dim: int | None = None,
    num_geodesics: int = 0,
    shares: Shares | None = None,
) -> Summary:
    """The table and the checks of the two functions ``summary``.

    Args:
        result: anything that ``to_arviz`` takes.
        var_names: the variables to show and check; all by default.
        dim: the metric's dimension, if there are geometric checks.
        num_geodesics: number of draws, equally spaced, for the second argument of ``shares``.
        shares: geometric checks by name, from all draws ``(n, dim)`` and some of them.
    """
    data = converted(result, None)
    posterior = _dataset(data, "posterior")
    names = [var_names] if isinstance(var_names, str) else list(var_names or posterior.data_vars)
    missing = [name for name in names if name not in posterior.data_vars]
    if missing:
        raise ValueError(f"`var_names` has {missing}, but the chains have {list(posterior.data_vars)}.")
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant chain has R-hat 0/0: NaN is the answer
        table = Summary(_arviz().summary(data, var_names=names, round_to="none")[_COLUMNS])
    stats = _dataset(data, "sample_stats")
    known = stats is not None and "diverging" in stats
    table.attrs = {
        "chains": posterior.sizes["chain"],
        "draws": posterior.sizes["draw"],
        "divergences": int(stats["diverging"].values.sum()) if known else None,
        "floor_share": None,
        "converged_share": None,
    }
    if dim is not None and shares is not None:
        draws = _points(posterior, names, dim)
        chosen = np.linspace(0, len(draws) - 1, max(0, min(num_geodesics, len(draws)))).round().astype(int)
        table.attrs.update(shares(draws, draws[chosen]))
    return table


def _points(posterior: Any, names: Sequence[str], dim: int) -> np.ndarray:
    """All draws of the variables that are points of the chart, ``(n, dim)``."""
    arrays = [posterior[name].values for name in names]
    fitting = [array.reshape(-1, dim) for array in arrays if array.ndim > 2 and array.shape[-1] == dim]
    if not fitting:
        shapes = {name: posterior[name].shape for name in names}
        raise ValueError(f"`metric` has dimension {dim}, but no variable ends in an axis of that length: {shapes}.")
    return np.concatenate(fitting)


Parts = tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]


def _parts(result: Any) -> Parts:
    """Draws, their statistics, and what is known only chain by chain (lists with an entry a chain)."""
    stats: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    if isinstance(result, Mapping):
        posterior = dict(result)
    elif hasattr(result, "chains") and hasattr(result, "draws"):  # a SamplingResult of pyro_riemann.sampling
        posterior = {"z": result.chains}
    elif hasattr(result, "get_extra_fields"):
        posterior, stats = _from_numpyro(result)
    elif hasattr(result, "get_samples") and hasattr(result, "diagnostics"):
        posterior, stats, attributes = _from_pyro(result)
    elif isinstance(result, np.ndarray) or hasattr(result, "__array__"):
        posterior = {"z": result}
    else:
        raise TypeError(
            "`result` must be an MCMC object of Pyro or NumPyro that has run, a mapping from names to arrays "
            f"(chains, draws, ...), one such array, a list of these, or ArviZ data; got {type(result).__name__}."
        )
    draws = {name: _array(value) for name, value in posterior.items()}
    return draws, {name: _array(value) for name, value in stats.items()}, attributes


def _joined(runs: Sequence[Parts]) -> Parts:
    """Runs of the same model side by side; a statistic that one of them lacks is dropped."""
    if not runs:
        raise ValueError("`result` is an empty list: there are no chains.")
    names, draws = set(runs[0][0]), {array.shape[1:2] for run in runs for array in run[0].values()}
    if any(set(run[0]) != names for run in runs) or len(draws) > 1:
        found = [{name: array.shape for name, array in run[0].items()} for run in runs]
        raise ValueError(
            f"the runs in the list `result` must have the same variables and number of draws, got {found}."
        )
    common = set.intersection(*(set(run[1]) for run in runs))
    listed = set.intersection(*(set(run[2]) for run in runs))
    return (
        {name: np.concatenate([run[0][name] for run in runs]) for name in runs[0][0]},
        {name: np.concatenate([run[1][name] for run in runs]) for name in runs[0][1] if name in common},
        {name: [value for run in runs for value in run[2][name]] for name in listed},
    )


def _from_pyro(mcmc: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    samples = getattr(mcmc, "_samples", None)
    if samples is None:
        raise ValueError("`result` is a Pyro MCMC that holds no draws: call its `run(...)` first.")
    posterior = mcmc.get_samples(group_by_chain=True)
    chains, draws = next(iter(posterior.values())).shape[:2]
    # The public `diagnostics()` also computes R-hat with Pyro's estimator, which refuses fewer than four draws.
    per_chain = getattr(mcmc, "_diagnostics", None) or []
    stats, attributes = {}, {}
    if per_chain and all("divergences" in chain for chain in per_chain):
        diverging = np.zeros((chains, draws), dtype=bool)
        for row, chain in zip(diverging, per_chain, strict=True):
            row[list(chain["divergences"])] = True
        stats["diverging"] = diverging
        attributes["mean_acceptance_rate"] = [float(chain["acceptance rate"]) for chain in per_chain]
    return posterior, stats, attributes


def _from_numpyro(mcmc: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    if getattr(mcmc, "last_state", None) is None:
        raise ValueError("`result` is a NumPyro MCMC that holds no draws: call its `run(...)` first.")
    fields = mcmc.get_extra_fields(group_by_chain=True)
    stats = {_NUMPYRO_FIELDS[name]: value for name, value in fields.items() if name in _NUMPYRO_FIELDS}
    if "potential_energy" in fields:
        stats["lp"] = -np.asarray(fields["potential_energy"])
    return mcmc.get_samples(group_by_chain=True), stats


def _array(value: Any) -> np.ndarray:
    """As NumPy; a torch tensor is told by its methods, so that torch need not be there."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def _check_shapes(posterior: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray]) -> None:
    if not posterior:
        raise ValueError("`result` holds no variables.")
    first, reference = next(iter(posterior.items()))
    for name, array in (*posterior.items(), *stats.items()):
        if array.ndim < 2 or array.size == 0:
            raise ValueError(
                f"`{name}` must have shape (chains, draws, *event), got {array.shape}; a single chain is `x[None]`."
            )
        if array.shape[:2] != reference.shape[:2]:
            raise ValueError(
                f"`{name}` has (chains, draws) = {array.shape[:2]}, but `{first}` has {reference.shape[:2]}."
            )


def _arviz() -> ModuleType:
    """ArviZ, without the announcement of the next major version that 0.23 makes on import."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=r"\s*ArviZ is undergoing")
        with needs("A table of chains", "diagnostics"):
            import arviz
    return arviz


def _is_arviz(result: Any) -> bool:
    return type(result).__name__ in ("InferenceData", "DataTree") and hasattr(result, "posterior")


def _from_dict(groups: dict[str, dict[str, np.ndarray]]) -> Any:
    """``arviz.from_dict``: groups are keyword arguments in 0.x and one nested mapping in 1.x."""
    from_dict = _arviz().from_dict
    if "posterior" in inspect.signature(from_dict).parameters:
        return from_dict(**groups)
    return from_dict(groups)


def _dataset(data: Any, group: str) -> Any:
    """A group as ``xarray.Dataset`` (1.x keeps groups as nodes of a tree), or None if absent."""
    if not hasattr(data, group):
        return None
    node = data[group]
    return node.to_dataset() if hasattr(node, "to_dataset") else node
