"""Pooled features of timm models."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from prism_fast.errors import InputError
from prism_fast.evaluation.features import pooled_features


def test_features_feed_the_classifier() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=7).eval()
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    features = pooled_features(model, images, prepare=lambda x: x * 2 - 1, batch_size=2)
    assert features.shape == (5, model.head_hidden_size)
    with torch.inference_mode():
        logits = model(images.float() / 255 * 2 - 1)
        torch.testing.assert_close(model.get_classifier()(features), logits, rtol=1e-4, atol=1e-5)


def test_not_a_timm_model() -> None:
    with pytest.raises(InputError, match="forward_features"):
        pooled_features(nn.Flatten(), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), prepare=lambda x: x)
