"""Which immersions a pullback takes, as people have them, and by what words it refuses the others."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributions, nn
from torch.nn import functional

from pyro_riemann import PullbackMetric

Z = torch.tensor([[0.3, -0.4], [-1.1, 0.2], [0.8, 0.9]])


def network(*outputs: int, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, *outputs))


BASE, PAIR = network(9), network(18, seed=1)
DOUBLE = network(9, seed=2).double()


class Tanh(torch.autograd.Function):
    """Reverse mode as people write it: no forward mode, no transforms of torch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (1 - x.tanh().square())


class TanhOnce(Tanh):
    backward = staticmethod(torch.autograd.function.once_differentiable(Tanh.backward))  # type: ignore[assignment]


class Layer(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Model(nn.Module):
    """An autoencoder of whose parts only one is an immersion."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.shift = network(9), nn.Parameter(torch.ones(9))
        self.register_buffer("unit", torch.tensor(2.0))

    def decode(self, z: Tensor) -> Tensor:
        return self.unit * (self.body(z) + self.shift)


@dataclasses.dataclass
class Decoded:
    sample: Tensor
    steps: int = 3


def normal(z: Tensor) -> distributions.Normal:
    loc, raw = PAIR(z).chunk(2, -1)
    return distributions.Normal(loc, functional.softplus(raw))


def test_one_batch_axis_serves_every_batch_shape() -> None:
    """Convolutions take ``(n, channels, ...)``, attention and many a reshape just ``(n, ...)``."""
    seen: list[int] = []

    def convolution(z: Tensor) -> Tensor:
        seen.append(z.dim())
        return functional.conv_transpose2d(BASE(z).reshape(-1, 1, 3, 3).tanh(), torch.ones(1, 2, 2, 2))

    metric = PullbackMetric(convolution, 2)
    assert metric.embed(Z).shape == (3, 34)
    expected = metric.metric(Z)
    torch.testing.assert_close(metric.metric(Z[0]), expected[0])
    torch.testing.assert_close(metric.metric(Z.expand(4, 2, 3, 2))[1, 1], expected)
    assert metric.metric(Z[:0]).shape == (0, 2, 2)
    torch.testing.assert_close(metric.christoffel(Z, Z)[0], metric.christoffel(Z[0], Z[0]))
    assert metric.dist(Z[0], Z[1]).shape == ()
    assert set(seen) == {2}


def test_evaluation_mode_whatever_the_flag_and_nothing_is_touched() -> None:
    decoder = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.4), nn.Tanh(), nn.Linear(8, 9))
    decoder[2].eval()
    modes = [part.training for part in decoder.modules()]
    buffers = {name: (buffer.data_ptr(), buffer.clone()) for name, buffer in decoder.named_buffers()}
    state = torch.get_rng_state()
    metric = PullbackMetric(decoder, 2)
    values = metric.metric(Z), metric.dist(Z, Z.flip(0)), metric.christoffel(Z, Z)
    assert [part.training for part in decoder.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    for name, buffer in decoder.named_buffers():
        assert (buffer.data_ptr(), buffer.tolist()) == (buffers[name][0], buffers[name][1].tolist())
    decoder.eval()
    for value, again in zip(
        values, (metric.metric(Z), metric.dist(Z, Z.flip(0)), metric.christoffel(Z, Z)), strict=True
    ):
        assert torch.equal(value, again)


def test_a_bound_method_brings_its_weights() -> None:
    model = Model()
    metric = PullbackMetric(model.decode, 2)
    assert {id(value) for value in metric.parameters()} == {id(value) for value in model.parameters()}
    metric.requires_grad_(False).double()
    assert not any(value.requires_grad for value in model.parameters())
    assert all(value.dtype == torch.float64 for value in (*model.parameters(), *model.buffers()))
    other = PullbackMetric(Model().double().decode, 2)
    other.load_state_dict(metric.state_dict())
    assert torch.equal(other.metric(Z.double()), metric.metric(Z.double()))
    assert len(list(PullbackMetric(functools.partial(model.decode), 2).parameters())) == 5


def test_a_model_may_hold_the_metric_of_its_own_decoder() -> None:
    model = Model()
    model.metric = PullbackMetric(model.decode, 2)
    expected = model.metric.metric(Z)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.double().train().eval()
        torch.testing.assert_close(twin.metric.metric(Z.double()).float(), expected)
        twin.load_state_dict(model.state_dict())
        with torch.no_grad():
            twin.body[0].weight.zero_()
            assert float(twin.metric.metric(Z.double()).abs().max()) < 1e-5
    assert model.body[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("immersion", "output"),
    [
        (lambda z: {"x": BASE(z), "steps": 3}, None),
        (lambda z: Decoded(BASE(z)), None),
        (lambda z: [BASE(z)], None),
        (lambda z: {"h": PAIR(z), "x": BASE(z)}, "x"),
        (lambda z: Decoded(BASE(z)), "sample"),
        (lambda z: (BASE(z), None), 0),
        (lambda z: distributions.Laplace(BASE(z), 1.0), None),
        (lambda z: {"px": distributions.Independent(distributions.Normal(BASE(z), 1.0), 1), "n": 3}, None),
        (lambda z: distributions.Independent(distributions.Normal(BASE(z), 2.0), 1), "mean"),
    ],
)
def test_one_output_however_it_is_returned(immersion: Any, output: Any) -> None:
    metric, plain = PullbackMetric(immersion, 2, output=output), PullbackMetric(lambda z: BASE(z), 2)
    torch.testing.assert_close(metric.metric(Z), plain.metric(Z))
    assert metric.solver.num_knots == 8


@pytest.mark.parametrize(
    ("immersion", "output"),
    [
        (lambda z: (normal(z).loc, normal(z).scale), None),
        (lambda z: distributions.Independent(normal(z), 1), ("mean", "stddev")),
        (lambda z: {"mean": normal(z).loc, "std": normal(z).scale, "h": z}, ("mean", "std")),
    ],
)
def test_mean_and_deviation_however_they_are_returned(immersion: Any, output: Any) -> None:
    metric = PullbackMetric(immersion, 2, output=output)
    pair = PullbackMetric(lambda z: (normal(z).loc, normal(z).scale), 2)
    torch.testing.assert_close(metric.metric(Z), pair.metric(Z))
    assert metric.solver.num_knots == 16


def test_two_reverse_passes_where_there_is_no_forward_mode() -> None:
    first, _, last = BASE
    ours = PullbackMetric(nn.Sequential(first, Layer(Tanh.apply), last), 2)
    plain = PullbackMetric(nn.Sequential(first, Layer(torch.tanh), last), 2)
    for of in (lambda metric: metric.metric(Z), lambda metric: metric.christoffel(Z, Z.flip(0)), lambda m: m.drift(Z)):
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                found, expected = of(ours), of(plain)
            assert found.requires_grad == grad
            torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.dist(Z, Z.flip(0)), plain.dist(Z, Z.flip(0)))
    weights = list(first.parameters())
    for found, expected in zip(
        torch.autograd.grad(ours.logdet(Z).sum(), weights),
        torch.autograd.grad(plain.logdet(Z).sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


NORM = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 9))
DROP = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.4), nn.Linear(8, 9))
NOISE = np.random.default_rng(0)
REFUSED: dict[str, tuple[Any, str]] = {
    "dropout in a closure": (lambda z: DROP(z), "random.*[Dd]ropout"),
    "functional dropout": (lambda z: functional.dropout(BASE(z)), "random"),
    "noise of numpy": (lambda z: BASE(z) + torch.as_tensor(NOISE.normal(size=9), dtype=z.dtype), "random"),
    "batch norm in a closure": (lambda z: NORM(z), "batch.*normalisation in training mode"),
    "batch norm without statistics": (
        nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 9)),
        "depends on the batch",
    ),
    "recurrence over the batch": (lambda z: BASE(z).cumsum(0).flip(0), "depends on the batch"),
    "a squeeze": (lambda z: BASE(z).squeeze(), "batch shape"),
    "one point": (lambda z: torch.stack([z[0], z[1], z[0] * z[1]]), "batch shape"),
    "another dimension": (nn.Linear(5, 9), r"\(3, 2\).*cannot be multiplied.*`dim`"),
    "detach": (lambda z: BASE(z).detach(), "not the slope"),
    "detached input": (lambda z: BASE(torch.cat([z[:, :1], z[:, 1:].detach()], -1)), "not the slope"),
    "a detached deviation": (lambda z: (BASE(z), BASE(z).exp().detach()), "not the slope"),
    "data": (lambda z: BASE(z).data, "not the slope"),
    "rounding": (lambda z: (255 * BASE(z).sigmoid()).round(), "not the slope"),
    "coarse rounding": (lambda z: (4 * BASE(z)).round(), "not the slope"),
    "an index": (lambda z: functional.one_hot(BASE(z).argmax(-1), 9).float(), "not the slope"),
    "no_grad": (torch.no_grad()(lambda z: BASE(z)), "reverse.*no_grad"),
    "inference mode": (torch.inference_mode()(lambda z: BASE(z)), "inference_mode"),
    "a copy": (lambda z: torch.tensor(BASE(z).tolist()), "not the slope"),
    "numpy": (lambda z: torch.as_tensor(np.tanh(z.detach().numpy())), "numpy"),
    "once differentiable": (
        nn.Sequential(nn.Linear(2, 8), Layer(TanhOnce.apply), nn.Linear(8, 9)),
        r"layer 1 \(Layer\)",
    ),
    "complex": (lambda z: torch.complex(BASE(z), BASE(z)), "complex64.*imaginary"),
    "half": (nn.Linear(2, 3).half(), "float16"),
    "bfloat": (lambda z: BASE(z).bfloat16(), "bfloat16"),
    "integers": (lambda z: BASE(z).argmax(-1), "int64"),
    "log-variance": (lambda z: PAIR(z).chunk(2, -1), "negative.*log-variance"),
    "several entries": (lambda z: {"x": BASE(z), "h": PAIR(z)}, "'x', 'h'.*`output=`"),
    "nothing": (lambda z: None, "NoneType"),
    "an array of numpy": (lambda z: np.ones((len(z), 3)), "ndarray"),
    "an array beside a distribution": (lambda z: (BASE(z), normal(z)), "beside.*`output=`"),
    "a distribution of no batch": (lambda z: distributions.Normal(BASE(z).sum(), 1.0), r"batch shape \(\)"),
    "a family without metric": (lambda z: distributions.FisherSnedecor(BASE(z).exp(), 2.0), "register_immersion"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str) -> None:
    immersion, says = REFUSED[case]
    with pytest.raises(ValueError, match=f"(?s)`immersion`.*{says}"):
        PullbackMetric(immersion, 2)


def test_refused_output() -> None:
    with pytest.raises(ValueError, match=r"`output` asks for 'y'.*'x', 'h'"):
        PullbackMetric(lambda z: {"x": BASE(z), "h": PAIR(z)}, 2, output="y")
    with pytest.raises(ValueError, match=r"`output='n'`.*int"):
        PullbackMetric(lambda z: {"x": BASE(z), "n": 3}, 2, output="n")
    with pytest.raises(TypeError, match="`immersion` must be callable"):
        PullbackMetric(3, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "immersion",
    [
        lambda z: DOUBLE(300 * z),
        lambda z: torch.cat([z.relu(), z.abs()], -1),
        lambda z: (1000 * z).sin(),
        lambda z: 1e4 + DOUBLE(z),
        lambda z: 1e-3 * DOUBLE(z),
        lambda z: (DOUBLE(z), torch.ones_like(DOUBLE(z))),
        lambda z: torch.cat([z, (1 - z.square().sum(-1, keepdim=True)).sqrt()], -1),
    ],
    ids=["steep", "kinks", "wavy", "far off", "small", "constant deviation", "in a disc"],
)
def test_unusual_but_true_derivatives_are_taken(immersion: Any) -> None:
    metric, z = PullbackMetric(immersion, 2, jitter=0.0), 0.5 * Z.double()
    axes = 1e-6 * torch.eye(2, dtype=torch.float64)
    columns = torch.stack([(metric.embed(z + e) - metric.embed(z - e)) / 2e-6 for e in axes], -1)
    torch.testing.assert_close(metric.metric(z), columns.mT @ columns, rtol=1e-4, atol=1e-9)
