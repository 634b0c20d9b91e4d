"""The denoiser as a program of torch.export: it computes the same, alone, and is no pickle."""

import io
import subprocess
import sys
import zipfile
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sampling_tools import MODEL, make_run
from torch import nn

from cbdm_scale.export import main
from cbdm_scale.models.options import DiTConfig, SongConfig, ViTConfig
from cbdm_scale.pretrained.export_program import (
    TOLERANCE,
    Denoiser,
    check_program,
    write_program,
)
from cbdm_scale.pretrained.loading import load_pretrained
from cbdm_scale.pretrained.network import PretrainedNetwork

ALONE = """
import sys, torch
program = torch.export.load(sys.argv[1]).module()
x, t, y = torch.ones(2, 1, 8, 8), torch.tensor([0, 999]), torch.tensor([3, 10])
torch.save(program(x, t, y, torch.tensor([0.0, 0.5])), sys.argv[2])
assert not any(name.startswith("cbdm_scale") for name in sys.modules)
"""
FLAT = replace(MODEL, multipliers=(1,), attention=())
"""torch.export takes seconds of a larger one."""
SMALL = {
    "dit": ("tcfg", "dit", DiTConfig(depth=1, width=16, heads=2)),
    "vit": ("cbdm", "vit", ViTConfig(depth=1, patch=4)),
    "ddpmpp": ("cbdm_edm", "ddpmpp", SongConfig(channels=8, multipliers=(1, 2), num_blocks=1)),
}


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, digits_root: str
) -> tuple[str, Path, str]:
    """A run, the folder that it was exported to, and what the command printed. Read only."""
    folder, said = tmp_path_factory.mktemp("exported"), io.StringIO()
    run = make_run(folder / "runs", digits_root, row="tcfg", model=FLAT)
    to = folder / "out"
    with redirect_stdout(said):
        assert main(["--run", run, "--out", str(to), "--program"]) == 0
    return run, to, said.getvalue()


def test_a_program_runs_without_the_package_and_computes_the_network_s_noise(
    tmp_path: Path, exported: tuple[str, Path, str]
) -> None:
    run, to, printed = exported
    assert "checked: read back, it differs by" in printed
    words = [sys.executable, "-c", ALONE, str(to / "denoiser.pt2"), str(tmp_path / "found")]
    subprocess.run(words, check=True, cwd=tmp_path, timeout=120)
    y, t = torch.tensor([3, 10]), torch.tensor([0, 999])
    net = load_pretrained(run).build()
    expected = net(torch.ones(2, 1, 8, 8), t, y, torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(
        torch.load(tmp_path / "found", weights_only=True), expected, atol=1e-5, rtol=0
    )

    card = (to / "README.md").read_text()
    assert "`torch.export.load('denoiser.pt2').module()(x, t, y, omega)` with torch" in card
    assert "10 for none" in card and "can run code of a file from somebody" in card
    with zipfile.ZipFile(to / "denoiser.pt2") as archive:  # a pickle begins like this
        assert not [
            n for n in archive.namelist() if archive.read(n)[:2] in (b"\x80\x02", b"PK")
        ]


def test_of_an_edm_network_the_program_is_the_denoiser_with_its_scaling(
    tmp_path: Path, digits_root: str
) -> None:
    run = make_run(tmp_path / "runs", digits_root, row="cbdm_edm", model=FLAT)
    pretrained = load_pretrained(run)
    lines = write_program(pretrained, tmp_path / "denoiser.pt2")
    assert "(x, sigma, y)`" in lines[0] and "D(x; sigma, y)" in lines[0]
    found = torch.export.load(tmp_path / "denoiser.pt2").module()
    x, y = torch.randn(2, 1, 8, 8), torch.tensor([0, 10])
    for sigma in 1e-4, 1e4:  # nearly all of the image; nothing of it, but what the network says
        out = found(x * sigma if sigma > 1 else x, torch.full((2,), sigma), y)
        assert out.isfinite().all() and out.abs().max() < 10
    torch.testing.assert_close(found(x, torch.full((2,), 1e-4), y), x, atol=1e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_backbone_becomes_a_program(tmp_path: Path, digits_root: str, name: str) -> None:
    row, backbone, model = SMALL[name]
    run = make_run(tmp_path / "runs", digits_root, row=row, backbone=backbone, model=model)
    assert "checked" in write_program(load_pretrained(run), tmp_path / "denoiser.pt2")[1]


def test_a_program_that_computes_something_else_is_refused(
    exported: tuple[str, Path, str],
) -> None:
    pretrained, file = load_pretrained(exported[0]), exported[1] / "denoiser.pt2"
    denoiser = Denoiser(pretrained.build(), pretrained).eval()
    assert check_program(pretrained, denoiser, file) < TOLERANCE
    with torch.no_grad():
        next(denoiser.parameters()).add_(0.1)
    with pytest.raises(ValueError, match="computes something else than the network"):
        check_program(pretrained, denoiser, file)


def test_a_network_that_torch_cannot_follow_is_said_with_the_way_out(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(nn.Module):
        def forward(self, x, level, y, omega=None):
            return x * float(x.sum())

    monkeypatch.setattr(PretrainedNetwork, "build", lambda pretrained: Odd())
    with pytest.raises(ValueError, match="no program of a Odd: (?s:.*) Leave --program out"):
        write_program(load_pretrained(run), tmp_path / "p.pt2")
