"""Milliseconds of the host in a step: as it is, and as it was before it was made quick.

The network is the paper's U-Net with next to no work in it, so that the device waits for the
host and not the host for the device.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from benchmarks.gpu.context import Context, fresh
from benchmarks.gpu.loop import EAGER, make_batch, new_state, run_loop
from benchmarks.step import CLIP, COUNTS, LR, NUM_CLASSES
from benchmarks.timing import Cost, Variant, interleave, markdown, median, ratio_of_medians
from cbdm_scale.diffusion import rng
from cbdm_scale.diffusion.schedule import LinearSchedule
from cbdm_scale.losses.options import LossConfig
from cbdm_scale.models.options import UNetConfig
from cbdm_scale.models.spec import NetworkSpec

NETWORK, BEFORE, NOW, GRAPH = "the network alone", "before", "now", "now, as a CUDA graph"


class Skeleton(nn.Module):
    """The calls of the paper's U-Net and next to none of its work: 4 channels, one image."""

    def __init__(self) -> None:
        super().__init__()
        model = UNetConfig(channels=4, groups=2)
        spec = NetworkSpec(model=model, channels=3, image_size=8, num_classes=NUM_CLASSES)
        self.net = fresh(spec)

    def forward(
        self,
        x: Tensor,
        level: Tensor,
        y: Tensor,
        omega: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        return x * 0 + self.net(x[:1, :, :8, :8], level[:1], y[:1]).mean()


def network_alone(context: Context, n: int) -> Callable[[], None]:
    """Forward and backward of what a step of CBDM gives the network."""
    net, device = Skeleton().to(context.device), context.device
    x = torch.randn(2 * n, 3, context.size, context.size, device=device)
    y = torch.zeros(2 * n, dtype=torch.int64, device=device)

    def step() -> None:
        net.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            net(x, y, y).sum().backward()

    return step


def step_before(context: Context, n: int) -> Callable[[], None]:
    """CBDM's step as the loop once took it: numbers drawn one purpose at a time, tensors moved
    one by one from pageable memory, lists made anew, a wait for the norm of the last step."""
    device, net = context.device, Skeleton().to(context.device)
    state, schedule = new_state(net), LinearSchedule()
    schedule_there, cdf = (
        LinearSchedule().to(device),
        (COUNTS / COUNTS.sum()).double().cumsum(0),
    )
    batch, part = make_batch(n, context.size), torch.arange(n)
    images = torch.rand(n, 3, context.size, context.size)
    parameters, decay = list(net.parameters()), 0.9999
    sums: dict[str, Tensor] = {}
    norms: list[Tensor] = []

    def draw(ids: Tensor) -> tuple[Tensor, ...]:
        t = schedule.step(rng.uniform(0, "timestep", ids)[:, 0])
        dropped = rng.uniform(0, "label drop", ids)[:, 0] < 0.1
        u = rng.uniform(0, "other label", ids)[:, 0]
        y_alt = torch.searchsorted(cdf, u * cdf[-1], right=True).clamp_max(NUM_CLASSES - 1)
        chosen = rng.uniform(0, "regularise", ids)[:, 0] < 1
        rows = (chosen & ~dropped).nonzero()[:, 0]
        eps = rng.normal(0, "noise", ids.to(device), images[0].numel()).view(images.shape)
        return tuple(v.to(device, non_blocking=True) for v in (t, dropped, y_alt, rows, eps))

    def step() -> None:
        torch.manual_seed(rng.make_key(0, f"dropout/{state.progress.steps}/0")[0])
        state.optimizer.zero_grad(set_to_none=True)
        x0 = images[part].to(device, memory_format=torch.channels_last)
        y = batch.y[part].to(device, non_blocking=True)
        t, dropped, y_alt, rows, eps = draw(batch.sample_ids[part])
        x_t = schedule_there.add_noise(x0, t, eps)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            labels = torch.cat([y.masked_fill(dropped, NUM_CLASSES), y_alt[rows]])
            out = net(torch.cat([x_t, x_t[rows]]), torch.cat([t, t[rows]]), labels).float()
        e, e_alt = out[:n], out[n:]
        weight = t[rows].float() / schedule.num_steps
        r = weight * (e[rows] - e_alt.detach()).square().flatten(1).mean(1)
        rc = weight * (e[rows].detach() - e_alt).square().flatten(1).mean(1)
        terms = {"dm": (e - eps).square().flatten(1).mean(1)}
        for name, term in (("r", r), ("rc", rc), ("pull", r + 0.25 * rc)):
            terms[name] = term.new_zeros(n).index_add(0, rows, term)
        terms["total"] = terms["dm"] + terms.pop("pull")
        (terms["total"].sum() / n).backward()
        for name, term in terms.items():
            total = term.detach().double().sum()
            sums[name] = sums[name] + total if name in sums else total
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        for group in state.optimizer.param_groups:
            group["lr"] = LR
        state.optimizer.grad_scale = (norm / CLIP).clamp_min(1)
        state.optimizer.found_inf = (~norm.isfinite()).float()
        state.optimizer.step()
        averages = list(state.ema.net.parameters())
        with torch.no_grad():
            get_ema_multi_avg_fn(decay)(averages, list(net.parameters()), None)
        norms.append(norm)
        if len(norms) > 1:
            norms.pop(0).isfinite().item()

    return step


def host(context: Context) -> None:
    """All of them in turns, and what is left of each beside the network."""
    n, steps, repetitions = (8, 2, 1) if context.tiny else (64, 20, 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone, before = network_alone(context, n), step_before(context, n)

    def now(**options: str) -> Cost:
        net = Skeleton().to(context.device)
        run = run_loop(context, net, LossConfig(), n, steps, **options)
        return Cost(run.wall, run.cpu)

    variants: dict[str, Variant] = {
        NETWORK: lambda: context.turn(alone, steps),
        BEFORE: lambda: context.turn(before, steps),
        NOW: lambda: now(**EAGER),
    }
    if context.is_cuda:
        variants[GRAPH] = lambda: now(graph="on")
    for name in (NETWORK, BEFORE):
        variants[name]()
    samples = interleave(variants, repetitions, log=lambda line: None)
    torch.set_num_threads(threads)
    # On a CPU, which others use too, its own time is the steadier one.
    kind = "wall" if context.is_cuda else "cpu"
    spent = {name: getattr(s, kind) for name, s in samples.items()}
    context.bench.figures["host"] = {f"{name}, {kind} s": s for name, s in spent.items()}
    outside = {
        name: [a - b for a, b in zip(spent[name], spent[NETWORK], strict=True)]
        for name in (BEFORE, NOW)
    }
    rows = [[name, f"{1e3 * median(s):.3f}", "", ""] for name, s in spent.items()]
    rows[1][2] = f"{1e3 * median(outside[BEFORE]):.3f}"
    rows[2][2] = f"{1e3 * median(outside[NOW]):.3f}"
    rows[2][3] = str(ratio_of_medians(outside[NOW], outside[BEFORE]))
    head = ["host, a step of CBDM", "ms", "ms outside the network", "/ before"]
    context.tables.append(markdown(head, rows))
