"""Your own classifier as the teacher, with your own classes, on the bundled text-to-image model.

The teacher here knows three colours. It learns them in seconds from ellipses that this file draws, and stands for the
classifier that you have. Few images and steps are made, enough to see every stage once.

    python examples/own_teacher.py --out runs/colours
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
import yaml
from torchvision.transforms.functional import to_pil_image

import prism_fast
from prism_fast.models.classifier import ClassifierConfig, save_classifier

PAINT = {"black": (0.15, 0.15, 0.15), "red": (0.9, 0.2, 0.2), "yellow": (1.0, 0.85, 0.1)}
SHOWN = {"black": ["black heart", "bat"], "red": ["red heart", "red apple"], "yellow": ["yellow heart", "lemon"]}
SIZE = 32
FAST = ["engines.backend=eager", "sampling.steps=6", "synthesis.images=24", "synthesis.shard_size=12"]
STUDENT = ["student=test_resnet", f"image_size={SIZE}", "steps=40", "batch_size=24", "warmup_steps=2", "loader=torch"]


def draw(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ellipses of the three colours on white: images (n, 3, 32, 32) in [0, 1], and labels (n,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % len(PAINT)
    middle = 12 + 8 * torch.rand(n, 2, 1, 1, generator=generator)
    radius = 4 + 8 * torch.rand(n, 2, 1, 1, generator=generator)
    grid = torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij"))
    inside = (((grid - middle) / radius) ** 2).sum(1, keepdim=True) < 1
    paint = torch.tensor(list(PAINT.values()))[labels] + 0.1 * torch.randn(n, 3, generator=generator)
    return torch.where(inside, paint[:, :, None, None], 1.0).clamp(0, 1), labels


def make_teacher(out: Path) -> Path:
    """A timm network, trained, and stored as prism-fast reads it: ``config.json`` and ``model.safetensors``."""
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=len(PAINT))
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for step in range(40):
        images, labels = draw(24, seed=step)
        optimizer.zero_grad()
        F.cross_entropy(net((images - 0.5) / 0.5), labels).backward()
        optimizer.step()
    half = (0.5, 0.5, 0.5)
    shape = {"architecture": "test_resnet", "num_classes": len(PAINT), "image_size": SIZE, "mean": half, "std": half}
    return save_classifier(net, ClassifierConfig.model_validate(shape | {"label_names": list(PAINT)}), out)


def main() -> None:
    """From a classifier to a student."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/colours"))
    out: Path = parser.parse_args().out
    teacher, labels = make_teacher(out / "teacher"), out / "labels.yaml"
    classes = [{"name": name, "sense": f"{name} thing", "concepts": SHOWN[name]} for name in PAINT]
    labels.write_text(yaml.safe_dump({"name": "colours", "classes": classes}))
    for number, (image, label) in enumerate(zip(*draw(30, seed=1000), strict=True)):
        folder = out / "pictures" / list(PAINT)[label]  # a folder a class, called like it
        folder.mkdir(parents=True, exist_ok=True)
        to_pil_image(image).save(folder / f"{number}.png")

    models = [f"labels={labels}", f"models.teacher={teacher}"]
    config = prism_fast.load_config("minis-emoji", [*models, *FAST, *(f"distill.{value}" for value in STUDENT)])
    made = prism_fast.synthesize(config, out / "run")
    print(f"{made.images} images, {made.images_per_s:.1f} a second")
    print(f"problems: {', '.join(prism_fast.verify(out / 'run').problems) or 'none'}")
    student = prism_fast.distill(config, out / "run", out / "student")[0].student
    for name, network in (("teacher", teacher), ("student", student)):
        score = prism_fast.evaluate(network, out / "pictures")[0]
        print(f"{name}: {score.top1:.0%} of {score.n} drawn pictures")
    print(f"report: {prism_fast.report(out / 'run')}")


if __name__ == "__main__":
    main()
