"""What any NumPyro distribution owes its user: transformations of JAX, plates, and errors that name the argument."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from jax import Array
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from numpyro.infer.util import log_density

from pyro_riemann.numpyro import (
    ConstantMetric,
    EuclideanMetric,
    KernelMetric,
    RiemannianHeatKernel,
    RiemannianNormal,
    RiemannianWrappedNormal,
    Sphere,
    VampPrior,
)
from pyro_riemann.numpyro.distributions._base import RiemannianDistribution
from pyro_riemann.numpyro.distributions._judged_rays import _judged
from pyro_riemann.numpyro.distributions._rejection import _by_rays
from tests.numpyro.charts import half_space_log_height

Builder = Callable[[Any, Any, Any], RiemannianDistribution]
LAWS: dict[str, Builder] = {
    "heat kernel": lambda loc, time, metric: RiemannianHeatKernel(loc, time, metric, "van_vleck", num_steps=3),
    "wrapped normal": RiemannianWrappedNormal,
    "normal": lambda loc, time, metric: RiemannianNormal(loc, time**0.5, metric, num_directions=16),
}
KEY = jax.random.key(0)


@pytest.fixture(params=LAWS)
def law(request: pytest.FixtureRequest) -> Builder:
    return LAWS[request.param]


def loc() -> Array:
    return jnp.array([[0.2, -0.1], [0.1, 0.3], [0.0, 0.1]])


def time() -> Array:
    return jnp.array([0.02, 0.05, 0.03])


def points() -> Array:
    return loc() + jnp.array([[0.0, 0.0], [0.1, 0.05], [-0.15, 0.2]])


def constant(scale: Any = 1.0) -> ConstantMetric:
    return ConstantMetric(scale * jnp.array([[2.0, 0.3], [0.3, 1.0]]))


def kernel(bandwidth: Any = 2.0) -> KernelMetric:
    return KernelMetric(jnp.array([[0.0, 0.0], [1.0, 0.5]]), jnp.array([[2.0, 1.0], [1.0, 3.0]]), bandwidth, 0.5)


class Quadrant(ConstantMetric):
    """A chart that is not all of the plane."""

    support = dist.constraints.independent(dist.constraints.positive, 1)


# ---------------------------------------------------------------- pytrees


def test_copies_have_the_same_density_and_draws(law: Builder) -> None:
    d = law(loc(), time(), half_space_log_height(2))
    value, draws = d.log_prob(points()), d.sample(KEY, (2,))
    leaves, structure = jax.tree.flatten(d)
    others = [
        jax.tree.unflatten(structure, leaves),
        jax.tree.map(lambda leaf: leaf, d),
        copy.deepcopy(d),
        jax.jit(lambda given: given)(d),
        jax.jit(lambda x, t: law(x, t, half_space_log_height(2)))(loc(), time()),
    ]
    for other in others:
        assert type(other) is type(d)
        assert other.batch_shape == (3,)
        assert jnp.allclose(other.log_prob(points()), value, atol=1e-12)
        assert jnp.allclose(other.sample(KEY, (2,)), draws, atol=1e-12)


def test_pickles_with_its_metric(law: Builder) -> None:
    d = law(loc(), time(), constant())
    other = pickle.loads(pickle.dumps(d))
    assert jnp.array_equal(other.log_prob(points()), d.log_prob(points()))
    assert jnp.array_equal(other.metric.matrix, d.metric.matrix)


def test_batch_is_one_by_one_and_vmap_is_a_batch(law: Builder) -> None:
    metric = Sphere(2)
    batch = law(loc(), time(), metric)
    value = batch.log_prob(points())
    assert batch.log_prob(points()[:, None]).shape == (3, 3)
    mapped = jax.vmap(lambda x, t, z: law(x, t, metric).log_prob(z))(loc(), time(), points())
    assert jnp.allclose(mapped, value, atol=1e-12)
    built = jax.vmap(lambda x, t: law(x, t, metric))(loc(), time())  # a batch of distributions of batch shape ()
    assert jnp.allclose(jax.vmap(lambda d, z: d.log_prob(z))(built, points()), value, atol=1e-12)
    draws = jax.vmap(lambda d, key: d.sample(key, (2,)))(built, jax.random.split(KEY, 3))
    assert draws.shape == (3, 2, 2)
    assert jnp.isfinite(draws).all()


def test_a_batch_of_metrics(law: Builder) -> None:
    scales = jnp.array([0.5, 1.0, 3.0])
    metrics = jax.vmap(constant)(scales)
    mapped = jax.vmap(lambda m, x, t, z: law(x, t, m).log_prob(z))(metrics, loc(), time(), points())
    alone = [law(loc()[i], time()[i], constant(scales[i])).log_prob(points()[i]) for i in range(3)]
    assert jnp.allclose(mapped, jnp.stack(alone), atol=1e-12)


def test_scan_over_distributions(law: Builder) -> None:
    d = law(loc()[0], time()[0], constant())
    built = jax.vmap(lambda x, t: law(x, t, constant()))(loc(), time())

    def step(carry: Any, at: Any) -> tuple[Any, Array]:
        each, z = at
        return carry, carry.log_prob(z) + each.log_prob(z)

    _, values = jax.lax.scan(step, d, (built, points()))
    assert jnp.allclose(values, d.log_prob(points()) + law(loc(), time(), constant()).log_prob(points()), atol=1e-12)


def test_gradient_in_every_leaf(law: Builder) -> None:
    """The gradient in a distribution is a distribution of gradients; against central differences."""
    d = law(loc()[1], time()[1], constant())
    z = points()[1]
    slope = jax.jit(jax.grad(lambda given: given.log_prob(z)))(d)
    assert jax.tree.structure(slope) == jax.tree.structure(d)
    leaves, structure = jax.tree.flatten(d)
    for index, leaf in enumerate(leaves):
        direction = jnp.cos(jnp.arange(leaf.size, dtype=float)).reshape(leaf.shape)
        if leaf.ndim == 2:
            direction = direction + direction.mT  # a metric stays symmetric
        ends = []
        for sign in (1, -1):
            moved = [x + sign * 1e-5 * direction if i == index else x for i, x in enumerate(leaves)]
            ends.append(jax.tree.unflatten(structure, moved).log_prob(z))
        assert abs((ends[0] - ends[1]) / 2e-5 - (jax.tree.leaves(slope)[index] * direction).sum()) < 1e-7


def test_draws_are_pathwise_where_the_class_says_so(law: Builder) -> None:
    def total(x: Array, t: Array, scale: Array) -> Array:
        return jnp.sin(law(x, t, constant(scale)).sample(KEY, (4,))).sum()

    gradients = jax.grad(total, (0, 1, 2))(loc()[0], jnp.asarray(0.05), jnp.asarray(1.0))
    d = law(loc(), time(), constant())
    if not d.has_rsample:
        assert all(jnp.all(gradient == 0) for gradient in gradients)
        with pytest.raises(NotImplementedError):
            d.rsample(KEY)
        return
    for index, at in enumerate((0.05, 1.0), start=1):
        moved = []
        for sign in (1, -1):
            arguments = [loc()[0], jnp.asarray(0.05), jnp.asarray(1.0)]
            arguments[index] = jnp.asarray(at + sign * 1e-5)
            moved.append(total(*arguments))
        assert abs((moved[0] - moved[1]) / 2e-5 - gradients[index]) < 1e-7


@pytest.mark.slow
def test_nothing_is_compiled_twice() -> None:
    def use(x: Array, scale: Array, bandwidth: float) -> None:
        normal = RiemannianNormal(x, scale, kernel(bandwidth), num_directions=16)
        normal.log_normalizer()
        normal.sample(KEY)

    def sizes() -> list[int]:
        return [f._cache_size() for f in (_judged, _by_rays)]

    use(loc()[0], jnp.asarray(0.2), 2.0)
    before = sizes()
    use(loc()[1], jnp.asarray(0.3), 1.5)
    assert sizes() == before


def test_no_tracer_leaks() -> None:
    with jax.checking_leaks():
        d = jax.jit(lambda x: RiemannianNormal(x, 0.2, Sphere(2), num_directions=16))(loc()[0])
        jax.jit(jax.grad(lambda given: given.log_prob(points()[0])))(d)


def test_a_constant_of_the_program_is_computed_while_it_is_traced() -> None:
    """A normaliser of known arrays is no part of the compiled program: NUTS does not pay for it at every step."""
    d = RiemannianNormal(jnp.zeros(2), 0.3, Sphere(2))
    z = points()[0]
    fixed = str(jax.make_jaxpr(d.log_prob)(z))
    free = str(jax.make_jaxpr(lambda scale: RiemannianNormal(jnp.zeros(2), scale, Sphere(2)).log_prob(z))(0.3))
    assert " exp " not in fixed
    assert " exp " in free  # of the integrand


# ---------------------------------------------------------------- in models


def test_plates_and_observed_draws(law: Builder) -> None:
    metric = Sphere(2)

    def model(z: Array | None = None) -> Array:
        with numpyro.plate("data", 3):
            return numpyro.sample("z", law(loc()[0], time()[0], metric), obs=z)

    value, _ = log_density(model, (points(),), {}, {})
    assert jnp.allclose(value, law(loc()[0], time()[0], metric).log_prob(points()).sum(), atol=1e-12)
    draws = handlers.seed(model, KEY)()
    assert draws.shape == (3, 2)
    assert len(set(draws[:, 0].tolist())) == 3


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
def test_model_and_guide(elbo: type[Trace_ELBO]) -> None:
    """With the prior's own law as guide and no data the bound is the log mass, 0, whatever the draw."""
    metric = half_space_log_height(2)

    def model() -> None:
        with numpyro.plate("data", 2):
            numpyro.sample("z", RiemannianWrappedNormal(loc()[0], 0.05, metric))

    def guide() -> None:
        at = numpyro.param("loc", loc()[0])
        t = numpyro.param("time", jnp.asarray(0.05), constraint=dist.constraints.positive)
        with numpyro.plate("data", 2):
            numpyro.sample("z", RiemannianWrappedNormal(at, t, metric))

    svi = SVI(model, guide, numpyro.optim.Adam(0.01), elbo())
    state = svi.init(KEY)
    update = jax.jit(svi.update)
    state, loss = update(state)
    assert abs(loss) < 1e-8
    state, loss = update(state)
    assert jnp.isfinite(loss)


