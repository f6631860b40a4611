"""A student's model card, ``README.md``: what it is, what it learnt from, what was measured, how it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import ModelCardData

from prism_fast.config import DistillConfig, RunConfig
from prism_fast.dataset.card import stated_license
from prism_fast.errors import DataError
from prism_fast.evaluation.cost import Cost
from prism_fast.models.bundled import resolve
from prism_fast.models.classifier_config import ClassifierConfig

#: What only training knows: an export carries these sections over from the card beside the student.
MADE, MEASURED, LICENCE = "How it was made", "What was measured", "Licence"
_UNSTATED = "not stated in its directory"
_FOREIGN = "The terms of the weights are those of the directory that they were exported from."
_SHOWN_LOOKS = 12


@dataclass(frozen=True)
class Origin:
    """A network that a student comes from: ``part`` is ``teacher`` or ``diffusion``."""

    part: str
    name: str
    licence: str


@dataclass(frozen=True)
class Look:
    """One look at samples that nobody trained on.

    ``divergence`` is KL from the teacher's classes to the student's, in nats; ``agreement`` the share with the
    teacher's first class, ``accuracy`` that with the prompt's; ``top1`` is on the real pictures that were given.
    """

    step: int
    divergence: float
    agreement: float
    accuracy: float
    top1: float | None = None


@dataclass(frozen=True)
class Training:
    """What a student was trained with, and how it ended.

    ``steps``: after how many these weights were kept. ``loss`` and ``agreement`` are of the training batches before.
    """

    recipe: DistillConfig
    origins: tuple[Origin, ...]
    run_hash: str
    images: int
    steps: int
    loss: float
    agreement: float
    images_per_s: float | None = None
    looks: tuple[Look, ...] = ()


@dataclass(frozen=True)
class Checked:
    """One exported file, and the largest difference of a logit from eager torch."""

    format: str
    file: str
    size_bytes: int
    error: float


@dataclass(frozen=True)
class Card:
    """What a card tells. ``earlier``: the text of a card that knows the training, if ``training`` does not.

    ``files`` are those of an export; without them the card is that of the directory that ``distill`` writes.
    """

    student: ClassifierConfig
    training: Training | None = None
    cost: Cost | None = None
    files: tuple[Checked, ...] = ()
    half: bool = False
    earlier: str | None = None

    @property
    def is_student(self) -> bool:
        """Whether anybody knows that it was distilled: any classifier can be exported."""
        return self.training is not None or MADE in sections(self.earlier or "")


def looks_of(history: Sequence[Mapping[str, float]]) -> tuple[Look, ...]:
    """The looks among the rows of ``history.json``."""
    return tuple(
        Look(
            int(row["step"]),
            row["held_out_divergence"],
            row["held_out_agreement"],
            row["held_out_accuracy"],
            row.get("pictures_top1"),
        )
        for row in history
        if "held_out_divergence" in row
    )


def origins_of(config: RunConfig) -> tuple[Origin, ...]:
    """The networks of a run whose terms its students inherit."""
    return tuple(
        _origin(part, name)
        for part, name in (("teacher", config.models.teacher), ("diffusion", config.models.diffusion))
    )


def _origin(part: str, name: str) -> Origin:
    try:
        path = Path(resolve(name, part))
    except DataError:  # the models may have gone since
        return Origin(part, name, _UNSTATED)
    return Origin(part, Path(name).name or name, stated_license(path) if path.exists() else _UNSTATED)


def model_card(card: Card) -> str:
    """The card in the form of the Hugging Face hub: YAML, then Markdown."""
    kept = sections(card.earlier or "")
    made = list(_made(card.training)) if card.training else kept.get(MADE)
    measured = list(_measured(card.training)) if card.training else kept.get(MEASURED)
    licence = list(_licence(card.training.origins)) if card.training else kept.get(LICENCE, [_FOREIGN])
    parts = (
        (MADE, made),
        (MEASURED, measured),
        ("Cost", list(_cost(card.cost)) if card.cost else None),
        ("Files", list(_files(card)) if card.files else None),
        ("How to use it", list(_use(card))),
        (LICENCE, licence),
    )
    body = [line for title, lines in parts if lines for line in ("", f"## {title}", "", *lines)]
    return f"---\n{_header(card)}\n---\n" + "\n".join([*_head(card), *body]) + "\n"


def sections(text: str) -> dict[str, list[str]]:
    """The lines of each second-level section of a card of ours."""
    found: dict[str, list[str]] = {}
    for part in ("\n" + text).split("\n## ")[1:]:
        title, _, rest = part.partition("\n")
        found[title.strip()] = rest.strip("\n").split("\n")
    return found


def _header(card: Card) -> str:
    by_timm = any(one.format == "safetensors" for one in card.files)
    data = ModelCardData(
        library_name="timm" if by_timm else "prism-fast",
        pipeline_tag="image-classification",
        license="other",
        tags=["image-classification", *(["knowledge-distillation", "synthetic-data"] if card.is_student else [])],
    )
    return str(data.to_yaml()).strip()


def _head(card: Card) -> Iterator[str]:
    student, names = card.student, card.student.label_names
    yield f"# {student.architecture}, {student.num_classes} classes, {student.image_size} px"
    yield ""
    own = "from prism-fast: a student of synthetic images and of their teacher's answers"
    yield f"An image classifier {own if card.is_student else 'exported by prism-fast'}."
    yield ""
    yield f"- Architecture: `{student.architecture}`{_structure(student)}"
    yield f"- Input: RGB, {student.image_size}×{student.image_size}, mean {_numbers(student.mean)}, std " + _numbers(
        student.std
    )
    if names:
        some = ", ".join(names[:10])
        yield f"- Classes: {some}" + (f" and {len(names) - 10} more, in `config.json`" if len(names) > 10 else "")


def _structure(student: ClassifierConfig) -> str:
    """How it differs from timm's network of its name."""
    own = student.structure
    if own is None:
        return ""
    blocks = "all block groups" if own.blocks is None else f"its first {own.blocks} block groups"
    width = "" if own.width == 1 else f", {own.width:.0%} of its channels"
    return f", {blocks}{width}, head: {own.head}{f' into that of `{own.classifier}`' if own.classifier else ''}"


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def _made(training: Training) -> Iterator[str]:
    recipe = training.recipe
    for origin in training.origins:
        yield f"- {_part(origin).capitalize()}: {origin.name}"
    yield f"- Images: {training.images} synthetic ones, none real, of run `{training.run_hash}`"
    yield f"- Targets: the teacher's logits, {_TARGETS[recipe.teacher]}"
    yield f"- Loss: {', '.join(_term(term.name, dict(term)) for term in recipe.terms())}"
    yield (
        f"- Recipe: {training.steps} of {recipe.steps} steps of {recipe.batch_size} images, {recipe.optimizer}, rate "
        f"{recipe.lr:g}, weight decay {recipe.weight_decay:g}, average of weights {recipe.ema_decay:g}, "
        f"{recipe.precision}, seed {recipe.seed}"
    )
    begun = "fresh weights" if recipe.student_from == "scratch" else "its teacher's weights"
    yield f"- Begun with: {f'the weights of {Path(recipe.student_init).name}' if recipe.student_init else begun}"
    yield f"- prism-fast {version('prism-fast')}"


