"""What this project expects of the private parts of torch."""

import pytest
import torch

from cbdm_scale import torch_internals as private

MEND = "torch changed: mend cbdm_scale/torch_internals.py"


def lists(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (3,), (2, 4), ()
    return [[torch.randn(s, generator=generator) for s in shapes] for _ in range(2)]


@pytest.mark.parametrize(
    ("name", "more", "wanted"),
    [
        ("foreach_add_", (), lambda a, b: a + b),
        ("foreach_copy_", (), lambda a, b: b),
        ("foreach_lerp_", (0.25,), lambda a, b: a + 0.25 * (b - a)),
    ],
)
def test_an_operation_on_two_lists_is_that_of_their_tensors(name, more, wanted):
    a, b = lists()
    expected = [wanted(x.clone(), y) for x, y in zip(a, b, strict=True)]
    getattr(private, name)(a, b, *more)
    for x, y in zip(a, expected, strict=True):
        torch.testing.assert_close(x, y, msg=f"{name}: {MEND}")


def test_an_operation_on_a_list_alone():
    a, b = lists()
    half = torch.tensor(0.5)
    expected = [x * 0.5 for x in a], [x - y for x, y in zip(a, b, strict=True)]
    made = private.foreach_sub(a, b)
    private.foreach_mul_(a, half)
    assert all(map(torch.equal, a, expected[0])), MEND
    assert all(map(torch.equal, made, expected[1])), MEND
    norms = private.foreach_norm(a)
    assert [float(n) for n in norms] == pytest.approx([float(x.norm()) for x in a]), MEND


def test_the_fused_step_is_that_of_torchs_own_adam_and_is_skipped_on_demand():
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    parameter.grad = torch.tensor([0.5, 8.0])
    optimizer = torch.optim.Adam([parameter], lr=0.1, fused=True)
    mine = [parameter.detach().clone()]
    moments, steps = [[torch.zeros(2)] for _ in range(2)], [torch.ones(())]
    usual = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8}
    usual |= {"amsgrad": False, "maximize": False, "grad_scale": torch.tensor(1.0)}
    for skipped in (torch.tensor(1.0), torch.tensor(0.0)):
        private.fused_adam_(
            mine, [parameter.grad], *moments, [], steps, **usual, found_inf=skipped
        )
        if skipped:
            assert torch.equal(mine[0], parameter), MEND
    optimizer.step()
    assert torch.equal(mine[0], parameter.detach()), MEND


def test_tensors_of_shapes_only_take_no_memory():
    with private.shapes_only():
        x = torch.zeros(1 << 20, 1 << 20)  # 4 TiB
        assert (x @ x).shape == x.shape, MEND


def test_every_operation_is_seen_with_what_goes_in_and_comes_out():
    seen = []

    class Spy(private.DispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            seen.append((str(func), private.tree_leaves([args, out])))
            return out

    x = torch.ones(2)
    with Spy():
        y = x + 1
    assert seen[0][0].startswith("aten.add"), MEND
    assert {id(x), id(y)} <= {id(leaf) for leaf in seen[0][1]}, MEND


def test_the_options_of_compiling_have_names():
    assert "max_autotune" in private.compile_options(), MEND


def test_a_part_that_is_gone_is_named(monkeypatch):
    monkeypatch.delattr(torch, "_foreach_norm")
    with pytest.raises(ImportError, match=r"has no _foreach_norm: mend .*torch_internals"):
        private._find("_foreach_norm")
    with pytest.raises(ImportError, match="has no tree_leaves: mend"):
        private._find("tree_leaves", "torch.utils._nothing")
