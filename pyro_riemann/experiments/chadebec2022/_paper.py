"""What C22 reports, to stand beside our numbers."""

from __future__ import annotations

# (model, sampler) -> row name, and FID, PRD F8 and F1/8 on MNIST, latent dimension 16 (C22, table 1)
TABLE_1: dict[tuple[str, str], tuple[str, float, float, float]] = {
    ("ae", "normal"): ("AE, N(0, I)", 46.41, 0.86, 0.77),
    ("wae", "normal"): ("WAE", 20.71, 0.93, 0.88),
    ("vae", "normal"): ("VAE, N(0, I)", 40.70, 0.83, 0.75),
    ("vamp", "prior"): ("VAMP", 34.02, 0.83, 0.88),
    ("hvae", "normal"): ("HVAE", 15.54, 0.97, 0.95),
    ("rhvae", "normal"): ("RHVAE", 36.51, 0.73, 0.28),  # its caption: drawn from the prior distribution
    ("ae", "gmm"): ("AE, GMM", 9.60, 0.95, 0.90),
    ("rae-gp", "gmm"): ("RAE-GP", 9.44, 0.97, 0.98),
    ("rae-l2", "gmm"): ("RAE-L2", 9.89, 0.97, 0.98),
    ("rae-sn", "gmm"): ("RAE-SN", 11.22, 0.97, 0.98),
    ("rae", "gmm"): ("RAE", 11.23, 0.98, 0.98),
    ("vae", "gmm"): ("VAE, GMM", 13.13, 0.95, 0.92),
    ("vae", "paper"): ("VAE, ours", 8.53, 0.98, 0.97),
}

# (model, sampler) -> balanced accuracy in percent on OASIS (C22, table 2)
TABLE_2: dict[tuple[str, str], float] = {
    ("real", "original"): 66.2,
    ("real", "resampled"): 81.8,
    ("ae", "normal"): 50.0,
    ("wae", "normal"): 57.4,
    ("vae", "normal"): 51.8,
    ("vamp", "prior"): 83.1,
    ("hvae", "normal"): 56.3,
    ("rhvae", "normal"): 68.0,
    ("ae", "gmm"): 82.4,
    ("rae-gp", "gmm"): 63.9,
    ("rae-l2", "gmm"): 74.1,
    ("rae-sn", "gmm"): 62.3,
    ("rae", "gmm"): 69.3,
    ("vae", "gmm"): 83.0,
    ("vae", "paper"): 85.4,
}

MODEL_NAMES = {
    "ae": "AE",
    "wae": "WAE-MMD",
    "vae": "VAE",
    "vamp": "VampPrior-VAE",
    "hvae": "HVAE",
    "rhvae": "RHVAE",
    "rae": "RAE",
    "rae-l2": "RAE-L2",
    "rae-gp": "RAE-GP",
    "rae-sn": "RAE-SN",
    "real": "real images",
}
SAMPLER_NAMES = {
    "normal": "N(0, I)",
    "prior": "own prior",
    "gmm": "GMM-10",
    "paper": "metric, C22 Alg. 2",
    "uniform": "metric, exact law",
    "uniform, overlapping": "metric, exact law, overlapping bumps",
    "original": "as they are",
    "resampled": "resampled",
}
