"""How much of what a network learned is kept: as much as helps on images it did not learn from.

A network that was trained on few images for long knows them too well. Between its weights and those
that it began with lies one that has gained most of what it could on others, and forgotten least
(Wortsman et al., 2022, "Robust fine-tuning of zero-shot models", arXiv 2109.01903).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

SHARES = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25)
"""Of what weights moved by."""


@torch.no_grad()
def keep(network: nn.Module, base: nn.Module, loss: Callable[[], float]) -> float:
    """Give a network the share of its moves from `base` that makes a loss least; return the share.

    loss: of the network as it is, on images that it was not trained on.
    """
    own = {name: value.clone() for name, value in network.named_parameters()}
    origin = {name: value.to(own[name].device) for name, value in base.named_parameters()}

    def take(share: float) -> None:
        for name, value in network.named_parameters():
            value.copy_(torch.lerp(origin[name], own[name], share))

    def cost(share: float) -> float:
        take(share)
        return loss()

    best = min(SHARES, key=cost)
    take(best)
    return best
