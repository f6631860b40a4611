"""The energy of a classifier's logits and its gradient, in one pass."""

from __future__ import annotations

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from prism_kernels import _reference
from prism_kernels._backend import takes_triton
from prism_kernels._errors import KernelInputError


@torch.library.custom_op("prism_kernels::energy", mutates_args=())
def _fused(
    logits: torch.Tensor, labels: torch.Tensor, class_weight: float, lse_weight: float, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    from prism_kernels._triton.energy import launch

    return launch(logits, labels, class_weight, lse_weight, temperature)


@_fused.register_fake
def _(
    logits: torch.Tensor, labels: torch.Tensor, class_weight: float, lse_weight: float, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    n, k = logits.shape
    return logits.new_empty(n, dtype=torch.float32), logits.new_empty(n, k, dtype=torch.float32)


def energy(
    logits: torch.Tensor, labels: torch.Tensor, class_weight: float, lse_weight: float, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Energy of each sample and its gradient by the logits.

    ``E = class_weight · f_y + lse_weight · logsumexp(f / T)`` and
    ``dE/df_k = class_weight · [k = y] + (lse_weight / T) · softmax(f / T)_k``.
    Free energy, cross-entropy, joint energy and EluCD's contrast are four settings of the two weights.

    Shapes: logits (n, k), labels (n,); returns (n,) and (n, k).
    Dtypes: logits float16, bfloat16 or float32; labels int64; results float32.
    Raises: KernelInputError when shapes, dtypes, the temperature or, on the CPU, a label do not fit.
    Reference: Liu et al. 2020, "Energy-based Out-of-distribution Detection", eq. 4.
    """
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise KernelInputError(
            f"energy: expected logits (n, k), labels (n,); got {tuple(logits.shape)}, {tuple(labels.shape)}"
        )
    if labels.dtype != torch.int64 or not logits.is_floating_point():
        raise KernelInputError(f"energy: expected floating logits and int64 labels; got {logits.dtype}, {labels.dtype}")
    if not temperature > 0:
        raise KernelInputError(f"energy: temperature must be positive, got {temperature}")
    _check_labels(labels, logits.shape[1])
    if takes_triton("energy", logits, labels):
        value, gradient = _fused(logits, labels, class_weight, lse_weight, temperature)
        return value, gradient
    return _reference.energy(logits, labels, class_weight, lse_weight, temperature)


def _check_labels(labels: torch.Tensor, classes: int) -> None:
    """Refuse labels that name no class, where their values can be seen: not on a GPU, where looking waits for it."""
    if torch.compiler.is_compiling() or type(labels) is not torch.Tensor or labels.device.type != "cpu":
        return
    if get_proxy_mode() is not None or not labels.numel():  # while tracing, a branch on values would be recorded
        return
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= classes:
        raise KernelInputError(
            f"energy: got labels from {least} to {most}, expected 0 to {classes - 1}; use the teacher's classes"
        )
