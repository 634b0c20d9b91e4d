import json
from dataclasses import asdict

import pytest
import torch

from cbdm_scale.data.pixels import to_uint8
from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.edm import EDM
from cbdm_scale.diffusion.options import ScheduleConfig
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.sampling.ddim import ddim
from cbdm_scale.sampling.ddpm import ancestral
from cbdm_scale.sampling.heun import heun
from cbdm_scale.sampling.options import HeunConfig, SamplerConfig, usual_sampler
from cbdm_scale.sampling.sampler import Sampler, chunks
from cbdm_scale.storage.json import structure

SCHEDULE = LinearSchedule(ScheduleConfig(num_steps=20, beta_1=0.01, beta_T=0.4))
SHAPE = (3, 4, 4)
CONV = torch.nn.Conv2d(3, 3, 3, padding=1).requires_grad_(False)
# 27 inputs of variance 1 / 27: what it predicts is as large as noise, as with a real network,
# and the sampler does not multiply the rounding of a step by the thousands
CONV.weight.copy_(rng.normal(0, "weight", torch.tensor([0]), 81).view(3, 3, 3, 3) / 27**0.5)
SAMPLERS = [
    SamplerConfig(num_steps=5),
    SamplerConfig(num_steps=5, eta=0.7),
    SamplerConfig(name="ddpm", num_steps=20),
    SamplerConfig(name="dpm", num_steps=5, guidance_from=0.2, guidance_to=0.7),
    SamplerConfig(name="heun", num_steps=4),
    SamplerConfig(name="heun", num_steps=4, heun=HeunConfig(churn=3), guidance_from=0.3),
]


def net(x, t, y, omega=None, augment=None):
    return CONV(x) + 0.1 * y.view(-1, 1, 1, 1)


def make_sampler(config, seed=0, chunk_size=100):
    process = EDM() if config.name == "heun" else SCHEDULE
    return Sampler(
        shape=SHAPE,
        null_label=10,
        process=process,
        config=config,
        seed=seed,
        chunk_size=chunk_size,
    )


def make(samples, config=SAMPLERS[0], seed=0, omega=0.5, chunk_size=100):
    sampler = make_sampler(config, seed=seed, chunk_size=chunk_size)
    return sampler.generate(net, samples, samples % 10, omega)


def on_ranks(num_samples, chunk_size, world, config):
    """The whole set, put together from what every rank makes."""
    images = torch.full((num_samples, *SHAPE), torch.nan)
    for rank in range(world):
        for part in chunks(num_samples, chunk_size, rank, world):
            images[part] = make(part, config)
    return images


@pytest.mark.parametrize("config", SAMPLERS, ids=lambda c: f"{c.name}-{c.eta}")
def test_any_number_of_ranks_makes_the_same_bits(config):
    alone = on_ranks(23, 4, 1, config)
    for world in (2, 3, 8):
        assert torch.equal(on_ranks(23, 4, world, config), alone)
    assert torch.equal(make(torch.arange(23), config, chunk_size=4), alone)


@pytest.mark.parametrize("config", SAMPLERS, ids=lambda c: f"{c.name}-{c.eta}")
def test_any_chunk_size_makes_the_same_images(config):
    alone = make(torch.arange(13), config, chunk_size=1)
    for chunk_size in (3, 13, 50):
        images = make(torch.arange(13), config, chunk_size=chunk_size)
        torch.testing.assert_close(images, alone, rtol=1e-4, atol=1e-4)


def test_an_image_depends_on_its_own_number_only():
    images = make(torch.arange(8), SAMPLERS[2])
    order = torch.tensor([5, 2, 7])
    torch.testing.assert_close(make(order, SAMPLERS[2]), images[order], rtol=1e-4, atol=1e-4)
    assert (images.flatten(1).unsqueeze(0) - images.flatten(1).unsqueeze(1)).abs().sum(
        dim=2
    ).fill_diagonal_(1).min() > 0.01  # no two alike


@pytest.mark.parametrize("config", SAMPLERS, ids=lambda c: f"{c.name}-{c.eta}")
def test_strengths_by_image_are_those_of_sets_of_one_strength(config):
    """Chunks take their part of them, and all alike are the number to the bit."""
    samples, omegas = torch.arange(7), (0.0, 0.5, 2.0)
    by_image = torch.tensor(omegas)[samples % 3]
    found = make(samples, config, omega=by_image, chunk_size=2)
    for i, omega in enumerate(omegas):
        whole = make(samples, config, omega=omega, chunk_size=2)
        torch.testing.assert_close(found[i::3], whole[i::3], rtol=1e-4, atol=1e-4)
    alike = make(samples, config, omega=torch.full((7,), 0.5), chunk_size=2)
    assert torch.equal(alike, make(samples, config, omega=0.5, chunk_size=2))


def test_the_noise_is_that_of_the_sample_numbers():
    samples = torch.tensor([3, 1_000_000])
    noise = rng.normal(7, "sample", samples, 48).view(2, 3, 4, 4)
    expected = ddim(net, noise, samples % 10, schedule=SCHEDULE, num_steps=5)
    assert torch.equal(make(samples, seed=7, omega=0.0), expected)

    def step(i):
        return rng.normal(7, "sample step", samples, 48, stream=i).view(2, 3, 4, 4)

    expected = ancestral(net, noise, samples % 10, schedule=SCHEDULE, draw=step)
    assert torch.equal(make(samples, SAMPLERS[2], seed=7, omega=0.0), expected)
    churned = heun(
        net,
        noise,
        samples % 10,
        sigma_data=0.5,
        config=HeunConfig(churn=3),
        num_steps=4,
        draw=step,
    )
    assert torch.equal(make(samples, SAMPLERS[5], seed=7, omega=0.0), churned)


