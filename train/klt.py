"""The start of training: a two-stage Karhunen-Loeve transform of the training images.

The first stage is the principal components of 8x8x3 blocks of pixels, the second those of their
2x2 neighbourhoods; the decoder is the transpose. An untrained model is then a working block
transform codec, and training only improves on it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from train.nets import COEFFICIENTS, Block, PhotoCodec, space_to_depth


def _components(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return (basis (d, d) with rows by falling variance, variances (d,)) of samples (n, d)."""
    samples = samples.double()
    variance, vectors = torch.linalg.eigh(samples.T @ samples / len(samples))
    basis = vectors.flip(1).T
    signs = torch.sign(basis.gather(1, basis.abs().argmax(1, keepdim=True)))
    return basis * signs, variance.flip(0).clamp_min(0)


@torch.no_grad()
def start(model: PhotoCodec, crops: Tensor, lambdas: Tensor, step: float, whitening: float) -> None:
    """Fill `model`'s linear layers, gains and scales from crops, uint8 (N, H, W, 3).

    `lambdas` (levels,) is the rate-distortion trade-off at each level; quantisation starts with
    the step `step / sqrt(lambda)` in all channels, in units of orthonormal coefficients of samples
    in 0..1. `whitening` is the power of a channel's standard deviation that its residual blocks
    are scaled by (0 leaves them alone, 1 gives them unit variance).
    """
    blocks = space_to_depth(crops).float() / 255
    mean = blocks.mean((0, 2, 3))
    centred = (blocks - mean[:, None, None]).movedim(1, -1)  # (N, h, w, 192)
    first, variance8 = _components(centred.reshape(-1, COEFFICIENTS))
    coefficients = centred.double() @ first.T
    n, h, w, _ = coefficients.shape
    cells = coefficients.view(n, h // 2, 2, w // 2, 2, COEFFICIENTS).permute(0, 1, 3, 5, 2, 4)
    channels = model.log_gain.shape[1]
    second, variance16 = _components(cells.reshape(-1, 4 * COEFFICIENTS))
    second, variance16 = second[:channels], variance16[:channels]

    encoder, decoder = model.encoder, model.decoder
    encoder.enter.weight.copy_(first.view(COEFFICIENTS, COEFFICIENTS, 1, 1))
    encoder.enter.bias.copy_(-first @ mean.double())
    encoder.down.weight.copy_(second.view(channels, COEFFICIENTS, 2, 2))
    encoder.down.bias.zero_()
    decoder.up.weight.copy_(encoder.down.weight)
    decoder.up.bias.zero_()
    decoder.leave.weight.copy_(first.T.reshape(COEFFICIENTS, COEFFICIENTS, 1, 1))
    decoder.leave.bias.copy_(mean)
    for side in (encoder, decoder):
        for group, variance in ((side.blocks8, variance8), (side.blocks16, variance16)):
            scale = variance.clamp_min(1e-6).sqrt() ** whitening
            for block in group:
                assert isinstance(block, Block)
                block.scale.copy_(scale)
    model.log_gain.copy_(-torch.log(step / lambdas.sqrt())[:, None].expand_as(model.log_gain))
    model.log_inverse.copy_(-model.log_gain)
    model.prior.row_base.copy_(0.5 * torch.log(variance16.clamp_min(1e-8)))