def test_own_draws_need_no_boundary_value_problem() -> None:
    q = RiemannianWrappedNormal(loc()[0], 0.05, kernel())
    z, along = q.sample_with_intermediates(KEY, (2, 3))
    program = str(jax.make_jaxpr(lambda d, x, given: d.log_prob(x, given))(q, z, along))
    assert "squared_dist" not in program
    assert "squared_dist" in str(jax.make_jaxpr(lambda d, x: d.log_prob(x))(q, z))
    assert jnp.allclose(q.log_prob(z, along), q.log_prob(z), atol=1e-4)
    wide = q.expand((2, 3))  # intermediates keep their shape through plates
    z, along = wide.sample_with_intermediates(KEY)
    assert jnp.allclose(wide.log_prob(z, along), wide.log_prob(z), atol=1e-4)


def test_wrappers_of_numpyro(law: Builder) -> None:
    d = law(loc(), time(), Sphere(2))
    each = d.log_prob(points())
    assert jnp.allclose(d.to_event(1).log_prob(points()), each.sum(), atol=1e-12)
    masked = d.mask(jnp.array([True, False, True])).log_prob(points())
    assert masked[1] == 0
    assert jnp.allclose(masked[::2], each[::2])
    assert type(d).infer_shapes(loc=(3, 2), **{list(d.arg_constraints)[1]: (4, 1)}) == ((4, 3), (2,))
    assert d.support.event_dim == 1
    assert not d.support.is_discrete
    assert law(0.1 * loc(), time(), Quadrant(jnp.eye(2))).support is Quadrant.support


