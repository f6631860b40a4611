"""Your own classifier as the teacher, with your own classes, on the bundled text-to-image model.

The teacher here knows three colours. It learns them in seconds from shapes that this file draws, and stands for the
classifier that you have: a timm architecture, its weights and what its pixels must look like. Everything after it is
what you would do with yours; to try it out, few images and steps are made, so expect no good student.

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

COLOURS = {"black": (0.15, 0.15, 0.15), "red": (0.9, 0.2, 0.2), "yellow": (1.0, 0.85, 0.1)}
CONCEPTS = {
    "black": ["black heart", "bat", "spider"],
    "red": ["red heart", "red apple", "cherries"],
    "yellow": ["yellow heart", "lemon", "banana"],
}
SIZE, MEAN, STD = 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def draw(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ellipses of the three colours on white: images (n, 3, 32, 32) in [0, 1] and their labels (n,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % len(COLOURS)
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    top, left, high, wide = (
        torch.rand(4, n, 1, 1, generator=generator) * 8 + torch.tensor([12, 12, 4, 4]).view(4, 1, 1, 1)
    )
    inside = ((row - top) / high) ** 2 + ((column - left) / wide) ** 2 < 1
    paint = torch.tensor(list(COLOURS.values()))[labels] + 0.1 * torch.randn(n, 3, generator=generator)
    return torch.where(inside[:, None], paint[:, :, None, None], torch.ones(())).clamp(0, 1), labels


def fit_teacher(out: Path, steps: int = 40) -> Path:
    """A timm network, trained and stored as prism-fast reads it: config.json and model.safetensors."""
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=len(COLOURS))
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for step in range(steps):
        images, labels = draw(24, seed=step)
        loss = F.cross_entropy(net((images - 0.5) / 0.5), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    config = ClassifierConfig(architecture="test_resnet", num_classes=3, image_size=SIZE, mean=MEAN, std=STD)
    return save_classifier(net, config, out)


def main() -> None:
    """From a classifier to a student."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/colours"))
    out = parser.parse_args().out
    teacher = fit_teacher(out / "teacher")
    classes = [{"name": name, "sense": f"{name} thing", "concepts": CONCEPTS[name]} for name in COLOURS]
    (out / "labels.yaml").write_text(yaml.safe_dump({"name": "colours", "classes": classes}))
    for i, (image, label) in enumerate(zip(*draw(30, seed=1000), strict=True)):  # one folder a class, sorted as labels
        folder = out / "pictures" / list(COLOURS)[label]
        folder.mkdir(parents=True, exist_ok=True)
        to_pil_image(image).save(folder / f"{i}.png")

    config = prism_fast.load_config(
        "minis-emoji",
        [
            f"labels={out / 'labels.yaml'}",
            f"models.teacher={teacher}",
            "engines.backend=eager",
            "sampling.steps=6",
            "synthesis.images=24",
            "synthesis.shard_size=12",
            "distill.student=test_resnet",
            "distill.steps=40",
            "distill.batch_size=24",
            "distill.image_size=32",
            "distill.warmup_steps=2",
            "distill.loader=torch",
        ],
    )
    (out / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    made = prism_fast.synthesize(config, out / "run")
    problems = prism_fast.verify(out / "run").problems
    student = prism_fast.distill(config, out / "run", out / "student").student
    scores = {
        name: prism_fast.evaluate(path, out / "pictures")[0]
        for name, path in (("teacher", teacher), ("student", student))
    }
    print(f"{made.images} images at {made.images_per_s:.1f} a second, problems: {list(problems) or 'none'}")
    for name, score in scores.items():
        print(f"{name}: {score.top1:.0%} of {score.n} drawn pictures")
    print(f"report: {prism_fast.report(out / 'run')}")


if __name__ == "__main__":
    main()
