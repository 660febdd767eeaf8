"""The model and the data of a quickstart's output folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from pyro_riemann._checks import check_one_of
from pyro_riemann._store import check_tensors, read_record
from pyro_riemann.experiments.quickstart import (
    MODELS,
    RESULT,
    QuickstartConfig,
    make_model,
    training_config,
    training_images,
)
from pyro_riemann.experiments.quickstart._models import load_images
from pyro_riemann.explorer._page import explorer_page
from pyro_riemann.explorer._payload import Corner
from pyro_riemann.vae import VAE, encode_all, load_checkpoint, set_phase
from pyro_riemann.vae._checkpoint import CHECKPOINT, check_identity, part_of
from pyro_riemann.vae._saved_run import identity_of

_LABELS = {"rvae": "R-VAE", "vae": "VAE", "mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model of a quickstart with its test data.

    Attributes:
        vae: the model, in evaluation mode, on the processor.
        name: what it is and what it was trained on.
        images: test images as rows ``(n, D)``.
        labels: their classes ``(n,)``.
        image_shape: (height, width), or (channels, height, width).

    Example:
        >>> [field.name for field in dataclasses.fields(Run)]
        ['vae', 'name', 'images', 'labels', 'image_shape']
    """

    vae: VAE
    name: str
    images: Tensor
    labels: Tensor
    image_shape: tuple[int, ...]


def load_run(folder: str | Path, model: str = "rvae", data: str | Path | None = None) -> Run:
    """Load a model from the output folder of ``python -m pyro_riemann quickstart``.

    The folder may come from a stranger: nothing outside of it is read but the data set, and that from where you say.

    Args:
        folder: the output folder, with its ``result.json`` and ``checkpoints``.
        model: ``"rvae"`` or ``"vae"``.
        data: folder of MNIST or Fashion-MNIST; by default that of the environment variable ``PYRO_RIEMANN_DATA``.

    Raises:
        FileNotFoundError: if the folder, its ``result.json`` or its checkpoint is missing.
        ValueError: for another model name, a file that is damaged or no quickstart's, a training that has not
            finished, or a checkpoint of other data, another model or other settings than ``result.json`` says.

    Example:
        >>> load_run("no/such/folder")
        Traceback (most recent call last):
        ...
        FileNotFoundError: there is no folder no/such/folder: ...
    """
    check_one_of("model", model, tuple(MODELS))
    folder = Path(folder)
    config = _config(folder, None if data is None else Path(data))
    checkpoint = folder / "checkpoints" / model
    tensors, info = load_checkpoint(checkpoint)
    if info.get("finished") is not True:
        raise ValueError(
            f"the training in {checkpoint} has not finished: run the quickstart again with the options it was started "
            "with, and it goes on from there."
        )
    size = sum(value.numel() for value in tensors.values())
    if max(config.hidden, config.resolution) ** 2 > size or config.num_centers > size:  # before such a model is made
        RESULT.refuse(folder / "result.json", "a model with its settings does not fit into its checkpoint")
    content = load_images(config)
    vae = make_model(config, content.test.shape[1], model)
    check_identity(checkpoint, info, identity_of(vae, *training_images(content), training_config(config)))
    weights = part_of(tensors, "model/")
    check_tensors(checkpoint, CHECKPOINT, weights, vae.state_dict(), "the model")
    vae.load_state_dict(weights)
    set_phase(vae, 2)
    vae.eval().requires_grad_(False)
    title = f"{_LABELS[model]} on {_LABELS.get(config.dataset, config.dataset)}"
    return Run(vae, title, content.test, content.test_labels, content.shape)


def run_page(run: Run, *, resolution: int = 200, low: Corner = None, high: Corner = None) -> str:
    """The explorer's page of a loaded run: its test images are the codes.

    Args:
        run: from :func:`load_run`.
        resolution: nodes an axis of the metric's table.
        low: lower corner of the plane, by default around the codes.
        high: upper corner.

    Raises:
        ValueError: as :func:`explorer_page`.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> vae = make_vae(data_dim=64, latent_dim=2, hidden=(8,), num_centers=5, seed=0)
        >>> run = Run(vae, "a trial", torch.rand(20, 64), torch.arange(20) % 10, (8, 8))
        >>> "a trial" in run_page(run, resolution=16)
        True
    """
    codes = encode_all(run.vae, run.images)
    title = f"Latent explorer: {run.name}"
    return explorer_page(
        run.vae,
        codes,
        run.labels,
        run.image_shape,
        images=run.images,
        low=low,
        high=high,
        resolution=resolution,
        title=title,
    )


def _config(folder: Path, data: Path | None) -> QuickstartConfig:
    """Settings of the run, from its ``result.json``; where it was run and on what device is of no matter here."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: {RESULT.remedy}.")
    path = folder / "result.json"
    try:
        settings = read_record(path, RESULT).get("settings")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} holds no result.json, so it is no finished run of the quickstart: {RESULT.remedy}."
        ) from None
    try:
        config = QuickstartConfig.from_json(settings)
    except ValueError as error:
        RESULT.refuse(path, str(error), error)
    return dataclasses.replace(config, data=data, output=folder, device="cpu")
