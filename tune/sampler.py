"""The values of the next trial, as a function of what is known and of the seed alone.

TPE is Optuna's: Bergstra et al. 2011, for several objectives Ozaki et al. 2020. The study is
made anew from the records each time, so a search that was killed asks what it would have asked.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cbdm_scale.diffusion import rng
from tune.objective import METRICS, ObjectiveName, best_values, scalar
from tune.options import SearcherName
from tune.space import Choice, Space
from tune.trials import Trial

if TYPE_CHECKING:
    import optuna

START_AT_RANDOM = 8
"""Trials before TPE has enough to go by."""


def random_values(space: Space, seed: int, number: int) -> dict[str, float]:
    """Values of trial ``number``, evenly over the space (log-evenly where it says so)."""
    found = {}
    for option, dimension in sorted(space.items()):
        key = rng.make_key(seed, f"search/{number}/{option}")
        found[option] = round_to(dimension.at(key[0] / 2**32))
    return found


def next_values(
    space: Space,
    known: Sequence[Trial],
    objective: ObjectiveName,
    searcher: SearcherName,
    seed: int,
    number: int,
) -> dict[str, float]:
    """What to try next, given all trials before that were asked for from this space."""
    done = [t for t in known if t.rungs]
    if searcher == "random" or len(done) < START_AT_RANDOM:
        return random_values(space, seed, number)
    study = _study(space, known, objective, rng.make_key(seed, f"tpe/{number}")[0])
    asked = study.ask(dict(_distributions(space))).params
    return {option: round_to(float(asked[option])) for option in sorted(space)}


def round_to(value: float, digits: int = 4) -> float:
    """Few digits: what is printed is what was run."""
    return float(f"{value:.{digits}g}")


def _distributions(space: Space) -> Mapping[str, Any]:
    import optuna

    return {
        option: (
            optuna.distributions.CategoricalDistribution(list(dimension.values))
            if isinstance(dimension, Choice)
            else optuna.distributions.FloatDistribution(
                dimension.low, dimension.high, log=dimension.log
            )
        )
        for option, dimension in space.items()
    }


def _study(
    space: Space, known: Sequence[Trial], objective: ObjectiveName, seed: int
) -> "optuna.Study":
    """A study in memory that has seen what is recorded."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    metrics = METRICS[objective]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # multivariate is called experimental
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=START_AT_RANDOM, multivariate=True, constant_liar=True, seed=seed
        )
    study = optuna.create_study(sampler=sampler, directions=["minimize"] * len(metrics))
    study.add_trials([_frozen_trial(space, trial, objective) for trial in known])
    return study


def _frozen_trial(
    space: Space, trial: Trial, objective: ObjectiveName
) -> "optuna.trial.FrozenTrial":
    """A trial as Optuna has it.

    One that was stopped is pruned at its last rung: TPE ranks those by how far they came. With
    several objectives Optuna knows no pruning: the first rung, which all reach, counts.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    parts: dict[str, Any] = {
        "params": {option: trial.params[option] for option in space},
        "distributions": dict(_distributions(space)),
    }
    if trial.status == "failed" or not trial.rungs:
        state = TrialState.FAIL if trial.status == "failed" else TrialState.RUNNING
        return create_trial(state=state, **parts)
    values = [list(best_values(rung.scores, objective)) for rung in trial.rungs]
    if len(METRICS[objective]) > 1:
        return create_trial(state=TrialState.COMPLETE, values=values[0], **parts)
    if not math.isfinite(values[-1][0]):
        return create_trial(state=TrialState.FAIL, **parts)
    if trial.status == "finished":
        return create_trial(state=TrialState.COMPLETE, values=values[-1], **parts)
    steps = {rung.images: v[0] for rung, v in zip(trial.rungs, values, strict=True)}
    state = optuna.trial.TrialState.PRUNED
    return create_trial(state=state, value=values[-1][0], intermediate_values=steps, **parts)


def importance(
    space: Space, known: Sequence[Trial], objective: ObjectiveName
) -> dict[str, float]:
    """Share of the objective's variance that each parameter explains (fANOVA).

    Hutter et al. 2014. At the first rung, which all trials reach; {} from too few trials.
    """
    some = [t for t in known if t.rungs and set(space) <= set(t.params)]
    if len(some) < START_AT_RANDOM or len(space) < 2:
        return {}
    import optuna
    from optuna.trial import create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    distributions = dict(_distributions(space))
    for trial in some:
        value = scalar(best_values(trial.rungs[0].scores, objective))
        params = {option: trial.params[option] for option in space}
        study.add_trial(create_trial(value=value, params=params, distributions=distributions))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {option: float(share) for option, share in found.items()}
