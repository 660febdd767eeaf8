# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Better samples from any VAE
#
# A VAE is trained with the prior $\mathcal N(0, I)$, and draws of that prior often decode to nothing: the codes of the
# data fill only part of it. Chadebec and Allassonnière (2022) leave the model as it is and change the place to draw
# from: the encoder's own posteriors make a metric, whose volume is large where codes lie, and codes are drawn
# uniformly with respect to that volume. All it takes is an encoder that gives a mean and a standard deviation.
#
# With MNIST in the folder that `PYRO_RIEMANN_DATA` names, the page uses it; otherwise the 8 x 8 digits that come with
# scikit-learn.

# %%
import os

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pyro_riemann import KernelMetric
from pyro_riemann.autoencoders import GaussianMixtureSampler
from pyro_riemann.datasets import load_dataset
from pyro_riemann.evaluation import ClassifierConfig, fid, nearest_images, precision_recall, train_classifier
from pyro_riemann.plotting import plot_images, plot_interpolations
from pyro_riemann.sampling import interpolate, sample_uniform

SMALL = bool(os.environ.get("PYRO_RIEMANN_SMALL"))  # CI runs the page with fewer steps
MNIST = bool(os.environ.get("PYRO_RIEMANN_DATA")) and not SMALL
DIM, HIDDEN, EPOCHS, CENTROIDS, COUNT = (8, 400, 6, 300, 2000) if MNIST else (6, 100, 60, 100, 600)
if not (MNIST or SMALL):
    EPOCHS = 300

torch.manual_seed(0)
data = load_dataset("mnist" if MNIST else "digits")
pixels = data.train.shape[1]

# %% [markdown]
# ## A VAE that the package has never seen
#
# Plain PyTorch: two networks, a learned standard deviation of the pixels, Adam on the ELBO.


# %%
class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2 * DIM))
        self.decoder = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, pixels), nn.Sigmoid())
        self.log_noise = nn.Parameter(torch.tensor(-1.0))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        return loc, log_scale.exp()

    def loss(self, x: Tensor) -> Tensor:
        loc, scale = self.encode(x)
        mean = self.decoder(loc + scale * torch.randn_like(loc))
        squares = ((x - mean) / self.log_noise.exp()).square().sum(-1) / 2 + pixels * self.log_noise
        return (squares + (loc.square() + scale.square() - 1 - 2 * scale.log()).sum(-1) / 2).mean()


vae = VAE()
adam = torch.optim.Adam(vae.parameters(), lr=1e-3)
loader = DataLoader(TensorDataset(data.train), batch_size=200, shuffle=True)
for _ in range(EPOCHS):
    for (batch,) in loader:
        adam.zero_grad()
        vae.loss(batch).backward()
        adam.step()
print(f"learned standard deviation of a pixel: {vae.log_noise.exp():.3f}")

# %% [markdown]
# ## From that VAE to samples and figures
#
# From here to the next heading there are fewer than forty lines of code. `KernelMetric.from_posterior` runs the
# encoder over the data, chooses centroids among the means, and smooths the posteriors' precisions around them.
# `sample_uniform` chooses a sampler, and its result says how far to trust it: efficiency, R-hat and ESS of independent
# populations, the log volume.

# %%
metric = KernelMetric.from_posterior(loader, vae.encode, CENTROIDS, bandwidth="euclidean", regularization=0.01)
result = sample_uniform(metric, COUNT, seed=0)
print(result)

# %% [markdown]
# Beside it, the two things that one would do without a metric: draws of the prior, and of a mixture of Gaussians
# fitted to the means of the training data.

# %%
with torch.no_grad():
    loc, scale = vae.encode(data.train)
codes = {
    "N(0, I)": torch.randn(COUNT, DIM),
    "mixture": GaussianMixtureSampler(loc, 10).sample(COUNT),
    "metric": result.draws,
}
with torch.no_grad():
    images = {name: vae.decoder(draws) for name, draws in codes.items()}

