"""What a search is told besides the options of the runs that it makes."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cbdm_scale.config.overrides import with_options
from cbdm_scale.config.schema import Config
from cbdm_scale.data.guidance_strength import in_order
from cbdm_scale.storage.checks import NonNegativeInt, PositiveFloat, Range, check_fields
from tune.objective import METRICS, ObjectiveName
from tune.schedule import even_rungs, rungs

SchedulerName = Literal["asha", "all", "pbt"]
SearcherName = Literal["tpe", "random"]
RECALL_IMAGES = 2_000
"""Images a side for an objective's recall: some seconds on a core, with 2,048 features."""
CONTROL_SHARE = 8
"""One trial in so many is a control, unless the user says how many."""
DIGITS: dict[str, Any] = {
    "train.total_images": 48_000,
    "train.sample_every": 0,
    "eval.num_images": 500,
    "eval.guidance": [1.0, 2.0],
}
"""For the laptop's data set: a trial to its end takes some four minutes on two cores."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    trials: Annotated[int, Range(ge=2)] = 32
    """Settings to try, controls included; more may be asked of a search later."""

    controls: int | None = None
    """How many of them have tau 0, which is DDPM: the first with the row's own values, the
    others with drawn ones, so that DDPM is tuned too. None: one in eight, at least one."""

    gpus_per_trial: NonNegativeInt = 0
    """GPUs of a trial, a worker each; 0: the workers that --cluster.workers says."""

    at_once: NonNegativeInt = 0
    """Trials at a time; 0: as many as the cluster has room for. The others queue."""

    objective: ObjectiveName = "fid"
    """What is minimised, each trial at its best guidance strength: fid (all classes), fid_few
    (the few ones), pareto (both), pareto_recall (both, and 1 - recall)."""

    scheduler: SchedulerName = "asha"
    """asha: at each rung the best third goes on. all: every trial to its end. pbt: at each rung
    the worst take over weights and, changed a little, values of the best."""

    searcher: SearcherName = "tpe"
    """Where the next values come from: tpe (Optuna's; for several objectives in the form that
    is made for them), or random."""

    eta: Annotated[int, Range(ge=2)] = 3
    """At a rung one trial in so many goes on; rungs are so many times as long as the last."""

    first_rung: PositiveFloat = 1 / 6
    """Before the first rung, where trials are compared and stopped for the first time: a share
    of the run, or from 1 on images."""

    finalists: NonNegativeInt = 3
    """Best trials that are repeated with other seeds, and the best control with them."""

    repeats: int = 3
    """Seeds of each repetition; the search's own seed is not among them."""

    space: tuple[str, ...] = ()
    """More or other dimensions, by option: loss.gamma (its usual range), loss.gamma=0.1:1
    (uniform), loss.gamma=log:0.1:1, loss.label_power=train,sqrt,bal (choices), or
    loss.p_uncond=0.1 (not searched)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.finalists and self.repeats < 2:
            raise ValueError(
                f"repeats ({self.repeats}) must be at least 2, or there is no telling what is "
                "noise. Try --repeats 3, or --finalists 0 for none."
            )
        if not 1 <= self.num_controls < self.trials:
            raise ValueError(
                f"controls ({self.controls}) must be at least 1 and below trials "
                f"({self.trials}): without a control nothing is known of tau."
            )

    @property
    def num_controls(self) -> int:
        """Trials with tau 0, which is DDPM: ``controls``, or a share of all."""
        shares = max(1, self.trials // CONTROL_SHARE)
        return shares if self.controls is None else self.controls


def searched_row(row: Config) -> Config:
    """The row with what a search wants of it; the command line still has the last word.

    Several guidance strengths at every evaluation, because the best one differs from loss to
    loss, and a half-life of the average that grows with the run: else an early rung judges
    what is left of the initial weights.
    """
    omega = row.eval.guidance[0]
    options: dict[str, Any] = {"eval.scan": True, "train.ema_ramp": row.train.ema_ramp or 0.1}
    if row.dataset == "digits_lt":
        options |= DIGITS
    elif len(row.eval.guidance) == 1 and isinstance(omega, float) and omega > 0:
        options["eval.guidance"] = [omega / 2, omega, 2 * omega]
    if row.eval.guidance_mode == "tcfg":  # strengths that the network is not told fail
        omegas = options.get("eval.guidance", row.eval.guidance)
        most = row.loss.max_guidance
        omegas = {omega if isinstance(omega, str) else min(omega, most) for omega in omegas}
        options["eval.guidance"] = sorted(omegas, key=in_order)
    if row.eval.seed is None:
        options["eval.seed"] = row.seed
    return with_options(row, options)


def with_recall(search: SearchConfig, base: Config) -> Config:
    """The runs with what the objective needs measured, unless the user says how many images."""
    if "recall" not in METRICS[search.objective] or base.eval.recall_images:
        return base
    return with_options(base, {"eval.recall_images": min(base.eval.num_images, RECALL_IMAGES)})


def all_rungs(search: SearchConfig, base: Config) -> tuple[int, ...]:
    """Images at which the trials of a search are evaluated and compared."""
    total, batch = base.train.total_images, base.train.batch_size
    first = search.first_rung
    first = int(first * total if first < 1 else first)
    if search.scheduler == "pbt":
        return even_rungs(total, batch, min(first, total))
    return rungs(total, batch, search.eta, min(first, total))
