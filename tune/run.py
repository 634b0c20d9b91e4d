"""A search from its first check to its results."""

from dataclasses import replace

from cbdm_scale.cluster.connect import connect
from cbdm_scale.cluster.node_probes import check_gpus
from cbdm_scale.config.schema import Config
from cbdm_scale.runs.launch import check_extractor, prepare_data
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.json import flatten
from cbdm_scale.storage.lease import lease, wait_until_free
from cbdm_scale.tracking.runs import default_tracking_uri, end_run, start_run
from tune.analysis import choose_finalists
from tune.identity import identity, open_search_dir, search_name
from tune.options import SearchConfig, all_rungs
from tune.pbt import check_population_fits, check_searchable
from tune.ray_trials import max_concurrent, run_trials
from tune.results import write_results
from tune.search import Search
from tune.space import Space, mlflow_key
from tune.trainable import TrialTemplate


def run_search(options: SearchConfig, base: Config, space: Space) -> int:
    """Check, run all trials, and write what was found; gives the exit status."""
    storage = Storage(base.cluster.storage)
    name = search_name(options, base, space)
    folder = storage.child("search").child(name)
    if options.gpus_per_trial:
        cluster = replace(base.cluster, workers=options.gpus_per_trial, device="gpu")
        base = replace(base, cluster=cluster)
    steps = all_rungs(options, base)
    if options.scheduler == "pbt":
        check_searchable(space)
    check_extractor(base, prepare_data(base))
    doing = f"search {name} is being run"
    wait_until_free(folder, doing)
    connect(base.cluster)
    check_gpus(base.cluster)
    options = replace(options, at_once=max_concurrent(base.cluster, options.at_once))
    storage.check_writable()
    with lease(folder, doing):
        _run_in(folder, options, base, space, steps)
    return 0


def _run_in(
    folder: Storage, options: SearchConfig, base: Config, space: Space, steps: tuple[int, ...]
) -> None:
    """All trials and what follows from them, in the search's own folder."""
    storage, name = Storage(base.cluster.storage), folder.url.rpartition("/")[2]
    at_once = options.at_once
    open_search_dir(folder, identity(options, base, space))
    uri = base.track.uri or default_tracking_uri(storage)
    about = flatten(identity(options, base, space))
    params = {mlflow_key(o): str(v) for o, v in about.items()}
    tags = {"search": name, "kind": "search", "run_folder": folder.url}
    parent = start_run(uri, base.track.experiment, folder, name, params, tags)
    runs = trial_base(options, base, folder, uri, steps)
    template = TrialTemplate(base=runs, name=name, rungs=steps, uri=uri, parent=parent)
    search = Search(options, base, space, folder, template)
    print(
        f"search {name} in {folder.url}, {options.trials} trials, {at_once} at once", flush=True
    )
    status = "FAILED"
    try:
        with search.progress:
            _run_all(search, at_once)
        write_results(search, folder)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        end_run(uri, parent, status)


def _run_all(search: Search, at_once: int) -> None:
    """The trials, and then the best of them with other seeds."""
    options, store = search.options, search.store
    if options.scheduler == "pbt":  # a population takes over weights: a control must not
        check_population_fits(options.trials - options.num_controls, at_once)
        search.begin(search.suggest_control, "control")
        run_trials(search, "all", at_once)
        search.begin(search.suggest_member, "search")
    if search.has_more:
        run_trials(search, options.scheduler, at_once, store.of_kind("control", "search"))
    again = choose_finalists(store, options.objective, options.finalists)
    search.begin(search.repetitions(again), "final")
    if again:
        run_trials(search, "all", at_once)


def trial_base(
    options: SearchConfig, base: Config, folder: Storage, uri: str, steps: tuple[int, ...]
) -> Config:
    """The run that all trials share: evaluated at the rungs, by its own workers, in turn.

    A population keeps the checkpoint of every rung, from which others may go on.
    """
    keep = (
        len(steps) + base.train.keep_checkpoints
        if options.scheduler == "pbt"
        else base.train.keep_checkpoints
    )
    return replace(
        base,
        cluster=replace(base.cluster, storage=folder.child("trials").url),
        track=replace(base.track, uri=uri),
        train=replace(
            base.train, patience=0, eval_at=steps[:-1], eval_every=0, keep_checkpoints=keep
        ),
        eval=replace(base.eval, background="never"),
    )
