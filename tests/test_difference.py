"""Files as differences: what is made of them is exact, and what does not fit is refused."""

import io
import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from vaecodec import difference
from vaecodec.bundle import Bundle
from vaecodec.difference import Change, Kind, apply, pack, unpack
from vaecodec.errors import ModelError

BASE = np.arange(16, dtype="<u1").tobytes()


def change(*segments, steps=(), levels=(), words=()):
    """segments: offset, number of values (or rows and columns) and kind of each."""
    table = [(s[0], 1, *s[1:]) if len(s) == 3 else s for s in segments]
    return Change(
        np.array(table, np.int64).reshape(-1, 4),
        np.array(steps, np.float32),
        np.array(levels, np.int8),
        np.array(words, np.uint32),
    )


def test_words_are_replaced():
    found = apply(BASE, change((4, 2, Kind.WORD), words=(1, 0xFFFFFFFF)))
    assert found == BASE[:4] + b"\1\0\0\0\xff\xff\xff\xff" + BASE[12:]


def test_bytes_move_and_wrap_around():
    found = apply(BASE, change((0, 3, Kind.BYTE), levels=(-1, 127, 1)))
    assert found == bytes([255, 128, 3]) + BASE[3:]


def test_halves_move_by_multiples_of_steps_of_rows_and_columns_in_single_precision():
    old = np.array([[1.0, -2.0, 0.333], [100.0, 7.7, 0.0]], "<f2")
    rows, columns = np.array([0.1, 0.7], np.float32), np.array([0.3, 1.1, 7.0], np.float32)
    levels = np.array([[1, -127, 3], [5, 0, 2]], np.int8)
    moved = change((2, 2, 3, Kind.HALF), steps=[*rows, *columns], levels=levels.T.reshape(-1))
    found = np.frombuffer(apply(b"ab" + old.tobytes() + b"c", moved)[2:-1], "<f2").reshape(2, 3)
    for i in range(2):
        for j in range(3):
            step = np.float32(rows[i] * columns[j])
            wanted = np.float32(old[i, j]) + np.float32(step * np.float32(levels[i, j]))
            assert found[i, j] == np.float32(wanted).astype("<f2")


def test_values_are_handed_out_in_the_order_of_the_segments():
    segments = ((0, 1, Kind.BYTE), (2, 1, Kind.WORD), (8, 1, Kind.HALF), (12, 1, Kind.BYTE))
    old = BASE[:8] + np.array([1], "<f2").tobytes() + BASE[10:]
    found = apply(old, change(*segments, steps=[0.25, 2], levels=(5, 2, -3), words=(7,)))
    assert found[0] == 5
    assert found[2:6] == b"\7\0\0\0"
    assert np.frombuffer(found, "<f2", 1, 8) == 2.0
    assert found[12] == 9


@pytest.mark.parametrize(
    "wrong",
    [
        change((13, 1, Kind.WORD), words=(0,)),  # beyond the end
        change((-4, 1, Kind.WORD), words=(0,)),
        change((0, -1, Kind.WORD), words=()),
        change((0, 2, Kind.WORD), (4, 1, Kind.WORD), words=(0, 0, 0)),  # they overlap
        change((4, 1, Kind.WORD), (0, 1, Kind.WORD), words=(0, 0)),  # not ascending
        change((0, 1, 3), levels=(0,)),  # no such kind
        change((0, 1, Kind.HALF), steps=[1, np.nan], levels=(0,)),
        change((0, 1, Kind.HALF), steps=[1], levels=(0,)),
        change((0, 1, Kind.BYTE), steps=[1, 1], levels=(0,)),
        change((0, 2, 0, Kind.BYTE)),
        change((0, -1, -1, Kind.BYTE), levels=(0,)),
        change((0, 2**32, 2**32, Kind.BYTE)),  # wraps around to nothing in 64 bits
        change((0, 2, Kind.BYTE), levels=(0,)),  # too few values
        change((0, 2, Kind.BYTE), levels=(0, 0, 0)),  # too many
        change((0, 2**62, Kind.WORD), words=()),
        replace(change(), segments=np.zeros((1, 3), np.int64)),
    ],
)
def test_a_change_that_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match="segment"):
        apply(BASE, wrong)


