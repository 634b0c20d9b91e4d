"""How a rank ends."""

import itertools

import torch
from gloo_tools import tiny_config
from torch.nn.modules.module import register_module_forward_pre_hook

from cbdm_scale.data.manifest import read_manifest
from cbdm_scale.models.unet import UNet
from cbdm_scale.runs.launch import open_run_dir
from cbdm_scale.runs.worker import run_rank
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.distributed import OneProcess


def test_a_gpu_that_is_too_small_ends_a_run_in_words_without_a_checkpoint(
    digits_root, tmp_path
):
    """What comes back as an error is not tried again; the state may be amid a step."""
    config = tiny_config(digits_root, str(tmp_path), "run", steps=4, dropout=0.0)
    folder = open_run_dir(config, read_manifest(digits_root, config.dataset))
    counted = itertools.count()

    def too_large(module, given):
        if isinstance(module, UNet) and next(counted) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = register_module_forward_pre_hook(too_large)
    try:
        how = run_rank(OneProcess(), print, print, config=config, tracking_uri="", run_id="")
    finally:
        hook.remove()
    assert "12 images at once" in how["error"] and "--train.micro-batch 6," in how["error"]
    assert not RunDir(folder).checkpoints()
