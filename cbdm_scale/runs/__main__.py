"""cbdm runs, python -m cbdm_scale.runs: which runs there are, and old checkpoints away."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from cbdm_scale.cli.command import Command, main_of
from cbdm_scale.cluster.options import StorageOption
from cbdm_scale.storage.checks import PositiveInt, check_fields
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import with_values
from cbdm_scale.storage.path_options import absolute_paths


@dataclass(frozen=True, kw_only=True)
class RunsOptions:
    name: str = ""
    """Only this run."""

    keep_checkpoints: PositiveInt | None = None
    """Delete older checkpoints than the newest ones, so many of each run; the best by FID, of
    all and of the few classes, stay too, and a run that is being trained is left alone. Without
    it nothing is deleted."""

    dry_run: bool = False
    """Say what would be deleted, and delete nothing."""

    cluster: StorageOption = field(default_factory=StorageOption)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.dry_run and self.keep_checkpoints is None:
            raise ValueError("dry_run says what keep_checkpoints would delete. Give both.")


COMMAND = Command(
    name="runs",
    about="The runs in a storage: state, images, best FID, size. Deletes old checkpoints.",
    parts=(RunsOptions(),),
    short={"what": ("cluster.storage", "name"), "delete": ("keep_checkpoints", "dry_run")},
)


@main_of
def main(argv: Sequence[str]) -> int:
    """List the runs, or delete their old checkpoints. The exit status."""
    options = absolute_paths(with_values(RunsOptions(), COMMAND.read(argv)))
    from cbdm_scale.runs import listing

    storage = Storage(options.cluster.storage)
    runs = listing.find_runs(storage, options.name)
    if options.keep_checkpoints is None:
        print("\n".join(listing.table(runs)))
        return 0
    freed = 0
    for run in runs:
        if not run.may_be_cleaned:
            print(f"left {run.folder.url}: {run.state}")
        for name, size in listing.old_checkpoints(run, options.keep_checkpoints):
            freed += size
            print(f"{'would delete' if options.dry_run else 'deleted'} {run.folder.path(name)}")
            if not options.dry_run:
                run.folder.remove(name)
    print(f"{freed / 1e6:,.1f} MB {'would be free' if options.dry_run else 'are free'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
