"""Records that wait in the run folder until MLflow has them.

    <run>/tracking/<first seq>.jsonl   one record a line; local: appended, elsewhere: put whole
    <run>/tracking/<seq>.png           an image that a record names
    <run>/tracking/sent.json           {"seq": the last one sent, "marks": {key: step}}
    <run>/tracking/<segment>.damaged   its lines that are no records (records.py), for people

Two rules make every record arrive exactly once. Nothing is handed out for sending before it is
durable. And nothing is taken whose ``step`` is not above the mark of its key, the largest
``step`` that the spool ever took for it: a run that restarts from an older checkpoint redoes
the same numbers, which are dropped.
"""

import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from io import FileIO

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.wording import shorten
from cbdm_scale.tracking.records import Record, decode_all, encode, image_file, number

SEGMENT_BYTES = 1 << 18
log = logging.getLogger(__name__)


def _mark_keys(record: Record) -> list[str]:
    """What may be logged only once per ``step``: each scalar, image and alias by name."""
    names = [f"scalar/{name}" for name in record.get("scalars", {})]
    names += [f"alias/{alias}" for alias in record.get("aliases", [])]
    return names + ([f"image/{record['image']}"] if "image" in record else [])


@dataclass(frozen=True)
class _Sent:
    """What MLflow has: all records up to one, and the last step of what is logged once."""

    seq: int = 0
    marks: dict[str, int] = field(default_factory=dict)


