"""The two-phase training of a VAE by NumPyro's SVI, a compiled scan over minibatches an epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.example_libraries.optimizers import Optimizer
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.svi import SVIState

from pyro_riemann._formulas.training import GROUPS, History, active_groups
from pyro_riemann.numpyro._checks import check_key
from pyro_riemann.numpyro._pytree import replaced
from pyro_riemann.numpyro.vae._models import VAE
from pyro_riemann.numpyro.vae._settings import TrainingConfig

Record = Mapping[str, Any]
Watcher = Callable[[Record], object]


def train(
    vae: VAE,
    data: Array,
    validation: Array | None = None,
    config: TrainingConfig | None = None,
    *,
    key: Array,
    progress: bool = True,
    callbacks: Sequence[Watcher] = (),
) -> tuple[VAE, History]:
    """The VAE after a training in two phases, and the history of that; the given one stays as it is.

    Phase 1, deterministic warm-up: encoder and decoder, of a :class:`GaussianDecoder` the mean with one standard
    deviation for all entries, standard normal prior where the VAE's own is Riemannian, and a KL weight that rises from
    0. Then a precision network gets its centres from the codes, a Riemannian prior its starting values, and phase 2
    trains these (K20, appendix C). A phase that has nothing to train is left out: a VAE with a :class:`Decoder` and a
    prior that is not Riemannian has phase 1 alone.

    Encoder and decoder learn the units of the data at the start (:meth:`Decoder.standardize`). Who trains by an ``SVI``
    of his own calls that, and the encoder's, first.

    Args:
        vae: the model.
        data: training data ``(n, D)``, or images ``(n, *shape)``, which are flattened.
        validation: held-out data, likewise ``(m, D)``; without them early stopping uses the training ELBO.
        config: settings.
        key: one key of ``jax.random``: order of the data, noise, and what a phase starts from.
        progress: show a progress bar.
        callbacks: functions of each epoch's record.

    Returns:
        The trained VAE, and the history; ELBOs in nats per datum.

    Raises:
        TypeError: for data that are no arrays, or no key.
        ValueError: for data of the wrong shape, or that the likelihood cannot give; or a loss that is not finite.

    Source: K20, appendix C.

    Example:
        >>> from pyro_riemann.numpyro.vae import make_vae
        >>> vae = make_vae(4, 1, likelihood="gaussian", hidden=(8,), key=jax.random.key(0))
        >>> data, config = jax.random.normal(jax.random.key(1), (60, 4)), TrainingConfig(3, batch_size=20)
        >>> trained, history = train(vae, data, config=config, key=jax.random.key(2), progress=False)
        >>> len(history), trained.encode(data).shape
        (3, (60, 1))
    """
    return run_training(vae, data, validation, config, key, progress, callbacks)


def run_training(
    vae: VAE,
    data: Array,
    validation: Array | None,
    config: TrainingConfig | None,
    key: Array,
    progress: bool,
    callbacks: Sequence[Watcher],
    kept: frozenset[str] = frozenset(),
) -> tuple[VAE, History]:
    """Train all groups of parameters but those that are ``kept``, through both phases."""
    config, history = config or TrainingConfig(), History()
    rows = _rows("data", data, vae)
    held_out = None if validation is None else _rows("validation", validation, vae)
    for_start, for_epochs = jax.random.split(check_key(key))
    present = set(jax.tree.leaves(vae.groups)) - kept
    trained = {phase: active_groups(phase, config.phase_two, vae.prior.riemannian) & present for phase in (1, 2)}
    epochs = {1: config.warm_up_epochs, 2: config.epochs}
    with _bar(sum(epochs[phase] for phase in epochs if trained[phase]), progress) as show:
        run = _Run(config, rows, held_out, for_epochs, history, (show, *callbacks))
        for phase, groups in trained.items():
            vae = _begin(vae, phase, rows, jax.random.fold_in(for_start, phase))
            if groups and epochs[phase]:
                vae = replaced(vae, frozen=tuple(group for group in GROUPS if group not in groups))
                vae = run.phase(vae, phase, epochs[phase])
    return replaced(vae, warm_up=False, frozen=()), history


class _Run:
    """What the phases of one training have in common."""

    def __init__(
        self,
        config: TrainingConfig,
        data: Array,
        validation: Array | None,
        key: Array,
        history: History,
        watchers: Sequence[Watcher],
    ) -> None:
        self.config, self.data, self.validation = config, data, validation
        self.key, self.history, self.watchers = key, history, watchers

    def phase(self, vae: VAE, phase: int, num_epochs: int) -> VAE:
        """The best model of the epochs of a phase."""
        config = self.config
        slow = config.prior_learning_rate if phase == 2 else config.learning_rate
        rates = jax.tree.map(lambda group: slow if group == "prior" else config.learning_rate, vae.groups)
        state, vae = _start(vae, rates, self.data, self.key, num_particles=config.num_particles)
        best, best_vae, stale = math.inf, None, 0
        for epoch in range(num_epochs):
            began = time.perf_counter(), time.process_time()
            weight = config.kl_weight_of(phase, epoch)
            key = jax.random.fold_in(self.key, len(self.history))
            batch, particles = min(config.batch_size, len(self.data)), config.num_particles
            state, vae, mean = _epoch(
                state, vae, rates, self.data, key, weight, batch_size=batch, num_particles=particles
            )
            loss = self._checked(float(mean))
            held_out = loss if self.validation is None else self._checked(float(_loss(vae, self.validation, self.key)))
            if weight >= config.kl_weight:  # ELBOs of the ramp do not compare
                best, best_vae, stale = (held_out, vae, 0) if held_out < best else (best, best_vae, stale + 1)
            record = {"phase": phase, "epoch": epoch + 1, "elbo": -loss, "validation": -held_out}
            record |= {"seconds": time.perf_counter() - began[0], "processor_seconds": time.process_time() - began[1]}
            self.history.epochs.append(record)
            for watcher in self.watchers:
                watcher(record)
            if config.patience is not None and stale >= config.patience:
                break
        return vae if best_vae is None else best_vae

    def _checked(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise ValueError(
                f"the loss of the VAE became {loss} in epoch {len(self.history) + 1}: lower the learning rate, or "
                "check that the prior's support holds the posterior."
            )
        return loss


# ---------------------------------------------------------------- compiled, the model as an argument


@partial(jax.jit, static_argnames="num_particles")
def _start(vae: VAE, rates: VAE, data: Array, key: Array, *, num_particles: int) -> tuple[SVIState, VAE]:
    """State of a phase before its first step, and the model in it."""
    svi = _svi(vae, rates, num_particles)
    state = svi.init(key, data[:1])
    return state, svi.get_params(state)[vae.name]


@partial(jax.jit, static_argnames=("batch_size", "num_particles"))
def _epoch(
    state: SVIState,
    vae: VAE,
    rates: VAE,
    data: Array,
    key: Array,
    kl_weight: float,
    *,
    batch_size: int,
    num_particles: int,
) -> tuple[SVIState, VAE, Array]:
    """The state after one pass through the data, the model in it, and the mean loss per datum."""
    svi = _svi(vae, rates, num_particles)
    svi.init(key, data[:1])  # an SVI has to see its parameters once; XLA drops what it computes
    size = len(data)
    order = jax.random.permutation(key, size)
    whole = size // batch_size * batch_size

    def step(state: SVIState, rows: Array) -> tuple[SVIState, Array]:
        updated: tuple[SVIState, Array] = svi.update(state, data[rows], size=size, kl_weight=kl_weight)
        return updated

    state, losses = jax.lax.scan(step, state, order[:whole].reshape(-1, batch_size))
    if whole < size:
        state, last = step(state, order[whole:])
        losses = jnp.append(losses, last)
    return state, svi.get_params(state)[vae.name], losses.mean() / size


@jax.jit
def _loss(vae: VAE, data: Array, key: Array) -> Array:
    """Negative ELBO per datum."""
    return jnp.asarray(Trace_ELBO().loss(key, {}, vae.model, vae.guide, data)) / len(data)


def _svi(vae: VAE, rates: VAE, num_particles: int) -> SVI:
    return SVI(vae.model, vae.guide, _adam({vae.name: rates}), Trace_ELBO(num_particles))


def _adam(rates: Any, decay: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8) -> Optimizer:
    """Adam (Kingma & Ba, 2015) with a learning rate of each parameter."""

    def init(params: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return params, zeros, zeros

    def update(count: Any, gradient: Any, state: Any) -> Any:
        params, first, second = state
        first = jax.tree.map(lambda m, g: decay[0] * m + (1 - decay[0]) * g, first, gradient)
        second = jax.tree.map(lambda v, g: decay[1] * v + (1 - decay[1]) * g**2, second, gradient)
        one, two = (1 - jnp.asarray(rate) ** (count + 1) for rate in decay)

        def moved(value: Array, rate: float, m: Array, v: Array) -> Array:
            return (value - rate * (m / one) / (jnp.sqrt(v / two) + epsilon)).astype(value.dtype)

        return jax.tree.map(moved, params, rates, first, second), first, second

    return Optimizer(init, update, lambda state: state[0])


# ---------------------------------------------------------------- phases and data


def _begin(vae: VAE, phase: int, data: Array, key: Array) -> VAE:
    """The model at the start of a phase: units of the data, then places of the precision and the prior.

    The precision network sees draws of the posterior, as in the ELBO, not its locations: fitted to those it would put
    its walls inside the posterior's own spread.
    """
    if phase == 1:
        decoder = vae.decoder.standardize(data).start_warm_up(data)
        return replaced(vae, encoder=vae.encoder.standardize(data), decoder=decoder, warm_up=True)
    loc, scale = vae.encoder(data)
    for_noise, for_centers = jax.random.split(key)
    draws = loc + scale * jax.random.normal(for_noise, loc.shape, loc.dtype)
    vae = replaced(vae, decoder=vae.decoder.start_precision(draws, data, for_centers), warm_up=False)
    return replaced(vae, prior=vae.prior.initialize(vae.metric, loc)) if vae.prior.riemannian else vae


def _rows(name: str, data: Array, vae: VAE) -> Array:
    """Data as rows ``(n, D)`` that the model can give."""
    if hasattr(data, "ndim") and data.ndim > 2:
        data = data.reshape(len(data), -1)
    if getattr(data, "ndim", 2) != 2 or len(data) == 0:
        raise ValueError(f"`{name}` must have shape (n, {vae.encoder.data_dim}), got {data.shape}.")
    return vae.check(name, data)


@contextmanager
def _bar(num_epochs: int, progress: bool) -> Iterator[Watcher]:
    """What shows records on a bar on the terminal."""
    if not progress:
        yield lambda record: None
        return
    from tqdm import tqdm

    with tqdm(total=num_epochs, unit="epoch") as bar:

        def show(record: Record) -> None:
            bar.set_postfix(phase=record["phase"], validation=f"{record['validation']:.5g}")
            bar.update(1)

        yield show
