"""The frozen network that a second stage learns from: in the run's folder, on every rank."""

from collections.abc import Callable

from torch import nn

from cbdm_scale.config.schema import Config
from cbdm_scale.diffusion.denoiser import Net
from cbdm_scale.models.cast import cast_weights
from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.distributed import World
from cbdm_scale.training.resume import load_teacher
from cbdm_scale.training.step import Compiled


def open_teacher(
    config: Config, run: Storage, net: nn.Module, world: World, log: Callable[[str], None]
) -> Net | None:
    """The teacher of a run, None of one that is no second stage. Every rank comes here.

    It is in the precision of the step, and compiled where the student is. ``net`` is the run's
    own network, before it is filled.
    """
    if not config.loss.distils:
        return None
    teacher, train = load_teacher(run, net, world), config.train
    called = cast_weights(teacher) if train.precision == "bf16" else teacher
    return Compiled(called, log) if train.compile else called
