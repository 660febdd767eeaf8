"""A convolutional VAE in Lightning on a folder of colour images, sampled and interpolated by its posteriors."""

import sys

import lightning
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torchvision import datasets, transforms

from pyro_riemann import KernelMetric, plotting, sampling


class VAE(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 32, 4, 4), nn.ELU(), nn.Flatten(), nn.Linear(2048, 8))
        shape = nn.Linear(4, 2048), nn.Unflatten(1, (32, 8, 8)), nn.ELU()
        self.decode = nn.Sequential(*shape, nn.ConvTranspose2d(32, 3, 4, 4), nn.Sigmoid())

    def encode(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        return Normal(loc, log_scale.exp())

    def training_step(self, batch):
        errors = (self.decode((posterior := self.encode(batch[0])).rsample()) - batch[0]).square()
        return (errors.sum() / 0.1 + kl_divergence(posterior, Normal(0.0, 1.0)).sum()) / len(errors)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 2e-3)


images = datasets.ImageFolder(sys.argv[1], transforms.ToTensor())  # CIFAR-10 as files: train/<class>/<number>.jpg
loader, vae = torch.utils.data.DataLoader(images, 20, shuffle=True), VAE()
lightning.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False).fit(vae, loader)
print(sampling.sample(vae, loader, 200).items.shape)
metric = KernelMetric.from_posterior(loader, vae.encode, num_centroids=50, bandwidth="mahalanobis")  # for curves
ends = vae.encode(torch.stack([images[0][0], images[-1][0]])).mean.detach()
rows = [sampling.interpolate(metric, *ends, vae.decode, kind) for kind in ("line", "volume")]
plotting.plot_interpolations(rows, (3, 32, 32), limits=(0, 1))[0].figure.savefig("interpolations.png")
