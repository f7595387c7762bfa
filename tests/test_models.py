"""Models are packed, sent, added and removed; what is packed oddly is refused in one line."""

import json
import os
import shutil
import stat
import struct
import sys
import time
import warnings
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

import vaecodec
from tests.commands import contents, fails, process, run, runs
from tests.packed import files_in, signed, write, write_zip
from vaecodec import bundle, packs, places, store
from vaecodec.bundle import Bundle
from vaecodec.codec import Codec
from vaecodec.difference import FILE, Change, Kind, apply, pack
from vaecodec.errors import ModelError
from vaecodec.picture import Picture

onnx = pytest.importorskip("onnx")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The directory of the user's models; the working directory is another, and empty."""
    monkeypatch.setattr("platformdirs.user_data_path", lambda _name: tmp_path / "data")
    monkeypatch.delenv("VAECODEC_MODELS", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "data" / "models"


@pytest.fixture(scope="module")
def packed(tiny):
    """The bytes of a packed file."""
    return store.pack(Bundle.open(tiny))


@pytest.fixture
def sent(tmp_path, packed):
    """A packed file."""
    path = tmp_path / "sent.vzm"
    path.write_bytes(packed)
    return path


def refused(path, *messages):
    """Adding `path` fails in one line that has all of `messages` in it, and leaves nothing."""
    told = fails(path.parent, "models", "add", path)
    for message in (str(path), *messages):
        assert message in told
    assert len(told) < 500
    assert list((path.parent / "data").glob("models/*")) == []


# There and back


def test_a_packed_model_is_added_decodes_its_files_and_is_removed(tmp_path, tiny, home):
    pixels = np.full((20, 30, 3), 90, np.uint8)
    (tmp_path / "a.vz").write_bytes(Codec(tiny, "cpu", 1).encode(Picture(pixels), 50))
    decode = ("decode", tmp_path / "a.vz", "-o", tmp_path / "a.png")
    named = Bundle.open(tiny).fingerprint.hex()
    assert named in fails(tmp_path, *decode)
    runs("models", "pack", tiny, "-o", tmp_path / "sent.vzm")
    told = runs("models", "add", tmp_path / "sent.vzm").stdout
    assert told == f"tiny ({named}) verified; it is in {home / 'tiny'}\n"
    assert contents(home / "tiny") == {home / "tiny" / n: c for n, c in files_in(tiny).items()}
    runs(*decode, "--threads", 1)
    assert "verified" in runs("models", home).stdout
    assert runs("models", "remove", "tiny").stdout == f"tiny removed from {home}\n"
    assert list(home.iterdir()) == []
    fails(tmp_path, *decode, "-f")


def test_a_directory_is_added_with_the_card_beside_it(tmp_path, tiny, home):
    folder = shutil.copytree(tiny, tmp_path / "from")
    (folder / "README.md").write_text("card")
    runs("models", "add", folder)
    assert (home / "tiny" / "README.md").read_text() == "card"
    assert "README.md" in zipfile.ZipFile(_pack("tiny", tmp_path / "b.vzm")).namelist()


def _pack(model, path):
    runs("models", "pack", model, "-o", path)
    return path


def test_the_same_files_make_the_same_bytes_in_any_order(tiny, packed):
    files = files_in(tiny)
    assert packs.pack(dict(reversed(files.items()))) == packs.pack(files) == packed


def test_packing_names_its_output_and_replaces_nothing(tiny, home):
    runs("models", "add", tiny)
    runs("models", "pack", "tiny")
    here = home.parent.parent / "here"
    assert "tiny.vzm exists; -f/--force replaces it" in fails(here, "models", "pack", "tiny")
    runs("models", "pack", "tiny", "--force")
    streamed = process("models", "pack", tiny, "-o", "-")
    assert streamed.stdout == (here / "tiny.vzm").read_bytes()


def test_packing_refuses_what_adding_would(tmp_path, tiny):
    folder = tmp_path / "bad"
    shutil.copytree(tiny, folder)
    (folder / "side.onnx").write_bytes(b"")
    assert "side.onnx is not the file" in fails(tmp_path, "models", "pack", folder)
    shutil.rmtree(folder)
    shutil.copytree(tiny, folder)
    (folder / "results.tsv").write_bytes(bytes(packs.MAX_BYTES))
    assert "unpacked it has more than 32 MiB" in fails(tmp_path, "models", "pack", folder)


def test_a_model_that_does_not_state_its_cost_is_listed(tmp_path, tiny):
    folder = tmp_path / "tiny"
    shutil.copytree(tiny, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"cost": None}))
    assert "kMAC per pixel   not stated" in runs("models", folder).stdout


