"""Which reader makes which data set, and which options mean something to it.

digits; cifar (through pickles); synthetic; long_tail (of any balanced source)
images (any file as pixels), keys, missing, classes <- listing (files that a list names)
    <- imagenet, cub, celeba, folder (through class_folders or label_tables)
foreign_shards <- samples <- foreign_tars, copies (of tars far away)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from data_prep.options import READER_OPTIONS, Options
from data_prep.readers.names import own_name

if TYPE_CHECKING:  # readers import numpy and more: only the chosen one does, so --help is quick
    from data_prep.source import Source

LONG_TAIL = 0.01
"""Default of --imbalance: the smallest class over the largest."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One line of --help, and what stands behind it."""

    about: str
    read: Callable[[str, Options], "Source"]
    """Canonical name and options -> source."""
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
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed ({options.seed}) must be 0 to 2^32 - 1. Try --seed 0.")
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
    return entry.read(name_of(dataset, options), options)


def _digits(name: str, options: Options) -> "Source":
    from data_prep.readers.digits import read_digits_lt

    return read_digits_lt(_imbalance(options), options.seed, options.profile or "exp")


def _cifar(name: str, options: Options) -> "Source":
    from data_prep.readers.cifar import CIFAR10, CIFAR100, read_cifar

    assert options.source is not None
    return read_cifar(
        {"cifar10": CIFAR10, "cifar100": CIFAR100}[name.removesuffix("_lt")],
        name,
        options.source,
        imbalance=_imbalance(options) if name.endswith("_lt") else None,
        seed=options.seed,
        allow_changed=options.allow_changed,
        profile=options.profile or "exp",
    )


def _imagenet(name: str, options: Options) -> "Source":
    from data_prep.readers.imagenet import read_imagenet_lt

    return read_imagenet_lt(name, options)


def _cub(name: str, options: Options) -> "Source":
    from data_prep.readers.cub import read_cub200

    return read_cub200(name, options)


def _celeba(name: str, options: Options) -> "Source":
    from data_prep.readers.celeba import read_celeba5

    return read_celeba5(name, options)


def _folder(name: str, options: Options) -> "Source":
    from data_prep.readers.folder import read_folder

    return _with_tail(read_folder(name, options), options)


def _webdataset(name: str, options: Options) -> "Source":
    from data_prep.readers.foreign_shards import read_webdataset

    return _with_tail(read_webdataset(name, options), options)


def _synthetic(name: str, options: Options) -> "Source":
    from data_prep.readers.synthetic import read_synthetic

    return _with_tail(read_synthetic(name, options), options)


def _with_tail(source: "Source", options: Options) -> "Source":
    """The source as it is, or with the long tail that --long-tail cuts into it."""
    from data_prep.readers.long_tail import long_tailed

    if options.long_tail is not None:
        return long_tailed(source, options.long_tail, options.profile or "exp", options.seed)
    if options.profile is not None:
        raise ValueError(
            f"--profile ({options.profile}) is the profile of --long-tail, which is missing. "
            "Add --long-tail 0.01, or leave it out."
        )
    return source


def _imbalance(options: Options) -> float:
    return LONG_TAIL if options.imbalance is None else options.imbalance


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
        read=_digits,
        takes=("imbalance", "profile"),
    ),
    "cifar10-lt": Dataset(
        about="CIFAR-10, long-tailed: the literature's seed-0 subset",
        read=_cifar,
        needs=CIFAR10_FOLDER,
        takes=("imbalance", "profile", "allow_changed"),
    ),
    "cifar100-lt": Dataset(
        about="CIFAR-100, long-tailed in the same way",
        read=_cifar,
        needs=CIFAR100_FOLDER,
        takes=("imbalance", "profile", "allow_changed"),
    ),
    "cifar10": Dataset(
        about="CIFAR-10, whole", read=_cifar, needs=CIFAR10_FOLDER, takes=("allow_changed",)
    ),
    "cifar100": Dataset(
        about="CIFAR-100, whole", read=_cifar, needs=CIFAR100_FOLDER, takes=("allow_changed",)
    ),
    "imagenet-lt": Dataset(
        about="ImageNet-LT: an ILSVRC folder and the published --train-list",
        read=_imagenet,
        needs={
            "source": "the ILSVRC 2012 folder, with train and val in it",
            "train_list": "ImageNet_LT_train.txt, as published",
        },
        takes=("eval_list", "resolution", "allow_missing"),
    ),
    "cub200": Dataset(
        about="CUB-200-2011, birds, in its own split",
        read=_cub,
        needs={"source": "the folder CUB_200_2011 of the unpacked archive"},
        takes=("resolution", "bounding_box", "allow_missing"),
    ),
    "celeba5": Dataset(
        about="CelebA-5, faces by hair: the published lists, or --clean",
        read=_celeba,
        needs={
            "source": "the folder with CelebA's img_align_celeba and the five classes' lists"
        },
        takes=("resolution", "clean", "allow_missing"),
    ),
    "folder": Dataset(
        about="your images: one folder a class, or a .csv or .parquet of path,label",
        read=_folder,
        needs={"source": "the folder with one folder a class, or the table"},
        takes=("name", "eval_source", "resolution", "channels", *TAIL, "allow_missing"),
        is_own=True,
    ),
    "webdataset": Dataset(
        about="your shards: 'URL-{000000..000123}.tar', img2dataset's too",
        read=_webdataset,
        needs={"source": "tars, such as 'URL-{000000..000123}.tar'", "name": "what to call it"},
        takes=(
            *("eval_source", "label_from", "classes", "resolution", "channels"),
            *(*TAIL, "allow_missing"),
        ),
        is_own=True,
    ),
    "synthetic": Dataset(
        about="procedural images, of any number, for load tests (no --source)",
        read=_synthetic,
        needs={"counts": "imagenet_lt, a number for each of --classes, or numbers a,b,c"},
        takes=("name", "classes", "eval_per_class", "resolution", *TAIL),
        is_own=True,
    ),
}
