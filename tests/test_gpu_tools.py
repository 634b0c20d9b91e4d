"""The tests of GPUs can be run: some of each file, on the CPU, as their first lines say."""

import os
import subprocess
import sys

SLICE = """
test_gpu.py::test_random_words_are_the_cpus_and_normals_within_1e_6
test_gpu.py::test_gradients_are_the_cpus[dit-ddpm-cbdm of a quarter]
test_gpu.py::test_group_norm_is_float64s[256-4-torch.float32]
test_gpu.py::test_samplers_make_the_cpus_images_and_the_same_bytes_again[heun]
test_gpu.py::test_a_deterministic_run_repeats_bit_for_bit[vit]
test_gpu.py::test_an_evaluation_under_bf16_has_finite_scores
test_gpu.py::test_nccl_and_gloo_reduce_beside_each_other
test_gpu_metrics.py::test_features_that_are_not_finite_are_named
test_gpu_training.py::test_images_have_the_bits_of_the_cpu
test_gpu_training.py::test_nothing_waits_for_the_gpu_between_reports[cbdm, a quarter-4-off]
test_gpu_training.py::test_a_recorded_step_is_the_step[further-fp32-0.0001]
test_gpu_training.py::test_a_resumed_run_has_the_bits_of_the_unbroken_one[on]
"""


def test_a_slice_of_the_tests_of_gpus_runs_on_the_cpu(tmp_path):
    """So that a signature that changed is not first seen where a GPU is."""
    here = os.path.dirname(__file__)
    nodes = [os.path.join(here, node) for node in SLICE.strip().splitlines()]
    command = (
        "-m pytest -q -m gpu --noconftest -o addopts= -o filterwarnings= -p no:cacheprovider"
    )
    asked = [sys.executable, *command.split(), "--basetemp", str(tmp_path / "gpu"), *nodes]
    env = os.environ | {"CBDM_SCALE_TEST_DEVICE": "cpu"}
    done = subprocess.run(
        asked, env=env, cwd=os.path.dirname(here), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert f"{len(nodes)} passed" in done.stdout
