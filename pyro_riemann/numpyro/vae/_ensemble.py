"""Models trained again, from other seeds or on bootstrap samples, and the ensemble of their decoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
from jax import Array

from pyro_riemann._formulas.training import History, check_seeds
from pyro_riemann.numpyro._checks import check_key
from pyro_riemann.numpyro._pytree import replaced
from pyro_riemann.numpyro.metrics import EnsembleMetric, PullbackMetric
from pyro_riemann.numpyro.vae._models import VAE
from pyro_riemann.numpyro.vae._settings import TrainingConfig
from pyro_riemann.numpyro.vae._training import Watcher, run_training


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """What :func:`train_ensemble` trained.

    Attributes:
        models: the VAEs, of which ``models[0].encode`` gives the codes of all where these share an encoder.
        histories: of their trainings.
        shared: whether they have the encoder of the first.

    Example:
        >>> from pyro_riemann.numpyro.vae import make_vae
        >>> models = [make_vae(4, 1, likelihood="gaussian", hidden=(8,), key=jax.random.key(seed)) for seed in (0, 1)]
        >>> len(Ensemble(tuple(models), (History(), History()), shared=True).metric)
        2
    """

    models: tuple[VAE, ...]
    histories: tuple[History, ...]
    shared: bool

    @property
    def metric(self) -> EnsembleMetric:
        """Expected metric of the decoders, on the codes that they share; its members are theirs.

        Raises:
            ValueError: if each model has an encoder of its own: their codes are not of one chart.
        """
        if not self.shared:
            raise ValueError(
                "these models have encoders of their own: a code means another thing to each, and there is no mean of "
                "their metrics. Compare them by `evaluation.identifiability_report`, or train with "
                "`own_encoders=False`."
            )
        return EnsembleMetric([PullbackMetric(model.decoder, model.latent_dim) for model in self.models])


def train_ensemble(
    make: Callable[[int], VAE],
    data: Array,
    seeds: Sequence[int] = (0, 1, 2, 3),
    validation: Array | None = None,
    config: TrainingConfig | None = None,
    *,
    key: Array,
    bootstrap: bool = False,
    own_encoders: bool = False,
    progress: bool = True,
    callbacks: Sequence[Watcher] = (),
) -> Ensemble:
    r"""Train a VAE from several seeds, and get the expected metric of the decoders with its spread.

    The first model is trained as :func:`train` does. The others take its encoder, which stays as it is, and learn
    decoders of the same codes from weights of their own; with ``bootstrap`` from samples of the data with replacement.
    :attr:`Ensemble.metric` is then :math:`\frac1K \sum_k J_k^\top J_k`, large where decoders disagree, which they do
    where there were no data.

    With ``own_encoders`` each is a model of its own. Their codes do not compare, distances of data may:
    :func:`pyro_riemann.numpyro.evaluation.identifiability_report` takes :attr:`Ensemble.models`.

    Args:
        make: an untrained model of a seed, such as ``lambda seed: make_vae(784, 2, key=jax.random.key(seed))``.
        data: training data ``(n, D)``, as for :func:`train`.
        seeds: of weights; one a model, whose order, noise and bootstrap sample come from it and the key.
        validation: held-out data ``(m, D)``, the same for all.
        config: settings of each training.
        key: one key of ``jax.random``.
        bootstrap: train on samples of n data with replacement; all models, or all but the first where that one brings
            the encoder.
        own_encoders: train every encoder.
        progress: show a progress bar for each model.
        callbacks: as for :func:`train`, told of each model in turn.

    Returns:
        The models, their histories, and the metric.

    Raises:
        TypeError: if ``make`` gives no VAE; and as :func:`train`.
        ValueError: for fewer than two seeds, or two that are equal; and as :func:`train`.

    Source: Syrota, Moreno-Munoz and Hauberg (2024), *Decoder ensembling for learned latent geometries*: several
    decoders, one encoder; there they are trained together.

    Example:
        >>> from pyro_riemann.numpyro.vae import make_vae
        >>> ensemble = train_ensemble(
        ...     lambda seed: make_vae(4, 1, likelihood="gaussian", hidden=(8,), key=jax.random.key(seed)),
        ...     jax.random.normal(jax.random.key(0), (60, 4)), seeds=(0, 1), key=jax.random.key(1),
        ...     config=TrainingConfig(1, batch_size=30), progress=False)
        >>> ensemble.metric.dist_samples(jnp.zeros(1), jnp.ones(1)).shape
        (2,)
    """
    check_seeds(seeds)
    check_key(key)
    models: list[VAE] = []
    histories = []
    for seed in seeds:
        model = make(seed)
        if not isinstance(model, VAE):
            raise TypeError(f"`make` must give a VAE for a seed, got {type(model).__name__}.")
        for_training, for_rows = jax.random.split(jax.random.fold_in(key, seed))
        later = bool(models) and not own_encoders
        if later:
            model = replaced(model, encoder=models[0].encoder)
        rows = data
        if bootstrap and (later or own_encoders):
            rows = data[jax.random.randint(for_rows, (len(data),), 0, len(data))]
        kept = frozenset({"encoder", "posterior"}) if later else frozenset()
        model, history = run_training(model, rows, validation, config, for_training, progress, callbacks, kept)
        models.append(model)
        histories.append(history)
    return Ensemble(tuple(models), tuple(histories), shared=not own_encoders)
