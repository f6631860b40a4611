"""Prompt banks for classes of one's own: asked of a language model's server, or taken from captions."""
