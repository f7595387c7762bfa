import io
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from PIL import Image

import vaecodec
from tests.training import SAMPLES
from vaecodec import codec as codec_module
from vaecodec import container, transforms
from vaecodec.codec import Codec
from vaecodec.container import Header
from vaecodec.errors import FormatError, ModelError
from vaecodec.hyperprior import Hyperprior
from vaecodec.images import read
from vaecodec.metrics import psnr


@pytest.fixture(scope="session")
def codec(tiny):
    return Codec(tiny, "cpu", 1)


@pytest.fixture(scope="session")
def photograph():
    return read(SAMPLES / "dog.webp").pixels[150:380, 100:410]


def decoded(codec, data):
    return codec.decode_picture(data).pixels


@pytest.mark.parametrize(
    "size",
    [(1, 1), (1, 2), (2, 1), (1, 17), (3, 33), (7, 5), (15, 16), (16, 16), (16, 1), (17, 33)],
)
def test_any_size_comes_back(codec, photograph, size):
    height, width = size
    for pixels in (photograph[:height, :width], photograph[:height, :width, :1]):
        found = decoded(codec, codec.encode(pixels, 90))
        assert found.shape == pixels.shape
        assert psnr(np.ascontiguousarray(pixels), found) > 20


def test_quality_buys_likeness_with_bytes(codec, photograph):
    files = [codec.encode(photograph, q) for q in (0, 25, 50, 75, 100)]
    sizes = [len(data) for data in files]
    likeness = [psnr(photograph, decoded(codec, data)) for data in files]
    assert sizes == sorted(sizes)
    assert likeness == sorted(likeness)
    assert likeness[0] > 22
    assert likeness[-1] > 26


def test_quality_is_kept_in_64ths_and_has_a_default(codec, photograph):
    header = container.unpack(codec.encode(photograph[:32, :32], 33.3)).header
    assert header.quality == round(33.3 * 64)
    header = container.unpack(codec.encode(photograph[:32, :32])).header
    assert header.quality == 64 * codec.bundle.default_quality


@pytest.mark.parametrize("quality", [-0.1, 100.1, float("nan")])
def test_a_quality_out_of_range_is_refused(codec, photograph, quality):
    with pytest.raises(ValueError, match="0 to 100"):
        codec.encode(photograph, quality)


def test_grey_comes_back_grey(codec, photograph):
    data = codec.encode(photograph[:, :, 1], 60)
    assert decoded(codec, data).shape == (*photograph.shape[:2], 1)
    assert codec.decode(data).mode == "L"


def test_arrays_and_pillow_images_give_the_same_file(codec, photograph):
    assert codec.encode(photograph, 40) == codec.encode(Image.fromarray(photograph), 40)


def test_alpha_comes_back_exactly(codec, photograph):
    alpha = np.arange(40 * 50).reshape(40, 50).astype(np.uint8)
    data = codec.encode(np.dstack([photograph[:40, :50], alpha]), 30)
    image = codec.decode(data)
    assert image.mode == "RGBA"
    assert np.array_equal(np.asarray(image)[:, :, 3], alpha)


def test_windows_give_the_latents_of_the_whole(codec, photograph, monkeypatch):
    y = codec.model.analyse(photograph)
    pixels = codec.model.synthesise(y)
    for window in (32, 64, 112):
        monkeypatch.setattr(transforms, "WINDOW", window)
        assert np.abs(codec.model.analyse(photograph) - y).max() <= 1e-5 * np.abs(y).max()
        assert np.abs(codec.model.synthesise(y).astype(int) - pixels).max() <= 1


def test_a_halo_that_is_too_small_would_be_seen(codec, photograph, monkeypatch):
    y = codec.model.analyse(photograph)
    monkeypatch.setattr(transforms, "WINDOW", 32)
    monkeypatch.setattr(Hyperprior, "halo", lambda *_: 0)
    assert np.abs(codec.model.analyse(photograph) - y).max() > 1e-3 * np.abs(y).max()


def test_tiles_come_back_and_leave_no_seam(codec, photograph, monkeypatch):
    whole = codec.encode(photograph, 50)
    monkeypatch.setattr(codec_module, "Header", partial(Header, tile=1))
    tiled = codec.encode(photograph, 50)
    assert len(container.unpack(whole).tiles) == 1
    assert len(container.unpack(tiled).tiles) == 4 * 5
    # The symbols are quantised around other means: the pixels differ, but nowhere by much.
    a, b = decoded(codec, whole), decoded(codec, tiled)
    assert psnr(photograph, b) == pytest.approx(psnr(photograph, a), abs=0.3)
    difference = np.abs(a.astype(int) - b).mean(2)
    seam = difference[:, 63:65].mean()
    assert seam < 2 * difference.mean() + 0.5


def test_several_threads_share_a_codec(tiny, photograph):
    codec = Codec(tiny, "cpu", 1)  # with nothing made ready yet
    crops = [photograph[i : i + 60, i : i + 70] for i in range(0, 80, 10)]
    expected = [Codec(tiny, "cpu", 1).encode(c, 70) for c in crops]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda c: codec.encode(c, 70), crops)) == expected
        found = list(pool.map(lambda d: decoded(codec, d), expected))
    assert all(np.array_equal(f, decoded(codec, d)) for f, d in zip(found, expected, strict=True))


def test_the_portable_entropy_coder_gives_the_same_bytes(tiny, photograph):
    portable = Codec(tiny, "cpu", 1, portable=True)
    noise = np.random.default_rng(1).integers(0, 2, (48, 48, 3), dtype=np.uint8) * 255
    for pixels in (photograph[:60, :60], noise):
        data = Codec(tiny, "cpu", 1).encode(pixels, 100)
        assert portable.encode(pixels, 100) == data
        assert np.array_equal(decoded(portable, data), decoded(Codec(tiny, "cpu", 1), data))


def test_a_file_of_another_model_is_refused_with_its_name(codec, photograph):
    data = codec.encode(photograph[:20, :20], 50)
    file = container.unpack(data)
    other = Header(20, 20, file.header.colour, file.header.quality, bytes(8))
    forged = container.pack(container.Container(other, file.tiles))
    with pytest.raises(ModelError, match="0000000000000000"):
        codec.decode(forged)


def test_every_damaged_byte_is_found_or_harmless(codec, photograph):
    data = codec.encode(photograph[:40, :40], 60)
    for at in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[at] ^= 1 << (at % 8)
        with pytest.raises((FormatError, ModelError)):
            codec.decode(bytes(damaged))


def test_every_cut_is_found(codec, photograph):
    data = codec.encode(photograph[:40, :40], 60)
    for length in range(0, len(data), 64):
        with pytest.raises(FormatError):
            codec.decode(data[:length])


def test_the_functions_of_the_package_do_what_the_class_does(tiny, photograph):
    data = vaecodec.encode(photograph[:33, :20], quality=45, model=tiny, provider="cpu")
    image = vaecodec.decode(data, models=tiny, provider="cpu")
    assert image.size == (20, 33)
    seen = vaecodec.inspect(data)
    assert (seen["width"], seen["height"], seen["quality"]) == (20, 33, 45.0)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert buffer.tell() > 0