def test_adding_what_is_there_says_so(sent, home):
    runs("models", "add", sent)
    before = contents(home)
    assert f"is at hand already, in {home / 'tiny'}\n" in runs("models", "add", sent).stdout
    assert contents(home) == before


def test_adding_what_was_released_says_so(home):
    found = bundle.find()
    assert str(found.path) in runs("models", "add", found.path).stdout
    assert list(home.iterdir()) == []


def test_a_damaged_model_is_replaced(sent, home, packed):
    runs("models", "add", sent)
    (home / "tiny" / "side.onnx").write_bytes(b"")
    assert "verified" in runs("models", "add", sent).stdout
    assert store.pack(Bundle.open(home / "tiny")) == packed
    assert [path.name for path in home.iterdir()] == ["tiny"]


def test_another_model_of_the_name_is_refused(tmp_path, tiny, sent, home, monkeypatch):
    files = files_in(tiny)
    other = write(tmp_path / "other.vzm", signed(files, default_quality=1))
    assert "verified" in runs("models", "add", sent).stdout
    told = fails(tmp_path, "models", "add", other)
    assert f"{home / 'tiny'} is another model of the name tiny" in told
    assert "vaecodec models remove tiny first" in told
    runs("models", "remove", "tiny")
    shutil.copytree(tiny, tmp_path / "own" / "else")
    monkeypatch.setenv("VAECODEC_MODELS", str(tmp_path / "own"))
    assert f"{tmp_path / 'own' / 'else'} is another" in fails(tmp_path, "models", "add", other)


def test_only_what_was_added_is_removed(tmp_path, tiny, monkeypatch):
    monkeypatch.setenv("VAECODEC_MODELS", str(tiny.parent))
    assert f"tiny is in {tiny}; only what is in" in fails(tmp_path, "models", "remove", "tiny")
    assert "photo-1 is in " in fails(tmp_path, "models", "remove", "photo-1")
    for name in ("nobody", "..", "../here", "."):
        assert f"no model '{name}' is installed" in fails(tmp_path, "models", "remove", name)
    assert Bundle.open(tiny).name == "tiny"


def test_a_model_that_another_builds_on_is_removed_only_by_force(tmp_path, tiny, sent, home):
    runs("models", "add", sent)
    base = {"name": "tiny", "fingerprint": Bundle.open(tiny).fingerprint.hex()}
    (home / "child").mkdir()
    child = signed(files_in(tiny), name="child", base=base)
    manifest = json.loads(child["manifest.json"]) | {"fingerprint": "cd" * 8}
    (home / "child" / "manifest.json").write_text(json.dumps(manifest))
    told = fails(tmp_path, "models", "remove", "tiny")
    assert "tiny is what child builds on" in told
    runs("models", "remove", "child")
    runs("models", "remove", "tiny")
    (home / "child").mkdir()
    (home / "child" / "manifest.json").write_text(json.dumps(manifest))
    runs("models", "add", sent)
    runs("models", "remove", "tiny", "--force")
    assert [path.name for path in home.iterdir()] == ["child"]


def test_what_killed_processes_left_goes_a_week_later(home):
    with store.drafting(home):
        pass
    for name, days in ((".draft-old", 8), (".draft-new", 6), ("model", 8)):
        (home / name / "bundle").mkdir(parents=True)
        then = time.time() - days * 86_400
        os.utime(home / name, (then, then))
    with store.drafting(home) as folder:
        assert folder.parent == home
    assert sorted(path.name for path in home.iterdir()) == [".draft-new", "model"]


def test_an_installation_that_is_killed_leaves_no_model(sent, home, monkeypatch):
    seen = []

    def die(_found):
        seen.extend(path for path in home.rglob("*") if path.is_file())
        assert list(places.directories([home])) == []
        raise KeyboardInterrupt

    monkeypatch.setattr("vaecodec.received.verify", die)
    assert run("models", "add", sent).exit_code == 1
    assert "manifest.json" in {path.name for path in seen}
    assert list(home.iterdir()) == []


