"""A store in the making: any number of processes work on it, each on chunks that it has claimed."""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4
from zlib import crc32

import numpy as np
from filelock import FileLock, Timeout

from mmlit.features.layout import (
    CHUNKS,
    META,
    PLAN,
    PRESENCE,
    Layout,
    damaged_files,
    how_to_remove,
    lock_of,
    read_json,
    write_json,
)

log = logging.getLogger(__name__)


class Claim(NamedTuple):
    """A chunk that is this process's own until the lock is released, or the process ends however it ends."""

    number: int
    lock: FileLock


class Build:
    """Makes `folder` a complete store, together with every other process that wants the same.

    Files have their full size from the start. A chunk is written in its place and brought to the disk before its marker
    appears; `meta.json` appears last. So whatever is killed when, finished chunks stay, and nobody reads half of one.
    Who joins checks the chunks that are finished already: what was damaged since is encoded anew.

    Args:
        folder: the store's own.
        layout: what it will hold.
        facts: what determines its content.
        about: what a listing tells of it.
    """

    def __init__(self, folder: Path, *, layout: Layout, facts: Mapping[str, Any], about: Mapping[str, str]) -> None:
        self.folder, self.layout = folder, layout
        self.facts, self.about = dict(facts), dict(about)
        self.chunks = folder / CHUNKS

    @property
    def complete(self) -> bool:
        """Whether the store may be read."""
        return (self.folder / META).is_file()

    def lacks(self) -> int:
        """Bytes that the disk must still give."""
        held = 0
        for name in self.layout.sizes():
            with suppress(FileNotFoundError):
                held += (self.folder / name).stat().st_blocks * 512
        return max(0, sum(self.layout.sizes().values()) - held)

    @contextmanager
    def joined(self) -> Iterator[None]:
        """While it lasts, others see that the store is being built, and do not remove it."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        presence = FileLock(self.chunks / f"{PRESENCE}{uuid4().hex}.lock")
        with lock_of(self.folder.parent):
            if not self.complete:
                self.chunks.mkdir(parents=True, exist_ok=True)
                self._prepare()
                presence.acquire()
        try:
            self._check_finished()
            yield
        finally:
            presence.release()
            if self.complete:
                shutil.rmtree(self.chunks, ignore_errors=True)

    def claims(self) -> Iterator[Claim]:
        """Chunks that nobody has finished or works on, in order, each claimed when it is asked for."""
        for number in range(self.layout.num_chunks):
            if self._marker(number).exists():
                continue
            lock = FileLock(self.chunks / f"{number:06}.lock", timeout=0, thread_local=False)
            try:
                lock.acquire()
            except Timeout:
                continue
            if self.complete or self._marker(number).exists():  # by another process, a moment ago
                lock.release()
                continue
            yield Claim(number, lock)

    def num_finished(self) -> int:
        """How many chunks are finished, by whomever."""
        return self.layout.num_chunks if self.complete else sum(1 for _ in self.chunks.glob("*.json"))

    def finish(
        self, claim: Claim, arrays: Mapping[str, np.ndarray], offsets: Mapping[str, int], broken: list[int]
    ) -> None:
        """Writes a chunk and gives the claim back.

        Args:
            claim: the chunk.
            arrays: for each file this chunk's part of it.
            offsets: where it begins there, in bytes.
            broken: numbers of the items whose picture could not be read.
        """
        try:
            written = {}
            for name, array in arrays.items():
                block = np.ascontiguousarray(array).data.cast("B")
                with (self.folder / name).open("r+b") as file:
                    file.seek(offsets[name])
                    file.write(block)
                    file.flush()
                    os.fsync(file.fileno())
                written[name] = (offsets[name], len(block), crc32(block))
            write_json(self._marker(claim.number), {"files": written, "broken": broken})
        finally:
            claim.lock.release()

    def completed(self) -> bool:
        """Whether the store is complete; makes it so if the last chunk is finished."""
        if not self.complete and self.num_finished() == self.layout.num_chunks:
            with lock_of(self.folder.parent):
                if not self.complete:
                    chunks = [self._read_marker(number) for number in range(self.layout.num_chunks)]
                    if all(chunks):
                        write_json(self.folder / META, {**read_json(self.folder / PLAN), "chunks": chunks})
        return self.complete

    def _prepare(self) -> None:
        """The plan, unless another process has made it, and files of full size, whatever became of them since."""
        path, layout = self.folder / PLAN, self.layout._asdict()
        begun = path.is_file()
        if begun and read_json(path)["layout"] != layout:
            raise ValueError(f"{self.folder} was begun with another layout; {how_to_remove(self.folder)}")
        for name, size in self.layout.sizes().items():
            with (self.folder / name).open("a+b") as file:
                if size and hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                file.truncate(size)
        if not begun:
            write_json(path, {"layout": layout, "facts": self.facts, "about": self.about})

    def _check_finished(self) -> None:
        """Takes the marker from chunks that are not what it says, so that they are encoded again."""
        damaged = 0
        for path in sorted(self.chunks.glob("[0-9]*.json")):
            chunk = self._read_marker(int(path.stem))
            if chunk is not None and damaged_files(self.folder, chunk) and not self.complete:
                path.unlink(missing_ok=True)
                damaged += 1
        if damaged:
            told = f"{damaged} of {self.layout.num_chunks} parts were damaged since they were finished"
            log.warning("features: %s: %s; they are encoded anew", self.folder, told)

    def _read_marker(self, number: int) -> dict[str, Any] | None:
        """What a finished chunk's marker says; None if it is gone, or a crash of the machine has damaged it."""
        try:
            chunk = read_json(self._marker(number))
            if chunk.get("files", {}).keys() == self.layout.sizes().keys():
                return chunk
        except FileNotFoundError:
            return None
        except ValueError:
            pass
        self._marker(number).unlink(missing_ok=True)
        return None

    def _marker(self, number: int) -> Path:
        return self.chunks / f"{number:06}.json"
