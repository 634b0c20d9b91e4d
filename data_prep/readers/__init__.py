"""Which reader makes which data set, and which options mean something to it.

digits; cifar (through pickles); photos (of cifar); synthetic
long_tail (of any balanced source)
images (any file as pixels), keys, classes <- listing (files that a list names)
    <- imagenet, cub, celeba, folder (through class_folders or label_tables)
webdataset_shards <- samples <- webdataset_tars, copies (of tars far away)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import TYPE_CHECKING

from data_prep.options import READER_OPTIONS, Options
from data_prep.readers.names import own_name

if TYPE_CHECKING:  # readers import numpy and more: only the chosen one does, so --help is quick
    from data_prep.source import Source


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One line of --help, and what stands behind it."""

    about: str
    read: str
    """module:function of this folder, called with the canonical name and the options."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Fields of Options that must be given -> what to give."""
    takes: tuple[str, ...] = ()
    """Fields of READER_OPTIONS that may be given."""
    is_own: bool = False
    """Whether it reads the user's own images, whose name is for the user to choose."""


def name_of(dataset: str, options: Options) -> str:
    """The data set's folder below --out, which is also its name for training."""
    if not DATASETS[dataset].is_own:
        return dataset.replace("-", "_")
    published = [n.replace("-", "_") for n, entry in DATASETS.items() if not entry.is_own]
    return own_name(
        options.name,
        options.source,
        dataset,
        long_tail=options.long_tail is not None,
        known=published,
    )


def read_source(dataset: str, options: Options) -> "Source":
    """Check that the options mean something to the data set, then read it."""
    entry = DATASETS[dataset]
    defaults = {f.name: f.default for f in fields(Options)}
    for option, word in READER_OPTIONS.items():
        value = getattr(options, option)
        if value == defaults[option]:
            if option in entry.needs:
                raise ValueError(f"{word} is missing: {entry.needs[option]}.")
        elif option not in (*entry.needs, *entry.takes):
            others = ", ".join(n for n, d in DATASETS.items() if option in (*d.needs, *d.takes))
            shown = "" if value is True else f" ({value})"
            raise ValueError(
                f"{word}{shown} means nothing for {dataset}. Leave it out; it is for {others}."
            )
    module, _, function = entry.read.partition(":")
    read = getattr(import_module(f"{__name__}.{module}"), function)
    source: Source = read(name_of(dataset, options), options)
    if "long_tail" not in entry.takes:
        return source
    from data_prep.readers.long_tail import with_tail

    return with_tail(source, options)


CIFAR10_FOLDER = {
    "source": "the folder of CIFAR-10 as published, cifar-10-batches-py or cifar-10-batches-bin"
}
CIFAR100_FOLDER = {
    "source": "the folder of CIFAR-100 as published, cifar-100-python or cifar-100-binary"
}
TAIL = ("long_tail", "profile")
DATASETS = {
    "digits-lt": Dataset(
        about="scikit-learn's real digits, 8x8, long-tailed (no --source)",
        read="digits:read_digits_lt",
        takes=("imbalance", "profile"),
    ),
    "cifar10-lt": Dataset(
        about="CIFAR-10, long-tailed: the literature's seed-0 subset",
        read="cifar:read_cifar",
        needs=CIFAR10_FOLDER,
        takes=("imbalance", "profile", "allow_changed"),
    ),
    "cifar100-lt": Dataset(
        about="CIFAR-100, long-tailed in the same way",
        read="cifar:read_cifar",
        needs=CIFAR100_FOLDER,
        takes=("imbalance", "profile", "allow_changed"),
    ),
    "photos16": Dataset(
        about="CIFAR-10 at 16 pixels, 500 down to 5 a class: small, for comparing methods",
        read="photos:read_photos16",
        needs=CIFAR10_FOLDER,
        takes=("allow_changed",),
    ),
    "cifar10": Dataset(
        about="CIFAR-10, whole",
        read="cifar:read_cifar",
        needs=CIFAR10_FOLDER,
        takes=("allow_changed",),
    ),
    "cifar100": Dataset(
        about="CIFAR-100, whole",
        read="cifar:read_cifar",
        needs=CIFAR100_FOLDER,
        takes=("allow_changed",),
    ),
    "imagenet-lt": Dataset(
        about="ImageNet-LT: an ILSVRC folder and the published --train-list",
        read="imagenet:read_imagenet_lt",
        needs={
            "source": "the ILSVRC 2012 folder, with train and val in it",
            "train_list": "ImageNet_LT_train.txt, as published",
        },
        takes=("eval_list", "resolution", "allow_missing"),
    ),
    "cub200": Dataset(
        about="CUB-200-2011, birds, in its own split",
        read="cub:read_cub200",
        needs={"source": "the folder CUB_200_2011 of the unpacked archive"},
        takes=("resolution", "bounding_box", "allow_missing"),
    ),
    "celeba5": Dataset(
        about="CelebA-5, faces by hair: the published lists, or --clean",
        read="celeba:read_celeba5",
        needs={
            "source": "the folder with CelebA's img_align_celeba and the five classes' lists"
        },
        takes=("resolution", "clean", "allow_missing"),
    ),
    "folder": Dataset(
        about="your images: one folder a class, or a .csv or .parquet of path,label",
        read="folder:read_folder",
        needs={"source": "the folder with one folder a class, or the table"},
        takes=("name", "eval_source", "resolution", "channels", *TAIL, "allow_missing"),
        is_own=True,
    ),
    "webdataset": Dataset(
        about="your shards: 'URL-{000000..000123}.tar', img2dataset's too",
        read="webdataset_shards:read_webdataset",
        needs={"source": "tars, such as 'URL-{000000..000123}.tar'", "name": "what to call it"},
        takes=(
            *("eval_source", "label_from", "classes", "resolution", "channels"),
            *(*TAIL, "allow_missing"),
        ),
        is_own=True,
    ),
    "synthetic": Dataset(
        about="procedural images, of any number, for load tests (no --source)",
        read="synthetic:read_synthetic",
        needs={"counts": "imagenet_lt, a number for each of --classes, or numbers a,b,c"},
        takes=("name", "classes", "eval_per_class", "resolution", *TAIL),
        is_own=True,
    ),
}
