"""What interpolations of both faces share: the data in what a decoder returns, and what is said of a curve."""

from __future__ import annotations

from typing import Any

from pyro_riemann._decoded import OutputError, outputs
from pyro_riemann._formulas import Array

KINDS = ("geodesic", "volume", "line")
FINE = 512  # points of the curve from which its length in the chart is summed
LOOKS = 65  # points of a line at which the determinant is looked up
BARE = 0.05  # least coverage of a curve that is passed over in silence

NOT_FINITE = (
    "A curve of kind {kind!r} is not finite: the metric varies by more orders of magnitude between `start` and `end` "
    "than its dtype holds. Use float64, a larger `regularization` or `bandwidth`."
)
ON_FLOOR = (
    "The metric is just its floor on all but {coverage:.2f} of the interpolation: no code is near, and the curve there "
    "is the straight line. Use a larger `bandwidth` or more centroids; `metric.coverage(codes)` should be near 1."
)


def data_of(result: object, array: type, law: Any) -> Array:
    """The data in what a decoder returned: an array, the first of a tuple, the only one of a mapping, or a law's mean.

    Args:
        result: what it returned.
        array: class of arrays.
        law: class, or classes, of distributions.
    """
    first = result[0] if isinstance(result, tuple) and result else result
    try:
        (decoded, *_) = outputs(first, output=None, array=array, law=law)
    except OutputError as error:
        raise TypeError(
            f"`decoder` must return a tensor, or what holds just one, got a {type(first).__name__}: give one that "
            "takes the data out, such as `lambda z: model.decode(z).sample`."
        ) from error
    return decoded.mean if isinstance(decoded, law) else decoded
