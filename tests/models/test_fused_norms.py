"""A decoder with fused norms is the decoder it was, forward and backward."""

from __future__ import annotations

import copy

import torch

from prism_fast.models.diffusers_blocks import GroupNormSiLU, fuse_norms
from tests.tiny import autoencoder_kl, autoencoder_tiny


def test_images_and_gradients_stay_the_same() -> None:
    torch.manual_seed(0)
    plain = autoencoder_kl().eval().requires_grad_(False)
    fused = copy.deepcopy(plain)
    found = fuse_norms(fused.decoder)
    # two residual blocks in the middle, two in each of two up blocks, two norms each, and the last norm
    assert found == 2 * (2 + 4) + 1
    assert sum(isinstance(m, GroupNormSiLU) for m in fused.modules()) == found
    z = torch.randn(2, 4, 8, 8)
    results = []
    for vae in (plain, fused):
        leaf = z.clone().requires_grad_(True)
        image = vae.decode(leaf).sample
        results.append((image.detach(), torch.autograd.grad(image.square().sum(), leaf)[0]))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_decoder_without_group_norms_is_left_alone() -> None:
    assert fuse_norms(autoencoder_tiny()) == 0
