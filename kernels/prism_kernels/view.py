"""The teacher's random view of an image: un-normalise, crop, flip, antialiased resize and normalise in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from prism_kernels import _reference
from prism_kernels._backend import takes_triton
from prism_kernels._errors import KernelInputError


@torch.library.custom_op("prism_kernels::view", mutates_args=())
def _fused(
    images: torch.Tensor, boxes: torch.Tensor, size: int, scale: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    from prism_kernels._triton.view import launch

    return launch(images, boxes, size, scale, shift)


@_fused.register_fake
def _(images: torch.Tensor, boxes: torch.Tensor, size: int, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return images.new_empty(images.shape[0], images.shape[1], size, size)


@torch.library.custom_op("prism_kernels::view_adjoint", mutates_args=())
def _fused_adjoint(
    gradient: torch.Tensor, boxes: torch.Tensor, height: int, width: int, scale: torch.Tensor
) -> torch.Tensor:
    from prism_kernels._triton.view import launch_adjoint

    return launch_adjoint(gradient, boxes, height, width, scale)


@_fused_adjoint.register_fake
def _(gradient: torch.Tensor, boxes: torch.Tensor, height: int, width: int, scale: torch.Tensor) -> torch.Tensor:
    return gradient.new_empty(gradient.shape[0], gradient.shape[1], height, width)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    images, boxes, _, scale, _ = inputs
    ctx.save_for_backward(boxes, scale)
    ctx.size_in = images.shape[2:]


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    boxes, scale = ctx.saved_tensors
    return _fused_adjoint(gradient, boxes, *ctx.size_in, scale), None, None, None, None


def _keep_adjoint(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    gradient, boxes, _, _, scale = inputs
    ctx.save_for_backward(boxes, scale)
    ctx.size_out = gradient.shape[2]


def _backward_adjoint(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    boxes, scale = ctx.saved_tensors
    return _fused(gradient, boxes, ctx.size_out, scale, torch.zeros_like(scale)), None, None, None, None


_fused.register_autograd(_backward, setup_context=_keep)
_fused_adjoint.register_autograd(_backward_adjoint, setup_context=_keep_adjoint)


def view(
    images: torch.Tensor,
    boxes: torch.Tensor,
    size: int,
    scale: torch.Tensor | Sequence[float],
    shift: torch.Tensor | Sequence[float],
) -> torch.Tensor:
    """Each image seen through its box, in the teacher's normalisation.

    ``y = scale_c · R x Cᵀ + shift_c`` with R and C the matrices of :func:`view_matrices`. Their rows sum to one, so an
    affine map of the pixels commutes with them: un-normalising the decoder's images and normalising for the teacher
    fold into one. For images in [-1, 1]: ``scale = 1 / (2·std)``, ``shift = (1/2 - mean) / std``.

    Differentiable by the images; the gradient is :func:`view_adjoint`. ``scale`` and ``shift`` given as tensors on the
    images' device spare a copy a call.

    Shapes: images (n, c, h, w); boxes (n, 5): top, height, left, width in pixels, flip (0 or 1); scale and shift (c,);
    returns (n, c, size, size).
    Dtypes: images float16, bfloat16 or float32; boxes float32; computed in float32, returned as the images.
    Raises: KernelInputError when shapes or dtypes do not fit, when anything but the images requires a gradient or, on
    the CPU, when a box is not inside its image (half a pixel of rounding is allowed).
    Reference: the triangle filter of ``torch.nn.functional.interpolate(mode="bilinear", antialias=True)``.
    """
    scale, shift = _constant("scale", scale, images), _constant("shift", shift, images)
    _validate("view", images, boxes, size, scale, shift)
    _check_boxes("view", boxes, images.shape[2], images.shape[3])
    if takes_triton("view", images, boxes, scale, shift):
        seen: torch.Tensor = _fused(images, boxes, size, scale, shift)
        return seen
    return _reference.view(images, boxes, size, scale, shift)


def view_adjoint(
    gradient: torch.Tensor,
    boxes: torch.Tensor,
    size_in: tuple[int, int],
    scale: torch.Tensor | Sequence[float],
) -> torch.Tensor:
    """The gradient of :func:`view` by its images: ``scale_c · Rᵀ g C``; zero outside of the box.

    Shapes: gradient (n, c, size, size), boxes (n, 5), scale (c,), size_in (h, w); returns (n, c, h, w).
    Dtypes: gradient float16, bfloat16 or float32; boxes float32; computed in float32, returned as the gradient.
    Raises: KernelInputError as :func:`view` does, and when the gradient is not square.
    Reference: the transpose of :func:`view`, which is linear up to the shift.
    """
    scale = _constant("scale", scale, gradient)
    _validate("view_adjoint", gradient, boxes, min(size_in), scale, scale)
    if gradient.shape[2] != gradient.shape[3]:
        raise KernelInputError(
            f"view_adjoint: got a gradient {tuple(gradient.shape)}, expected (n, c, size, size); views are square"
        )
    _check_boxes("view_adjoint", boxes, *size_in)
    if takes_triton("view", gradient, boxes, scale):
        back: torch.Tensor = _fused_adjoint(gradient, boxes, *size_in, scale)
        return back
    return _reference.view_adjoint(gradient, boxes, *size_in, scale)


def view_matrices(boxes: torch.Tensor, size_in: tuple[int, int], size_out: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each box's crop, flip and resize as two matrices: ``rows @ image @ columnsᵀ``.

    ``R[o, j] ∝ max(0, 1 - |j + 1/2 - start - (o + 1/2)·step| / max(1, step))`` with ``step = length / size_out``,
    every row scaled to sum one; a flip reverses the order of the columns' outputs.

    Shapes: boxes (n, 5): top, height, left, width, flip; returns (n, 1, size_out, h) and (n, 1, size_out, w).
    Dtypes: boxes float32; computed in float64, returned in float32.
    Raises: KernelInputError when the boxes' shape or dtype does not fit or, on the CPU, a box is not in the image.
    Reference: the triangle filter of ``torch.nn.functional.interpolate(mode="bilinear", antialias=True)``.
    """
    if boxes.dim() != 2 or boxes.shape[1] != 5 or not boxes.is_floating_point():
        raise KernelInputError(
            f"view_matrices: got boxes {tuple(boxes.shape)} {boxes.dtype}, expected (n, 5) float32; "
            "pass top, height, left, width and flip"
        )
    _check_boxes("view_matrices", boxes, *size_in)
    return _reference.view_matrices(boxes, size_in, size_out)


