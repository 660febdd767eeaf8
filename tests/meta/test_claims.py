"""README's claims: each is the subject of tests that exist, and no row of its table goes without."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.meta.test_readme import ROOT

README = re.sub(r"\s+", " ", (ROOT / "README.md").read_text())

# A phrase of README, and the tests that would fail if it were wrong.
CLAIMS = {
    "differentiable also in the weights": "geodesics/test_solver.py::test_gradient_in_the_parameters_of_the_metric",
    "a Pyro distribution: SVI, HMC and NUTS": "infer/test_mcmc.py::test_posterior_agrees_with_quadrature "
    "infer/test_svi.py::test_svi_learns_local_posteriors_from_subsamples",
    "under jit, vmap and grad as well": "numpyro/geodesics/test_solver.py::test_transformations_agree_and_leak_nothing",
    "a density with respect to Lebesgue measure in the chart": "test_laws.py::test_mass_is_one_whatever_the_parameters",
    "with a constant metric it is the textbook Gaussian": "distributions/test_heat_kernel.py::"
    "test_constant_metric_gives_the_multivariate_normal",
    "base of your own: set `dim`, implement `metric(z)`": "metrics/test_base.py::test_metric_must_be_implemented "
    "geodesics/test_failures.py::test_user_written_sphere",
    "flat metrics": "metrics/test_flat.py::test_mahalanobis_distance",
    "of an immersion, such as a decoder": "metrics/test_pullback.py::test_two_outputs_add_their_metrics",
    "of a trained encoder": "metrics/test_kernel_from_data.py::test_loader_and_encoder_give_the_metric_of_their_codes",
    "a table of any metric with d ≤ 3": "metrics/test_grid.py::test_error_is_small_known_and_of_fourth_order",
    "within its box no distance evaluates the decoder": "metrics/test_grid.py::"
    "test_only_points_outside_ask_the_true_metric",
    "returns a distribution the Fisher metric": "metrics/test_fisher.py::test_expectation_of_the_score",
    "takes models of pythae, diffusers, scvi-tools and Lightning": "metrics/test_from_vae.py::test_pythae "
    "metrics/test_from_vae.py::test_diffusers metrics/test_from_vae.py::test_scvi "
    "metrics/test_from_vae.py::test_lightning",
    "products, closed where their parts are": "manifolds/test_made_of_others.py::"
    "test_laws_on_a_product_are_products_of_laws",
    "positive definite matrices": "manifolds/test_spd.py::test_distance_is_that_of_the_generalised_eigenvalues",
    "expected metric of several decoders": "metrics/test_ensemble.py::test_energies_have_a_limit",
    "with the spread of its distances": "metrics/test_ensemble.py::test_samples_of_a_distance",
    "inverse local covariance of data": "metrics/test_local.py::test_metric_is_the_inverse_of_the_local_covariance",
    "closed forms; any metric in other coordinates": "manifolds/test_geometry.py::test_expmap_inverts_logmap "
    "manifolds/test_warped.py::test_warping_twice_is_warping_by_the_composition",
    "with the Itô drift": "test_brownian.py::test_law test_brownian.py::test_the_laws_would_catch_a_missing_drift",
    "end points or paths, differentiable": "test_brownian.py::test_gradients_match_finite_differences",
    "law of Brownian motion, short-time density": "distributions/test_heat_kernel.py::"
    "test_errors_fall_at_the_rate_of_the_order distributions/test_heat_kernel.py::test_draws_follow_brownian_motion",
    "tangent Gaussian through the exponential map": "distributions/test_wrapped_normal.py::test_mass_one_on_the_sphere",
    "mass past the cut locus is counted or warned of": "distributions/test_folding.py::test_mass_one_on_spheres "
    "distributions/test_folding.py::test_a_fold_is_warned_of_once_with_its_number",
    "with its normalising constant": "distributions/test_normal.py::test_constant_on_hyperbolic_space_in_closed_form",
    "uniform for the volume of the metric, on a box": "distributions/test_uniform.py::"
    "test_draws_fall_in_cells_as_quadrature_says",
    "mixture of posteriors": "distributions/test_vamp_prior.py::test_normal_components_give_the_textbook_mixture",
    "under the same names": "meta/test_public_api.py::test_twin_has_the_name_and_its_arguments",
    "R-VAE as `model` and `guide`": "vae/test_models.py::test_elbo_is_what_pyro_computes",
    "two-phase training, checkpoints that resume": "vae/test_training.py::test_phases_train_what_they_should "
    "vae/test_training.py::test_resumes_bit_for_bit",
    "draws of the Riemannian uniform of a trained encoder's metric": "sampling/test_laws.py::"
    "test_draws_fall_in_cells_as_quadrature_says sampling/test_results.py::test_result_is_complete",
    "Frechet means (differentiable), parallel transport, principal geodesics, k-means": "statistics/"
    "test_statistics.py::test_gradients_of_the_mean_against_differences statistics/test_statistics.py::"
    "test_holonomy_of_a_triangle_is_its_excess statistics/test_statistics.py::"
    "test_components_do_not_depend_on_the_chart statistics/test_statistics.py::test_clusters_on_both_sides_of_a_cut",
    "mixtures of exact heat kernels": "mixtures/test_mixtures.py::test_em_recovers_a_simulated_mixture",
    "AE, WAE, VAE, VampPrior-VAE, HVAE, RHVAE and four RAEs": "autoencoders/test_models.py::test_interface",
    "Frechet distance, precision and recall, nearest images, augmentation test": "evaluation/test_frechet.py::"
    "test_distance_of_gaussians evaluation/test_nearest.py::test_nearest_is_that_of_all_distances",
    "R-hat, ESS, divergences, geometric checks": "test_diagnostics.py::test_r_hat_is_the_rank_normalised_split_one",
    "latent space, geodesics, Brownian paths, decoded images, chains": "test_plotting.py::"
    "test_brownian_paths_are_drawn_point_by_point",
    "as one interactive page": "explorer/test_page.py::test_two_clicks_give_a_geodesic",
    "tests every public function of the torch side": "meta/test_gpu_names.py::"
    "test_every_public_function_is_used_on_the_device",
    "compared with geomstats, geoopt, stochman and pythae": "test_comparison.py::test_cell_is_true",
}


@cache
def functions_of(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("phrase", CLAIMS)
def test_claim_is_made_and_tested(phrase: str) -> None:
    assert phrase in README, "README does not say this any more"
    for test in CLAIMS[phrase].split():
        file, _, name = test.partition("::")
        assert name in functions_of(file), f"{test} does not exist"


def test_every_row_is_a_claim() -> None:
    table = (ROOT / "README.md").read_text().partition("## What there is")[2].partition("\n\nThe twin")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    assert [row for row in rows if not any(phrase in row for phrase in CLAIMS)] == []


def test_every_citation_of_the_paper_is_in_its_bibliography() -> None:
    cited = set(re.findall(r"@(\w+)", (ROOT / "docs" / "paper.md").read_text().partition("# Summary")[2]))
    listed = re.findall(r"^@\w+\{(\w+),", (ROOT / "docs" / "paper.bib").read_text(), re.MULTILINE)
    assert sorted(cited) == sorted(listed)
