"""The model and the data of a quickstart's output folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from torch import Tensor

from pyro_riemann._checks import check_one_of
from pyro_riemann.datasets import load_dataset
from pyro_riemann.experiments.quickstart import MODELS, QuickstartConfig, make_model
from pyro_riemann.explorer._page import explorer_page
from pyro_riemann.explorer._payload import Corner
from pyro_riemann.vae import VAE, encode_all, load_checkpoint, set_phase

_HOW = "`python -m pyro_riemann quickstart --output FOLDER` makes one"
_LABELS = {"rvae": "R-VAE", "vae": "VAE", "mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model of a quickstart with its test data.

    Attributes:
        vae: the model, in evaluation mode, on the processor.
        name: what it is and what it was trained on.
        images: test images as rows ``(n, D)``.
        labels: their classes ``(n,)``.
        image_shape: (height, width).

    Example:
        >>> [field.name for field in dataclasses.fields(Run)]
        ['vae', 'name', 'images', 'labels', 'image_shape']
    """

    vae: VAE
    name: str
    images: Tensor
    labels: Tensor
    image_shape: tuple[int, int]


def load_run(folder: str | Path, model: str = "rvae", data: str | Path | None = None) -> Run:
    """Load a model from the output folder of ``python -m pyro_riemann quickstart``.

    Args:
        folder: the output folder, with its ``result.json`` and ``checkpoints``.
        model: ``"rvae"`` or ``"vae"``.
        data: folder of MNIST or Fashion-MNIST; by default the one the run was told, or that of the environment.

    Raises:
        FileNotFoundError: if the folder, its ``result.json`` or its checkpoint is missing.
        ValueError: for another model name, a file that is no quickstart's, or a training that has not finished.

    Example:
        >>> load_run("no/such/folder")
        Traceback (most recent call last):
        ...
        FileNotFoundError: there is no folder no/such/folder: ...
    """
    check_one_of("model", model, tuple(MODELS))
    folder = Path(folder)
    config = _config(folder)
    checkpoint = folder / "checkpoints" / model
    tensors, info = load_checkpoint(checkpoint)
    if not info.get("finished"):
        raise ValueError(
            f"the training in {checkpoint} has not finished: run the quickstart again with the options it was started "
            "with, and it goes on from there."
        )
    content = load_dataset(config.dataset, data or config.data)
    vae = make_model(config, content.test.shape[1], model)
    try:
        vae.load_state_dict({key[6:]: value for key, value in tensors.items() if key.startswith("model/")})
    except RuntimeError as error:
        raise ValueError(f"the checkpoint in {checkpoint} does not fit the settings in result.json: {error}") from error
    set_phase(vae, 2)
    vae.eval().requires_grad_(False)
    return Run(
        vae,
        f"{_LABELS[model]} on {_LABELS.get(config.dataset, config.dataset)}",
        content.test,
        content.test_labels,
        content.shape,
    )


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


def _config(folder: Path) -> QuickstartConfig:
    """Settings of the run, from its ``result.json``."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: {_HOW}.")
    path = folder / "result.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no result.json, so it is no finished run of the quickstart: {_HOW}.")
    try:
        settings = json.loads(path.read_text())["settings"]
        known = {field.name for field in dataclasses.fields(QuickstartConfig)}
        config = QuickstartConfig(**{key: value for key, value in settings.items() if key in known})
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} was not written by the quickstart ({error!r}): {_HOW}.") from error
    return dataclasses.replace(config, data=Path(config.data) if config.data else None, output=folder)
