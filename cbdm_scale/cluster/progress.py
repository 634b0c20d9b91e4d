"""How far long work is and how long it takes still: a bar on a terminal, lines elsewhere.

Plain lines (a log, a job's output, a pipe) come every few seconds while something gets done,
and once a minute where nothing does: silence means that the process is gone.
"""

import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from cbdm_scale.cluster.options import Log, to_stdout

LINE_EVERY_S = 5.0
"""Seconds between two plain lines of work that goes on."""
BAR_EVERY_S = 0.1
"""Seconds between two moves of a bar."""
FIRST_LINE_S = 20.0
"""Seconds of work that goes on after which it is shown for the first time, at the latest."""
SILENCE_S = 60.0
"""Seconds without a line after which the last state is said again."""


class ProgressLine(str):
    """A line that also says in numbers how far the work is, for a bar; it pickles."""

    done: int
    total: int

    def __new__(cls, text: str, done: int, total: int) -> "ProgressLine":
        line = super().__new__(cls, text)
        line.done, line.total = done, total
        return line

    def __getnewargs__(self) -> tuple[str, int, int]:  # type: ignore[override]
        return str(self), self.done, self.total


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours too, or days: 4:05, 1:00:00, 23 days."""
    if seconds >= 48 * 3600:
        return duration(seconds)
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def duration(seconds: float) -> str:
    """In the unit that people would say it in: 40 s, 12 min, 3.5 h, 23 days."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.0f} days"


def left_of(seconds: float) -> str:
    """What is left of work, in words: 4:05 left."""
    return f"{clock(seconds)} left"


class Screen:
    """Where lines go; on a terminal a ``ProgressLine`` moves one bar below them instead."""

    def __init__(self, log: Log = to_stdout) -> None:
        """A bar needs standard output to be a terminal, and lines that go nowhere else."""
        self.log, self.is_terminal = log, log is to_stdout and sys.stdout.isatty()
        self._bar: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_bar": None}  # which holds a lock; a copy begins its own

    def show(self, line: str) -> None:
        """Print a line, or move the bar to where it says."""
        if not self.is_terminal:
            self.log(line)
        elif isinstance(line, ProgressLine):
            if self._bar is None:
                from tqdm import tqdm

                form = "{percentage:3.0f}% {bar:20} {desc}"
                columns, rows = shutil.get_terminal_size()  # 80 x 24 where it says 0
                self._bar = tqdm(file=sys.stdout, bar_format=form, ncols=columns, nrows=rows)
            self._bar.n, self._bar.total = line.done, line.total
            self._bar.set_description_str(line.strip())
        elif self._bar is None:
            self.log(line)
        else:
            self._bar.write(line, file=sys.stdout)

    def close(self) -> None:
        """Leave the bar as it is; what is printed next goes below it."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class ProgressBar:
    """Counts what is done of ``total`` pieces of work and shows it now and then; a context.

    It may be used without being entered as a context; then only what is done is followed by
    lines, silence by none. Work of less than ``every_s`` seconds gives no line.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        log: Log = to_stdout,
        *,
        start: int = 0,
        every_s: float = LINE_EVERY_S,
        left: Callable[[float], str] = left_of,
    ) -> None:
        """``start`` of the ``total`` are done before; ``unit`` names them: "images".

        left: what is left in words, where the pieces alone take so many seconds more.
        """
        self.total, self.unit, self.start, self.every_s = total, unit, start, every_s
        self.screen, self._left = Screen(log), left
        self.done = 0
        """Pieces since the start."""
        self._lines = 0
        self._began = self._shown = self._last = time.monotonic()

    def __enter__(self) -> "ProgressBar":
        self._over = threading.Event()  # not before: what Tune keeps of a search is pickled
        threading.Thread(target=self._break_silence, daemon=True, name="progress").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.screen.close()

    def log(self, text: str) -> None:
        """A line of the workers; the clock starts with the last one before anything is done."""
        self._shown = time.monotonic()
        if not self.done:
            self._began = self._last = self._shown
        self.screen.show(text)

    def add(self, count: int) -> None:
        """So many more are done."""
        self.reach(self.start + self.done + count)

    def reach(self, done: int) -> None:
        """So many are done, with those from before the start."""
        self.done = done - self.start
        self._last = time.monotonic()
        every_s = self.every_s if self._lines else min(self.every_s, FIRST_LINE_S)
        every_s = BAR_EVERY_S if self.screen.is_terminal else every_s
        is_last = done >= self.total and self._lines > 0
        if is_last or self._last - self._shown >= every_s:
            self.show()

    def show(self) -> None:
        """Say how far it is."""
        self._shown = time.monotonic()
        self._lines += 1
        done = self.start + self.done
        rate = self.rate
        left = self._left((self.total - done) / rate) if rate else "? left"
        text = f"{done:>9,}/{self.total:,} {self.unit} | {_digits(rate)}/s | {left}"
        self.screen.show(ProgressLine(text, done, self.total))

    @property
    def rate(self) -> float:
        """Pieces a second until the last one, since all that begin with them were ready."""
        return self.done / max(self._last - self._began, 1e-9)

    def _break_silence(self) -> None:
        while not self._over.wait(1.0):
            if time.monotonic() - self._shown >= SILENCE_S:
                self.show()


def _digits(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"