def test_without_onnx_nothing_is_added_and_it_says_what_to_install(sent, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in ("bounds", "graphs", "trial"):
        monkeypatch.delitem(sys.modules, f"vaecodec.{name}", raising=False)
        monkeypatch.delattr(vaecodec, name, raising=False)
    refused(sent, "cannot be verified without the package onnx: pip install onnx")


def test_models_lists_as_it_did_and_its_commands_have_help(tiny):
    listed = runs("models", tiny).stdout
    assert runs("models", "list", tiny).stdout == listed
    assert runs("models", tiny, "--json").stdout == runs("models", "--json", tiny).stdout
    text = runs("models", "--help").stdout
    assert "[DIR]... | COMMAND [ARGS]..." in text
    for command in ("add", "list", "pack", "remove"):
        assert f"  {command} " in text
        assert f"models {command}" in runs("models", command, "--help").stdout
    assert run("models", "--nonsense").exit_code == 2
    assert run("models", "add").exit_code == 2


def test_commands_of_models_are_completed():
    words = {"COMP_WORDS": "vaecodec models ", "COMP_CWORD": "2"}
    done = process(env=words | {"_VAECODEC_COMPLETE": "bash_complete"})
    assert {"plain,add", "plain,list", "plain,pack", "plain,remove"} <= {
        *done.stdout.decode().splitlines()
    }


def test_what_a_manifest_says_moves_no_cursor(tmp_path, tiny):
    odd = {"cost": {"a\x1b[2Jb": 1.0}, "measured": [{"set": "c\x1b[2Jd", "bpp": 1.0}]}
    for name, content in signed(files_in(tiny), **odd).items():
        (tmp_path / name).write_bytes(content)
    text = runs("models", tmp_path).stdout
    assert "a?[2Jb" in text
    assert "c?[2Jd" in text


# Models that build on others


@pytest.fixture
def child(tmp_path, tiny):
    """A packed model that is kept as a difference to another: one weight of its decoder."""
    files, base = files_in(tiny), Bundle.open(tiny)
    weights = onnx.load_from_string(files["decoder.onnx"]).graph.initializer
    place = files["decoder.onnx"].index(max((t.raw_data for t in weights), key=len))
    change = Change(
        np.array([[place, 1, 1, Kind.HALF]]),
        np.array([2.0**-6, 1], np.float32),
        np.array([3], np.int8),
        np.array([], np.uint32),
    )
    decoder = apply(files["decoder.onnx"], change)
    files[FILE] = pack({"decoder.onnx": change})
    named = {"name": base.name, "fingerprint": base.fingerprint.hex()}
    whole = signed(files | {"decoder.onnx": decoder}, name="child", base=named)
    own = ("manifest.json", FILE)
    return write(tmp_path / "child.vzm", {name: whole[name] for name in own})


def test_a_difference_is_added_used_and_packed_where_its_base_is_at_hand(child, sent, home):
    runs("models", "add", sent)
    runs("models", "add", child)
    Image.new("RGB", (30, 20)).save(child.with_suffix(".png"))
    runs("encode", child.with_suffix(".png"), "--model", "child", "--threads", 1)
    runs("decode", child.with_suffix(".vz"), "-f", "--threads", 1)
    assert _pack("child", child.with_name("again.vzm")).read_bytes() == child.read_bytes()
    told = fails(home, "models", "remove", "tiny")
    assert "tiny is what child builds on" in told


def test_a_difference_to_a_model_that_is_not_at_hand_is_refused_and_names_it(child):
    refused(child, "model tiny (01a9968228479938)", "vaecodec models add")


def test_a_difference_to_another_base_than_it_says_is_refused(tmp_path, tiny, child):
    files = packs.read(child)
    named = Bundle.open(tiny).fingerprint.hex().encode()
    assert named in files["manifest.json"]
    manifest = files["manifest.json"].replace(named, bundle.find().fingerprint.hex().encode())
    path = write(tmp_path / "other.vzm", files | {"manifest.json": manifest})
    assert f"{path} is refused: " in fails(tmp_path, "models", "add", path)


# Files that are packed oddly

ODD_NAMES = ["../evil", "/etc/evil", "a/b", "a\\b", "C:evil", "..", ".hidden", "a\nb", "x" * 101]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_is_no_plain_name_is_refused(tmp_path, tiny, name):
    path = write_zip(tmp_path / "odd.vzm", *files_in(tiny).items(), (name, b"evil"))
    refused(path, "is no plain file name")


def test_a_name_with_a_hidden_end_is_refused(tmp_path, packed):
    path = tmp_path / "odd.vzm"
    path.write_bytes(packed.replace(b"hyper.onnx", b"hyper\0onnx"))
    refused(path, "in it is no plain file name")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_a_folder_or_a_device_is_refused(tmp_path, tiny, kind):
    info = zipfile.ZipInfo("README.md")
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    path = write_zip(tmp_path / "odd.vzm", *files_in(tiny).items(), (info, "/etc/passwd"))
    refused(path, f"'README.md' in it is no plain file but of kind {kind:o}")


def test_a_link_in_a_directory_is_refused(tmp_path, tiny):
    folder = tmp_path / "odd"
    shutil.copytree(tiny, folder)
    (folder / "README.md").symlink_to(tiny / "tables.bin")
    refused(folder, "'README.md' in it is no plain file")


def test_a_directory_that_is_no_bundle_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    assert "is no model bundle" in fails(tmp_path, "models", "add", tmp_path / "photos")
    told = fails(tmp_path, "models", "add", tmp_path / "missing")
    assert told == f"Error: {tmp_path / 'missing'}: No such file or directory\n"


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, tiny, monkeypatch):
    zeros = bytes(packs.MAX_BYTES + 1)
    path = write_zip(tmp_path / "bomb.vzm", *files_in(tiny).items(), ("README.md", zeros))
    assert path.stat().st_size < 1e6
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("it was unpacked"))
    refused(path, "unpacked it has more than 32 MiB")


