"""Which attention a diffusers UNet runs: torch's own, or that of xformers where it loads."""

from __future__ import annotations

import importlib

import torch
from torch import nn

from prism_engines.backends.reasons import cuda_reasons, extra, module_reasons
from prism_engines.errors import EngineInputError
from prism_engines.quiet import quiet, root_cause

ATTENTIONS = ("sdpa", "xformers")


def attention_reasons(name: str) -> list[str]:
    """Why an attention cannot run here; empty when it can.

    Raises:
        EngineInputError: there is no attention of that name.
    """
    if name not in ATTENTIONS:
        raise EngineInputError(f"attention {name!r} is unknown, expected one of: {', '.join(ATTENTIONS)}")
    return [] if name == "sdpa" else _xformers_reasons()


def use_attention(module: nn.Module, name: str) -> None:
    """Switch every attention of a diffusers model, in place.

    Raises:
        EngineInputError: the name is unknown, the attention cannot run here, or the model has none to switch.
    """
    if reasons := attention_reasons(name):
        raise EngineInputError(f"attention {name} cannot run here: {'; '.join(reasons)}")
    if not callable(getattr(module, "set_attn_processor", None)):
        raise EngineInputError(f"{type(module).__name__} has no attention to switch, expected a diffusers UNet")
    if name == "xformers":
        module.enable_xformers_memory_efficient_attention()  # type: ignore[operator]
        return
    from diffusers.models.attention_processor import AttnProcessor2_0

    module.set_attn_processor(AttnProcessor2_0())  # type: ignore[operator]


def _xformers_reasons() -> list[str]:
    reasons = [*module_reasons("xformers.ops", remedy=extra("xformers")), *cuda_reasons()]
    if reasons:
        return reasons
    q = torch.ones(1, 4, 1, 16, device="cuda", dtype=torch.float16)
    try:
        with quiet():
            importlib.import_module("xformers.ops").memory_efficient_attention(q, q, q)
    except Exception as error:  # its operators do not load when the wheel was built for another torch
        remedy = f"its wheel must be built for torch {torch.__version__}; choose sdpa"
        return [f"xformers does not run ({root_cause(error)}); {remedy}"]
    return []