def test_changes_survive_their_file():
    first = change((0, 2, Kind.BYTE), levels=(1, 2))
    second = change((4, 1, Kind.HALF), (8, 1, Kind.WORD), steps=[0.5, 1], levels=(3,), words=(9,))
    content = pack({"a.onnx": first, "b.onnx": second})
    assert difference.changed(content) == {"a.onnx", "b.onnx"}
    assert content == pack({"a.onnx": first, "b.onnx": second})
    for name, wanted in (("a.onnx", first), ("b.onnx", second)):
        assert apply(BASE, unpack(content, name, len(BASE))) == apply(BASE, wanted)


def member(name, array):
    """A difference file with one array."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: array})
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"no zip",
        pack({"a.onnx": change()})[:-30],
        member("a.onnx/segments", np.zeros((2, 4), np.int64)),  # the others are missing
        pack({"a.onnx": change((0, 17, Kind.BYTE), levels=[0] * 17)}),  # more than the file has
        pack({"a.onnx": change(*[(0, 1, Kind.WORD)] * (difference.MAX_SEGMENTS + 1))}),
    ],
)
def test_a_damaged_difference_file_is_refused(content):
    with pytest.raises(ValueError, match=r"cannot be read|no zip|at most"):
        unpack(content, "a.onnx", len(BASE))


def test_an_array_that_only_claims_to_be_large_is_not_allocated():
    content = pack({"a.onnx": change((0, 1, Kind.BYTE), levels=(0,))})
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if "levels" in name:
                data = data.replace(b"(1,), }            ", b"(1099511627776,), }")
            new.writestr(name, data)
    with pytest.raises(ValueError, match="levels"):
        unpack(buffer.getvalue(), "a.onnx", len(BASE))


# Bundles that are kept so


@pytest.fixture
def derived(tiny, tmp_path, monkeypatch):
    """A bundle that differs from the tiny one in a byte of a weight, and a copy of that."""
    base = Bundle.open(shutil.copytree(tiny, tmp_path / "models" / "tiny"))
    monkeypatch.setenv("VAECODEC_MODELS", str(tmp_path / "models"))
    folder = tmp_path / "models" / "mine"
    folder.mkdir()
    name = "step0.onnx"
    moves = {name: change((len(base.read(name)) // 2, 1, Kind.BYTE), levels=(1,))}
    (folder / difference.FILE).write_bytes(pack(moves))
    contents = {n: base.read(n) for n in base.manifest["files"]}
    contents |= {name: apply(contents[name], moves[name])}
    contents |= {difference.FILE: pack(moves)}
    write(folder, base, contents)
    return Bundle.open(folder)


def write(folder, base, contents):
    import hashlib

    from vaecodec.bundle import fingerprint

    manifest = base.manifest | {
        "name": "mine",
        "base": {"name": "tiny", "fingerprint": base.fingerprint.hex()},
        "files": {n: hashlib.sha256(c).hexdigest() for n, c in contents.items()},
    }
    found = fingerprint(manifest["decoding"], [contents[n] for n in base.decoding_files])
    (folder / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": found.hex()}))


def test_a_bundle_reads_what_it_does_not_hold_from_its_base(derived):
    base = derived.base
    assert base.name == Bundle.open(derived.path.parent / "tiny").name
    assert derived.read("decoder.onnx") == base.read("decoder.onnx")
    assert derived.read("step0.onnx") != base.read("step0.onnx")
    derived.verify()
    assert {path.name for path in derived.path.iterdir()} == {"manifest.json", difference.FILE}


def test_without_its_base_a_bundle_says_which_it_needs(derived):
    shutil.rmtree(derived.path.parent / "tiny")
    with pytest.raises(ModelError, match=r"difference to model tiny \([0-9a-f]{16}\).* not here"):
        Bundle.open(derived.path).read("decoder.onnx")


def test_a_base_that_is_another_edition_is_noticed(derived):
    encoder = derived.path.parent / "tiny" / "encoder.onnx"  # not part of the fingerprint
    encoder.write_bytes(encoder.read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"encoder\.onnx cannot be made of .*install both again"):
        Bundle.open(derived.path).read("encoder.onnx")


def test_a_damaged_difference_is_an_error_of_the_bundle(derived):
    (derived.path / difference.FILE).write_bytes(b"no zip")
    with pytest.raises(ModelError, match=r"difference\.npz is damaged"):
        Bundle.open(derived.path).read("step0.onnx")


def test_a_bundle_is_not_its_own_base(derived):
    manifest = json.loads((derived.path / "manifest.json").read_text())
    manifest["base"]["fingerprint"] = manifest["fingerprint"]
    (derived.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="not here"):
        Bundle.open(derived.path).read("decoder.onnx")
