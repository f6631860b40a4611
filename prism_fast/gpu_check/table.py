"""The steps in their order, with their time limits."""

from __future__ import annotations

from prism_fast.gpu_check.runner import Step

OPERATORS = ("counter_noise", "energy", "group_norm_silu", "guided_combine", "guided_step", "view")
DTYPES = ("float32", "bfloat16", "float16")
BACKENDS = ("inductor", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx")
#: Says what is checked, so it is always run.
FIRST = "driver"
_ROOM = "prism_fast.gpu_check.steps"

# The limits are ours: several times what we expect, for a hang and not for a slow disk. The first start of a kernel
# compiles it, TensorRT tries thousands of tactics, and a large configuration's engines take an hour.
STEPS = (
    Step(FIRST, f"{_ROOM}.driver", 180),
    *(Step(f"operators:{name}", f"{_ROOM}.operators", 600) for name in OPERATORS),
    *(Step(f"guided:{dtype}", f"{_ROOM}.guided", 600, 3600) for dtype in DTYPES),
    *(Step(f"engines:{name}", f"{_ROOM}.engines", 1800) for name in BACKENDS),
    Step("engines:auto", f"{_ROOM}.engines", 3600),
    Step("decode", f"{_ROOM}.decode", 300),
    Step("training", f"{_ROOM}.training", 600),
    Step("shards", f"{_ROOM}.shards", 1200, 4 * 3600),
    Step("workers", f"{_ROOM}.workers", 1800),
)