def test_single_precision_stays_single(law: Builder) -> None:
    low = law(loc().astype(jnp.float32), time().astype(jnp.float32), Sphere(2))
    assert low.sample(KEY).dtype == jnp.float32
    value = low.log_prob(points().astype(jnp.float32))
    assert value.dtype == jnp.float32
    assert jnp.allclose(value, law(loc(), time(), Sphere(2)).log_prob(points()), atol=1e-3, rtol=1e-4)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "arguments, error, name",
    [
        (([0.0, 0.0], 1.0), TypeError, "`loc`"),
        ((jnp.zeros(3), 1.0), ValueError, "`loc`"),
        ((jnp.zeros(2, int), 1.0), TypeError, "`loc`"),
        ((jnp.array([0.0, jnp.nan]), 1.0), ValueError, "`loc`"),
        ((jnp.zeros(2), 0.0), ValueError, "`{}`"),
        ((jnp.zeros(2), -1.0), ValueError, "`{}`"),
        ((jnp.zeros(2), math.nan), ValueError, "`{}`"),
        ((jnp.zeros(2), math.inf), ValueError, "`{}`"),
        ((jnp.zeros(2), "long"), TypeError, "`{}`"),
        ((jnp.zeros((3, 2)), jnp.ones(4)), ValueError, "`{}`"),
        ((jnp.zeros(2), 1.0, lambda z: z), TypeError, "`metric`"),
    ],
)
@pytest.mark.parametrize("cls", [RiemannianHeatKernel, RiemannianWrappedNormal, RiemannianNormal])
def test_bad_arguments_are_named(cls: Any, arguments: tuple[Any, ...], error: type[Exception], name: str) -> None:
    spread = "scale" if cls is RiemannianNormal else "time"
    arguments = arguments if len(arguments) == 3 else (*arguments, EuclideanMetric(2))
    with pytest.raises(error, match=name.format(spread)):
        cls(*arguments)


