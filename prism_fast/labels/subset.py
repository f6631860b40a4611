"""Parts of ImageNet-1k by WordNet ids."""

from __future__ import annotations

from typing import Any

from prism_fast.labels.imagenet import imagenet1k, imagenet1k_synsets


def expanded(document: Any) -> Any:
    """A document whose classes are WordNet ids of ImageNet-1k (``synsets``), with the classes these stand for.

    Names and senses are ImageNet-1k's unless the document has ``classes`` of its own. Anything else is given back as it
    is.

    Raises:
        ValueError: an id that ImageNet-1k lacks.
    """
    if not isinstance(document, dict) or "synsets" not in document:
        return document
    places = {synset: place for place, synset in enumerate(imagenet1k_synsets())}
    synsets = document["synsets"] if isinstance(document["synsets"], list) else [document["synsets"]]
    if unknown := [synset for synset in synsets if not isinstance(synset, str) or synset not in places]:
        raise ValueError(f"synsets: {unknown[0]!r} is no class of imagenet1k; expected WordNet ids such as n01440764")
    indices = [places[synset] for synset in synsets]
    classes = [imagenet1k().classes[place] for place in indices]
    rest = {key: value for key, value in document.items() if key != "synsets"}
    return {"classes": classes, "subset_of": "imagenet1k", **rest, "indices": indices}
