"""folder: anybody's images, from one folder a class or from a table of paths and labels."""

from dataclasses import replace
from pathlib import Path

from data_prep.options import Options
from data_prep.readers.class_folders import find_splits, list_folder
from data_prep.readers.classes import KnownClasses, LabelledListing, eval_notes
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
    layout: tuple[str, ...] = ()
    if is_table(root):
        train, test = list_table(root, "--source"), {}
        made = "a table of paths and labels"
    else:
        folders, layout = find_splits(root, "--source")
        train = list_folder(folders.pop("train"), "--source")
        test = {
            split: list_folder(folder, "--source", KnownClasses(train.class_names, split))
            for split, folder in folders.items()
        }
        made = "one folder a class"
    known = KnownClasses(train.class_names, "eval")
    held = train if eval_source is None else _list(Path(eval_source).expanduser(), known)
    found = {"train": train, "eval": held} | test
    notes = dict.fromkeys([*layout, *(n for part in found.values() for n in part.notes)])
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


def _list(source: Path, known: KnownClasses) -> LabelledListing:
    option = "--eval-source"
    if is_table(source):
        return list_table(source, option, known)
    folders, layout = find_splits(source, option)
    found = list_folder(folders.get("test", folders["train"]), option, known)
    return replace(found, notes=(*layout, *found.notes))