class Spool:
    """Written by the training thread, read by the sender's; both may call ``sync``."""

    def __init__(self, folder: Storage) -> None:
        self.folder = folder
        sent = folder.read_json("sent.json", _Sent) if folder.exists("sent.json") else _Sent()
        self.sent: int = sent.seq
        self.last = self.sent
        self._sent_marks: dict[str, int] = sent.marks
        self._marks: dict[str, int] = dict(self._sent_marks)
        self._segments: list[str] = []
        self._damaged: set[str] = set()  # segments whose damaged lines are set aside
        self._recover()
        self._lock = threading.Lock()  # held for microseconds: counters and one small write
        self._sync_lock = threading.Lock()  # held while the disk or the store is waited for
        self._file: FileIO | None = None  # the open segment of a local spool
        self._written = 0  # bytes of it
        self._retired: list[FileIO] = []  # full segments that are still to be synced
        self._buffer: list[tuple[Record, bytes | None]] = []  # a remote spool's next segment

    def _recover(self) -> None:
        """Read what earlier processes left, cut what they did not finish writing."""
        files, needed = self.folder.list(), set()
        for name in (name for name in files if name.endswith(".jsonl")):
            data = self.folder.read_bytes(name)
            records = self._decode(name, data)
            if not records or records[-1]["seq"] <= self.sent:
                self.folder.remove(name)
                continue
            whole = b"".join(encode(record) for record in records)
            if len(whole) != len(data):
                self.folder.write_bytes(name, whole)  # nothing may follow a torn line
            for record in records:
                self._raise_marks(self._marks, record)
            needed |= {r["file"] for r in records if "file" in r and r["seq"] > self.sent}
            self.last = max(self.last, records[-1]["seq"])
            self._segments.append(name)
        for name in files:
            if name.endswith(".png") and name not in needed:
                self.folder.remove(name)

    def _decode(self, name: str, data: bytes, after: int = -1) -> list[Record]:
        """The records of a segment above ``after``; its damaged lines are named, set aside."""
        records, damaged = decode_all(data, after)
        if damaged and name not in self._damaged:
            kept = f"{name}.damaged"
            before = self.folder.read_bytes(kept) if self.folder.exists(kept) else b""
            lines = b"".join(line + b"\n" for line, _ in damaged)
            self.folder.write_bytes(kept, before + lines)
            self._damaged.add(name)
            log.warning(
                "%s: %d damaged records are set aside in %s and do not reach MLflow: %s",
                *(self.folder.path(name), len(damaged), kept),
                shorten([why for _, why in damaged], each=200, between="; "),
            )
        return records

    @staticmethod
    def _raise_marks(marks: dict[str, int], record: Record) -> None:
        for key in _mark_keys(record):
            marks[key] = max(marks.get(key, -1), record["step"])

    @property
    def unsent(self) -> int:
        """Records that MLflow does not have yet."""
        return self.last - self.sent

    def _is_new(self, key: str, step: int) -> bool:
        return step > self._marks.get(key, -1)

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics at ``step``; those that the spool has taken there before are dropped."""
        new = {k: v for k, v in values.items() if self._is_new(f"scalar/{k}", step)}
        if new:
            self._add({"step": step, "scalars": {k: number(v) for k, v in new.items()}})

    def add_image(self, step: int, name: str, png: bytes) -> None:
        """A PNG at ``step``, likewise."""
        if self._is_new(f"image/{name}", step):
            self._add({"step": step, "image": name}, png)

    def add_model(self, step: int, checkpoint: str, aliases: list[str]) -> None:
        """A checkpoint to register, and aliases to point at it; only if one of them is new."""
        new = [alias for alias in aliases if self._is_new(f"alias/{alias}", step)]
        if new:
            self._add({"step": step, "model": checkpoint, "aliases": new})

    def add_tags(self, values: Mapping[str, str]) -> None:
        """Tags of the run; never dropped."""
        if values:
            self._add({"tags": dict(values)})

    def _add(self, content: Record, png: bytes | None = None) -> None:
        with self._lock:
            self.last += 1
            record = {"seq": self.last, "time": time.time_ns() // 1_000_000, **content}
            if png is not None:
                record["file"] = image_file(self.last)
            if self.folder.is_local:
                self._append(record, png)
            else:
                self._buffer.append((record, png))
            self._raise_marks(self._marks, record)

    def _append(self, record: Record, png: bytes | None) -> None:
        if png is not None:
            self.folder.write_bytes(record["file"], png)
        if self._file is not None and self._written > SEGMENT_BYTES:
            self._retired.append(self._file)
            self._file = None
        if self._file is None:
            name = f"{record['seq']:012d}.jsonl"
            self._file, self._written = self.folder.open_append(name), 0
            self._segments.append(name)
        line = encode(record)
        try:
            self.folder.write_all(self._file, line)
        except OSError:
            self._retired.append(self._file)
            self._file = None  # what follows must not continue a torn line
            raise
        self._written += len(line)

    def sync(self) -> None:
        """Make everything added so far survive a power cut. Waits for the disk or the store."""
        with self._sync_lock:
            with self._lock:
                current, retired, buffer = self._file, self._retired, self._buffer
                self._retired, self._buffer = [], []
            for file in retired:
                os.fsync(file.fileno())
                file.close()
            if current is not None:
                os.fsync(current.fileno())
            if buffer:
                self._put(buffer)

    def _put(self, buffer: list[tuple[Record, bytes | None]]) -> None:
        """Write one whole segment to a store that cannot append."""
        name = f"{buffer[0][0]['seq']:012d}.jsonl"
        try:
            for record, png in buffer:
                if png is not None:
                    self.folder.write_bytes(record["file"], png)
            self.folder.write_bytes(name, b"".join(encode(record) for record, _ in buffer))
        except BaseException:
            with self._lock:
                self._buffer = buffer + self._buffer
            raise
        with self._lock:
            self._segments.append(name)

    def next_unsent(self) -> list[Record]:
        """The next records to send, oldest first and all of one segment; durable when given."""
        with self._lock:
            last = self.last
        if last == self.sent:
            return []
        self.sync()
        with self._lock:
            names = list(self._segments)
        for name in names:
            records = self._decode(name, self.folder.read_bytes(name), self.sent)
            found = [record for record in records if record["seq"] <= last]
            if found:
                return found
        self.sent = last  # a number whose record could not be written
        return []

    def mark_sent(self, records: list[Record]) -> None:
        """Remember that these arrived, then delete what is not needed any more."""
        for record in records:
            self._raise_marks(self._sent_marks, record)
        self.sent = records[-1]["seq"]
        self.folder.write_json("sent.json", asdict(_Sent(self.sent, self._sent_marks)))
        for record in records:
            if "file" in record:
                self.folder.remove(record["file"])
        with self._lock:
            firsts = [int(name.removesuffix(".jsonl")) for name in self._segments[1:]]
            done = [
                n for n, f in zip(self._segments, firsts, strict=False) if f <= self.sent + 1
            ]
            if self._file is None and self.sent == self.last:
                done = list(self._segments)
            self._segments = [name for name in self._segments if name not in done]
        for name in done:
            self.folder.remove(name)

    def close(self) -> None:
        """Sync and let go of the open segment; nothing is added afterwards."""
        self.sync()
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
