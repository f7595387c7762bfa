"""Optimisers: Muon for the inner matrices, AdamW for the rest, and averaged weights."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from train.recipes import Optimiser

_ODD_QUINTICS = (
    (8.3837, -24.7659, 18.3571),
    (4.0434, -3.0114, 0.5695),
    (3.5056, -2.6267, 0.5257),
    (2.4901, -1.8343, 0.4368),
)
"""Coefficients (a, b, c) of a s + b s**3 + c s**5, one polynomial after the other. Each is the one
that brings what the one before made of singular values in 0.003..1 nearest to 1; all four bring
them to 0.80..1.20, as five equal ones of Muon's first description do (Jordan et al., 2024). On
polynomials of this kind: Amsel et al., 2025, "The Polar Express" (arXiv 2505.16932)."""


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return matrices (k, rows, columns) with all singular values brought near 1."""
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    transposed = x.shape[1] > x.shape[2]
    if transposed:
        x = x.mT
    for a, b, c in _ODD_QUINTICS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if transposed else x


class Muon(torch.optim.Optimizer):
    """Momentum whose direction is orthogonalised, for weights that are matrices.

    The update of a rows x columns matrix is scaled by 0.2 * sqrt(max(rows, columns)), which gives
    its entries the size of an AdamW update. Matrices of one shape are orthogonalised together.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override] # without the closure that nobody gives
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                momentum = state["momentum"]
                momentum.lerp_(p.grad, 1 - group["momentum"])
                nesterov = torch.lerp(p.grad, momentum, group["momentum"])
                shapes[len(p), p[0].numel()].append((p, nesterov))
            for (rows, columns), pairs in shapes.items():
                stacked = torch.stack([g.reshape(rows, columns) for _, g in pairs])
                scale = -group["lr"] * 0.2 * math.sqrt(max(rows, columns))
                for (p, _), update in zip(pairs, orthogonalise(stacked), strict=True):
                    p.add_(update.view_as(p), alpha=scale)


class Pull(torch.optim.Optimizer):
    """Takes parameters back towards where they began, by a share of the way in each step.

    What gradients do not keep asking for is forgotten: of few images a network learns what they
    have in common (Li et al., 2018, "Explicit inductive bias for transfer learning with
    convolutional networks", arXiv 1802.01483). Takes its step after those of the others.
    """

    def __init__(self, params: Iterable[nn.Parameter], share: float) -> None:
        super().__init__(params, {"lr": share})
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["origin"] = p.detach().clone()

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override] # without the closure that nobody gives
        for group in self.param_groups:
            params = group["params"]
            torch._foreach_lerp_(params, [self.state[p]["origin"] for p in params], group["lr"])


LINEAR = {
    "encoder.enter.weight",
    "encoder.down.weight",
    "decoder.up.weight",
    "decoder.leave.weight",
}
"""The linear transforms that the KLT filled in."""


def optimisers(
    model: nn.Module, settings: Optimiser, pull: float = 0.0
) -> list[torch.optim.Optimizer]:
    """Return the optimisers of a model's parameters, with base learning rates in each group.

    Inner 1x1 matrices: Muon. The linear transforms that the KLT filled in: AdamW at a third of its
    rate. Tables per quality level: AdamW at their own, higher rate. Everything else: AdamW.
    Frozen parameters stay out. pull: the share of Pull, from where the model is now; 0 for none.
    """
    matrices, linear, tables, rest = [], [], [], []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        if name in LINEAR:
            linear.append(p)
        elif p.ndim == 4 and p.shape[2:] == (1, 1):
            matrices.append(p)
        elif name.endswith(("z_rows", "z_gain", "shift")):
            tables.append(p)
        else:
            rest.append(p)
    groups = [
        {"params": rest, "lr": settings.adamw},
        {"params": linear, "lr": settings.linear},
        {"params": tables, "lr": settings.tables},
    ]
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0)
    result: list[torch.optim.Optimizer] = [Muon(matrices, settings.muon), adamw]
    if pull:
        result.append(Pull([*matrices, *linear, *tables, *rest], pull))
    for optimiser in result:
        for group in optimiser.param_groups:
            group["base"] = group["lr"]
    return result


def restore(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimiser's state, and leave its settings, which a recipe may have changed."""
    own = [{k: v for k, v in g.items() if k != "params"} for g in optimiser.param_groups]
    optimiser.load_state_dict(state)
    for group, settings in zip(optimiser.param_groups, own, strict=True):
        group.update(settings)


def set_rate(optimisers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's learning rate to its base rate times `factor`."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * factor


def average_gradients(params: Sequence[Tensor], world: int) -> None:
    """Give each of `world` processes the mean of all their gradients."""
    flat = torch.cat([p.grad.reshape(-1) for p in params])
    dist.all_reduce(flat)
    flat /= world
    for p, part in zip(params, flat.split([p.numel() for p in params]), strict=True):
        p.grad.copy_(part.view_as(p))


class Average:
    """Exponential moving average of parameters: the weights that are evaluated and released.

    The decay grows with the number of steps, min(decay, (1 + n) / (10 + n)), so that early
    averages do not remember the start. What it leaves out is divided by the share of the rates that
    a step is taken at: annealed weights have little noise left to average, and are ahead of those
    of a thousand steps before (docs/experiments.md).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {n: p.detach().clone() for n, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, rate: float = 1.0) -> None:
        """Move the averages towards the model's parameters, as they are after `step`.

        rate: the share of the rates that the step was taken at.
        """
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        weight = weight / rate if rate > weight else 1.0
        params = dict(model.named_parameters())
        torch._foreach_lerp_(
            list(self.values.values()), [params[n].detach() for n in self.values], weight
        )

    @contextlib.contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averages for its parameters, and its own back at the end."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for name, p in model.named_parameters():
            value = self.values[name].clone()
            self.values[name].copy_(p)
            p.copy_(value)
