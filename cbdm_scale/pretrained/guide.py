"""The worse network that autoguidance moves away from, and whether it fits."""

import hashlib
from dataclasses import replace

from safetensors.torch import load

from cbdm_scale.diffusion.options import NoiseConfig
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.network import PretrainedNetwork
from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.averaged_weights import select_weights
from cbdm_scale.training.options import POWER


def load_guide(
    pretrained: PretrainedNetwork, guide: str, weights: str, tracking_uri: str = ""
) -> PretrainedNetwork:
    """The guide of a network; ValueError if it is not there, or does not fit.

    ``guide``: images seen by another checkpoint of the network's own run, or what
    ``load_pretrained`` takes; "" is the network's own checkpoint, with other ``weights``.
    """
    if guide.isdecimal() or not guide:
        if not pretrained.folder:
            raise ValueError(
                f"guide ({guide or weights}) means another checkpoint or average of the run, "
                f"and {pretrained.url} is no run's. Give --guide the folder of a run."
            )
        own = Storage(pretrained.folder)
        where = own.path(RunDir.checkpoint(int(guide))) if guide else pretrained.url
    else:
        where = guide
    try:
        found = _kept_average(pretrained, guide, weights) or load_pretrained(
            where, weights=weights, tracking_uri=tracking_uri
        )
    except ValueError as error:
        words = str(error).replace("--run", "--guide").replace("--weights", "--guide-weights")
        raise ValueError(f"guide ({guide or weights}): {words}") from error
    if reason := _misfit(pretrained, found):
        raise ValueError(
            f"guide ({guide or weights}) does not fit the network: {reason}. Give an earlier "
            "checkpoint of the run (--guide 24000), a shorter average of it (--guide-weights "
            "power:0.02), or another run on the same data set."
        )
    return replace(found, checkpoint=f"{found.checkpoint}-{weights.replace(':', '_')}")


def _kept_average(
    pretrained: PretrainedNetwork, guide: str, weights: str
) -> PretrainedNetwork | None:
    """An earlier average of some width whose checkpoint is gone: averages are kept for good."""
    if not (guide.isdecimal() and weights.startswith(POWER)):
        return None
    run, num_seen = Storage(pretrained.folder), int(guide)
    name = RunDir.checkpoint(num_seen)
    if run.exists(f"{name}/{RunDir.STATE}") or num_seen not in RunDir(run).kept_averages():
        return None
    data = select_weights(run, num_seen, pretrained.weights, weights)
    return replace(
        pretrained,
        url=run.path(RunDir.averages(num_seen)[0]),
        checkpoint=name.rpartition("/")[2],
        tensors=load(data),
        weights_sha256=hashlib.sha256(data).hexdigest(),
        num_seen=num_seen,
    )


def _misfit(pretrained: PretrainedNetwork, guide: PretrainedNetwork) -> str:
    """What the two may not differ in and do; "" where they fit."""
    ours, theirs = _about(pretrained), _about(guide)
    for what in ours:
        if ours[what] and theirs[what] and ours[what] != theirs[what]:
            return f"its {what} is {theirs[what]}, not {ours[what]}"
    if guide.weights_sha256 == pretrained.weights_sha256:
        return "it is the network itself"
    return ""


def _about(one: PretrainedNetwork) -> dict[str, str]:
    """What a guide and its network have in common; "" where it is not known."""
    channels, height, width = one.spec.image_shape
    return {
        "image": f"{channels} x {height} x {width}",
        "number of classes": str(one.spec.num_classes),
        "data set": f"{one.config.dataset} ({one.fingerprint})" if one.fingerprint else "",
        "process": _levels(one.config.noise),
    }


def _levels(noise: NoiseConfig) -> str:
    """What the levels that a network is called with mean, and what it predicts of them."""
    if noise.process == "ddpm":
        schedule = noise.schedule
        betas = f"beta {schedule.beta_1:g} to {schedule.beta_T:g}"
        return f"ddpm of {schedule.num_steps} steps, {betas}"
    return f"edm of sigma_data {noise.edm.sigma_data:g}"
