"""cbdm describe ROOT[/NAME]: images per class as a table and as a picture.

K = number of classes.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from cbdm_scale.data.groups import GROUPS
from cbdm_scale.data.manifest import Manifest, open_folder, read_manifest, read_shards
from cbdm_scale.storage.folder import Storage
from data_prep.checking.sets import find_sets
from data_prep.options import DescribeOptions


def table(root: str, manifest: Manifest) -> Iterator[str]:
    """The lines of the table: one a class in the data set's order, then totals and sizes."""
    splits = ["train", *sorted(set(manifest.counts) - {"train"})]
    wide = max(len("class"), *map(len, manifest.class_names))
    digits = len(str(manifest.num_classes - 1))
    yield f"{manifest.name}: {manifest.source}"
    yield ""
    heads = "".join(f"{split:>10}" for split in splits)
    yield f"{'':{digits}}  {'class':{wide}}{heads}  group"
    for c, name in enumerate(manifest.class_names):
        counts = "".join(f"{manifest.counts[split][c]:>10,}" for split in splits)
        yield f"{c:{digits}}  {name:{wide}}{counts}  {manifest.groups[c]}"
    totals = "".join(f"{manifest.num_images(split):>10,}" for split in splits)
    yield f"{'':{digits}}  {'all':{wide}}{totals}"
    yield ""
    for group in GROUPS:
        chosen = [c for c, g in enumerate(manifest.groups) if g == group]
        images = sum(manifest.counts["train"][c] for c in chosen)
        share = images / manifest.num_images("train")
        yield f"{group:7}{len(chosen):5} classes{images:10,} training images ({share:.1%})"
    yield f"imbalance {imbalance(manifest)}"
    yield ""
    store, folder = open_folder(root, manifest.name)
    shards = read_shards(store, folder)[1]
    for split in splits:
        of_split = [s for s in shards if s["file"].startswith(f"{split}/")]
        size = sum(s["bytes"] for s in of_split)
        each = size / max(manifest.num_images(split), 1)
        yield (
            f"{split:7}{len(of_split):5} shards{size / 1e6:12,.1f} MB, {each:,.0f} bytes an "
            "image with its headers"
        )
    size = manifest.image_size
    yield f"images  {size} x {size} pixels, {manifest.channels} channels"


def imbalance(manifest: Manifest) -> str:
    """Largest over smallest class that has training images at all."""
    counts = [n for n in manifest.counts["train"] if n]
    empty = manifest.num_classes - len(counts)
    words = f"{max(counts):,} : {min(counts):,}"
    return words + (f", and {empty} classes without a training image" if empty else "")


def picture(root: str, manifest: Manifest, out: str) -> str:
    """Draw the data set; where the picture is: ``out``, or beside the data set if ""."""
    from data_prep.checking.picture import draw

    if out:
        draw(root, manifest, Path(out))
        return out
    target, file = Storage(root, ""), f"{manifest.name}.png"
    with TemporaryDirectory(prefix="data_prep-") as folder:
        path = Path(folder) / file
        draw(root, manifest, path)
        try:
            target.write_bytes(file, path.read_bytes())
        except (OSError, NotImplementedError) as error:  # the latter of stores to read only
            raise ValueError(
                f"{target.path(file)} cannot be written ({error}). Say with --out where the "
                "picture goes."
            ) from error
    return target.path(file)


def print_tables(options: DescribeOptions) -> int:
    """A table and a picture of every data set; the exit status."""
    root, names = find_sets(options.where)
    if options.out and len(names) > 1:
        raise ValueError(
            f"--out ({options.out}) is one picture, and {root} holds {len(names)} data sets. "
            f"Name one of them: {root}/{names[0]}"
        )
    for name in names:
        manifest = read_manifest(root, name)
        print("\n".join(table(root, manifest)))
        print(f"picture {picture(root, manifest, options.out)}\n")
    return 0
