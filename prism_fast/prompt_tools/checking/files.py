"""The checked classes on the disk: a shard a class, named by its label, whose record says by its key what it is of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prism_fast.dataset.record import read_record
from prism_fast.dataset.shard import Shard
from prism_fast.dataset.writer import EncodedSample, commit_shard, join_samples, make_record
from prism_fast.errors import DataError, InputError
from prism_fast.prompt_tools.checking.jobs import Job
from prism_fast.storage.files import make_folder, remove, sweep, writing


class ClassFiles:
    """A folder of them. A class that is made again takes the place of what was there: nothing stale is kept.

    Args:
        folder: where they lie.
        settings: how images are made; see :func:`prism_fast.prompt_tools.checking.jobs.settings_hash`.
        models: hashes of the networks, for the records.
        engines: digests of the engines by part, for the records.
        classes: length of the logits.
        image_ext: how images are stored.
        log: told of what is damaged.
    """

    def __init__(
        self,
        folder: Path,
        settings: str,
        models: Mapping[str, str],
        engines: Mapping[str, str],
        classes: int,
        image_ext: str,
        log: Callable[[str], None],
    ) -> None:
        self.folder, self.settings, self.classes, self.image_ext, self.log = folder, settings, classes, image_ext, log
        self.models, self.engines = dict(models), dict(engines)
        with writing(folder):
            make_folder(folder)
        sweep(folder)

    def has(self, job: Job) -> bool:
        """Whether somebody has committed this very class; its bytes are not read."""
        try:
            return self._shard(job) is not None
        except DataError:
            return False

    def find(self, job: Job) -> Shard | None:
        """The class as it was made before, every byte hashed; None if it is to be made.

        So are one of other prompts or settings, and one that is damaged, which loses its record.
        """
        try:
            if (shard := self._shard(job)) is not None:
                _require_whole(shard)
        except DataError as error:
            self.log(f"class {job.name!r} is made again: {error}")
            with writing(self._record(job)):
                remove(self._record(job))
            return None
        return shard

    def open(self, job: Job) -> Shard:
        """A class that was made or found a moment ago.

        Raises:
            InputError: another check has put another one in its place.
        """
        if (shard := self._shard(job)) is None:
            raise InputError(
                f"class {job.name!r} in {self.folder} was replaced by a check with other prompts or settings, which "
                "runs at the same time; give each a directory of its own with --out"
            )
        return shard

    def _shard(self, job: Job) -> Shard | None:
        if not self._record(job).exists():
            return None
        record = read_record(self._record(job))
        return Shard(self.folder, record) if record.run_hash == job.key(self.settings) else None

    def _record(self, job: Job) -> Path:
        return self.folder / f"{job.label:06d}.json"

    def commit(self, job: Job, samples: Sequence[EncodedSample]) -> Shard:
        """Write a class: whole, or not at all.

        Raises:
            RunError: the disk refused.
        """
        tar, index = join_samples(samples)
        made = {sample.index for sample in samples}
        record = make_record(
            job.label,
            samples,
            tar,
            index,
            run_hash=job.key(self.settings),
            models=self.models,
            engines=self.engines,
            classes=self.classes,
            image_ext=self.image_ext,
            first_index=0,
            planned=len(job.rows),
            quarantined=[place for place in range(len(job.rows)) if place not in made],
        )
        commit_shard(self.folder, record, tar, index)
        return Shard(self.folder, record)


def _require_whole(shard: Shard) -> None:
    shard.verify()
    try:
        listed = shard.index.read_bytes()
    except OSError as error:
        raise DataError(f"{shard.index} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(listed).hexdigest() != shard.record.index_sha256:
        raise DataError(f"{shard.index} differs from its record")
