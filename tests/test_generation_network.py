"""A network as sampling calls it, and how many images it is given at once."""

import pytest
import torch
from safetensors.torch import save
from test_backbones import batch, every_backbone, shaken, tiny
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from cbdm_scale.cluster.options import PoolConfig
from cbdm_scale.diffusion.options import NoiseConfig
from cbdm_scale.generation.chunk_size import bytes_an_image, usual_chunk_size
from cbdm_scale.generation.chunks import ChunkMaker
from cbdm_scale.generation.network import sampling_net
from cbdm_scale.generation.plan import SetPlan, plan_set
from cbdm_scale.models.build import build
from cbdm_scale.models.cast import cast_weights
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec
from cbdm_scale.sampling.options import SamplerConfig

CPU = torch.device("cpu")


@every_backbone
def test_weights_cast_once_give_the_bits_of_weights_cast_at_each_call(backbone):
    net, (x, t, y) = shaken(tiny(backbone, augment=True, omega_max=1.0)).eval(), batch()
    before = {name: p.clone() for name, p in net.named_parameters()}
    omega, told = torch.rand(4), torch.rand(4, 9)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = net(x, t, y, omega, told)
    assert torch.equal(sampling_net(net, CPU, "bf16")(x, t, y, omega, told), expected)
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    cast = cast_weights(net)
    inner = [
        m
        for name, m in cast.named_modules()
        if isinstance(m, nn.Conv2d | nn.Linear) and ("." in name or name == "head")
    ]
    assert len(inner) > 8
    for layer in cast.modules():
        if isinstance(layer, nn.GroupNorm | nn.LayerNorm | nn.Embedding):
            assert {p.dtype for p in layer.parameters()} <= {torch.float32}
    blocks = [p for n, p in cast.named_parameters() if "conv" in n or "qkv" in n or "out." in n]
    assert blocks and {p.dtype for p in blocks} == {torch.bfloat16}


def test_float32_is_the_network_itself_without_gradients():
    net, given = shaken(tiny("unet")).eval(), batch()
    found = sampling_net(net, CPU, "fp32")(*given)
    assert torch.equal(found, net(*given)) and not found.requires_grad


# ----------------------------------------------------------------------------
# How many at once.


def spec(size: int = 32, **options: object) -> NetworkSpec:
    model = UNetConfig(**options)
    return NetworkSpec(model=model, channels=3, image_size=size, num_classes=100)


def test_memory_of_an_image_is_that_of_what_is_alive_at_once():
    """Weights and views are none of it; of more blocks the skips stay, and no more."""
    plane = 4 * 32 * 32 * 32  # bytes of 32 channels
    small = {"channels": 32, "multipliers": (1, 1, 1), "attention": ()}
    few, many = (bytes_an_image(spec(**small, num_blocks=n)) for n in (1, 4))
    assert 5 * plane < few < 12 * plane
    assert many - few == pytest.approx(3 * plane, rel=0.1)


@pytest.mark.parametrize(
    ("network", "on_gpu", "size"),
    [
        pytest.param(spec(), False, 100, id="CPUs"),
        pytest.param(spec(), True, 500, id="the paper's network"),
        pytest.param(spec(128, attention=()), True, 30, id="128 px"),
    ],
)
def test_the_size_of_a_chunk_follows_from_the_network(network, on_gpu, size):
    assert usual_chunk_size(network, on_gpu) == size


def planned(
    chunk_size: int | None, on_gpu: bool, network: NetworkSpec | None = None
) -> SetPlan:
    return plan_set(
        network or spec(),
        NoiseConfig(),
        checkpoint="a",
        weights_sha256="",
        counts=None,
        omega=1.0,
        seed=0,
        chunk_size=chunk_size,
        on_gpu=on_gpu,
        precision="fp32",
        sample=SamplerConfig(),
    )


def test_a_plan_holds_the_size_that_was_found_or_asked_for():
    sizes = [planned(*asked).chunk_size for asked in ((None, False), (None, True), (64, True))]
    assert sizes == [100, 500, 64]


def test_a_gpu_that_is_too_small_for_a_chunk_is_told_the_chunk_to_try():
    """By sample, evaluate and balance, in a worker of theirs: an error, and no dead worker."""

    def too_large(module, given):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore")

    network = spec(8, channels=8, multipliers=(1,), num_blocks=1, attention=(), groups=4)
    maker = ChunkMaker(planned(9, True, network), save(build(network).state_dict()))
    hook = register_module_forward_pre_hook(too_large)
    try:
        with pytest.raises(ValueError, match=r" 9 images .*\(chunk_size\).* --chunk-size 4\.$"):
            maker(CPU)((0, 9))
        with pytest.raises(ValueError, match="--cluster.device cpu"):
            maker(CPU)((9, 10))
    finally:
        hook.remove()


@pytest.mark.parametrize("there", [False, True])
def test_a_pool_is_on_gpus_where_it_is_told_so_or_this_machine_has_one(there, monkeypatch):
    """It decides the chunk of a set before any cluster is asked."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    kinds = [PoolConfig(device=device).on_gpu for device in ("auto", "cpu", "gpu")]
    assert kinds == [there, False, True]
