"""Opening a URL, reading it with patience, and telling what may pass from what will not.

s3:// and gs:// go through ``pyarrow.fs``, every other scheme through fsspec, so that there is
one configuration of credentials and endpoints (AWS_ENDPOINT_URL and its kin). Errors of a store
are tried again after growing, jittered pauses, except those that another attempt cannot mend:
a file that is not there (FileNotFoundError), a request that is refused.
"""

import functools
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cbdm_scale.storage.wording import clip

ARROW_SCHEMES = "s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss"
WEB_SCHEMES = "http", "https"
PAUSES = 0.5, 1.0, 2.0, 4.0, 8.0
"""Seconds before each new attempt; each is shortened at random by up to half."""
TIMEOUT_S = 10.0
"""Seconds without a byte after which a web server's connection is given up."""
PART = 8 << 20
"""Bytes asked for at a time; what was received of a file is never asked for again."""
REFUSED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|NO_SUCH_BUCKET|HTTP code 40[13]"
    r"|INVALID_TOKEN|EXPIRED_TOKEN"
)
Result = TypeVar("Result")
_jitter = random.SystemRandom()


class StoreError(OSError):
    """A store that refuses, or fails again and again: proves nothing about its files."""


class PermanentError(Exception):
    """An answer about a file that another attempt would not change."""


class WrongSize(PermanentError):
    """The store says that a file has another size than it should: (size, should)."""

    def __str__(self) -> str:
        return f"it has {self.args[0]} bytes, not {self.args[1]}"


def split_scheme(url: str) -> tuple[str, str]:
    """("s3", "bucket/key") of a URL, ("", path) of a local path."""
    scheme, mark, rest = url.partition("://")
    return (scheme.lower(), rest) if mark else ("", url)


def refuse_password(option: str, value: str) -> None:
    """ValueError for a URL with a password in it, which would be printed and saved."""
    scheme, rest = split_scheme(value)
    user = rest.partition("/")[0].rpartition("@")[0]
    if scheme and (":" in user or (user and scheme in ("s3", "gs", "gcs", *WEB_SCHEMES))):
        host = rest.partition("/")[0].rpartition("@")[2]
        raise ValueError(
            f"{option} ({scheme}://***@{host}) carries a password, which would be printed and "
            "saved with the run. Leave it out and set it in the environment: "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )


def refuse_typed_passwords(argv: Sequence[str]) -> None:
    """ValueError for a command line with a password in a URL, whatever option it is for.

    Called before the line is parsed: what reads an option may quote it in a message.
    """
    option = "argument"
    for word in argv:
        name, mark, value = word.partition("=")
        if word.startswith("--"):
            option = name.removeprefix("--").replace("-", "_")
        refuse_password(option, value if mark and word.startswith("--") else word)


def open_url(
    url: str, option: str, given: str = "", *, once: bool = False
) -> tuple[Any, Any, str]:
    """The fsspec filesystem, the pyarrow filesystem and the path in them, of a URL or path.

    ``option`` is what the user set it with, to ``given`` if not to the URL itself. ``once``
    leaves every new attempt to the caller: the S3 client alone makes some 30 in 6 seconds.
    """
    refuse_password(option, given or url)
    refuse_password(option, url)
    try:
        return _open_url(url, once, os.getpid())  # connections do not survive a fork
    except (ImportError, ValueError, OSError) as error:
        raise ValueError(
            f"{option} ({given or url}) cannot be opened: {error}. Choose a local path or an "
            f"s3:// or gs:// URL with --{option}."
        ) from error


@functools.cache
def _open_url(url: str, once: bool, process: int) -> tuple[Any, Any, str]:
    from fsspec.core import url_to_fs
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow import fs as arrow

    scheme = split_scheme(url)[0]
    if scheme in ARROW_SCHEMES:
        native, path = arrow.FileSystem.from_uri(url)
        if scheme == "s3" and once:
            _, (options,) = native.__reduce__()  # the constructor overlooks AWS_ENDPOINT_URL
            native = arrow.S3FileSystem(
                region=native.region,
                endpoint_override=options["endpoint_override"] or None,
                retry_strategy=arrow.AwsStandardS3RetryStrategy(max_attempts=1),
            )
        return ArrowFSWrapper(native), native, path
    options = {}
    if scheme in WEB_SCHEMES:
        from aiohttp import ClientTimeout

        waits = ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
        options = {"client_kwargs": {"timeout": waits}}
    fs, path = url_to_fs(url, use_listings_cache=False, **options)
    return fs, arrow.PyFileSystem(arrow.FSSpecHandler(fs)), path