def test_a_bomb_that_states_a_small_size_is_not_read_beyond_it(tmp_path, tiny, monkeypatch):
    zeros = bytes(10**7)
    path = write_zip(tmp_path / "bomb.vzm", *files_in(tiny).items(), ("README.md", zeros))
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 10**7), struct.pack("<I", 1000)))
    most, read = [], zipfile.ZipExtFile.read

    def watched(stream, count):
        found = read(stream, count)
        most.append(len(found))
        return found

    monkeypatch.setattr(zipfile.ZipExtFile, "read", watched)
    refused(path, "Bad CRC-32 for file 'README.md'")
    assert max(most) <= 202_000


def test_too_many_files_are_refused(tmp_path, tiny):
    more = [(f"f{n}", b"") for n in range(packs.MAX_FILES)]
    path = write_zip(tmp_path / "odd.vzm", *files_in(tiny).items(), *more)
    refused(path, "42 files; a bundle has 32 at most")
    more = [(f"f{n}", b"") for n in range(packs.MAX_ENTRIES)]
    path = write_zip(tmp_path / "odd.vzm", *files_in(tiny).items(), *more)
    refused(path, "its directory states 1034 files")
    folder = tmp_path / "folder"
    shutil.copytree(tiny, folder)
    for name, _ in more:
        (folder / name).touch()
    refused(folder, "1034 files; a bundle has 32 at most")


@pytest.mark.parametrize("name", ["tables.bin", "TABLES.bin"])
def test_a_name_that_occurs_twice_is_refused(tmp_path, tiny, name):
    with warnings.catch_warnings(action="ignore"):
        path = write_zip(tmp_path / "odd.vzm", *files_in(tiny).items(), (name, b""))
    refused(path, "a name occurs twice in it")


def test_a_file_that_is_cut_off_is_refused(tmp_path, packed):
    path = tmp_path / "cut.vzm"
    for size in (0, 1, 21, 22, 1000, len(packed) // 2, len(packed) - 1):
        path.write_bytes(packed[:size])
        refused(path, "is refused: it is no zip file")


@pytest.mark.parametrize("data", [b"text", b"\0" * 100, b"\x89VZ\r\n\x1a\n\x01" + b"H" * 50])
def test_a_file_of_another_kind_is_refused(tmp_path, data):
    path = tmp_path / "other.vzm"
    path.write_bytes(data)
    refused(path, "is refused: it is no zip file")


def test_something_before_or_behind_is_refused(tmp_path, packed):
    path = tmp_path / "more.vzm"
    for data in (b"#!/bin/sh\n" + packed, packed + b"\0", packed[:-2] + b"\x01\0!"):
        path.write_bytes(data)
        refused(path, "has something behind or before it")


def test_a_file_that_is_encrypted_or_packed_in_an_unusual_way_is_refused(tmp_path, tiny):
    for change in ({"flag_bits": 1}, {"compress_type": zipfile.ZIP_LZMA}):
        info = zipfile.ZipInfo("README.md")
        info.compress_type = zipfile.ZIP_STORED
        path = write_zip(tmp_path / "odd.vzm", *files_in(tiny).items(), (info, b"card"))
        data = bytearray(path.read_bytes())
        at = data.rindex(b"PK\x01\x02")
        struct.pack_into("<H", data, at + 8, change.get("flag_bits", 0))
        struct.pack_into("<H", data, at + 10, change.get("compress_type", 0))
        path.write_bytes(data)
        refused(path, "'README.md' in it is encrypted, or packed in an unusual way")


def test_flips_in_what_frames_the_files_raise_nothing_but_model_errors(tmp_path, packed):
    """Most are refused; those in dates and the like change nothing."""
    path = tmp_path / "flipped.vzm"
    start = struct.unpack_from("<I", packed, len(packed) - 6)[0]
    for at in [*range(40), *range(start, len(packed))][::7]:
        path.write_bytes(packed[:at] + bytes([packed[at] ^ 1 << at % 8]) + packed[at + 1 :])
        with suppress(ModelError):
            packs.read(path)
