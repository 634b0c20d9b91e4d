"""What the compare command can be told."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from cbdm_scale.cluster.options import StorageOption
from cbdm_scale.storage.checks import NonNegativeInt, check_fields
from cbdm_scale.storage.path_options import Folder, PathOption
from tune.comparison.protocol import PhaseName


@dataclass(frozen=True, kw_only=True)
class CompareData:
    root: Folder = "~/cbdm_scale/shards"
    """Folder or URL that holds the data sets made by `cbdm prepare`. With {seed} in it
    every seed has its own, such as another draw of the tail."""


@dataclass(frozen=True, kw_only=True)
class CompareCluster(StorageOption):
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where the networks run; auto is gpu if this machine has any."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    protocol: Annotated[str, PathOption(lasts=False, word=r"[\w-]+")] = "digits"
    """What is compared: a YAML file, or one that comes with the project: digits, photos16,
    paper."""

    phase: PhaseName = "screen"
    """screen: one seed, to see where the best of each method lies. confirm: fresh seeds, whose
    numbers count."""

    rows: tuple[str, ...] = ()
    """Methods of the protocol, instead of the phase's; the control is always among them."""

    seeds: tuple[NonNegativeInt, ...] = ()
    """Instead of the phase's: more of them go on where fewer ended."""

    extractor: Annotated[tuple[str, ...], PathOption(lasts=False, after="classifier:")] = ()
    """Networks whose features are compared, instead of the protocol's, a feature space of each,
    of the same images: classifier, classifier:PATH, inception, dinov2. The first chooses stop
    and strength."""

    parallel: NonNegativeInt = 0
    """Networks at a time, a process and a core or a GPU each; 0: as many as there are."""

    name: str = ""
    """Of the comparison's folder; "" is the protocol's."""

    dry_run: bool = False
    """Measure what a step costs, print what would be done and how long it takes, and stop."""

    data: CompareData = field(default_factory=CompareData)
    cluster: CompareCluster = field(default_factory=CompareCluster)

    def __post_init__(self) -> None:
        check_fields(self, "--")