def _is_lasting(error: Exception) -> bool:
    """Whether another attempt would meet the same answer."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return True
    status = getattr(error, "status", getattr(error, "code", None))  # aiohttp, urllib
    if isinstance(status, int) and 400 <= status < 500:
        return status not in (408, 425, 429)
    return bool(REFUSED.search(str(error)))


def retry(
    call: Callable[[], Result], what: Callable[[], str], pauses: tuple[float, ...] = PAUSES
) -> Result:
    """The result of ``call``, tried again while what goes wrong may pass.

    ``what`` completes "cannot ...", such as "read s3://bucket/file".
    """
    for pause in (*pauses, None):
        try:
            return call()
        except (TypeError, AttributeError, AssertionError, NameError, ValueError):
            raise  # a mistake of ours or the user's, no answer of a store
        except (FileNotFoundError, PermanentError, StoreError):
            raise
        except Exception as error:  # stores have error classes of their own
            known = isinstance(error, OSError)
            words = clip(error if known else f"{type(error).__name__}: {error}", 400)
            if _is_lasting(error):
                raise StoreError(f"cannot {what()}, it is refused: {words}") from error
            if pause is None:
                tries = len(pauses) + 1
                raise StoreError(f"cannot {what()} after {tries} attempts: {words}") from error
        time.sleep(pause * _jitter.uniform(0.5, 1))
    raise AssertionError("the last attempt returns or raises")


@dataclass(frozen=True)
class Store:
    """A file system, read with patience; names as fsspec's own."""

    fs: Any
    native: Any
    pauses: tuple[float, ...] = PAUSES

    @property
    def is_local(self) -> bool:
        """Whether it is the disk of this machine: never tried again."""
        return "file" in self._protocols()

    @property
    def has_listings(self) -> bool:
        """Web servers need not have any."""
        return not set(WEB_SCHEMES) & self._protocols()

    def _protocols(self) -> set[str]:
        names = self.fs.protocol
        return {names} if isinstance(names, str) else set(names)

    def _retry(self, call: Callable[[], Result], path: str) -> Result:
        if self.is_local:
            return call()
        return retry(call, lambda: f"read {path}", self.pauses)

    def isdir(self, path: str) -> bool:
        """Whether a folder is there."""
        return bool(self._retry(lambda: self.fs.isdir(path), path))

    def cat_file(self, path: str) -> bytes:
        """A whole file."""
        return bytes(self._retry(lambda: self.fs.cat_file(path), path))

    def size(self, path: str) -> int | None:
        """Bytes of a file, None where the store does not say."""
        size = self._retry(lambda: self.fs.size(path), path)
        return None if size is None else int(size)

    def find(self, path: str) -> dict[str, Any]:
        """All files below a folder: path -> what the store says of it."""
        found = self._retry(lambda: self.fs.find(path, detail=True), path)
        return dict(found)

    def open(self, path: str, mode: str = "rb") -> Any:
        """A stream that can seek; of a web server without byte ranges, the file in memory."""
        from io import BytesIO

        if not self.has_listings and not self.fs.info(path).get("partial"):
            return BytesIO(self.cat_file(path))
        return self._retry(lambda: self.fs.open(path, mode), path)

    def parts(self, path: str, size: int) -> Iterator[bytes]:
        """The ``size`` bytes of a file, piece by piece; a cut goes on where it was."""
        stream: Any = None
        position = 0

        def more() -> bytes:
            nonlocal stream
            try:
                if stream is None:
                    stream = self._stream_from(path, position, size)
                data = bytes(stream.read(min(PART, size - position)))
                if not data:
                    raise OSError(f"it ended after {position} of {size} bytes")
                return data
            except BaseException:
                stream = None
                raise

        while position < size:
            data = retry(more, lambda: f"read {path}", self.pauses)
            yield data
            position += len(data)

    def _stream_from(self, path: str, position: int, size: int) -> Any:
        if not self.has_listings:
            return _web_stream(path, position, size)
        opened = self.native.open_input_file(path)
        if opened.size() != size:
            raise WrongSize(opened.size(), size)
        opened.seek(position)
        return opened


def _web_stream(url: str, position: int, size: int) -> Any:
    """What a web server has from a byte on, whether or not it knows of byte ranges."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    request = Request(url, headers={"Range": f"bytes={position}-"} if position else {})
    try:
        answer = urlopen(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        if error.code in (404, 410):
            raise FileNotFoundError(url) from error
        raise
    skip = 0 if answer.status == 206 else position  # or it begins at the start again
    length = answer.headers.get("Content-Length")
    if length is not None and int(length) != size - position + skip:
        raise WrongSize(int(length) + position - skip, size)
    while skip:
        skipped = len(answer.read(min(PART, skip)))
        if not skipped:
            raise OSError("it ended before the place where it was cut")
        skip -= skipped
    return answer
