"""Private parts of Ray, each behind a function of its own.

All are as found in Ray 2.60, the oldest that pyproject.toml takes, where no public API does the
same. After an upgrade tests/test_ray_internals.py says which of them changed: mend the function
here, and nothing else.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.train import PreemptionInfo

LOOPBACK = "127.0.0.1"
CLUSTER_ID = "/ray.rpc.NodeInfoGcsService/GetClusterId"
log = logging.getLogger(__name__)


def _missing(part: str, error: Exception) -> RuntimeError:
    import ray

    return RuntimeError(
        f"Ray {ray.__version__} has no {part} ({error}). Install the Ray of constraints.txt, "
        "or mend cbdm_scale/cluster/ray_internals.py."
    )


def max_cluster_resources() -> dict[str, float]:
    """What the cluster's autoscaler could make of it; empty without one.

    Relies on ``ray._private.state``. Without it an autoscaler's future nodes
    do not count, so that a run which only fits with them is refused.
    """
    try:
        from ray._private.state import state

        return dict(state.get_max_resources_from_cluster_config() or {})
    except (ImportError, AttributeError) as error:
        log.warning("%s", _missing("_private.state of an autoscaler's resources", error))
        return {}


def keep_loopback() -> None:
    """Let Ray use a loopback address as it is, here and in the processes that it starts.

    It replaces one by the host's, except where it believes that there can be no cluster, as on
    macOS. Relies on ``ray._private.ray_constants.ENABLE_RAY_CLUSTER`` and its
    environment variable. RuntimeError without it: Ray would listen on the host's address.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        from ray._private import ray_constants

        ray_constants.ENABLE_RAY_CLUSTER  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise _missing("switch to stay on loopback", error) from error
    ray_constants.ENABLE_RAY_CLUSTER = False


@contextmanager
def keep_signals() -> Iterator[None]:
    """While inside, ``ray.init`` leaves the answers to signals as they are.

    It puts its own in the place of SIGTERM's, which ends the process without a word. Relies on
    ``ray._private.utils.set_sigterm_handler``; without it only the time within is Ray's.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    from ray._private import utils

    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    with _replaced(utils, "set_sigterm_handler", lambda handler: None):
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)


@contextmanager
def _replaced(module: Any, name: str, ours: Any) -> Iterator[None]:
    """Another function in a module of Ray for a while; a warning where it has none."""
    theirs = getattr(module, name, None)
    if theirs is None:
        log.warning("%s", _missing(name, AttributeError(f"of {module.__name__}")))
        yield
        return
    setattr(module, name, ours)
    try:
        yield
    finally:
        setattr(module, name, theirs)


def init_on_loopback(**options: Any) -> None:
    """``ray.init`` of a new cluster that only this machine can reach.

    Its processes get a session of their own: what a terminal, `timeout` or systemd says to the
    process group of the command would end them before the workers have saved. They end with
    the command all the same, even where it is killed.

    Relies on its argument ``_node_ip_address``, which Ray refuses by name if it does not know
    it, on ``keep_loopback``, and on ``ray._private.services.ConsolePopen``, which starts them.
    """
    import ray
    from ray._private import services

    keep_loopback()
    popen = getattr(services, "ConsolePopen", subprocess.Popen)
    apart = partial(popen, start_new_session=True)
    with _replaced(services, "ConsolePopen", apart):
        ray.init(address="local", _node_ip_address=LOOPBACK, dashboard_host=LOOPBACK, **options)


def ray_start_address() -> str:
    """host:port of the cluster that this user's last ``ray start`` here began or joined, or "".

    Nobody says that it still runs. RAY_TMPDIR is heard. Relies on
    ``ray._private.utils.get_ray_address_file``. Without it "", as if there were none, so that
    RAY_ADDRESS has to name the cluster.
    """
    try:
        from ray._private.utils import get_ray_address_file
    except ImportError as error:
        log.warning("%s", _missing("_private.utils.get_ray_address_file", error))
        return ""
    try:
        with open(get_ray_address_file(None)) as file:
            return file.read().strip() if os.fstat(file.fileno()).st_uid == os.getuid() else ""
    except OSError:
        return ""


def token_is_refused(address: str) -> bool:
    """Whether the cluster at host:port wants another token than this process has.

    ``ray.init`` would try for 20 s, and then say only that it cannot connect. Relies on the
    name of a call of Ray's head and on ``get_auth_headers_if_auth_enabled``. Without them, or
    where it speaks TLS, False: what Ray says then is all there is.
    """
    try:
        import grpc
        from ray._private.authentication import http_token_authentication as tokens
        from ray.exceptions import AuthenticationError

        try:
            headers = tokens.get_auth_headers_if_auth_enabled({})
        except AuthenticationError:  # there is none
            headers = {}
        with grpc.insecure_channel(address) as channel:
            metadata = [(name.lower(), value) for name, value in headers.items()]
            try:
                channel.unary_unary(CLUSTER_ID)(b"", timeout=5, metadata=metadata)
            except grpc.RpcError as error:
                return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    except (ImportError, AttributeError) as error:
        log.warning("%s", _missing("way to ask for a token", error))
    return False


def data_parallel_trainer() -> Any:
    """The class of Ray Train V2's trainer that forms no process group: ours listens elsewhere.
    Nor does it start a process for Ray Data, which nothing here uses, beside the workers.

    Relies on ``ray.train.v2.api.data_parallel_trainer``, which ``TorchTrainer`` inherits from,
    its ``_create_default_callbacks`` and ``DatasetsCallback``. RuntimeError without the module.
    """
    try:
        from ray.train.v2.api import data_parallel_trainer as theirs
    except ImportError as error:
        raise _missing("DataParallelTrainer of Ray Train V2", error) from error

    class Trainer(theirs.DataParallelTrainer):  # type: ignore[misc]
        def _create_default_callbacks(self) -> list[Any]:
            found = super()._create_default_callbacks()
            return [one for one in found if type(one).__name__ != "DatasetsCallback"]

    return Trainer


def disable_sigint_handler(trainer: Any) -> None:
    """Keep a trainer from replacing our answer to Ctrl-C by its own, which saves nothing.

    Relies on ``_register_sigint_handler``. Without it Ctrl-C may end a run
    without a last checkpoint; SIGTERM and the file "stop" are as before.
    """
    if not hasattr(trainer, "_register_sigint_handler"):
        log.warning("%s", _missing("_register_sigint_handler", AttributeError("of a trainer")))
    trainer._register_sigint_handler = lambda controller: None


@cache
def _train_context() -> Any:
    """The function that gives this worker's context; None where Ray has none, said once."""
    try:
        from ray.train.v2._internal.execution.context import get_train_context
    except ImportError as error:
        log.warning("%s No notice of a preemption is heard.", _missing("train context", error))
        return None
    return get_train_context


def preemption_info() -> "PreemptionInfo | None":
    """What Ray Train has told this worker of nodes that will go; None if nothing.

    ``ray.train.get_preemption_info`` says the same, but is a barrier of all workers, which is
    too much for every step. Relies on the context of ``ray.train.v2._internal`` (2.60 and
    newer). Without it no notice is heard, and a node that goes is met as one that died.
    """
    if "ray.train" not in sys.modules:  # under torchrun, say
        return None
    context = _train_context()
    try:
        return context().preemption_context.preemption_info if context else None
    except (RuntimeError, AttributeError):  # not in a worker of Ray Train
        return None
