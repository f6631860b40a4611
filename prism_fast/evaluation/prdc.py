"""Precision, recall, density and coverage of generated samples in a feature space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from prism_fast.errors import InputError

# Distances held at once. 64 MiB stays in reach of a laptop and is already past the size where bigger chunks pay.
_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Prdc:
    """The four numbers with the sizes they depend on: compare only at equal k and equal sample counts."""

    precision: float
    recall: float
    density: float
    coverage: float
    k: int
    n_real: int
    n_fake: int


def prdc(
    real: Tensor,
    fake: Tensor,
    *,
    k: int = 5,
    dtype: torch.dtype = torch.float64,
    chunk_bytes: int = _CHUNK_BYTES,
) -> Prdc:
    """Compare two feature sets by their k-nearest-neighbour balls.

    With ``r_k(x)`` the distance from x to its k-th neighbour in its own set, itself not counted::

        precision = mean over fake y of [ exists real x: |x - y| <= r_k(x) ]
        recall    = mean over real x of [ exists fake y: |x - y| <= r_k(y) ]
        density   = 1/(k * n_fake) * #{ (x, y): |x - y| <= r_k(x) }
        coverage  = mean over real x of [ exists fake y: |x - y| <= r_k(x) ]

    Precision, recall and coverage are in 0..1; density may exceed 1. The balls are closed, as Kynkäänniemi et al.
    write them; Naeem et al.'s code takes open ones, which differs only when points coincide. Distances are taken by
    subtraction, not by the expanded product, which loses half of the digits for near points.

    Shapes:
        real (n_real, d), fake (n_fake, d).
    Dtypes:
        any floating point; distances in ``dtype``, float64 or float32. At most ``chunk_bytes`` of them at once.

    Raises:
        InputError: fewer than k + 1 samples in a set, different d, NaN or infinity.
    Reference:
        Kynkäänniemi et al. 2019 (arXiv 1904.06991), eq. 1-2; Naeem et al. 2020 (arXiv 2002.09797), eq. 3-4.
    """
    _check(real, fake, k, dtype)
    real, fake = real.to(dtype), fake.to(dtype)
    radius_real, radius_fake = _radii(real, k, chunk_bytes), _radii(fake, k, chunk_bytes)
    inside_real = torch.zeros(len(fake), dtype=torch.int64, device=fake.device)
    recalled, covered = 0, 0
    for start, distances in _distances(real, fake, chunk_bytes):
        stop = start + len(distances)
        in_ball_of_real = distances <= radius_real[start:stop, None]
        inside_real += in_ball_of_real.sum(dim=0)
        covered += int(in_ball_of_real.any(dim=1).sum())
        recalled += int((distances <= radius_fake).any(dim=1).sum())
    return Prdc(
        precision=int((inside_real > 0).sum()) / len(fake),
        recall=recalled / len(real),
        density=int(inside_real.sum()) / (k * len(fake)),
        coverage=covered / len(real),
        k=k,
        n_real=len(real),
        n_fake=len(fake),
    )


def coverage(real: Tensor, fake: Tensor, *, k: int = 5, chunk_bytes: int = _CHUNK_BYTES) -> float:
    """The coverage of :func:`prdc` alone, which needs no neighbours among the generated samples: one is enough.

    Shapes:
        real (n_real, d), fake (n_fake, d); distances are computed in float64.

    Raises:
        InputError: fewer than k + 1 real samples or no generated one, different d, NaN or infinity.
    Reference:
        Naeem et al. 2020 (arXiv 2002.09797), eq. 4.
    """
    _check(real, fake, k, torch.float64, least_fake=1)
    real, fake = real.double(), fake.double()
    radius = _radii(real, k, chunk_bytes)
    covered = 0
    for start, distances in _distances(real, fake, chunk_bytes):
        covered += int((distances <= radius[start : start + len(distances), None]).any(dim=1).sum())
    return covered / len(real)


def _distances(rows: Tensor, columns: Tensor, chunk_bytes: int) -> Iterator[tuple[int, Tensor]]:
    """Blocks of the distance matrix: (first row, distances (chunk, n_columns))."""
    chunk = max(1, chunk_bytes // (len(columns) * columns.element_size()))
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        yield start, torch.cdist(part, columns, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(points: Tensor, k: int, chunk_bytes: int) -> Tensor:
    """Distance from each point to its k-th neighbour; the (k + 1)-th smallest, as a point is its own nearest."""
    blocks = _distances(points, points, chunk_bytes)
    return torch.cat([distances.kthvalue(k + 1, dim=1).values for _, distances in blocks])


def _check(real: Tensor, fake: Tensor, k: int, dtype: torch.dtype, least_fake: int | None = None) -> None:
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"distances are computed in float32 or float64, not {dtype}")
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    for name, features, least in (("real", real, k + 1), ("fake", fake, k + 1 if least_fake is None else least_fake)):
        if features.ndim != 2 or not features.is_floating_point():
            raise InputError(f"{name} features must be floats of shape (n, d), got {tuple(features.shape)}")
        if len(features) < least:
            raise InputError(f"k = {k} needs at least {least} {name} samples, got {len(features)}")
        if not bool(features.isfinite().all()):
            raise InputError(f"{name} features hold NaN or infinity; look at the network that made them")
    if real.shape[1] != fake.shape[1]:
        raise InputError(f"features differ in width: real {real.shape[1]}, fake {fake.shape[1]}; use one network")
