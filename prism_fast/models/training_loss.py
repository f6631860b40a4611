"""Which of timm's weights are known to have been trained with binary cross-entropy instead of softmax."""

from __future__ import annotations

import logging

from prism_fast.models.classifier_config import ClassifierConfig

_STRIKES_BACK = "of ResNet strikes back, arXiv:2110.00476"
#: By tag. The models' cards say "LAMB optimizer with BCE loss" of A1 to A3, and that a1h is based on A1.
_BY_TAG = {
    "a1_in1k": f"recipe A1 {_STRIKES_BACK}",
    "a2_in1k": f"recipe A2 {_STRIKES_BACK}",
    "a3_in1k": f"recipe A3 {_STRIKES_BACK}",
    "a1h_in1k": f"based on recipe A1 {_STRIKES_BACK}",
}
#: By name. Of DeiT III's weights for ImageNet-1k those of other sizes were fine-tuned without ``--bce-loss`` at the end
#: (facebookresearch/deit, README_revenge.md).
_BY_NAME = {"deit3_small_patch16_224.fb_in1k": "DeiT III, arXiv:2204.07118"}
_CLASSES = 1000  # weights of another number were trained further, who knows how
_told: set[str] = set()


def binary_loss(config: ClassifierConfig) -> str | None:
    """The recipe that trained these weights with binary cross-entropy, None if that is not known of them."""
    architecture, _, tag = config.architecture.partition(".")
    tag = config.tag or tag
    if config.num_classes != _CLASSES:
        return None
    return _BY_TAG.get(tag) or _BY_NAME.get(f"{architecture}.{tag}")


def warn_of_binary_loss(config: ClassifierConfig) -> None:
    """Log one line about such weights, the first time in a process."""
    recipe, architecture = binary_loss(config), config.architecture.partition(".")[0]
    name = f"{architecture}.{config.tag}" if config.tag else config.architecture
    if recipe is None or name in _told:
        return
    _told.add(name)
    logging.getLogger("prism_fast").warning(
        "the teacher %s was trained with binary cross-entropy (%s), so its logits are no log-probabilities: energies "
        "and distillation temperatures mean something else than for a teacher trained with softmax; choose one of "
        "these, such as resnet50.tv_in1k",
        name,
        recipe,
    )
