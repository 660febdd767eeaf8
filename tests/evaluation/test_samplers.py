"""The table of samplers: baselines are the laws that they are called, and the table tells copies from honest draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_riemann import KernelMetric
from pyro_riemann.autoencoders import PosteriorSampler
from pyro_riemann.evaluation import compare_samplers


def posteriors(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Codes whose aggregate posterior is N(0, diag(1, 1, 4)): nothing but chance tells train from held out."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([0.3, 0.3, 0.6], dtype=torch.float64)
    spread = (torch.tensor([1.0, 1.0, 4.0], dtype=torch.float64) - scale**2).sqrt()
    return spread * torch.randn(count, 3, generator=generator, dtype=torch.float64), scale.expand(count, 3)


@pytest.mark.parametrize("full", [False, True])
def test_mixture_of_posteriors_has_its_moments(full: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    loc, root = (torch.randn(5, *shape, generator=generator, dtype=torch.float64) for shape in ((3,), (3, 3)))
    scale = torch.linalg.cholesky(root @ root.mT + torch.eye(3)) if full else root[:, 0].abs() + 0.1
    torch.manual_seed(0)
    draws = PosteriorSampler(loc, scale).sample(40_000)
    within = scale @ scale.mT if full else torch.diag_embed(scale**2)
    covariance = within.mean(0) + loc.mT.cov(correction=0)
    error = covariance.diagonal().sqrt() / 200
    assert ((draws.mean(0) - loc.mean(0)).abs() < 4.5 * error).all()
    # the law is no normal one, but its fourth moments are less than three times as large
    assert ((draws.mT.cov() - covariance).abs() < 4.5 * 3**0.5 * 200 * error.outer(error) * 2**0.5).all()
    each = PosteriorSampler(loc, 1e-9 * scale).sample_each()
    torch.testing.assert_close(each, loc, rtol=0, atol=1e-7)


def test_table_of_samplers() -> None:
    train, held_out = posteriors(400, 0), posteriors(300, 1)
    narrow = KernelMetric.from_posterior(*train, 50, factor=0.02, regularization=1e-9)
    state = torch.get_rng_state()
    table = compare_samplers(
        train, held_out, {"copies": narrow}, lambda z: z * 2, samplers={"held out": PosteriorSampler(*held_out)},
        num_samples=1000, num_centroids=50, num_components=3,
    )  # fmt: skip
    assert torch.equal(state, torch.get_rng_state())
    # Frechet distance of normal laws with variances (1, 1, 4) and (1, 1, 1), of codes times 2
    assert table.frechet["N(0, I)"] == pytest.approx(4 * (2 - 1) ** 2, rel=0.4)
    for name in ("aggregate posterior", "held-out posterior", "Gaussian mixture", "held out"):
        assert table.frechet[name] < 0.5, name
        assert table.novelty[name] == pytest.approx(1.0, abs=0.2), name
        assert table.coverage[name] > 0.9, name
    assert table.novelty["copies"] < 0.1
    # draws about the training codes are nearer to these than draws about others
    assert table.novelty["aggregate posterior"] < table.novelty["held-out posterior"]
    length = narrow.bump_scale * 1.538  # the median of a normal vector
    assert table.to_codes["copies"] == pytest.approx(length / 3**0.5, rel=0.1)
    assert table.effective["copies"] > 40
    assert table.to_codes.isna().sum() == len(table) - 1


def test_bad_tables() -> None:
    train, held_out = posteriors(40, 0), posteriors(30, 1)
    law = PosteriorSampler(*train)
    with pytest.raises(ValueError, match="no other row has"):
        compare_samplers(train, held_out, samplers={"N(0, I)": law}, num_centroids=5, num_components=2)
    with pytest.raises(ValueError, match="`held_out` must have more than 5 rows"):
        compare_samplers(train, (held_out[0][:4], held_out[1][:4]), num_samples=20, num_centroids=5, num_components=2)
    with pytest.raises(ValueError, match="must have shapes"):
        PosteriorSampler(train[0], train[1][:5])