def _constant(name: str, values: torch.Tensor | Sequence[float], images: torch.Tensor) -> torch.Tensor:
    given = torch.as_tensor(values, dtype=torch.float32, device=images.device)
    if images.dim() != 4 or given.shape != images.shape[1:2] or given.requires_grad:
        raise KernelInputError(
            f"view: got images {tuple(images.shape)} and {name} {tuple(given.shape)}, expected (n, c, h, w) and (c,) "
            "without a gradient; pass one constant a channel"
        )
    return given


def _validate(
    op: str, images: torch.Tensor, boxes: torch.Tensor, size: int, scale: torch.Tensor, shift: torch.Tensor
) -> None:
    if boxes.shape != (images.shape[0], 5) or boxes.dtype != torch.float32 or boxes.requires_grad:
        raise KernelInputError(
            f"{op}: got boxes {tuple(boxes.shape)} {boxes.dtype}, expected ({images.shape[0]}, 5) float32 without a "
            "gradient; pass top, height, left, width and flip of each image"
        )
    if not images.is_floating_point() or size < 1 or not min(images.shape[2:]):
        raise KernelInputError(
            f"{op}: got {tuple(images.shape)} {images.dtype} and size {size}, expected a floating tensor and sizes "
            "from 1 on; convert or enlarge it"
        )


def _check_boxes(op: str, boxes: torch.Tensor, height: int, width: int) -> None:
    """Refuse boxes outside of the image, where their values can be seen: not on a GPU, where looking waits for it."""
    if torch.compiler.is_compiling() or type(boxes) is not torch.Tensor or boxes.device.type != "cpu":
        return
    if get_proxy_mode() is not None:  # while tracing, a branch on values would be recorded
        return
    top, tall, left, wide, _ = boxes.unbind(1)
    fits = (top >= -0.5) & (tall > 0) & (top + tall <= height + 0.5)
    fits &= (left >= -0.5) & (wide > 0) & (left + wide <= width + 0.5)
    if not bool(fits.all()):
        worst = int((~fits).nonzero()[0, 0])
        raise KernelInputError(
            f"{op}: box {worst} is {boxes[worst].tolist()}, expected top, height, left, width inside of {height} x "
            f"{width} pixels; cut it to the image"
        )
