"""How good are generated images: Frechet distance, precision and recall, copies, and use for a classifier."""

from pyro_riemann.evaluation._classifier import (
    AugmentationTask,
    ClassifierConfig,
    ImageClassifier,
    Scores,
    classification_scores,
    stack_classes,
    train_classifier,
)
from pyro_riemann.evaluation._frechet import Features, fid, frechet_distance, inception_features
from pyro_riemann.evaluation._identifiability import EncodingModel, IdentifiabilityReport, identifiability_report
from pyro_riemann.evaluation._nearest import NearestImages, Neighbors, authenticity, nearest, nearest_images
from pyro_riemann.evaluation._precision_recall import PRD, PrecisionRecall, prd, prd_of_histograms, precision_recall
from pyro_riemann.evaluation._samplers import compare_samplers

__all__ = [
    "AugmentationTask",
    "ClassifierConfig",
    "Features",
    "EncodingModel",
    "IdentifiabilityReport",
    "ImageClassifier",
    "NearestImages",
    "Neighbors",
    "PRD",
    "PrecisionRecall",
    "Scores",
    "authenticity",
    "classification_scores",
    "compare_samplers",
    "fid",
    "frechet_distance",
    "identifiability_report",
    "inception_features",
    "nearest",
    "nearest_images",
    "prd",
    "prd_of_histograms",
    "precision_recall",
    "stack_classes",
    "train_classifier",
]
