import pytest
import torch
from training_tools import TinyNet

from cbdm_scale.config.paper import halflife
from cbdm_scale.training.ema import EMA


def shifted(net):
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1)


def distance(ema, net):
    pairs = zip(ema.net.parameters(), net.parameters(), strict=True)
    return torch.cat([(a - b).flatten() for a, b in pairs]).abs().mean().item()


@pytest.mark.parametrize("batch_size", [1, 5, 20, 100])
def test_half_is_forgotten_after_a_half_life(batch_size):
    net = TinyNet()
    ema = EMA(net, halflife=100)
    shifted(net)
    for step in range(100 // batch_size):
        ema.running.take(net, 1 - ema.decay((step + 1) * batch_size, batch_size))
    assert distance(ema, net) == pytest.approx(0.5, rel=1e-5)


def test_the_authors_decay_is_a_half_life_of_443600_images():
    assert halflife(0.9999, 64) == pytest.approx(443_600, abs=50)
    ema = EMA(TinyNet(), halflife(0.9999, 64))
    assert ema.decay(images_seen=64, batch_size=64) == pytest.approx(0.9999, abs=1e-12)


def test_a_ramp_caps_the_half_life_at_a_share_of_the_images_seen():
    ema = EMA(TinyNet(), halflife=1000, ramp=0.05)
    assert ema.decay(images_seen=200, batch_size=10) == pytest.approx(0.5)
    assert ema.decay(images_seen=20_000, batch_size=1000) == pytest.approx(0.5)
    assert ema.decay(images_seen=10**9, batch_size=1000) == pytest.approx(0.5)
    assert EMA(TinyNet(), halflife=1000).decay(1, 1000) == pytest.approx(0.5)


def test_the_average_starts_as_a_copy_and_learns_nothing_itself():
    net = TinyNet()
    ema = EMA(net, halflife=10)
    assert distance(ema, net) == 0
    assert not ema.net.training and not any(p.requires_grad for p in ema.net.parameters())
    shifted(net)
    assert distance(ema, net) == pytest.approx(1)
