"""The folder of a run: every name in it stands here.

    config.json                       the configuration, its images' sizes and classes' names
    mlflow_run_id                     the run of MLflow that it continues
    init.safetensors, init.json       weights that training starts from, and where from;
                                      in a second stage they are the teacher's, too
    checkpoints/<num_seen>/           model.safetensors, ema.safetensors, optimizer.safetensors,
                                      posthoc.safetensors (of a run that keeps averages of two
                                      widths), and last state.json
    posthoc/<num_seen>.safetensors    averages of two widths, for those of other widths; .json
    samples/<num_seen>.png            the grid of samples; samples/<set>/ of the sample command
    evaluation/<id>/                  numbers, by command with a report; those in training have
                                      the id <num_seen>-training
    tracking/                         what MLflow has not got yet
    lease.json                        which command works here now; also in a set that is being
                                      made, and in an evaluation
    stop                              somebody asked the run to stop
    .ray/                             Ray's own

num_seen = images shown in training, over all ranks, as twelve digits.
"""

from dataclasses import dataclass

from cbdm_scale.storage.checks import check_name
from cbdm_scale.storage.folder import Storage

RESERVED = "search", "compare", "mlflow.db", "mlartifacts"
"""What else stands in cluster.storage, beside the runs."""


def check_run_name(name: str) -> None:
    """ValueError for a --name that is no folder of its own in cluster.storage."""
    check_name("name", name)
    if name in RESERVED:
        raise ValueError(
            f"name ({name}) is taken: cluster.storage keeps something else there. Try --name "
            f"my_{name}."
        )


@dataclass(frozen=True)
class RunDir:
    """Names in the folder of a run, and what is there of those that are numbered."""

    folder: Storage

    CONFIG = "config.json"
    MLFLOW_RUN_ID = "mlflow_run_id"
    INITIAL, INITIAL_ABOUT = "init.safetensors", "init.json"
    STOP = "stop"

    CHECKPOINTS = "checkpoints"
    SAMPLES = "samples"
    EVALUATION = "evaluation"
    AVERAGES = "posthoc"
    TRACKING = "tracking"
    RAY = ".ray"

    MODEL, EMA, OPTIMIZER = "model.safetensors", "ema.safetensors", "optimizer.safetensors"
    POSTHOC, STATE = "posthoc.safetensors", "state.json"
    """Files of a checkpoint."""

    @staticmethod
    def checkpoint(num_seen: int) -> str:
        """The folder of a checkpoint."""
        return f"{RunDir.CHECKPOINTS}/{num_seen:012d}"

    @staticmethod
    def partial_checkpoint(num_seen: int) -> str:
        """Where a checkpoint is written on a local disk, before it appears whole."""
        return f"{RunDir.CHECKPOINTS}/.{num_seen:012d}.partial"

    @staticmethod
    def averages(num_seen: int) -> tuple[str, str]:
        """The file of the averages kept then, and the one of its size and sha256."""
        stem = f"{RunDir.AVERAGES}/{num_seen:012d}"
        return f"{stem}.safetensors", f"{stem}.json"

    @staticmethod
    def grid(num_seen: int) -> str:
        """The grid of samples."""
        return f"{RunDir.SAMPLES}/{num_seen:012d}.png"

    @staticmethod
    def training_evaluation(num_seen: int) -> str:
        """The folder of an evaluation in training."""
        return f"{RunDir.EVALUATION}/{num_seen:012d}-training"

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints, the oldest first, whole or not."""
        names = self.folder.child(self.CHECKPOINTS).list()
        return [f"{self.CHECKPOINTS}/{name}" for name in names if not name.startswith(".")]

    def kept_averages(self) -> list[int]:
        """num_seen of the averages that were kept, in rising order."""
        return self._numbers(self.AVERAGES, ".json")

    def training_evaluations(self) -> list[int]:
        """num_seen of the evaluations in training, in rising order."""
        return self._numbers(self.EVALUATION, "-training")

    def _numbers(self, folder: str, end: str) -> list[int]:
        names = self.folder.child(folder).list()
        stems = [name.removesuffix(end) for name in names if name.endswith(end)]
        return sorted(int(stem) for stem in stems if stem.isdecimal())
