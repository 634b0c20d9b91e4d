"""What decides every pixel of a set of images, and the name that follows from it.

The set is made in chunks whose bounds depend on the chunk size and the number of images alone.
K = number of classes.
"""

import difflib
import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from cbdm_scale.data.class_names import Name, labels_of_names
from cbdm_scale.data.guidance_strength import Strength, as_name, class_strengths
from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.labels import class_probs, draw_labels
from cbdm_scale.diffusion.options import NoiseConfig
from cbdm_scale.generation.chunk_size import usual_chunk_size
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.sampling.options import GuidanceMode, SamplerConfig, check_trained
from cbdm_scale.storage.json import structure
from cbdm_scale.storage.wording import shorten

FORMAT_VERSION = 1
POWERS = {"train": 1.0, "sqrt": 0.5, "bal": 0.0}
"""Label distributions of Section 4.2 by name, as powers of the training counts."""

Chunk = tuple[int, int]
"""First image of a chunk, and the one after its last."""


@dataclass(frozen=True, kw_only=True)
class GuideNetwork:
    """The worse network that autoguidance moves away from."""

    checkpoint: str
    """For people, with the weights: 000000024000-ema."""
    weights_sha256: str
    network: NetworkSpec


@dataclass(frozen=True, kw_only=True)
class SetPlan:
    """Two sets with the same plan have the same images, up to the last bits of a processor."""

    checkpoint: str
    """For people: images shown in training, or the name of a file."""
    weights_sha256: str
    """Of the file of weights, in hexadecimal digits."""
    network: NetworkSpec
    noise: NoiseConfig
    sample: SamplerConfig
    omega: Strength
    seed: int
    labels: str
    """cyclic, counts, or the name or number of the power of the training counts."""
    classes: tuple[int, ...]
    """Those that occur, in rising order."""
    probs: tuple[float, ...]
    """Probability of each of ``classes``; () where they take turns."""
    chunk_size: int
    precision: Literal["fp32", "bf16"]
    guidance_mode: GuidanceMode = "cfg"
    strengths: tuple[float, ...] = ()
    """(K,) where ``omega`` differs from class to class; () where it is one number."""
    guide: GuideNetwork | None = None
    """Of autoguidance, in place of ``guidance_mode``."""
    quotas: tuple[int, ...] = ()
    """Images of each of ``classes``, one class after the other; () where labels take turns or
    are drawn."""
    class_names: tuple[str, ...] = field(default=(), compare=False)
    """(K,) for those who read the set; () where they are not known. They decide no image."""

    @property
    def num_classes(self) -> int:
        """K."""
        return self.network.num_classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.network.image_shape

    @property
    def mode(self) -> str:
        """cfg, tcfg or autoguidance."""
        return "autoguidance" if self.guide else self.guidance_mode

    @property
    def guided_by(self) -> str:
        """Checkpoint and weights of the guide; "" without one."""
        return self.guide.checkpoint if self.guide else ""

    def labels_of(self, samples: Tensor) -> Tensor:
        """The label of every image, by its number in the set: (n,) int64."""
        if self.quotas:
            ends = torch.tensor(self.quotas).cumsum(0)
            rows = torch.searchsorted(ends, samples, right=True)
        elif not self.probs:
            rows = samples % len(self.classes)  # labels.class_cyclic, from anywhere
        else:
            u = rng.uniform(self.seed, "sample label", samples)[:, 0]
            rows = torch.from_numpy(draw_labels(self.probs, u))
        return torch.tensor(self.classes)[rows]

    def omegas_of(self, y: Tensor) -> float | Tensor:
        """The strength of guidance of images with labels y (n,): one number, or (n,)."""
        if isinstance(self.omega, str):
            return torch.tensor(self.strengths)[y]
        return self.omega

    def chunks(self, num_images: int) -> list[Chunk]:
        """All chunks of a set of so many images; the last may be smaller."""
        size = self.chunk_size
        return [(i, min(i + size, num_images)) for i in range(0, num_images, size)]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as JSON gives it back."""
        parts = {"network": self.network.to_dict(), "sample": self.sample.to_dict()}
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self) | parts))
        for name in ("strengths", "quotas", "guide", "class_names"):  # in the name only if used
            if not plain[name]:
                del plain[name]
        if self.guide:
            plain["guide"]["network"] = json.loads(json.dumps(self.guide.network.to_dict()))
        return {"format_version": FORMAT_VERSION, **plain}

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> "SetPlan":
        """The inverse of ``to_dict``; KeyError, TypeError or ValueError where it is not one."""
        if tree["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {tree['format_version']}, not {FORMAT_VERSION}")
        plain = {k: v for k, v in tree.items() if k != "format_version"}
        plain["network"] = NetworkSpec.from_dict(tree["network"])
        if guide := tree.get("guide"):
            of_guide = NetworkSpec.from_dict(guide["network"])
            plain["guide"] = structure(GuideNetwork, guide | {"network": of_guide}, "guide")
        found: SetPlan = structure(cls, plain, "")
        return found

    @property
    def name(self) -> str:
        """Checkpoint, sampler, omega, labels and seed to read; a hash of everything."""
        text = json.dumps(replace(self, class_names=()).to_dict(), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        sampler = f"{self.sample.name}{self.sample.num_steps}"
        few = self.labels if len(self.classes) == self.num_classes else f"{self.labels}-some"
        mode = "omega" if self.guidance_mode == "cfg" else "tcfg"
        mode = f"{self.guide.checkpoint}-auto" if self.guide else mode
        strength = f"{mode}{as_name(self.omega)}"
        return "-".join([self.checkpoint, sampler, strength, few, f"seed{self.seed}", digest])


def plan_set(
    network: NetworkSpec,
    noise: NoiseConfig,
    *,
    checkpoint: str,
    weights_sha256: str,
    counts: Sequence[int] | None,
    groups: Sequence[str] = (),
    omega: Strength,
    seed: int,
    chunk_size: int | None,
    on_gpu: bool,
    precision: Literal["fp32", "bf16"],
    sample: SamplerConfig,
    labels: str = "cyclic",
    classes: Sequence[Name] = (),
    class_names: Sequence[str] = (),
    guidance_mode: GuidanceMode = "cfg",
    guide: GuideNetwork | None = None,
) -> SetPlan:
    """The plan of a set, checked: ValueError if options do not fit the network.

    ``counts`` (K,) are the training counts, None where they are not known, ``groups`` (K,) and
    ``class_names`` (K,) or (); ``labels`` and ``classes`` as the sample command takes them.
    ``chunk_size`` None follows from the network and ``on_gpu``, whether it is made on GPUs.
    """
    strengths = _by_class(omega, counts, groups) if isinstance(omega, str) else ()
    largest = max(strengths) if isinstance(omega, str) else omega
    if guide is None:
        check_trained("guidance_mode", guidance_mode, largest, network.omega_max)
    sample.check_fits(noise.process, noise.schedule.num_steps)
    numbers = select_classes(classes, network.num_classes, class_names)
    return SetPlan(
        checkpoint=checkpoint,
        weights_sha256=weights_sha256,
        network=network,
        noise=noise,
        sample=sample,
        omega=omega,
        seed=seed,
        labels=labels,
        classes=numbers,
        probs=label_probs(labels, numbers, counts),
        chunk_size=chunk_size or usual_chunk_size(network, on_gpu),
        precision=precision,
        guidance_mode=guidance_mode,
        strengths=strengths,
        guide=guide,
        class_names=tuple(class_names),
    )


def _by_class(
    omega: str, counts: Sequence[int] | None, groups: Sequence[str]
) -> tuple[float, ...]:
    """The strength of every class, (K,)."""
    if counts is None:
        raise ValueError(
            f"guidance ({omega}) needs the class counts of the training set, and it is not "
            "where the run found it. Give its place with --data.root, or one number."
        )
    return class_strengths("guidance", omega, groups, counts)


def select_classes(
    classes: Sequence[Name], num_classes: int, class_names: Sequence[str] = ()
) -> tuple[int, ...]:
    """These classes in rising order, () being all: by name, or else by number.

    ``class_names`` (K,), () where they are not known. ValueError names what is no class.
    """
    numbers = list(range(num_classes))
    by_name = labels_of_names(classes, class_names)
    by_number = labels_of_names(classes, list(map(str, numbers)))
    found = [n if c is None else c for c, n in zip(by_name, by_number, strict=True)]
    if wrong := [str(c) for c, label in zip(classes, found, strict=True) if label is None]:
        near = difflib.get_close_matches(wrong[0], class_names, 1)
        called = f", called {shorten(class_names)}" if class_names else ""
        raise ValueError(
            f"classes: {shorten(wrong)} is no class of this network, which has 0 to "
            f"{num_classes - 1}{called}. "
            f"Try --classes {shlex.quote(near[0]) if near else f'0 {num_classes - 1}'}."
        )
    return tuple(sorted({label for label in found if label is not None})) or tuple(numbers)


def label_probs(
    labels: str, classes: Sequence[int], counts: Sequence[int] | None
) -> tuple[float, ...]:
    """Probabilities of the classes: proportional to counts ** power; () for cyclic.

    ``counts`` (K,) are the training counts, None where they are not known.
    """
    if labels == "cyclic":
        return ()
    try:
        power = POWERS[labels] if labels in POWERS else float(labels)
    except ValueError:
        raise ValueError(
            f"labels ({labels}) must be cyclic, train, sqrt, bal or a number, the power of the "
            "training counts. Try --labels cyclic."
        ) from None
    if power == 0:
        return (1 / len(classes),) * len(classes)
    if counts is None:
        raise ValueError(
            f"labels ({labels}) needs the class counts of the training set, and it is not "
            "where the run found it. Give its place with --data.root, or try --labels cyclic."
        )
    train_counts = torch.tensor([counts[c] for c in classes])
    return tuple(class_probs(train_counts, power).tolist())