_TARGETS = {
    "stored": "stored, of the whole image",
    "views": "stored, of the crop that the student saw",
    "live": "computed for what the student saw",
}


def _part(origin: Origin) -> str:
    return "generator" if origin.part == "diffusion" else origin.part


def _term(name: str, values: dict[str, object]) -> str:
    """A term of the loss by name, with its constants."""
    constants = ", ".join(f"{key} {value}" for key, value in values.items() if key != "name")
    return f"`{name}` ({constants})"


def _measured(training: Training) -> Iterator[str]:
    yield (
        f"On the last training batches: loss {training.loss:.4g}, the same first class as the teacher in "
        f"{_percent(training.agreement)}."
        + (f" {training.images_per_s:.0f} images a second." if training.images_per_s else "")
    )
    if not training.looks:
        yield ""
        yield "Nothing was held out. Measure it on pictures of your own: `prism-fast evaluate DIR --pictures FOLDER`."
        return
    real = any(look.top1 is not None for look in training.looks)
    yield ""
    yield "Held-out synthetic images" + (", and real pictures, which decided nothing:" if real else ":")
    yield ""
    yield "| step | KL, nats | teacher's first class | prompt's class |" + (" top-1, real |" if real else "")
    yield "|---|---|---|---|" + ("---|" if real else "")
    yield from (_row(look, training.steps, real) for look in _shown(training.looks, training.steps))


