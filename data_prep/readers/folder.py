"""folder: anybody's images, from one folder a class or from a table of paths and labels."""

from pathlib import Path

from data_prep.options import Options
from data_prep.readers.class_folders import find_splits, list_folder
from data_prep.readers.classes import LabelledListing, check_same_classes, eval_notes
from data_prep.readers.label_tables import is_table, list_table
from data_prep.readers.listing import listed_source
from data_prep.source import Source


def read_folder(name: str, options: Options) -> Source:
    """Train is --source; eval is --eval-source, or else the same images once more.

    In ImageFolder's layout (train/ and val/ or test/) the latter becomes the split test.
    """
    source, eval_source = options.source, options.eval_source
    assert source is not None
    root = Path(source).expanduser()
    if is_table(root):
        found = {"train": list_table(root, "--source")}
        made = "a table of paths and labels"
    else:
        folders = find_splits(root, "--source")
        found = {s: list_folder(folder, "--source") for s, folder in folders.items()}
        made = "one folder a class"
    train = found["train"]
    test = {split: part for split, part in found.items() if split == "test"}
    held = train if eval_source is None else _list(Path(eval_source).expanduser())
    found = {"train": train, "eval": held} | test
    for split, part in found.items():
        option = f"--eval-source ({eval_source})" if split == "eval" else f"--source ({source})"
        check_same_classes(train.class_names, part.class_names, split, option)
    notes = dict.fromkeys(note for part in found.values() for note in part.notes)
    if eval_source is None:
        notes |= dict.fromkeys(eval_notes(train.listing.labels))
    return listed_source(
        {split: part.listing for split, part in found.items()},
        name=name,
        class_names=train.class_names,
        made=made,
        notes=notes,
        options=options,
    )


def _list(source: Path) -> LabelledListing:
    option = "--eval-source"
    if is_table(source):
        return list_table(source, option)
    folders = find_splits(source, option)
    return list_folder(folders.get("test", folders["train"]), option)
