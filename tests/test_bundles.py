"""Every bundle keeps its promises, and the golden files open for ever."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from tests.training import ROOT
from train.symbols import digest, prior_of
from vaecodec.bundle import Bundle
from vaecodec.codec import Codec
from vaecodec.container import unpack
from vaecodec.entropy import TileDecoder, encode_tile
from vaecodec.latents import nearest_level

GOLDEN = ROOT / "tests" / "golden"
EXPECTED = json.loads((GOLDEN / "golden.json").read_text())
TINY = Bundle.open(GOLDEN / "tiny")
RELEASED = [Bundle.open(p.parent) for p in sorted((ROOT / "exported").glob("*/manifest.json"))]
PHOTO = [b for b in [TINY, *RELEASED] if b.image_shape is None]
OF_ONE_SIZE = [b for b in RELEASED if b.image_shape is not None]


def name_of(bundle):
    return bundle.name


def files_for_decoding(bundle):
    return {n: bundle.read(n) for n in bundle.decoding_files}


def golden(name):
    return (GOLDEN / f"{name}.vz").read_bytes()


@pytest.fixture(scope="session")
def prior():
    return prior_of(files_for_decoding(TINY))


# Golden files


def test_the_golden_bundle_is_the_one_that_wrote_the_files():
    TINY.verify()
    assert TINY.fingerprint.hex() == "01a9968228479938"
    assert {p.stem for p in GOLDEN.glob("*.vz")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("portable", [False, True], ids=["library", "portable"])
def test_golden_files_hold_the_same_symbols_for_ever(name, portable, prior):
    data = golden(name)
    assert len(data) == EXPECTED[name]["bytes"]
    assert digest(data, prior, TINY.tables, portable=portable) == EXPECTED[name]["symbols"]


@pytest.mark.parametrize("name", EXPECTED)
def test_golden_files_hold_the_same_symbols_in_int64(name):
    pytest.importorskip("onnx")
    from train.parity import Int64Graph

    reference = prior_of(files_for_decoding(TINY), Int64Graph)
    assert digest(golden(name), reference, TINY.tables) == EXPECTED[name]["symbols"]


@pytest.mark.parametrize("name", EXPECTED)
def test_golden_files_look_the_same_for_ever(name):
    codec = Codec(TINY, "cpu", 1)
    picture = codec.decode_picture(golden(name))
    with Image.open(GOLDEN / f"{name}.png") as image:
        stored = np.asarray(image).astype(int)
    found = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    assert np.abs(found.squeeze(2 if found.shape[2] == 1 else ()) - stored).max() <= 1


def test_golden_files_keep_their_metadata():
    image = Codec(TINY, "cpu", 1).decode(golden("metadata"))
    assert image.mode == "RGBA"
    assert image.getexif()[0x010E] == "golden"
    assert len(image.info["icc_profile"]) > 100
    assert b"xmpmeta" in image.info["xmp"]


def test_golden_noise_has_escapes():
    from vaecodec.entropy import _split

    (payload,) = unpack(golden("noise")).tiles
    assert len(_split(payload)[1]) > 30
    assert len(unpack(golden("tiles")).tiles) == 6


# All bundles


@pytest.mark.parametrize("bundle", [TINY, *RELEASED], ids=name_of)
def test_a_bundle_is_whole_and_small(bundle):
    bundle.verify()
    beside = {"manifest.json", "README.md", "results.tsv"}  # the card, and what was measured later
    contents = {p.name: p.read_bytes() for p in bundle.path.iterdir() if p.name not in beside}
    stated = bundle.manifest["files"]
    assert {n: hashlib.sha256(c).hexdigest() for n, c in contents.items()} == stated
    assert sum(map(len, contents.values())) < 12_000_000
    assert 0 <= bundle.default_quality <= 100


@pytest.mark.parametrize("bundle", PHOTO, ids=name_of)
def test_a_photo_bundle_decodes_at_20_kmac_per_pixel(bundle):
    assert bundle.manifest["cost"]["decode"] <= 20


@pytest.mark.parametrize("bundle", PHOTO, ids=name_of)
def test_a_bundle_s_sums_are_exact_in_float32(bundle):
    pytest.importorskip("onnx")
    from vaecodec import bounds

    names = [n for n in bundle.decoding_files if n.startswith(("hyper", "step"))]
    largest = max(bounds.prove(bundle.read(n)) for n in names)
    assert largest == bundle.manifest["claims"]["largest_sum"]
    assert largest < 2**24


@pytest.mark.parametrize("bundle", [TINY, *RELEASED], ids=name_of)
def test_every_table_codes_alike_with_the_library_and_without(bundle):
    tables = bundle.tables
    steps = []
    for row in range(1, len(tables.low)):
        symbols = tables.low[row] + np.arange(-2, tables.escape[row] + 2, dtype=np.int32)
        steps.append((symbols, np.full(len(symbols), row, np.uint8)))
    payload = encode_tile(steps, tables)
    assert encode_tile(steps, tables, portable=True) == payload
    for portable in (False, True):
        decoder = TileDecoder(payload, tables, portable=portable)
        assert all(np.array_equal(decoder.read(rows), symbols) for symbols, rows in steps)
        decoder.finish()


def levels_of(bundle):
    return bundle.manifest["decoding"]["levels"]


@pytest.mark.parametrize("bundle", OF_ONE_SIZE, ids=name_of)
@pytest.mark.parametrize("quality", [0, 50, 100])
def test_a_data_set_of_noise_and_of_nothing_survives_its_file(bundle, quality):
    """Noise is nothing that the model was trained on: its latents may be far from the prior."""
    noise = np.random.default_rng(0).integers(0, 256, (3, *bundle.image_shape), np.uint8)
    images = np.concatenate([noise, np.zeros_like(noise[:1]), np.full_like(noise[:1], 255)])
    codec, portable = Codec(bundle, "cpu", 1), Codec(bundle, "cpu", 1, portable=True)
    data = codec.encode_images(images, quality)
    assert portable.encode_images(images, quality) == data
    model, header = codec.model, unpack(data).header
    (posterior,) = model.posteriors(images)
    (payload,) = unpack(data).tiles
    symbols = model.symbols(posterior.mean, header.quality)
    step = bundle.arrays("quality.npz")["step"][nearest_level(header.quality, levels_of(bundle))]
    assert np.array_equal(model.latents(header, payload), symbols.astype(np.float32) * step)
    assert codec.decode_images(data).shape == images.shape
