"""The pictures of the documents: the first screen of a run's report, and its newest grid.

    python -m benchmarks.pictures --run runs/RUN        # docs/images/{report,samples}.png

The run has been evaluated (``cbdm_scale.evaluate``). A Chromium takes the report's picture.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

BROWSERS = "chromium", "chromium-browser", "google-chrome", "chrome"
QUIET = (
    "--headless --no-sandbox --disable-gpu --no-first-run --hide-scrollbars --disable-sync "
    "--disable-background-networking --disable-component-update --virtual-time-budget=8000"
)
MOST_BYTES = 200_000


def newest(run: Path, pattern: str, command: str) -> Path:
    """The newest of a run's files that match; SystemExit names the command that makes one."""
    found = sorted(run.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise SystemExit(f"--run {run} has no {pattern}. Make one with {command}.")
    return found[-1]


def screenshot(page: Path, width: int, height: int) -> Image.Image:
    """The first screen of a page; SystemExit where there is no Chromium."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(
            f"none of {', '.join(BROWSERS)} is installed: apt-get install chromium"
        )
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder, "screen.png")
        # A window is taller than what it shows.
        words = [f"--user-data-dir={folder}", f"--window-size={width},{height + 200}"]
        words += [f"--screenshot={to}", page.resolve().as_uri()]
        subprocess.run(
            [browser, *QUIET.split(), *words], check=True, capture_output=True, timeout=120
        )
        return Image.open(to).convert("RGB").crop((0, 0, width, height))


def save_small(picture: Image.Image, path: Path) -> None:
    """A PNG of at most ``MOST_BYTES``: of 256 colours, and scaled down where it must be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        picture.quantize(256).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size:,} bytes")
            return
        picture = picture.resize((picture.width * 4 // 5, picture.height * 4 // 5))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of an evaluated run")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1000)
    args = parser.parse_args()
    page = newest(args.run, "evaluation/*/report.html", f"cbdm_scale.evaluate --run {args.run}")
    grid = newest(args.run, "samples/*.png", "cbdm_scale.train")
    save_small(screenshot(page, args.width, args.height), args.out / "report.png")
    save_small(Image.open(grid).convert("RGB"), args.out / "samples.png")


if __name__ == "__main__":
    main()
