"""The sphere in stereographic coordinates."""

from __future__ import annotations

from torch import Tensor

from pyro_riemann._formulas import conformal
from pyro_riemann.manifolds._space_form import SpaceForm


class Sphere(conformal.StereographicSphere[Tensor], SpaceForm):
    r"""The sphere :math:`S^d` of radius R in stereographic coordinates, :math:`G(z) = 4 R^2 I / (1 + |z|^2)^2`.

    The chart :math:`\mathbb{R}^d` covers the sphere but one pole: ``z = 0`` is the other pole,
    ``|z| = 1`` the equator. The chart does not depend on the radius. Curvature is
    :math:`1 / R^2`, scalar curvature :math:`d (d - 1) / R^2`.

    At antipodal points (the cut locus) the distance is pi R and has a kink; gradients are finite
    there but are those of no particular geodesic, and ``log_van_vleck``, infinite in truth, is a
    large finite number.

    Args:
        dim: dimension d of the sphere (2 for the globe).
        radius: R, a positive number; :class:`pyro_riemann.manifolds.ScaledMetric` has one that is learned.

    Raises:
        ValueError: if ``dim`` is less than 1, or ``radius`` not positive and finite.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> sphere = Sphere(2)
        >>> z, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])  # two points on the equator
        >>> round(sphere.dist(z, y).item(), 4)  # a quarter turn
        1.5708
        >>> sphere.to_ambient(z)
        tensor([1., 0., 0.])
        >>> kernel = sphere.log_heat_kernel(torch.zeros(2), torch.ones(2), time=20.0)
        >>> round(kernel.exp().item() * 4 * torch.pi, 4)  # uniform after a long time
        1.0
    """

    def extra_repr(self) -> str:
        return f"dim={self.dim}, radius={self.radius:g}"
