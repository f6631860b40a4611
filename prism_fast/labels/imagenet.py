"""ImageNet-1k's label space from the synset data that timm carries."""

from __future__ import annotations

from functools import lru_cache

from prism_fast.labels.space import ClassLabel, LabelSpace


def imagenet1k_synsets() -> list[str]:
    """WordNet ids of the 1,000 classes, by label."""
    from timm.data import ImageNetInfo

    return list(ImageNetInfo("imagenet-1k").label_names())


@lru_cache(maxsize=1)
def imagenet1k() -> LabelSpace:
    """All 1,000 classes in the usual order, each with a sense that tells homonyms apart.

    The sense is the first lemma and the first clause of the WordNet definition: "crane, large long-necked wading bird
    of marshes and plains in many parts of the world" against "crane, lifts and moves heavy objects". Two classes that
    still share a name get their synset id appended to the name.
    """
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    lemmas = [info.index_to_description(i, detailed=False).split(",")[0].strip() for i in range(info.num_classes())]
    repeated = {name for name in lemmas if lemmas.count(name) > 1}
    classes = []
    for i, lemma in enumerate(lemmas):
        synset = info.index_to_label_name(i)
        definition = info.label_name_to_description(synset, detailed=True).partition(": ")[2]
        clause = definition.split(";")[0].strip()
        name = f"{lemma} ({synset})" if lemma in repeated else lemma
        classes.append(ClassLabel(name=name, sense=f"{lemma}, {clause}" if clause else lemma, definition=definition))
    return LabelSpace(name="imagenet1k", classes=tuple(classes))
