"""The augmentation test of C22, section 5.3, on two classes of a data set at hand."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import torch
from torch import Tensor

from pyro_riemann.datasets import load_dataset
from pyro_riemann.evaluation import AugmentationTask, ClassifierConfig, stack_classes
from pyro_riemann.experiments.chadebec2022._study import Study


def task(study: Study) -> AugmentationTask:
    """Few images of two classes for training, a seventh as many to validate, all test images of both to judge."""
    name, classes, sizes = study.protocol.augmentation
    data = load_dataset(name, study.root)
    train, validation, test = [], [], []
    for label, size in zip(classes, sizes, strict=True):
        rows = data.train[data.train_labels == label]
        held_out = max(2, size // 7)
        if size + held_out > len(rows):
            raise ValueError(f"{size} + {held_out} images of class {label} are asked for, {name} has {len(rows)}.")
        train.append(rows[:size])
        validation.append(rows[size : size + held_out])
        test.append(data.test[data.test_labels == label])
    return AugmentationTask(stack_classes(train), stack_classes(validation), stack_classes(test), data.shape)


def augmentation(study: Study, model: str | None, scale: float | None = None) -> dict[str, Any]:
    """Scores of classifiers trained on real images (``model`` None), or on the images of one model's samplers."""
    protocol, problem = study.protocol, task(study)
    runs = range(protocol.augmentation_runs)
    if model is None:
        original = [problem.train for _ in runs]
        resampled = [problem.resampled(run) for run in runs]
        return {
            "methods": {"original": scores(study, problem, original), "resampled": scores(study, problem, resampled)}
        }
    images, labels = problem.train
    pools: list[dict[str, Tensor]] = []
    reports = []
    for label in (0, 1):
        rows, held_out = images[labels == label], problem.validation[0][problem.validation[1] == label]
        settings: dict[str, Any] = {"shape": problem.shape, "patience": 20, "checkpoint_every": 50}
        key = f"augmentation-{model}-{label}"
        if scale is not None:
            settings["scale"] = scale
            key += f"-{scale:g}"
        trained, report = study.train(key, model, rows, held_out, protocol.augmentation_epochs, label, **settings)
        count = protocol.augmentation_pool * protocol.augmentation_samples
        found = study.samplers(key, trained, rows, count)
        pools.append({name: trained.sample(count, sampler, seed=label).cpu() for name, sampler in found.items()})
        reports.append(report)
    methods = {}
    for name in pools[0]:
        sets = [
            stack_classes([choose(pool[name], protocol.augmentation_samples, run) for pool in pools]) for run in runs
        ]
        methods[name] = scores(study, problem, sets)
    return {"methods": methods, "training": reports}


def choose(pool: Tensor, count: int, seed: int) -> Tensor:
    """A random choice of ``count`` rows."""
    return pool[torch.randperm(len(pool), generator=torch.Generator("cpu").manual_seed(seed), device="cpu")[:count]]


def scores(study: Study, problem: AugmentationTask, sets: list[tuple[Tensor, Tensor]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over runs, each with a classifier of its own."""
    config = ClassifierConfig(channels=(8, 16))
    steps = -(-len(sets[0][0]) // config.batch_size)  # of one epoch
    config = dataclasses.replace(config, epochs=max(1, round(study.protocol.classifier_steps / steps)))
    runs = [problem.score(*images, config=dataclasses.replace(config, seed=run)) for run, images in enumerate(sets)]

    def spread(values: list[float]) -> dict[str, float]:
        return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}

    def by_class(name: str, label: int) -> dict[str, float]:
        return spread([getattr(run, name)[label] for run in runs])

    names = ("f1", "precision", "recall")
    return {
        "balanced_accuracy": spread([run.balanced_accuracy for run in runs]),
        **{f"{name}_{label}": by_class(name, label) for name in names for label in (0, 1)},
    }
