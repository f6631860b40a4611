"""Names of the aten operators that every exporter and compiler used here takes as they are."""

from __future__ import annotations

PRIMITIVES: frozenset[str] = frozenset(
    """
    abs add amax amin bitwise_and bitwise_not bitwise_or cos div eq erf exp ge gt le log logical_and logical_not lt
    maximum mean minimum mul ne neg pow reciprocal relu rsqrt sigmoid sin softplus sqrt sub sum tanh where clamp
    clamp_min clamp_max _softmax
    addmm baddbmm bmm convolution matmul mm upsample_nearest2d
    _to_copy _unsafe_view alias arange as_strided cat clone constant_pad_nd detach detach_ empty empty_like expand eye
    fill flip full full_like gather index index_select embedding lift_fresh lift_fresh_copy narrow new_empty new_full
    new_ones new_zeros ones ones_like permute repeat reshape scalar_tensor select slice split split_with_sizes squeeze
    stack t to transpose tril triu unsqueeze view zeros zeros_like
    """.split()  # noqa: SIM905 - a paragraph, not a page
)
