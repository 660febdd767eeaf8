"""Centroids and bandwidth of a kernel metric, from encoded training data."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann._checks import check_one_of

_NUM_SUBSETS = 3


def select_medoids(codes: Tensor, num_centroids: int, seed: int, max_codes: int) -> Tensor:
    """Indices ``(k,)`` of k-medoids of ``codes`` ``(N, d)`` in Euclidean distance.

    FasterPAM needs all pairwise distances. Beyond ``max_codes`` codes it runs on random subsets,
    as in CLARA, and the medoids with the smallest mean distance to all codes win.
    """
    import kmedoids  # loads scikit-learn, which takes a second

    num_codes = codes.shape[0]
    if not 1 <= num_centroids <= min(num_codes, max_codes):
        raise ValueError(
            f"`num_centroids` must be between 1 and the number of codes searched ({min(num_codes, max_codes)}), "
            f"got {num_centroids}."
        )
    generator = torch.Generator().manual_seed(seed)
    best, lowest = torch.arange(0), float("inf")
    for trial in range(1 if num_codes <= max_codes else _NUM_SUBSETS):
        subset = torch.randperm(num_codes, generator=generator)[:max_codes].sort().values.to(codes.device)
        sample = codes[subset].float()  # halves the memory of the distance matrix; ranks need no more
        result = kmedoids.fasterpam(
            torch.cdist(sample, sample).cpu().numpy(), num_centroids, random_state=seed + trial, n_cpu=1
        )
        chosen = subset[torch.as_tensor(result.medoids.astype("int64"), device=codes.device)]
        cost = sum(
            torch.cdist(chunk.float(), codes[chosen].float()).min(-1).values.sum().item()
            for chunk in codes.split(max_codes)
        )
        if cost < lowest:
            best, lowest = chosen, cost
    return best.sort().values


def nearest_neighbour_bandwidth(centroids: Tensor, precisions: Tensor, rule: str) -> float:
    """Largest distance from a centroid to its nearest other one.

    ``"mahalanobis"`` measures it by the centroid's own precision, as the kernel does;
    ``"euclidean"`` is the rule of Chadebec & Allassonniere (2022).
    """
    check_one_of("bandwidth", rule, ("mahalanobis", "euclidean"))
    if centroids.shape[0] < 2:
        raise ValueError(f'`bandwidth="{rule}"` needs at least 2 centroids; give a number instead.')
    wide, weights = centroids.double(), precisions.double()
    if rule == "euclidean":
        weights = torch.ones_like(weights)
    squared = torch.stack([(weights[i] * (wide - wide[i]).square()).sum(-1) for i in range(len(wide))])
    squared.fill_diagonal_(float("inf"))
    bandwidth = squared.min(-1).values.max().sqrt().item()
    if bandwidth == 0:
        raise ValueError("`loc` holds duplicates only: every centroid has a twin, so no bandwidth can be derived.")
    return bandwidth