def _shown(looks: Sequence[Look], own: int) -> list[Look]:
    """Thinned from the end; that of these weights is always there."""
    stride = -(-len(looks) // _SHOWN_LOOKS)
    kept = {look.step for look in list(looks)[::-1][::stride]} | {own}
    return [look for look in looks if look.step in kept]


def _row(look: Look, own: int, real: bool) -> str:
    step = f"**{look.step}**, these weights" if look.step == own else str(look.step)
    top1 = "" if not real else f" {'' if look.top1 is None else _percent(look.top1)} |"
    return f"| {step} | {look.divergence:.4g} | {_percent(look.agreement)} | {_percent(look.accuracy)} |{top1}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _cost(cost: Cost) -> Iterator[str]:
    yield f"- {cost.parameters:,} parameters"
    yield f"- {cost.gmac:.4g} GMAC an image of {cost.image_size} px"
    yield f"- {_megabytes(cost.size_bytes)} in float32, {_megabytes(cost.half_size_bytes)} in float16"
    for one in cost.latency:
        what = "one image" if one.batch == 1 else f"{one.batch} images"
        yield f"- {one.backend}: {one.ms:.3g} ms for {what}, median, CPU, {one.threads} threads, float32"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB"


def _files(card: Card) -> Iterator[str]:
    yield f"Weights are {'float16' if card.half else 'float32'}. Each file was read back and compared with the student:"
    yield ""
    yield "| file | size | largest difference of a logit |"
    yield "|---|---|---|"
    yield from (f"| `{one.file}` | {_megabytes(one.size_bytes)} | {one.error:.2g} |" for one in card.files)


def _use(card: Card) -> Iterator[str]:
    side = card.student.image_size
    pixels = f"# float32 (n, 3, {side}, {side}), RGB in [0, 1]; normalisation is inside"
    codes = {
        "safetensors": (
            "import timm",
            'net = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True).eval()',
            "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net))",
        ),
        "onnx": (
            "import onnxruntime",
            'session = onnxruntime.InferenceSession("model.onnx")',
            f'(logits,) = session.run(None, {{"pixels": pixels}})  {pixels}',
        ),
        "torch": (
            "import torch",
            'net = torch.export.load("model.pt2").module()',
            f"logits = net(pixels)  {pixels}",
        ),
    }
    own = (
        "from prism_fast.models.classifier import load_classifier",
        'student = load_classifier("PATH/TO/THIS/FOLDER")',
        "logits = student.logits(images)  # uint8 (n, 3, h, w), RGB",
    )
    chosen = [codes[one.format] for one in card.files] or [own]
    for place, code in enumerate(chosen):
        yield from ("",) * (place > 0)
        yield from ("```python", *code, "```")


def _licence(origins: Sequence[Origin]) -> Iterator[str]:
    yield (
        "The weights come from a generator's images and a teacher's answers: they inherit the terms of both, and "
        "of the data that these were trained on."
    )
    yield ""
    yield from (f"- {_part(one).capitalize()} {one.name}: {one.licence}" for one in origins)
