"""What is set for a device; the kernels themselves are seen on GPUs only."""

import os
import platform
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gloo_tools import tiny_config

from cbdm_scale import devices
from cbdm_scale.cluster.connect import connect
from cbdm_scale.cluster.options import ClusterConfig, worker_env
from cbdm_scale.devices import (
    first_that_fits,
    gpu_problem,
    ieee_fp32,
    make_deterministic,
    open_device,
    roomy_devices,
    sees_gpu,
)
from cbdm_scale.evaluation.evaluator import evaluate_alone
from cbdm_scale.runs.worker import run_rank
from cbdm_scale.storage.folder import Storage
from cbdm_scale.training.distributed import World

OPERATIONS = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn


def precisions():
    return [operation.fp32_precision for operation in OPERATIONS]


@pytest.fixture
def restored(monkeypatch):
    """Nothing that a test sets stays."""
    before, deterministic = precisions(), torch.backends.cudnn.deterministic
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "unset")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cuda.enable_cudnn_sdp(True)
    torch.backends.cudnn.allow_tf32 = True
    for operation, precision in zip(OPERATIONS, before, strict=True):
        operation.fp32_precision = precision


@pytest.mark.parametrize("outside", ["tf32", "ieee"])
def test_float32_is_ieees_inside_and_as_before_outside(restored, outside):
    for operation in OPERATIONS:
        operation.fp32_precision = outside
    with pytest.raises(KeyError), ieee_fp32():
        assert precisions() == ["ieee"] * 3
        raise KeyError
    assert precisions() == [outside] * 3


def test_float32_is_ieees_where_a_device_was_opened(restored):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    assert "tf32" in precisions()
    assert open_device(on_gpu=False) == torch.device("cpu")
    assert "tf32" not in precisions()
    with ieee_fp32():  # torch asks by the older names too, and refuses what does not agree
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32


AGAIN = """
import resource, threading, torch
from cbdm_scale.devices import open_device

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def use():
    open_device(on_gpu=False)
    for number in range(30):  # the first find their places between what else is there
        if number == 20:
            before = faults()
        torch.ones(80 << 18)
    print(faults() - before)

thread = threading.Thread(target=use)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_a_worker_uses_the_memory_of_large_tensors_again():
    """Of 80 MB, in a thread as Ray's: 20,480 pages that the kernel made anew each time."""
    env = os.environ | worker_env(1) | {"PYTHONPATH": str(Path(__file__).parents[1])}
    new = subprocess.run([sys.executable, "-c", AGAIN], env=env, capture_output=True, text=True)
    assert int(new.stdout) < 1000, new.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_in_words(restored):
    with pytest.raises(
        RuntimeError, match=r"^torch .* (finds no NVIDIA driver|without CUDA)\."
    ):
        open_device(on_gpu=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_torch_cannot_use_is_not_left_out_without_a_word(monkeypatch):
    """As with a driver too old: it is counted, and is_available says no."""
    assert not sees_gpu()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RuntimeError, match=r"^torch .* (finds no NVIDIA driver|without CUDA)"):
        sees_gpu()
    with pytest.raises(RuntimeError, match=r"^torch .* (finds no NVIDIA driver|without CUDA)"):
        connect(ClusterConfig(workers=0))


@pytest.mark.parametrize(
    "error, words",
    [
        (
            "The NVIDIA driver on your system is too old (found version 12020). Please update",
            r"driver, which is for CUDA 12\.2, is too old .* install a torch for CUDA 12\.2$",
        ),
        ("Found no NVIDIA driver on your system. Please", "finds no NVIDIA driver. Install"),
        ("Torch not compiled with CUDA enabled", "is built without CUDA. Install"),
        ("CUDA error: no kernel image is available\nfor", "no kernels for this kind of GPU"),
        ("CUDA error: out of memory.\nCUDA kernel errors might", "^CUDA error: out of memory$"),
    ],
)
def test_what_torch_says_of_a_gpu_becomes_a_line_with_the_way_out(error, words):
    assert "\n" not in gpu_problem(error)
    assert re.search(words, gpu_problem(error))


def test_a_deterministic_gpu_has_every_switch_and_a_cpu_none(restored):
    make_deterministic(torch.device("cpu"))
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    make_deterministic(torch.device("cuda", 0))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there it goes on")
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("who", ["a rank", "an evaluation beside training"])
def test_the_option_reaches_the_process_before_anything_is_on_its_gpu(
    who, wanted, restored, digits_root, tmp_path
):
    """Which is not there: all ends where the first tensor would go to it."""
    config = tiny_config(digits_root, str(tmp_path), "run", steps=1, dropout=0.0)
    config = replace(config, train=replace(config.train, deterministic=wanted))
    gpu = torch.device("cuda", 0)
    with pytest.raises((RuntimeError, AssertionError), match="NVIDIA|CUDA"):
        if who == "a rank":
            run_rank(World(gpu), print, config=config, tracking_uri="", run_id="")
        else:
            run = Storage(str(tmp_path))
            evaluate_alone(gpu, 0, print, config=config, run=run, num_shares=1)
    assert torch.are_deterministic_algorithms_enabled() == wanted
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == wanted


def test_what_a_gpu_has_no_memory_for_is_done_on_the_next_device(capsys):
    small, cpu = torch.device("meta"), torch.device("cpu")

    def work(device):
        if device == small:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return device

    assert first_that_fits(work, [small, cpu]) == cpu
    assert capsys.readouterr().out.startswith("note: meta has too little memory")
    with pytest.raises(torch.OutOfMemoryError):
        first_that_fits(work, [small])


def test_a_gpu_without_room_for_the_features_is_left_alone(monkeypatch):
    assert roomy_devices(0, use_gpu=False) == [torch.device("cpu")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (16 << 30, 80 << 30))
    monkeypatch.setattr(devices, "open_device", lambda on_gpu: torch.device("cuda", 0))
    assert [d.type for d in roomy_devices(10 << 30, use_gpu=True)] == ["cuda", "cpu"]
    assert [d.type for d in roomy_devices(11 << 30, use_gpu=True)] == ["cpu"]
