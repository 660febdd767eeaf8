"""What a result says of copying: distances to codes, effective centroids, novelty and coverage."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_riemann import EuclideanMetric, KernelMetric
from pyro_riemann.sampling import sample_uniform


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("full", [False, True])
def test_distances_to_codes_by_hand(full: bool) -> None:
    loc, root = normal(30, 3), 0.3 * normal(30, 3, 3, seed=1)
    scale = torch.linalg.cholesky(root @ root.mT + 0.02 * torch.eye(3)) if full else 0.1 + 0.1 * normal(30, 3).abs()
    metric = KernelMetric.from_posterior(loc, scale, 30, regularization=1e-6)
    result = sample_uniform(metric, 400, seed=0)
    found = result.code_distances
    assert found is not None
    precisions = metric.precisions if full else torch.diag_embed(metric.precisions)

    def squared(points: Tensor) -> Tensor:
        apart = points[:, None] - metric.centroids
        return torch.einsum("nki,kij,nkj->nk", apart, precisions, apart)

    to_draws = squared(result.draws).amin(-1)
    apart = squared(metric.centroids).fill_diagonal_(torch.inf).amin(-1)
    assert found.draws == pytest.approx((to_draws / 3).sqrt().quantile(0.5).item())
    assert found.codes == pytest.approx((apart / 3 + 1).sqrt().quantile(0.5).item(), rel=0.05)  # sqrt of a mean of two
    bound = ((apart.quantile(0.95) + 7.814727903251179) / 3).sqrt().item()  # chi squared with three degrees of freedom
    assert found.bound == pytest.approx(bound)
    assert found.beyond == pytest.approx((to_draws > 3 * bound**2).double().mean().item())
    assert "effective centroids" in str(result)


def test_draws_far_from_all_codes_are_warned_of() -> None:
    """In many dimensions neighbours that touch leave the mass where no code is."""
    loc, scale = normal(300, 32), 0.1 + 0.1 * normal(300, 32, seed=1).abs()
    wide = KernelMetric.from_posterior(loc, scale, 200, "mahalanobis", 1e-6)
    with pytest.warns(UserWarning, match="farther than .* from every centroid"):
        far = sample_uniform(wide, 200, seed=0).code_distances
    near = sample_uniform(KernelMetric.from_posterior(loc, scale, 200, regularization=1e-6), 400, seed=0).code_distances
    assert far is not None
    assert near is not None
    assert far.far
    assert near.draws == pytest.approx(1.0, abs=0.1)  # those of the posteriors
    assert near.beyond == 0.0
    # equal masses: 200 centroids, to the error of the estimate from 400 draws, whose 399 pairs are 199.5 in the mean
    assert near.effective == pytest.approx(200, rel=4 / 399**0.5)


def test_draws_that_crowd_on_a_few_codes_are_warned_of() -> None:
    """Where posteriors overlap, the determinant of a sum of kernels is far above the sum of determinants."""
    loc, scale = normal(200, 32), torch.full((200, 32), 0.5, dtype=torch.float64)
    overlapping = KernelMetric.from_posterior(loc, scale, 100, 32**0.5, 1e-6)
    with pytest.warns(UserWarning, match="crowd on .* of 100 centroids"):
        found = sample_uniform(overlapping, 400, seed=0).code_distances
    assert found is not None
    assert found.crowded
    assert not found.far


def test_one_centroid_and_other_metrics() -> None:
    found = sample_uniform(KernelMetric(torch.zeros(1, 2), torch.ones(1, 2), 1.0, 1e-6), 100, seed=0).code_distances
    assert found is not None
    assert (found.effective, found.num_centroids, found.far) == (1.0, 1, False)
    assert sample_uniform(EuclideanMetric(2), 10, 0.0, 1.0, seed=0).code_distances is None


def draws_of(points: Tensor) -> Any:
    """A result with these draws."""
    from dataclasses import replace

    return replace(sample_uniform(EuclideanMetric(points.shape[-1]), 10, 0.0, 1.0, seed=0), draws=points)


def test_novelty_tells_copies_from_draws_of_the_law() -> None:
    train, held_out, fresh = (normal(500, 3, seed=seed) for seed in range(3))
    honest, copies = draws_of(fresh).novelty(train, held_out), draws_of(train + 1e-3).novelty(train, held_out)
    assert honest.ratio == pytest.approx(1.0, abs=0.15)
    # Naeem et al. 2020, equation 11: 1 - (m - 1) ... (m - k) / (2 m - 1) ... (2 m - k) for equal laws
    expected = 1 - torch.tensor([(499 - i) / (999 - i) for i in range(5)]).prod().item()
    assert honest.coverage == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 500) ** 0.5)
    assert copies.ratio == pytest.approx(3**0.5 * 1e-3 / copies.held_out)
    assert draws_of(fresh + 100).novelty(train, held_out).coverage == 0.0


def test_novelty_by_all_distances_and_of_decoded_codes() -> None:
    train, held_out, fresh = (normal(60, 2, seed=seed) for seed in range(3))

    def decode(codes: Tensor) -> Tensor:
        return torch.stack([codes, codes.square()], -1)  # an image (n, 2, 2)

    found = draws_of(fresh).novelty(train, held_out, decode)
    images = [decode(part).flatten(1) for part in (fresh, train, held_out)]
    to_train = [torch.cdist(images[i], images[1]).amin(-1).quantile(0.5).item() for i in (0, 2)]
    assert found.draws == pytest.approx(to_train[0], rel=0.05)  # the lower or the mean of two in the middle
    assert found.ratio == pytest.approx(found.draws / found.held_out)
    radius = torch.cdist(images[2], images[2]).sort(-1).values[:, 5]
    covered = torch.cdist(images[2], images[0]).amin(-1) <= radius
    assert found.coverage == pytest.approx(covered.double().mean().item())
    nearest = torch.cdist(images[2], images[0]).amin(-1) <= torch.cdist(images[2], images[2]).sort(-1).values[:, 1]
    first = draws_of(fresh).novelty(train, held_out, decode, neighbors=1)
    assert first.coverage == pytest.approx(nearest.double().mean().item()) != found.coverage


def test_bad_items() -> None:
    result, train = draws_of(normal(9, 2)), normal(20, 2, seed=1)
    for held_out, match in [
        (train, "rows of `train`"),
        (normal(20, 3), "as wide as the draws"),
        (train[:5], "more than 5 rows"),
        (train * torch.nan, "NaN"),
    ]:
        with pytest.raises(ValueError, match=match):
            result.novelty(train, held_out)
    with pytest.raises(TypeError, match="`train`"):
        result.novelty([1.0], train)
