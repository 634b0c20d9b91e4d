"""Images that a source could not give: named, counted, and judged at the end of the writing.

K = number of classes.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.wording import shorten
from data_prep.source import Source
from data_prep.writing.tars import Bad, ShardRecord


class LeftOut:
    """What the shards hold, (K,) images per split, and what they were to hold but do not."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.bad: list[tuple[str, Bad]] = []
        k = len(source.class_names)
        self.counts: dict[str, NDArray[np.int64]] = {
            split: np.zeros(k, np.int64) for split in source.splits
        }

    def add(self, record: ShardRecord) -> None:
        """Count what a finished shard holds, and note what it does not."""
        k = len(self.source.class_names)
        self.counts[record.split] += np.bincount(record.rows["label"].to_numpy(), minlength=k)
        self.bad += [(record.split, bad) for bad in record.bad]

    @property
    def real_counts(self) -> tuple[int, ...]:
        """(K,) training images that are real, where others were generated; () without such."""
        train = self.source.splits["train"]
        if not train.about:
            return ()
        kept = train.is_real
        kept[[bad.row for split, bad in self.bad if split == "train"]] = False
        k = len(self.source.class_names)
        return tuple(np.bincount(train.labels[kept], minlength=k).tolist())

    def judge(self, folder: Storage | None, log: Callable[[str], None]) -> None:
        """Write <name>.bad.txt; ValueError if too many are missing, or a class is lost."""
        source = self.source
        name = f"{source.name}.bad.txt"
        if folder is not None and not self.bad:
            folder.remove(name)
        if not self.bad:
            return
        where = "" if folder is None else f" They are named in {folder.path(name)}."
        if folder is not None:
            lines = [
                f"{split}\t{source.class_names[bad.label]}\t{bad.key}\t{bad.reason}\n"
                for split, bad in sorted(self.bad, key=lambda pair: (pair[0], pair[1].row))
            ]
            folder.write_bytes(name, "".join(lines).encode())
        number = len({(bad.key, bad.reason) for _, bad in self.bad})  # one in two splits is one
        few = f"{number} image{'' if number == 1 else 's'}"
        self._check_classes(where)
        if number > source.allow_missing:
            raise ValueError(
                f"{few} of {source.name} cannot be read, and {source.allow_missing} may be "
                f"missing at this point.{where} Mend them, or raise --allow-missing by "
                f"{number - source.allow_missing}."
            )
        log(f"note: {few} cannot be read and {'is' if number == 1 else 'are'} left out.{where}")

    def _check_classes(self, where: str) -> None:
        source = self.source
        k = len(source.class_names)
        for split in source.splits:
            planned = np.bincount(source.splits[split].labels, minlength=k)
            lost = np.flatnonzero((planned > 0) & (self.counts[split] == 0))
            if split == "train" and len(lost):
                names = shorten([source.class_names[c] for c in lost])
                raise ValueError(
                    f"{len(lost)} classes of {source.name} lost all their training images "
                    f"({names}): no image of theirs can be read.{where} Mend --source."
                )
            if not self.counts[split].any():
                raise ValueError(
                    f"no image of the {split} split of {source.name} can be read.{where} Mend "
                    "--source."
                )
