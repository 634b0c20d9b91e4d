"""A hidden folder in which a local data set grows until it takes its name, and its lock.

.NAME.unfinished lies beside NAME. It stays when the work is interrupted, so that the same
command continues, and one process at a time works in it.
"""

import errno
import filecmp
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cbdm_scale.cluster.options import Log
from cbdm_scale.data.manifest import parse_manifest
from cbdm_scale.storage.disk import naming_the_disk
from data_prep.writing.shards import RECORDS

LOCK = ".lock"
NO_LOCKS = errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP
"""What file systems without locks answer."""


@contextmanager
def staging(folder: Path, *, wait: bool, log: Log) -> Iterator[Path]:
    """The hidden folder, held by this process alone; ``wait`` for another one, or ValueError.

    At an error it stays if it holds a finished shard, and a line says so; else it vanishes.
    """
    hidden = folder.parent / f".{folder.name}.unfinished"
    with naming_the_disk(str(folder.parent), "--out"):
        descriptor = _take(hidden, folder, wait, log)
    try:
        yield hidden
    except BaseException:
        finished = list((hidden / RECORDS).glob("*/*.parquet"))
        if finished:
            log(
                f"stopped; {len(finished)} finished shards are kept in {hidden}: the same "
                "command continues"
            )
        else:
            shutil.rmtree(hidden, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)
    shutil.rmtree(hidden, ignore_errors=True)


def _take(hidden: Path, folder: Path, wait: bool, log: Log) -> int:
    """A descriptor that holds the lock of the hidden folder, which is made if need be."""
    import fcntl

    while True:
        hidden.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(hidden / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # the one before us was just putting it in place
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            owner = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise ValueError(
                f"--out: {owner} is writing {folder} at this moment. Wait for it, or give "
                "another --out."
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            log(f"note: {hidden} cannot be locked: see that one command at a time writes there")
            return descriptor
        if _is_still_there(hidden / LOCK, descriptor):
            with suppress(OSError):  # a full disk, which what follows will name
                os.truncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode())
            return descriptor
        os.close(descriptor)


def _is_still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def put_in_place(hidden: Path, folder: Path, force_overwrite: bool) -> bool:
    """Rename the new folder to its name; False if the same content is there already."""
    try:
        hidden.rename(folder)
        (folder / LOCK).unlink(missing_ok=True)
        return True
    except OSError:  # it is there: from before, or another process was faster
        if not folder.is_dir():
            raise
    found = [f.relative_to(hidden) for f in hidden.rglob("*") if f.is_file()]
    files = [str(f) for f in found if not f.name.startswith(".")]
    _, differ, lacking = filecmp.cmpfiles(hidden, folder, files, shallow=False)
    if not differ and not lacking:
        return False
    if not force_overwrite:
        difference = _difference(hidden, folder)
        shutil.rmtree(hidden)
        raise ValueError(
            f"--out ({folder.parent}): {folder} is there already {difference}. Replace it with "
            "--force-overwrite, or give another --out."
        )
    old = hidden.with_name(f".{folder.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    hidden.rename(folder)
    (folder / LOCK).unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)
    return True


def _difference(hidden: Path, folder: Path) -> str:
    try:
        old, new = (parse_manifest((f / "dataset.json").read_bytes()) for f in (folder, hidden))
    except (OSError, ValueError):
        return "and its dataset.json is damaged"
    if old == new:
        return "and is damaged (its files are not what its dataset.json says)"
    if old.source == new.source:
        return "with other content from the same kind of source"
    return f"with other content ({old.source}; now: {new.source})"