def test_known_arguments_are_checked_inside_a_program_too() -> None:
    with pytest.raises(ValueError, match="`time`"):
        jax.jit(lambda x: RiemannianHeatKernel(x, -1.0, EuclideanMetric(2)))(jnp.zeros(2))


@pytest.mark.parametrize("settings", [{"correction": "full"}, {"num_steps": 0}, {"num_directions": 3}])
def test_bad_settings_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        RiemannianHeatKernel(jnp.zeros(2), 1.0, EuclideanMetric(2), **settings)


def test_bad_values_and_keys_are_named(law: Builder) -> None:
    d = law(loc(), time(), EuclideanMetric(2))
    with pytest.raises(TypeError, match="`value`"):
        d.log_prob("here")
    for shape in ((3, 3), (4, 2)):
        with pytest.raises(ValueError, match="`value`"):
            d.log_prob(jnp.zeros(shape))
    with pytest.raises(TypeError, match="`key`"):
        d.sample(0)


def test_a_value_that_is_not_finite_costs_one_result(law: Builder) -> None:
    d = law(loc(), time(), kernel())
    bad = points().at[1].set(jnp.nan)
    with pytest.warns(UserWarning, match="Out-of-support"):
        value = d.log_prob(bad)
    assert jnp.isneginf(value[1])
    assert jnp.allclose(value[::2], d.log_prob(points())[::2], atol=1e-12)


# ---------------------------------------------------------------- mixtures


def test_normal_components_give_the_textbook_mixture() -> None:
    logits = jnp.array([0.3, -0.5, 0.1])
    components = dist.Normal(loc(), 0.4).to_event(1)
    prior = VampPrior(components, logits)
    exact = dist.MixtureSameFamily(dist.Categorical(logits=logits), components)
    assert jnp.allclose(prior.log_prob(points()), exact.log_prob(points()), atol=1e-12)
    assert jnp.allclose(prior.mean, exact.mean)
    assert jnp.allclose(prior.variance, exact.variance)
    assert prior.log_normalizer().value == 0
    draws = prior.sample(KEY, (20000,))
    assert (jnp.abs(draws.mean(0) - exact.mean) < 4 * jnp.sqrt(exact.variance / 20000)).all()


def test_components_are_drawn_with_their_weights() -> None:
    logits, metric = jnp.array([[0.3, -0.5, 0.1], [2.0, 0.0, -1.0]]), Sphere(2)
    centres = jnp.stack([3 * loc(), 1 + 3 * loc()])  # a batch of two mixtures
    prior = VampPrior(RiemannianHeatKernel(centres, 1e-4, metric, num_steps=1), logits)
    assert (prior.batch_shape, prior.event_shape) == ((2,), (2,))
    z = prior.sample(KEY, (5000,))
    gaps = metric.dist(z[..., None, :], centres)
    assert gaps.min(-1).max() < 0.1
    share = (gaps.argmin(-1)[..., None] == jnp.arange(3)).mean(0)
    weights = jax.nn.softmax(logits, -1)
    assert (jnp.abs(share - weights) < 4 * jnp.sqrt(weights * (1 - weights) / 5000)).all()
    value = prior.log_prob(z[0])
    assert jnp.allclose(pickle.loads(pickle.dumps(prior)).log_prob(z[0]), value)
    assert jnp.allclose(jax.jit(lambda d: d.log_prob(z[0]))(prior), value)
    assert prior.log_normalizer().value.shape == (2,)


@pytest.mark.parametrize(
    "components, logits, name",
    [
        (lambda: dist.Normal(jnp.zeros((3, 2)), 1.0), None, "components"),
        (lambda: dist.Normal(jnp.zeros(2), 1.0).to_event(1), None, "components"),
        (lambda: jnp.zeros((3, 2)), None, "components"),
        (lambda: dist.Normal(jnp.zeros((3, 2)), 1.0).to_event(1), jnp.zeros(4), "logits"),
    ],
)
def test_bad_mixtures_are_named(components: Callable[[], Any], logits: Array | None, name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        VampPrior(components(), logits)
