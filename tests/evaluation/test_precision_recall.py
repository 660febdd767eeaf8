"""Both kinds of precision and recall on configurations whose answer is known."""

from __future__ import annotations

import pytest
import torch

from pyro_riemann.evaluation import PRD, prd, prd_of_histograms, precision_recall

# ------------------------------------------------------------------------------------ Sajjadi et al.


def test_prd_of_the_same_set() -> None:
    x = torch.randn(500, 3)
    result = prd(x, x, num_clusters=10, num_runs=2)
    assert result.f8 == pytest.approx(1, abs=1e-9)
    assert result.f1_8 == pytest.approx(1, abs=1e-9)


def test_prd_of_disjoint_sets() -> None:
    x = torch.randn(500, 3)
    result = prd(x, x + 100, num_clusters=10, num_runs=2)
    assert max(result.f8, result.f1_8, float(result.precision.max()), float(result.recall.max())) < 1e-6


def clusters(*counts: int) -> torch.Tensor:
    """That many points in the first, second, ... of well separated clusters."""
    centres = 50 * torch.eye(len(counts))
    return torch.cat(
        [centre + 0.1 * torch.randn(count, len(counts)) for centre, count in zip(centres, counts, strict=True)]
    )


def f_score(curve: PRD, beta: float) -> float:
    score = (1 + beta**2) * curve.precision * curve.recall / (beta**2 * curve.precision + curve.recall + 1e-30)
    return float(score.max())


def test_missing_modes_cost_recall_and_strange_ones_precision() -> None:
    real, half = clusters(100, 100, 100, 100), clusters(200, 200, 0, 0)
    missing = prd(real, half, num_clusters=4, num_runs=3)
    assert float(missing.precision.max()) == pytest.approx(1, abs=1e-6)
    assert float(missing.recall.max()) == pytest.approx(0.5, abs=1e-6)
    assert missing.f8 < missing.f1_8
    strange = prd(half, real, num_clusters=4, num_runs=3)  # the roles exchanged
    assert strange.f8 == pytest.approx(missing.f1_8, abs=1e-3)
    assert strange.f1_8 == pytest.approx(missing.f8, abs=1e-3)
    # largest F at the corner of the curve: precision 1 with recall 1/2, by hand
    assert missing.f8 == pytest.approx(65 * 0.5 / 64.5, abs=2e-2)
    assert missing.f8 == f_score(missing, 8.0)


def test_curve_of_two_histograms_by_hand() -> None:
    """At slope 1 both numbers are the overlap, sum of min(p, q)."""
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.1, 0.3, 0.6])
    precision, recall = prd_of_histograms(p, q, num_angles=1001)
    assert float(precision[500]) == pytest.approx(0.6, abs=1e-6)
    assert float(recall[500]) == pytest.approx(0.6, abs=1e-6)
    assert bool((precision.diff() >= -1e-12).all())
    assert bool((recall.diff() <= 1e-12).all())


def test_exchanging_the_laws_mirrors_the_curve() -> None:
    p, q = torch.rand(2, 8).softmax(-1).double()
    precision, recall = prd_of_histograms(p, q)
    other_precision, other_recall = prd_of_histograms(q, p)
    torch.testing.assert_close(precision, other_recall.flip(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(recall, other_precision.flip(0), atol=1e-6, rtol=0)


def test_prd_depends_on_its_seed_alone() -> None:
    a, b = torch.randn(300, 3), torch.randn(300, 3) + 0.5
    first = prd(a, b, num_runs=2, seed=1)
    torch.manual_seed(5)
    second = prd(a, b, num_runs=2, seed=1)
    assert (first.f8, first.f1_8) == (second.f8, second.f1_8)


# ------------------------------------------------------------------------------------ Kynkaanniemi et al.


def test_supports_on_a_line() -> None:
    """Real points 0, 1, 2, 3 with k = 1 have the support [-1, 4]; generated 0.5, 3.5, 9 that of radius 3, 3, 5.5."""
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    generated = torch.tensor([[0.5], [3.5], [9.0]])
    result = precision_recall(real, generated, num_neighbors=1)
    assert result.precision == pytest.approx(2 / 3)
    assert result.recall == 1.0
    second = precision_recall(generated, real, num_neighbors=1)
    assert (second.precision, second.recall) == (result.recall, result.precision)


def test_identical_and_disjoint_sets() -> None:
    x = torch.randn(200, 5)
    assert precision_recall(x, x) == (1.0, 1.0)
    assert precision_recall(x, x + 1000) == (0.0, 0.0)


def test_a_subset_is_precise_but_covers_little() -> None:
    real = torch.cat([torch.randn(300, 2), torch.randn(300, 2) + 50])
    result = precision_recall(real, real[:300])
    assert result.precision == 1.0
    assert result.recall == 0.5


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_riemann.evaluation import _precision_recall

    real, generated = torch.randn(250, 4), 0.7 * torch.randn(130, 4)
    whole = precision_recall(real, generated)
    monkeypatch.setattr(_precision_recall, "_ROWS", 37)
    assert precision_recall(real, generated) == whole
    radii = torch.cdist(real.double(), real.double()).topk(4, largest=False).values[:, -1]
    inside = (torch.cdist(generated.double(), real.double()) <= radii).any(-1).double().mean()
    assert whole.precision == pytest.approx(float(inside))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: precision_recall(x, x, num_neighbors=0), "num_neighbors"),
        (lambda x: precision_recall(x[:3], x), "n >= 4"),
        (lambda x: prd(x, x, num_clusters=100), "num_clusters"),
        (lambda x: prd(x, x, num_runs=0), "num_runs"),
        (lambda x: prd_of_histograms(x[0], x[0], num_angles=2), "num_angles"),
    ],
)
def test_bad_settings_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.rand(20, 3))
