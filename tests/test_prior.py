"""The prior as it is trained, as integer graphs, and on int64: all the same symbols."""

import io

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from torch import nn  # noqa: E402

from train import export, graphs  # noqa: E402
from train.nets import PhotoCodec  # noqa: E402
from train.parity import Int64Graph, integer_symbols  # noqa: E402
from train.prior import HyperDecoder, IntConv, Step, bits_of, clamp, round_ste  # noqa: E402
from train.symbols import prior_of  # noqa: E402
from vaecodec import bounds, latents  # noqa: E402
from vaecodec.runtime import Graph  # noqa: E402


def model_of(steps: int, seed: int = 0) -> PhotoCodec:
    """A model whose prior does something: none of its layers is zero."""
    torch.manual_seed(seed)
    model = PhotoCodec(8, 3, 8, 8, steps, 3, (1, 1), (1, 1), 0.25).eval()
    for module in model.prior.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.bias, std=0.3)
    for step in model.prior.steps:
        nn.init.normal_(step.heads.weight, std=0.3)
    prior = model.prior
    for table, spread in ((prior.row_base, 1.0), (prior.z_rows, 0.5), (prior.shift, 1.0)):
        nn.init.normal_(table, 1.0, spread)
    nn.init.normal_(model.log_gain, 1.0, 0.5)
    return model


def files_of(model: PhotoCodec) -> dict[str, bytes]:
    """The files of the prior alone: without torch's slow export of the transforms."""
    prior = model.prior
    width = prior.decoder.enter.out_channels
    buffer = io.BytesIO()
    np.savez(buffer, **export.quality_tables(model))
    files = {"quality.npz": buffer.getvalue(), "hyper.onnx": graphs.hyper_graph(prior.decoder)}
    for k, step in enumerate(prior.steps):
        files[f"step{k}.onnx"] = graphs.step_graph(step, width, k > 0)
    return files


def latents_of(model: PhotoCodec, level: int, height: int, width: int, spread: float):
    """Random latents, what training's prior makes of them, and the z that it codes."""
    generator = torch.Generator().manual_seed(level)
    y = torch.randn(1, 8, height, width, generator=generator) * spread
    mix = torch.eye(3)[level : level + 1]
    with torch.no_grad():
        coded = model.prior(y, mix, mix @ model.log_gain)
        z = torch.floor(model.prior.side_information(y, mix) + 0.5)
    return y.numpy()[0], z.numpy()[0].astype(np.int32), coded


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("size", [(4, 4), (5, 7)])
def test_training_s_prior_is_the_integer_graphs(steps, size):
    model = model_of(steps)
    files = files_of(model)
    for level, spread in enumerate((1.0, 8.0, 300.0)):
        y, z, coded = latents_of(model, level, *size, spread)
        symbols, rows = integer_symbols(files, y, z, level)
        assert np.array_equal(symbols, coded.symbols.numpy()[0])
        assert np.array_equal(rows, coded.rows.numpy()[0])
        assert len(np.unique(rows)) > 8


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("level", ["none", "all"])
def test_the_integer_graphs_are_their_int64_twins(steps, level):
    files = files_of(model_of(steps, seed=1))
    rng = np.random.default_rng(steps)
    ways = [
        prior_of(files, lambda m: Graph(m, "cpu", 1, level)),
        prior_of(files, Int64Graph),
    ]
    for spread in (3, 1000, 2**25):
        z = rng.integers(-spread, spread, (3, 2, 2)).astype(np.int32)
        drawn = rng.integers(-spread, spread, 8 * 7 * 6).astype(np.int32)
        results = []
        for prior in ways:
            seen = []

            def take(means, rows, at, seen=seen, drawn=drawn):
                seen.append((means, rows))
                return drawn[at]

            y16 = prior.code(z, 7, 6, 3200, take)
            results.append((y16, seen))
        (a, seen_a), (b, seen_b) = results
        assert np.array_equal(a, b)
        for (means, rows), (means_b, rows_b) in zip(seen_a, seen_b, strict=True):
            assert np.array_equal(means, means_b)
            assert np.array_equal(rows, rows_b)


def test_the_proof_holds_for_what_the_graphs_reach():
    rng = np.random.default_rng(0)
    for seed in range(3):
        content = graphs.hyper_graph(model_of(2, seed).prior.decoder)
        bound = bounds.prove(content)
        z = rng.choice([-(2**15), 2**15], (1, 3, 3, 3)).astype(np.float32)
        shift = np.zeros((1, 8, 1, 1), np.float32)
        (features,) = Graph(content)(z=z, shift=shift)
        assert bound < 2**24
        assert features.min() >= 0
        assert features.max() <= 255


