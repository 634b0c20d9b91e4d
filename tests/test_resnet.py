"""ResNet-32: its size, its values by a transcription, its first weights."""

import pytest
import torch
import torch.nn.functional as F

from cbdm_scale.models.resnet import ResNet32, new_resnet


def size(net):
    return sum(p.numel() for p in net.parameters())


def test_it_has_the_published_464154_weights_at_10_classes():
    """He et al. print 0.46 M; each convolution and norm of Section 4.2 counted by hand."""
    net = ResNet32(image_channels=3, image_size=32, num_classes=10)
    stem = 3 * 16 * 9 + 2 * 16
    first = 10 * (16 * 16 * 9 + 2 * 16)
    second = 16 * 32 * 9 + 9 * 32 * 32 * 9 + 10 * 2 * 32
    third = 32 * 64 * 9 + 9 * 64 * 64 * 9 + 10 * 2 * 64
    assert size(net) == stem + first + second + third + 64 * 10 + 10 == 464_154


def transcription(x, w):
    """The network in eval mode, layer after layer, out of its state dict."""

    def norm(h, name):
        view = lambda key: w[f"{name}.{key}"].view(1, -1, 1, 1)  # noqa: E731
        h = (h - view("running_mean")) / (view("running_var") + 1e-5).sqrt()
        return h * view("weight") + view("bias")

    h = F.relu(norm(F.conv2d(x, w["stem.weight"], padding=1), "stem_norm"))
    for i in range(15):
        stride = 2 if i in (5, 10) else 1
        b = f"blocks.{i}"
        r = F.conv2d(h, w[f"{b}.first.weight"], stride=stride, padding=1)
        r = F.conv2d(F.relu(norm(r, f"{b}.first_norm")), w[f"{b}.second.weight"], padding=1)
        r = norm(r, f"{b}.second_norm")
        if stride == 2:
            channels = h.shape[1]
            wide = torch.zeros_like(r)
            wide[:, channels // 2 : channels // 2 + channels] = h[:, :, ::2, ::2]
            h = wide
        h = F.relu(r + h)
    pooled = h.mean(dim=(2, 3))
    return pooled, pooled @ w["logits.weight"].T + w["logits.bias"]


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 8), (3, 7)])
def test_it_has_the_values_of_its_transcription(channels, side):
    net = new_resnet(image_channels=channels, image_size=side, num_classes=5, seed=0).double()
    x = torch.randn(4, channels, side, side, generator=torch.Generator().manual_seed(1))
    net(x.double())  # batch normalisation's running moments
    net.eval()
    expected = transcription(x.double(), net.state_dict())
    for ours, theirs in zip(net(x.double()), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_first_weights_follow_from_the_seed_and_leave_the_global_generator_alone():
    options = {"image_channels": 3, "image_size": 8, "num_classes": 2}
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first, again, other = (new_resnet(**options, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.stem.weight, again.stem.weight)
    assert not torch.equal(first.stem.weight, other.stem.weight)
    spread = first.blocks[7].first.weight.std().item()
    assert spread == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)  # He's initialisation


def test_an_image_that_cannot_be_halved_twice_is_refused():
    with pytest.raises(ValueError, match="3 pixels are too few, 4 are needed"):
        ResNet32(image_channels=1, image_size=3, num_classes=2)
