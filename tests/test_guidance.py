import torch

from cbdm_scale.sampling.guidance import classifier_free


def net(x, level, y, omega=None, augment=None):
    """A network whose every argument shows in what it returns."""
    scale = level + 10 * y + (0 if omega is None else 100 * omega)
    if augment is not None:
        scale = scale + 1000 * augment.sum(dim=1)
    return x * scale.view(-1, 1, 1, 1)


X, LEVEL, Y = torch.randn(3, 1, 2, 2), torch.tensor([1, 5, 9]), torch.tensor([0, 1, 2])
NULL = torch.full_like(Y, 7)


def test_no_guidance_is_the_network_itself():
    assert classifier_free(net, omega=0.0, null_label=7) is net


def test_guidance_is_the_papers_combination_of_two_predictions():
    guided = classifier_free(net, omega=1.6, null_label=7)
    expected = (1 + 1.6) * net(X, LEVEL, Y) - 1.6 * net(X, LEVEL, NULL)
    torch.testing.assert_close(guided(X, LEVEL, Y), expected)


def test_guidance_of_an_unlabelled_image_changes_nothing():
    guided = classifier_free(net, omega=1.6, null_label=7)
    torch.testing.assert_close(guided(X, LEVEL, NULL), net(X, LEVEL, NULL))


def test_omega_and_augment_reach_both_predictions():
    guided = classifier_free(net, omega=0.5, null_label=7)
    omega, augment = torch.tensor([0.1, 0.2, 0.3]), torch.arange(27.0).view(3, 9)
    e, e_null = net(X, LEVEL, Y, omega, augment), net(X, LEVEL, NULL, omega, augment)
    torch.testing.assert_close(guided(X, LEVEL, Y, omega, augment), 1.5 * e - 0.5 * e_null)
    named = guided(X, LEVEL, Y, augment=augment, omega=omega)
    torch.testing.assert_close(named, 1.5 * e - 0.5 * e_null)


def test_guidance_costs_one_call():
    calls = []

    def counting(x, level, y, omega=None, augment=None):
        calls.append(len(x))
        return x

    classifier_free(counting, omega=1.0, null_label=7)(X, LEVEL, Y)
    assert calls == [6]
