"""How the libraries say that memory ran out: torch has a type for it, TensorRT and ONNX Runtime only words."""

from __future__ import annotations

import torch

#: What they write, in lower case: torch's CPU allocator, CUDA, cuDNN and cuBLAS, TensorRT, ONNX Runtime.
_WORDS = (
    "out of memory",
    "outofmemory",
    "out_of_memory",
    "can't allocate memory",
    "cudaerrormemoryallocation",
    "cudnn_status_alloc_failed",
    "cublas_status_alloc_failed",
    "failed to allocate memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, says that memory ran out, on the host or on a GPU."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError | torch.OutOfMemoryError) or says_out_of_memory(str(cause)):
            return True
        cause = cause.__cause__
    return False


def says_out_of_memory(message: str) -> bool:
    """Whether a library's message is about memory that ran out."""
    return any(words in message.lower() for words in _WORDS)


def smaller(part: str = "") -> str:
    """What to make smaller, for ``part`` or for the whole run."""
    if part == "energy_gradient":
        return "choose a smaller engines.gradient_batch"
    if part == "decoder":
        return "choose a smaller engines.decoder_batch"
    if part:
        return "choose a smaller sampling.batch_size"
    return "choose a smaller sampling.batch_size, engines.gradient_batch or engines.decoder_batch"