figure, axes = plt.subplots(1, 4, figsize=(12, 3.3), layout="constrained")
for axis, (name, shown) in zip(axes, {"test images": data.test, **images}.items(), strict=True):
    plot_images(shown[:64], data.shape, columns=8, limits=(0, 1), ax=axis)
    axis.set_title(name)

# %% [markdown]
# Between two codes, the straight line may cross the void. The curve of equation 8 of the paper avoids it: it is short
# where the volume is large.

# %%
first, last = loc[0], loc[(loc - loc[0]).norm(dim=-1).argmax()]
rows = [interpolate(metric, first, last, vae.decoder, kind, num_frames=12) for kind in ("line", "volume")]
frames = plot_interpolations(rows, data.shape, limits=(0, 1))

# %% [markdown]
# The figure of merit is a Frechet distance to the test images, in the features of a classifier of these digits (not of
# Inception, so that it compares with nothing but itself), with improved precision and recall.

# %%
judge = train_classifier(data.train, data.train_labels, data.shape, config=ClassifierConfig(epochs=2 if MNIST else 40))
real = judge.features(data.test[:COUNT])
for name, generated in {"first training images": data.train[:COUNT], **images}.items():
    score = precision_recall(real, judge.features(generated))
    distance = fid(data.test[:COUNT], generated, data.shape, judge.features)
    print(f"{name:>21}: Frechet {distance:7.2f}, precision {score.precision:.2f}, recall {score.recall:.2f}")

# %% [markdown]
# ## How far to trust them
#
# Frechet distance and precision reward images that look like the data, and a copy of a training image looks most like
# the data. Recall and the nearest training images tell. The numbers to compare with are the first row above, which
# *is* training images, and the test images below, which are new ones.


# %%
def reconstruct(x: Tensor) -> Tensor:
    with torch.no_grad():
        return vae.decoder(vae.encode(x)[0])


for name, some in {"test images": data.test, **images}.items():
    found = nearest_images(some[:300], data.train, reconstruct)
    to_image, to_copy = found.train_distance.mean(), found.reconstruction_distance.mean()
    print(
        f"{name:>11}: {to_image:.2f} to the nearest training image, {to_copy:.2f} to the nearest reconstruction of one"
    )
panel = nearest_images(images["metric"][:10], data.train, reconstruct).plot(data.shape)

# %% [markdown]
# The law that is drawn from is uniform for a metric of a few hundred centroids. With the bandwidth of the paper, a
# Euclidean length, its bumps hardly overlap, and draws stay within a posterior's width of a centroid; `"mahalanobis"`
# measures the bandwidth as the kernel does, so that neighbours overlap, and draws go further. The
# paper's own sampler, Hamiltonian chains of 100 steps that start at the centroids, is here as well. Its R-hat says
# whether the chains have mixed; if not, its draws are random centroids with some noise, which need not be bad images,
# but are another law.

# %%
wide = KernelMetric.from_posterior(loc, scale, CENTROIDS, "mahalanobis", regularization=0.01)
others = {
    "overlapping bumps": sample_uniform(wide, COUNT, seed=0),
    "chains of the paper": sample_uniform(metric, COUNT, method="hmc", num_chains=COUNT // 10, seed=0),
}
for name, other in {"metric": result, **others}.items():
    with torch.no_grad():
        generated = vae.decoder(other.draws)
    score = precision_recall(real, judge.features(generated))
    distance = fid(data.test[:COUNT], generated, data.shape, judge.features)
    print(
        f"{name:>19}: R-hat {float(other.r_hat.max()):.2f}, "
        f"Frechet {distance:.2f}, precision {score.precision:.2f}, recall {score.recall:.2f}"
    )

# %% [markdown]
# So look before you believe, with your own model. Against draws of the prior the metric wins where the codes fill
# little of it, and loses little else. Against a mixture of Gaussians it need not win at all, and its recall says why:
# however many draws, they stay around a few hundred centroids. More of these, or overlapping bumps, buy recall and
# cost precision. It profits from narrow posteriors all over the data, as a small pixel noise gives; where some
# posteriors are wide, the uniform law favours the narrow ones and forgets the rest. [The experiments of the
# paper](../docs/results/chadebec2022.md) compare the samplers at three noises, with other models beside them.
