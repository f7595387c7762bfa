import dataclasses
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading

import click
import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.commands import ROOT, contents, fails, process, run, runs
from vaecodec import __version__, container, images
from vaecodec.bundle import DEFAULT_MODEL, Bundle
from vaecodec.cli import cli
from vaecodec.codec import Codec
from vaecodec.commands import console, files
from vaecodec.hyperprior import Hyperprior
from vaecodec.metrics import psnr
from vaecodec.picture import Picture
from vaecodec.runtime import cuda_problem

WIDTH, HEIGHT = 50, 37
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXIF = Image.Exif()
EXIF[0x010F] = "Maker"
EXIF = EXIF.tobytes().removeprefix(b"Exif\0\0")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'

posix = pytest.mark.skipif(sys.platform == "win32", reason="as POSIX has it")


def gradient(channels=3):
    """Pixels that any model codes well, uint8 (HEIGHT, WIDTH, channels)."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [4 * x + y, 60 + 3 * y, 200 - 2 * x - y][:channels]
    return np.stack(planes, axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def plain(tiny):
    """A .vz of an image with nothing else."""
    return Codec(tiny, "cpu", 1).encode(Picture(gradient()), 50)


@pytest.fixture(scope="module")
def full(tiny):
    """A .vz with every kind of chunk."""
    alpha = np.arange(WIDTH * HEIGHT, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    return Codec(tiny, "cpu", 1).encode(Picture(gradient(), alpha, SRGB, EXIF, XMP), 50)


@pytest.fixture(autouse=True)
def _models(tiny, monkeypatch):
    monkeypatch.setenv("VAECODEC_MODELS", str(tiny.parent))


@pytest.fixture
def png(tmp_path):
    """A PNG in a folder of its own."""
    path = tmp_path / "img.png"
    Image.fromarray(gradient()).save(path)
    return path


@pytest.fixture
def vz(tmp_path, plain):
    """A .vz in a folder of its own."""
    path = tmp_path / "img.vz"
    path.write_bytes(plain)
    return path


@pytest.fixture
def encode(tiny):
    """Arguments that encode with the tiny bundle."""
    return ("encode", "--model", tiny, "--provider", "cpu", "--threads", 1)


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image)


# Round trips


def test_an_image_becomes_a_vz_beside_it_and_comes_back(png, encode):
    report = runs(*encode, png).stderr
    assert report.startswith(f"{png}: 50x37, {png.stat().st_size:,} bytes -> ")
    assert report.endswith(" bpp\n")
    png.rename(png.with_name("original.png"))
    runs("decode", png.with_suffix(".vz"))
    assert pixels_of(png).shape == (HEIGHT, WIDTH, 3)
    assert psnr(pixels_of(png), gradient()) > 20


def test_decoding_beside_the_original_leaves_it_alone_and_says_so(png, encode):
    runs(*encode, png)
    before = png.read_bytes()
    result = runs("decode", png.with_suffix(".vz"))
    decoded = png.with_name("img.decoded.png")
    assert f"{png} exists; the output is {decoded}" in result.stderr
    assert png.read_bytes() == before
    assert pixels_of(decoded).shape == (HEIGHT, WIDTH, 3)
    runs("decode", "--force", png.with_suffix(".vz"))  # replaces what it made, not the original
    assert png.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("o.png", "PNG"),
        ("o.jpg", "JPEG"),
        ("o.webp", "WEBP"),
        ("o.avif", "AVIF"),
        ("o.tif", "TIFF"),
    ],
)
def test_the_suffix_of_the_output_says_its_format(vz, name, format):
    runs("decode", vz, "-o", vz.with_name(name))
    with Image.open(vz.with_name(name)) as image:
        assert (image.format, image.size) == (format, (WIDTH, HEIGHT))


def test_format_overrules_the_suffix_and_names_the_default_output(vz):
    runs("decode", vz, "-o", vz.with_name("odd.bin"), "--format", "tiff")
    runs("decode", vz, "--format", "webp")
    with Image.open(vz.with_name("odd.bin")) as odd, Image.open(vz.with_suffix(".webp")) as webp:
        assert (odd.format, webp.format) == ("TIFF", "WEBP")


def test_grey_stays_grey(tmp_path, encode):
    path = tmp_path / "grey.png"
    Image.fromarray(gradient(1)[:, :, 0]).save(path)
    runs(*encode, path)
    runs("decode", tmp_path / "grey.vz", "-o", tmp_path / "back.png")
    assert pixels_of(tmp_path / "back.png").shape == (HEIGHT, WIDTH)


def test_alpha_and_metadata_are_kept_and_strip_leaves_metadata_out(tmp_path, full, encode):
    (tmp_path / "full.vz").write_bytes(full)
    runs("decode", tmp_path / "full.vz")
    kept = images.read(tmp_path / "full.png")
    assert (kept.icc, kept.exif, kept.xmp) == (SRGB, EXIF, XMP)
    for command in (
        (*encode, "--strip", tmp_path / "full.png", "-o", tmp_path / "stripped.vz"),
        ("decode", tmp_path / "stripped.vz"),
        ("decode", "--strip", tmp_path / "full.vz", "-o", tmp_path / "late.png"),
    ):
        runs(*command)
    for name in ("stripped.png", "late.png"):
        bare = images.read(tmp_path / name)
        assert (bare.icc, bare.exif, bare.xmp) == (None, None, None)
        assert np.array_equal(bare.alpha, kept.alpha)


def test_quality_is_0_to_100_in_steps_of_a_64th(png, encode):
    sizes = []
    for quality in ("0", "33.015625", "100"):
        runs(*encode, png, "-q", quality, "-f")
        sizes.append(png.with_suffix(".vz").stat().st_size)
        facts = json.loads(runs("info", "--json", png.with_suffix(".vz")).stdout)
        assert facts["quality"] == float(quality)
    assert sizes == sorted(set(sizes))


def test_without_quality_it_is_the_default_of_the_model(png, encode, tiny):
    runs(*encode, png)
    facts = json.loads(runs("info", "--json", png.with_suffix(".vz")).stdout)
    assert facts["quality"] == Bundle.open(tiny).default_quality


# Streams


def test_stdin_and_stdout_are_a_dash(png, encode):
    coded = runs(*encode, "-", stdin=png.read_bytes())
    assert "stdin: 50x37" in coded.stderr
    decoded = runs("decode", "-", stdin=coded.stdout_bytes)
    with Image.open(io.BytesIO(decoded.stdout_bytes)) as image:
        assert (image.format, image.size) == ("PNG", (WIDTH, HEIGHT))
    assert contents(png.parent).keys() == {png}


def test_a_file_goes_to_stdout_in_another_format(vz):
    result = runs("decode", vz, "-o", "-", "--format", "jpg")
    with Image.open(io.BytesIO(result.stdout_bytes)) as image:
        assert image.format == "JPEG"


def test_commands_are_piped_into_each_other_as_processes(png, encode):
    coded = process(*encode, "-", input=png.read_bytes())
    assert coded.returncode == 0, coded.stderr
    decoded = process("decode", "-", "--quiet", input=coded.stdout)
    assert (decoded.returncode, decoded.stderr) == (0, b"")
    assert images.read(io.BytesIO(decoded.stdout)).pixels.shape == (HEIGHT, WIDTH, 3)


@posix
@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_terminal_gets_no_binary(command):
    reader, terminal = os.openpty()
    done = process(command, "-", input=b"", stdout=terminal, stderr=-1, capture_output=False)
    os.close(terminal)
    os.close(reader)
    assert done.returncode == 1
    assert b"Error: the output is binary and stdout is a terminal" in done.stderr


# Reports


def test_quiet_says_nothing_and_verbose_says_what_did_the_work(png, encode, tiny):
    assert runs(*encode, png, "--quiet").stderr == ""
    vz = png.with_suffix(".vz")
    assert runs("decode", vz, "--quiet").stderr == ""
    told = runs("decode", vz, "-v", "-f", "--provider", "auto").stderr
    assert f"model {Bundle.open(tiny).name}" in told
    assert "provider c" in told
    assert "Mpixel/s" in told


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("draws", [True, False])
def test_long_work_draws_a_bar_on_a_terminal_only(draws, tiny, monkeypatch):
    monkeypatch.setattr(console, "LONG_WORK", 1)
    monkeypatch.setattr(sys, "stderr", stderr := _Terminal() if draws else io.StringIO())
    with console.Console(quiet=False).bar("encoding", WIDTH, HEIGHT) as watch:
        Codec(tiny, "cpu", 1, watch=watch).encode(gradient())
    assert ("encoding" in stderr.getvalue()) == draws
    assert ("100%" in stderr.getvalue()) == draws


def test_short_work_and_quiet_draw_no_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stderr := _Terminal())
    with console.Console(quiet=False).bar("encoding", WIDTH, HEIGHT):
        pass
    with console.Console(quiet=True).bar("encoding", 9000, 9000):
        pass
    assert stderr.getvalue() == ""


# Outputs


def test_an_output_that_exists_is_replaced_only_by_force(png, encode, vz):
    before = vz.read_bytes()
    assert f"{vz} exists; -f/--force replaces it" in fails(png.parent, *encode, png, "-o", vz)
    fails(png.parent, *encode, png)
    runs(*encode, png, "-o", vz, "--force", "-q", 90)
    assert vz.read_bytes() != before
    other = png.with_name("other.png")
    other.touch()
    fails(png.parent, "decode", vz, "-o", other)
    runs("decode", vz, "-o", other, "-f")
    assert other.stat().st_size


@pytest.mark.parametrize("links", [True, False])
def test_what_came_to_be_there_meanwhile_is_not_replaced(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(files.os, "link", lambda *_: (_ for _ in ()).throw(OSError()))
    target = tmp_path / "a.vz"
    files.write(target, b"first", force=False)
    with pytest.raises(click.ClickException, match="exists; -f/--force replaces it"):
        files.write(target, b"second", force=False)
    assert target.read_bytes() == b"first"
    files.write(target, b"third", force=True)
    assert target.read_bytes() == b"third"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("alias", ["same", "hard", "symbolic", "dotted"])
def test_input_and_output_the_same_file_is_refused_even_by_force(png, encode, alias):
    output = png if alias == "same" else png.with_name("alias.png")
    if alias == "hard":
        output.hardlink_to(png)
    elif alias == "symbolic":
        output.symlink_to(png)
    elif alias == "dotted":
        output = png.parent / ".." / png.parent.name / png.name
    assert "is the input" in fails(png.parent, *encode, png, "-o", output, "--force")


def test_an_image_named_like_a_vz_is_not_overwritten_by_default(png, encode):
    image = png.rename(png.with_suffix(".vz"))
    assert "is the input" in fails(png.parent, *encode, image, "-f")


@posix
def test_a_symbolic_link_as_output_stays_one(png, encode):
    target, link = png.with_name("target.vz"), png.with_name("link.vz")
    target.touch()
    link.symlink_to(target)
    runs(*encode, png, "-o", link, "--force")
    assert link.is_symlink()
    assert target.stat().st_size


@posix
def test_a_pipe_as_output_is_written_to_and_not_replaced(png, encode):
    pipe = png.with_name("pipe")
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    runs(*encode, png, "-o", pipe)
    reader.join(10)
    assert pipe.is_fifo()
    assert got[0].startswith(container.SIGNATURE)


@posix
def test_an_output_has_the_permissions_of_any_new_file(png, encode):
    before = os.umask(0o027)
    try:
        runs(*encode, png)
    finally:
        os.umask(before)
    assert png.with_suffix(".vz").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_breaks_off_while_writing_leaves_no_file_behind(png, encode, monkeypatch, error):
    def replace(*_):
        raise error

    monkeypatch.setattr(files, "_linked", replace)
    before = contents(png.parent)
    result = run(*encode, png)
    assert result.exit_code == 1
    assert contents(png.parent) == before
    if isinstance(error, OSError):
        assert result.stderr == f"Error: {png.with_suffix('.vz')} cannot be written: " + (
            "No space left on device\n"
        )


@posix
def test_an_interrupt_ends_a_process_and_leaves_nothing(tmp_path, tiny):
    command = [sys.executable, "-m", "vaecodec", "encode", "-", "-o", "a.vz", "--model", str(tiny)]
    running = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    running.stdin.write(bytes(1 << 20))  # more than a pipe holds: it is reading by now
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=20)
    assert running.returncode == 1
    assert b"Traceback" not in stderr
    assert contents(tmp_path) == {}


# Bad input: one line, exit status 1, nothing written


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"This is a text, and no image.", "not an image"),
        (b"", "the file is empty; an image was expected"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "img.bad: "),
    ],
)
def test_what_is_no_image_is_not_encoded(tmp_path, encode, data, message):
    path = tmp_path / "img.bad"
    path.write_bytes(data)
    assert message in fails(tmp_path, *encode, path)
    assert "stdin: " in fails(tmp_path, *encode, "-", stdin=data)


def test_an_image_that_was_cut_off_is_not_encoded(png, encode):
    png.write_bytes(png.read_bytes()[:-40])
    assert f"{png}: " in fails(png.parent, *encode, png)


@pytest.mark.parametrize("command", ["encode", "decode", "info"])
def test_an_input_that_is_not_there_or_is_a_directory(tmp_path, command):
    missing = fails(tmp_path, command, tmp_path / "missing")
    assert missing == f"Error: {tmp_path / 'missing'}: No such file or directory\n"
    assert "directory" in fails(tmp_path, command, tmp_path)


@pytest.mark.parametrize("command", ["decode", "info"])
@pytest.mark.parametrize(
    ("data", "message"), [(b"", "the file is empty"), (b"GIF89a" * 9, "not a .vz file")]
)
def test_what_is_no_vz_is_not_decoded(tmp_path, command, data, message):
    path = tmp_path / "img.vz"
    path.write_bytes(data)
    assert f"{path}: " in fails(tmp_path, command, path)
    assert message in fails(tmp_path, command, "-", stdin=data)


@pytest.mark.parametrize("command", ["decode", "info"])
def test_a_vz_cut_at_every_64th_byte_is_refused(tmp_path, full, command):
    path = tmp_path / "img.vz"
    for size in range(0, len(full), 64):
        path.write_bytes(full[:size])
        assert f"{path}: " in fails(tmp_path, command, path)


@pytest.mark.parametrize("command", ["decode", "info"])
def test_a_flipped_byte_in_each_chunk_is_refused(tmp_path, full, command):
    path = tmp_path / "img.vz"
    chunks = [("signature", 7), ("version", 1), *container.chunk_sizes(full)]
    assert "".join(kind for kind, _ in chunks[2:]) == "HiexAT"
    start = 0
    for kind, size in chunks:
        damaged = bytearray(full)
        damaged[start + size // 2] ^= 0x10
        path.write_bytes(damaged)
        assert f"{path}: " in fails(tmp_path, command, path), kind
        start += size


def test_a_file_of_a_newer_version_says_so(vz):
    data = bytearray(vz.read_bytes())
    data[7] = 2
    vz.write_bytes(data)
    assert "a newer vaecodec may read it" in fails(vz.parent, "decode", vz)


def with_header(data, width, height):
    """The file with another size in its header."""
    header = container.unpack(data).header
    sizes = b"".join(container.pack_varint(n) for n in (width, height, 1))
    fixed = struct.pack("<BH8s", header.colour, header.quality, header.model) + b"\0"
    _, header_size = container.chunk_sizes(data)[0]
    return data[:8] + container.pack_chunk("H", sizes + fixed) + data[8 + header_size :]


def test_a_header_that_claims_65535_x_65535_is_refused_at_once(vz):
    vz.write_bytes(with_header(vz.read_bytes(), 65535, 65535))
    assert "65535 x 65535 pixels, more than the limit" in fails(vz.parent, "decode", vz)


def test_a_header_that_claims_another_size_is_refused(vz):
    vz.write_bytes(with_header(vz.read_bytes(), WIDTH + 400, HEIGHT))
    assert f"{vz}: " in fails(vz.parent, "decode", vz)


def test_a_file_of_a_model_that_is_not_here_names_it(vz):
    file = container.unpack(vz.read_bytes())
    header = dataclasses.replace(file.header, model=b"\xab" * 8)
    vz.write_bytes(container.pack(dataclasses.replace(file, header=header)))
    assert "ab" * 8 in fails(vz.parent, "decode", vz)
    assert json.loads(runs("info", "--json", vz).stdout)["model_name"] is None
    assert "not at hand" in runs("info", vz).stdout


def test_info_names_a_model_of_another_place(tmp_path, vz, tiny):
    shutil.copytree(tiny, tmp_path / "models" / "other")
    environment = {"VAECODEC_MODELS": ""}
    told = [
        process("info", vz, *more, env=environment).stdout.decode()
        for more in ((), ("--model", tmp_path / "models"))
    ]
    assert ["not at hand" in text for text in told] == [True, False]


def test_options_that_are_no_numbers_are_wrong_usage(png, encode):
    for option, value in (("--max-seconds", "nan"), ("--threads", "99999999999")):
        result = process(*encode, png, option, value, "-o", png.with_name("n.vz"))
        assert result.returncode == 2


@pytest.mark.parametrize("command", ["encode", "bench", "decode"])
def test_an_unknown_model_is_refused_and_those_at_hand_are_named(tmp_path, png, vz, tiny, command):
    path = vz if command == "decode" else png
    message = fails(tmp_path, command, path, "--model", "nobody", *_elsewhere(command, tmp_path))
    assert "no model 'nobody'" in message
    assert Bundle.open(tiny).name in message


def _elsewhere(command, folder):
    return {"encode": ("-o", folder / "new.vz"), "decode": ("-o", folder / "new.png")}.get(
        command, ()
    )


def test_decode_takes_a_place_to_look_and_refuses_another_model(vz, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny, folder / "copy")
    runs("decode", vz, "--model", folder, "-f")
    runs("decode", vz, "--model", folder / "copy", "-f")
    manifest = json.loads((tiny / "manifest.json").read_text()) | {"fingerprint": "cd" * 8}
    (folder / "copy" / "manifest.json").write_text(json.dumps(manifest))
    out = vz.with_name("new.png")
    for place in (folder, folder / "copy"):
        message = fails(vz.parent, "decode", vz, "--model", place, "-o", out)
        assert Bundle.open(tiny).fingerprint.hex() in message


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux has it")
def test_a_directory_that_nobody_can_write_is_refused(png, encode):
    assert "/proc/a.vz cannot be written: " in fails(png.parent, *encode, png, "-o", "/proc/a.vz")


@pytest.mark.parametrize("where", ["missing/a.vz", "file/a.vz", "."])
def test_an_output_where_no_file_can_be_is_refused(png, encode, where):
    (png.parent / "file").touch()
    assert "directory" in fails(png.parent, *encode, png, "-o", png.parent / where)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_directory_that_cannot_be_written_is_refused(png, encode):
    (png.parent / "closed").mkdir(mode=0o555)
    message = fails(png.parent, *encode, png, "-o", png.parent / "closed" / "a.vz")
    assert "a directory that you cannot write to" in message


def test_a_directory_that_turns_out_not_to_be_writable_is_an_error(png, encode, monkeypatch):
    kind, opened = type(png), type(png).open

    def refuse(path, mode="r", **options):
        if "x" in mode:
            raise PermissionError(13, "Permission denied")
        return opened(path, mode, **options)

    monkeypatch.setattr(kind, "open", refuse)
    assert fails(png.parent, *encode, png).endswith("cannot be written: Permission denied\n")


def test_an_output_of_no_known_format_is_refused(vz):
    message = fails(vz.parent, "decode", vz, "-o", vz.with_name("a.gif"))
    assert "no known image format" in message


def test_cuda_where_it_cannot_work_is_an_error_with_the_reason(png, tiny):
    if cuda_problem() is None:
        pytest.skip("CUDA works here")
    message = fails(png.parent, "encode", png, "--model", tiny, "--provider", "cuda")
    assert "CUDA cannot be used: " in message


def test_too_little_memory_is_an_error_of_one_line(png, encode, monkeypatch):
    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr(Hyperprior, "analyse", refuse)
    assert "not enough memory" in fails(png.parent, *encode, png)


# Wrong usage: exit status 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("encode",),
        ("encode", "a.png", "b.png"),
        ("encode", "a.png", "-q", "101"),
        ("encode", "a.png", "-q", "-1"),
        ("encode", "a.png", "-q", "nan"),
        ("encode", "a.png", "-q", "high"),
        ("encode", "a.png", "--provider", "tpu"),
        ("encode", "a.png", "--threads", "0"),
        ("decode", "a.vz", "--format", "gif"),
        ("decode", "a.vz", "--quality", "5"),
        ("bench", "--runs", "0"),
        ("paint",),
    ],
)
def test_wrong_usage_has_exit_status_2(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


# info, models, help


def test_info_says_what_a_file_holds(tmp_path, full, tiny):
    path = tmp_path / "full.vz"
    path.write_bytes(full)
    text = runs("info", path).stdout
    for fact in (
        "50x37 RGB, with alpha, icc, exif, xmp",
        f"{Bundle.open(tiny).name} (",
        "quality  50",
        f"{len(full):,} bytes",
        "A alpha channel",
    ):
        assert fact in text
    facts = json.loads(runs("info", "--json", "-", stdin=full).stdout)
    assert facts["bytes"] == len(full) == 8 + sum(size for _, size in facts["chunks"])
    assert facts["model"] == Bundle.open(tiny).fingerprint.hex()
    assert facts["bpp"] == pytest.approx(8 * len(full) / (WIDTH * HEIGHT))


def test_models_lists_bundles_and_verifies_them(tiny):
    bundle = Bundle.open(tiny)
    text = runs("models", tiny).stdout
    assert bundle.name in text
    assert bundle.fingerprint.hex() in text
    assert "verified" in text
    (facts,) = json.loads(runs("models", "--json", tiny).stdout)
    assert (facts["name"], facts["problem"]) == (bundle.name, None)
    assert str(tiny) in [facts["path"] for facts in json.loads(runs("models", "--json").stdout)]


def test_models_shows_what_a_manifest_says_was_measured(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "copy")
    manifest = json.loads((tiny / "manifest.json").read_text())
    manifest["measured"] = [
        {"set": "gb82", "quality": 40, "bpp": 0.5, "psnr": 31.256, "ms_ssim": 0.98},
        {"set": "gb82", "quality": 80.5, "bpp": 1.25, "psnr": 37.0},
    ]
    (tmp_path / "copy" / "manifest.json").write_text(json.dumps(manifest))
    lines = runs("models", tmp_path).stdout.splitlines()
    assert [line.split() for line in lines[-3:]] == [
        ["measured", "on", "quality", "bpp", "PSNR", "dB", "MS-SSIM"],
        ["gb82", "40", "0.500", "31.26", "0.9800"],
        ["gb82", "80.5", "1.250", "37.00"],
    ]


@pytest.mark.parametrize("name", ["tables.bin", "manifest.json"])
def test_models_tells_of_a_damaged_bundle_and_lists_the_others(tiny, tmp_path, name):
    shutil.copytree(tiny, tmp_path / "bad")
    shutil.copytree(tiny, tmp_path / "good")
    (tmp_path / "bad" / name).write_bytes(b"{}")
    result = run("models", tmp_path)
    assert result.exit_code == 1
    assert result.stderr == f"Error: cannot be used, see above: {tmp_path / 'bad'}\n"
    assert str(tmp_path / "good") in result.stdout
    facts = json.loads(run("models", "--json", tmp_path).stdout)
    assert [bool(each["problem"]) for each in facts] == [True, False]


def test_a_damaged_bundle_does_not_keep_others_from_being_found(vz, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny, folder / "good")
    (folder / "bad").mkdir()
    (folder / "bad" / "manifest.json").write_text("{")
    runs("decode", vz, "--model", folder)


def test_models_says_where_it_looked_in_vain(tmp_path):
    assert str(tmp_path) in fails(tmp_path, "models", tmp_path)


def test_the_version_is_that_of_the_package():
    assert __version__ in runs("--version").stdout


COMMANDS = cli.commands | {
    f"models {name}": command for name, command in cli.commands["models"].commands.items()
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_has_help(name):
    text = runs(*name.split(), "--help").stdout
    assert text == runs(*name.split(), "-h").stdout
    assert f"Usage: cli {name}" in text
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "option":
            assert parameter.help
            assert parameter.opts[-1] in text


def test_help_names_the_default_model():
    for command in ("encode", "bench"):
        assert f"[default: {DEFAULT_MODEL}]" in " ".join(runs(command, "--help").stdout.split())


def test_model_names_are_completed(tiny):
    name = Bundle.open(tiny).name
    environment = {
        "_VAECODEC_COMPLETE": "bash_complete",
        "COMP_WORDS": f"vaecodec encode --model {name[:2]}",
        "COMP_CWORD": "3",
    }
    done = process(env=environment)
    assert f"plain,{name}" in done.stdout.decode().splitlines()


def test_the_module_runs_as_a_command(tmp_path):
    done = process("info", tmp_path / "missing.vz")
    assert done.returncode == 1
    assert done.stderr.decode() == f"Error: {tmp_path}/missing.vz: No such file or directory\n"