def test_a_layer_too_wide_for_seven_bits_has_fewer():
    decoder = HyperDecoder(1024, 4)
    nn.init.constant_(decoder.enter.weight, 127 / 64)
    assert decoder.enter.exponents().tolist() == [-4] * 4  # -6 would be seven bits
    assert bounds.prove(graphs.hyper_graph(decoder)) < 2**24


def test_a_weak_row_does_not_make_the_sums_of_strong_ones_too_large():
    step = Step(2, 64, 64, context=False)
    nn.init.constant_(step.heads.weight, 1.0)
    nn.init.constant_(step.heads.weight[0], 2.0**-9)
    strong, weak = -6, -15
    assert step.heads.exponents()[1] == strong
    assert weak < step.heads.exponents()[0] < strong
    assert bounds.prove(graphs.step_graph(step, 64, context=False)) < 2**24


def test_a_bias_too_large_for_float32_is_refused():
    step = Step(2, 4, 4, context=False)
    nn.init.constant_(step.inner.bias, 1e6)
    with pytest.raises(ValueError, match="bias"):
        graphs.step_graph(step, 4, context=False)


def test_weights_are_seven_bits_times_a_power_of_two():
    layer = IntConv(4, 3, 1)
    nn.init.normal_(layer.weight)
    x = torch.randint(0, 256, (1, 4, 5, 5)).float() / 32
    with torch.no_grad():
        exactly = layer(x)
        layer.exact = False
        assert 0 < (layer(x) - exactly).abs().max() < 0.3
    assert torch.equal(exactly * 2**20, (exactly * 2**20).round())


def test_rounding_passes_gradients_and_clamping_only_those_that_lead_back():
    x = torch.tensor([0.5, 1.4, -1.5], requires_grad=True)
    round_ste(x).sum().backward()
    assert round_ste(x).tolist() == [1.0, 1.0, -1.0]
    assert x.grad.tolist() == [1.0, 1.0, 1.0]
    for sign, expected in ((1.0, [0.0, 1.0, 1.0]), (-1.0, [-1.0, -1.0, 0.0])):
        x = torch.tensor([-3.0, 0.0, 3.0], requires_grad=True)
        (sign * clamp(x, -1, 1)).sum().backward()
        assert x.grad.tolist() == expected


@pytest.mark.parametrize("density", ["gaussian", "logistic"])
def test_bits_are_those_of_the_integer_tables(density):
    from train.frequencies import scale_tables
    from vaecodec.rans import TOTAL

    tables = scale_tables(density)
    for row in (8, 20, 40, 60):
        count = -int(tables.low[row])
        symbols = np.arange(-min(count, 20), min(count, 20) + 1)
        scale = torch.tensor(latents.scales()[row])
        bits = bits_of(density, torch.from_numpy(symbols.astype(float)), scale).numpy()
        frequencies = np.diff(tables.cumulative[row].astype(np.int64))[symbols + count]
        likely = frequencies > 1000
        assert np.abs(bits - -np.log2(frequencies / TOTAL))[likely].max() < 0.002


def test_z_is_heard_from_the_start():
    """With PyTorch's own initialisation features hardly depended on z, which then fell silent."""
    torch.manual_seed(0)
    prior = PhotoCodec(48, 8, 24, 24, 2, 3, (1, 1), (1, 1), 0.25).prior
    z = torch.randint(-3, 4, (1, 8, 6, 6)).float()
    with torch.no_grad():
        features = prior.decoder(z, torch.zeros(1, 24, 1, 1))
        heard = prior.side_information(torch.randn(1, 48, 24, 24) * 5, torch.eye(3)[:1])
    assert features.std((2, 3)).mean() > 3 / 32
    assert heard.std() > 0.5


@pytest.mark.parametrize("steps", [1, 2])
def test_the_float_twin_needs_about_as_many_bits(steps):
    model = model_of(steps)
    mix = torch.eye(3)[1:2]
    y = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0)) * 4
    with torch.no_grad():
        bits = model.prior(y, mix, mix @ model.log_gain).bits
        model.prior.float_twin(True)
        twin = model.prior(y, mix, mix @ model.log_gain).bits
    assert twin.item() == pytest.approx(bits.item(), rel=0.02)
    assert twin.item() != bits.item()
