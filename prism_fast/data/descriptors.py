"""Room for the files that a loader keeps open."""

from __future__ import annotations

import os
import resource

from prism_fast.errors import InputError

_SPARE = 64  # for threads, checkpoints and logs, which come later
_LEAST = 8


def make_room(shards: int) -> None:
    """Raise this process's limit of open files towards its hard limit, as DALI keeps each shard open.

    Raises:
        InputError: the hard limit is too low; the message says both numbers.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    wanted = held + 2 * shards + _SPARE
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < held + shards + _LEAST:
        raise InputError(
            f"DALI keeps all {shards} shards open and needs {held + shards + _LEAST} descriptors, the hard limit is "
            f"{hard}; raise it (ulimit -Hn), take distill.loader=torch, or make shards of more images"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