def test_the_options_reach_the_sampler():
    samples = torch.arange(4)
    configs = [
        *SAMPLERS,
        SamplerConfig(num_steps=6),
        SamplerConfig(name="ddpm", num_steps=20, variance="fixed_small"),
        SamplerConfig(name="dpm", num_steps=5),
        SamplerConfig(name="dpm", num_steps=5, spacing="uniform"),
        SamplerConfig(num_steps=5, spacing="log_snr"),
        SamplerConfig(num_steps=5, guidance_from=0.3),
        SamplerConfig(num_steps=5, guidance_to=0.6),
        SamplerConfig(name="heun", num_steps=5),
        SamplerConfig(name="heun", num_steps=4, heun=HeunConfig(sigma_max=40.0)),
        SamplerConfig(name="heun", num_steps=4, heun=HeunConfig(churn=2)),
        SamplerConfig(name="heun", num_steps=4, guidance_to=0.9),
    ]
    sets = [make(samples, config) for config in configs]
    sets += [make(samples, omega=0.0), make(samples, seed=1)]
    for i, a in enumerate(sets):
        assert not any(torch.equal(a, b) for b in sets[:i])


@pytest.mark.parametrize("config", [*SAMPLERS, usual_sampler("edm")], ids=lambda c: c.name)
def test_a_sampler_says_how_often_it_asks_the_network(config):
    calls = []

    def counted(*args):
        calls.append(1)
        return net(*args)

    make_sampler(config).generate(counted, torch.arange(2), torch.arange(2), omega=0.0)
    assert len(calls) == config.calls


@pytest.mark.parametrize("config", SAMPLERS, ids=lambda c: c.name)
def test_a_sampler_survives_json_and_its_options_of_another_leave_no_trace(config):
    plain = json.loads(json.dumps(config.to_dict()))
    whole = json.loads(json.dumps(asdict(config)))
    for tree in (plain, whole):
        assert structure(SamplerConfig, tree, "sample") == config
    assert ("heun" in plain) == (config.name == "heun"), "sets of older versions have none"


@pytest.mark.parametrize(
    ("config", "process", "message"),
    [
        (
            usual_sampler("edm"),
            "ddpm",
            r"\(heun\) is no sampler.* ddpm. Try .*ddim .*num-steps 20",
        ),
        (SAMPLERS[0], "edm", r"\(ddim\) is no sampler .* edm. Try .*heun .*num-steps 18"),
        (SAMPLERS[2], "edm", r"\(ddpm\) is no sampler .* edm"),
        (SamplerConfig(num_steps=21), "ddpm", r"num_steps \(21\) must be .*\(20\)"),
    ],
)
def test_a_sampler_of_another_process_is_refused(config, process, message):
    for fitting in SAMPLERS:
        fitting.check_fits("edm" if fitting.name == "heun" else "ddpm", 20)
    SamplerConfig(name="heun", num_steps=40).check_fits("edm", 20)  # T is DDPM's
    with pytest.raises(ValueError, match=message):
        config.check_fits(process, 20)


def test_images_are_float32_in_range_also_none_at_all():
    images = make(torch.arange(5), SAMPLERS[2])
    assert images.dtype == torch.float32 and images.abs().max() <= 1
    assert make(torch.arange(0)).shape == (0, *SHAPE)


def test_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    make(torch.arange(3), SAMPLERS[1])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_ranks_chunks_are_every_sample_once():
    for num_samples, chunk_size, world in [(23, 4, 3), (0, 4, 2), (3, 5, 4), (8, 4, 2)]:
        parts = [chunks(num_samples, chunk_size, rank, world) for rank in range(world)]
        flat = [i for rank in parts for part in rank for i in part.tolist()]
        assert sorted(flat) == list(range(num_samples))
        for rank, mine in enumerate(parts):
            assert all(part[0].item() // chunk_size % world == rank for part in mine)


def test_a_network_that_broke_is_said_so():
    def broken(x, t, y, omega=None, augment=None):
        return x * torch.where(y == 2, torch.nan, 1.0).view(-1, 1, 1, 1)

    y = torch.tensor([0, 2, 1, 2])
    with pytest.raises(ValueError, match="non-finite values in 2 of 4 images"):
        sampler = make_sampler(SamplerConfig(num_steps=3))
        sampler.generate(broken, torch.arange(4), y, omega=0.0)


def test_uint8_rounds_to_the_nearest_and_undoes_the_model_range():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(every.float() / 127.5 - 1), every)
    x = torch.tensor([-1.2, -1.0, 0.99 / 127.5 - 1, 0.4 / 127.5 - 1, 1.0, 1.2])
    assert to_uint8(x).tolist() == [0, 0, 1, 0, 255, 255]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "euler"}, "sample.name must be ddpm, ddim, dpm or heun, got 'euler'"),
        ({"num_steps": 0}, "sample.num_steps must be at least 1, got 0"),
        ({"eta": 1.5}, "sample.eta must be from 0 to 1, got 1.5"),
        ({"name": "ddpm", "eta": 0.5}, r"sample.eta \(0.5\) acts with sample.name ddim only"),
        (
            {"name": "dpm", "eta": 0.5},
            r"sample.eta \(0.5\) acts with .* ddim only, not with dpm",
        ),
        ({"spacing": "karras"}, "sample.spacing must be .* got 'karras'"),
        (
            {"guidance_from": 0.6, "guidance_to": 0.5},
            r"sample.guidance_from \(0.6\) and sample.guidance_to \(0.5\) must .* Try 0 and 1",
        ),
        ({"guidance_to": 1.5}, r"sample.guidance_to must be from 0 to 1, got 1.5"),
        ({"variance": "learned"}, "sample.variance must be .* got 'learned'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SamplerConfig(**options)
