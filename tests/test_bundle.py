"""Bundles are untrusted input: what is damaged in one is named, in one line, and never used."""

import io
import json
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests import gaussian_bundle
from vaecodec import bundle, places
from vaecodec.bundle import Bundle, find, find_fingerprint
from vaecodec.errors import ModelError

SHA256 = "0123456789abcdef" * 4


@pytest.fixture
def manifest(tiny):
    return json.loads((tiny / "manifest.json").read_text())


@pytest.fixture
def folder(tmp_path, tiny):
    """A bundle of what is checked before graphs are: its manifest and its arrays."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("manifest.json", "quality.npz", "gains.npz"):
        shutil.copy(tiny / name, folder)
    return folder


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A directory that is all of the search path; the working directory is another."""
    (tmp_path / "models").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(places, "search_path", lambda: [tmp_path / "models"])
    monkeypatch.setattr(bundle, "search_path", places.search_path)
    return tmp_path / "models"


def write(folder, manifest):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def refuses(message, call, *arguments):
    """The call raises a ModelError of one line that has `message` in it."""
    with pytest.raises(ModelError) as caught:
        call(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


# The manifest


def test_a_bundle_says_what_its_manifest_says(tiny, manifest):
    found = Bundle.open(tiny)
    assert found.manifest == manifest
    assert found.name == manifest["name"]
    assert found.fingerprint.hex() == manifest["fingerprint"]
    assert found.default_quality == manifest["default_quality"]
    found.verify()


MISSING = object()
WRONG = [
    ("family", MISSING, "family is missing; a plain name expected"),
    ("family", "a\nb", "family is 'a\\nb'; a plain name expected"),
    (
        "family",
        "lookup",
        "is a lookup bundle of version 1; this vaecodec reads hyperprior and gaussian bundles of",
    ),
    ("format", MISSING, "format is missing; a version expected"),
    ("format", "1", "format is '1'; a version expected"),
    (
        "format",
        2,
        "bundle of version 2; this vaecodec reads hyperprior and gaussian bundles of version 1, a ",
    ),
    ("name", MISSING, "name is missing; a plain name expected"),
    ("name", None, "name is missing"),
    ("name", 7, "name is 7; "),
    ("name", "", "name is ''; "),
    ("name", "..", "name is '..'; "),
    ("name", "a/b", "name is 'a/b'; "),
    ("name", "\x1b[2J", "name is '\\x1b[2J'; "),
    ("name", "a" * 10**6, "name is 'aaaa"),
    ("fingerprint", MISSING, "fingerprint is missing; 16 hexadecimal digits expected"),
    ("fingerprint", "0123456789abcde", "fingerprint is '0123456789abcde'; "),
    ("fingerprint", "01 23456789abcdef", "fingerprint is "),
    ("fingerprint", "0123456789abcdeg", "fingerprint is "),
    ("fingerprint", 123456789, "fingerprint is 123456789; "),
    ("default_quality", MISSING, "default_quality is missing; 0 to 100 expected"),
    ("default_quality", "55", "default_quality is '55'; "),
    ("default_quality", -1, "default_quality is -1; "),
    ("default_quality", 100.1, "default_quality is 100.1; "),
    ("default_quality", float("nan"), "default_quality is nan; "),
    ("default_quality", True, "default_quality is True; "),
    ("decoding", MISSING, "decoding.channels is missing; 1 to 1024 expected"),
    ("decoding", [320, 64, 2, 8], "decoding.channels is missing"),
    ("decoding.channels", MISSING, "decoding.channels is missing"),
    ("decoding.channels", 0, "decoding.channels is 0; "),
    ("decoding.channels", 10**9, "decoding.channels is 1000000000; "),
    ("decoding.channels", 320.0, "decoding.channels is 320.0; "),
    ("decoding.side", -1, "decoding.side is -1; 1 to 1024 expected"),
    ("decoding.side", True, "decoding.side is True; "),
    ("decoding.steps", 3, "decoding.steps is 3; 1, 2 or 4 expected"),
    ("decoding.steps", True, "decoding.steps is True; "),
    ("decoding.steps", [2], "decoding.steps is [2]; "),
    ("decoding.levels", 1, "decoding.levels is 1; 2 to 64 expected"),
    ("decoding.levels", 65, "decoding.levels is 65; "),
    ("halo", MISSING, "halo.encoder is missing; 0 to 32 expected"),
    ("halo.encoder", -1, "halo.encoder is -1; "),
    ("halo.decoder", 4.5, "halo.decoder is 4.5; "),
    ("halo.decoder", 33, "halo.decoder is 33; "),
    ("files", MISSING, "files is missing; plain file names, each with a SHA-256 expected"),
    ("files", ["decoder.onnx"], "files is ['decoder.onnx']; "),
    ("files", {"decoder.onnx": "abc"}, "files is {'decoder.onnx': 'abc'}; "),
    ("files", {"decoder.onnx": None}, "files is "),
    ("files", {"../../etc/passwd": SHA256}, "files is {'../../etc/passwd': "),
    ("files", {"/etc/passwd": SHA256}, "files is "),
    ("files", {"C:passwd": SHA256}, "files is "),
    ("files", {"..\\passwd": SHA256}, "files is "),
    ("files", {".": SHA256}, "files is "),
    ("cost", 3, "cost is 3; figures by name, or nothing expected"),
    ("cost", {"decode": "14"}, "cost is "),
    ("measured", {"bpp": 1.0}, "measured is "),
    ("measured", [{"set": 3}], "measured is "),
    ("measured", [{"set": "gb82", "bpp": [1]}], "measured is "),
]


@pytest.mark.parametrize(("place", "value", "message"), WRONG)
def test_open_refuses_a_manifest_whose(place, value, message, manifest, tmp_path):
    *outer, key = place.split(".")
    entry = manifest[outer[0]] if outer else manifest
    if value is MISSING:
        del entry[key]
    else:
        entry[key] = value
    write(tmp_path, manifest)
    refuses(message, Bundle.open, tmp_path)


OF_GAUSSIAN = [
    ("decoding", MISSING, "decoding.dimensions is missing; 1 to 1024 expected"),
    ("decoding.dimensions", 0, "decoding.dimensions is 0; "),
    ("decoding.dimensions", 1025, "decoding.dimensions is 1025; "),
    ("decoding.height", 10**9, "decoding.height is 1000000000; 1 to 1024 expected"),
    ("decoding.width", 28.0, "decoding.width is 28.0; 1 to 1024 expected"),
    ("decoding.width", True, "decoding.width is True; "),
    ("decoding.colours", 2, "decoding.colours is 2; 1 or 3 expected"),
    ("decoding.colours", True, "decoding.colours is True; "),
    ("decoding.levels", 1, "decoding.levels is 1; 2 to 64 expected"),
    ("likelihood", MISSING, "likelihood is missing; bernoulli, or normal with its sigma expected"),
    ("likelihood", "normal", "likelihood is 'normal'; "),
    ("likelihood", {"kind": "laplace"}, "likelihood is {'kind': 'laplace'}; "),
    ("likelihood", {"kind": ["normal"]}, "likelihood is {'kind': ['normal']}; "),
    ("likelihood", {"kind": "normal"}, "likelihood is {'kind': 'normal'}; "),
    ("likelihood", {"kind": "normal", "sigma": 0}, "likelihood is "),
    ("likelihood", {"kind": "normal", "sigma": float("inf")}, "likelihood is "),
    ("likelihood", {"kind": "normal", "sigma": float("nan")}, "likelihood is "),
    ("likelihood", {"kind": "normal", "sigma": "1"}, "likelihood is "),
]


@pytest.mark.parametrize(("place", "value", "message"), OF_GAUSSIAN)
def test_open_refuses_a_manifest_of_the_gaussian_family_whose(place, value, message, tmp_path):
    manifest = json.loads((patterns(tmp_path) / "manifest.json").read_text())
    test_open_refuses_a_manifest_whose(place, value, message, manifest, tmp_path)


def patterns(folder):
    return gaussian_bundle.write(folder / "patterns")


@pytest.mark.parametrize("likelihood", [{"kind": "bernoulli"}, {"kind": "normal", "sigma": 1}])
def test_open_takes_both_likelihoods(likelihood, tmp_path):
    manifest = json.loads((patterns(tmp_path) / "manifest.json").read_text())
    write(tmp_path, manifest | {"likelihood": likelihood})
    assert Bundle.open(tmp_path).image_shape == (4, 4, 1)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff\xfe", b'{"a": 01}', b"[" * 10**5, b"9" * 5000, b"\x80{}"]
)
def test_open_refuses_what_is_no_json(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text)
    refuses("it is no JSON; install the bundle again", Bundle.open, tmp_path)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"manifest"', "{}"])
def test_open_refuses_a_manifest_that_is_no_object(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    refuses("family is missing; a plain name expected; install", Bundle.open, tmp_path)


def test_open_says_what_to_do_where_there_is_no_bundle(tmp_path):
    refuses("is no model bundle: manifest.json cannot be read; ", Bundle.open, tmp_path)
    refuses("`vaecodec models` lists those at hand", Bundle.open, tmp_path / "missing")


@pytest.mark.parametrize("name", ["decoder.onnx", "encoder.onnx", "tables.bin"])
def test_verify_names_the_file_that_is_not_the_released_one(tmp_path, tiny, name):
    shutil.copytree(tiny, tmp_path / "copy")
    content = (tmp_path / "copy" / name).read_bytes()
    (tmp_path / "copy" / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refuses(f"{name} is not the file that was released", Bundle.open(tmp_path / "copy").verify)
    (tmp_path / "copy" / name).unlink()
    refuses(f"{name} cannot be read; install", Bundle.open(tmp_path / "copy").verify)


def test_verify_compares_the_fingerprint_with_the_files(tmp_path, tiny, manifest):
    shutil.copytree(tiny, tmp_path / "copy")
    write(tmp_path / "copy", manifest | {"fingerprint": "cd" * 8})
    refuses("does not state the fingerprint of its files", Bundle.open(tmp_path / "copy").verify)


@pytest.mark.parametrize(
    ("key", "value"), [("cost", {"decode": 10**400}), ("measured", [{"bpp": float("nan")}])]
)
def test_figures_that_no_float_holds_are_damage(folder, key, value):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {key: value}))
    refuses(f"manifest.json is damaged: {key} is ", Bundle.open, folder)


# Arrays


def test_arrays_have_the_shapes_that_the_manifest_states(tiny):
    found = Bundle.open(tiny)
    levels, channels, side = (
        found.manifest["decoding"][key] for key in ("levels", "channels", "side")
    )
    quality, gains = found.arrays("quality.npz"), found.arrays("gains.npz")
    assert quality.keys() == {"row_offset", "z_row", "shift", "inverse_gain"}
    assert quality["row_offset"].shape == quality["inverse_gain"].shape == (levels, channels)
    assert quality["z_row"].shape == (levels, side)
    assert gains.keys() == {"gain", "z_gain"}
    assert gains["gain"].shape == (levels, channels)
    assert gains["z_gain"].shape == (levels, side)


def changed(folder, name, **arrays):
    """The bundle with other arrays in a file; None takes an array out."""
    with np.load(folder / name) as file:
        kept = {k: v for k, v in (dict(file) | arrays).items() if v is not None}
    np.savez_compressed(folder / name, **kept)
    return Bundle.open(folder)


CHANGES = {
    "one_level_less": lambda a: a[1:],
    "one_column_more": lambda a: np.concatenate([a, a[:, :1]], 1),
    "one_axis": lambda a: a.reshape(-1),
    "no_axis": lambda a: a[0, 0],
    "three_axes": lambda a: a[None],
    "wide": lambda a: a.astype(np.float64),
    "narrow": lambda a: a.astype(np.int16),
    "objects": lambda a: a.astype(object),
    "text": lambda a: a.astype("U2"),
    "other_end_first": lambda a: a.astype(a.dtype.newbyteorder(">")),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("name", "key"), [("quality.npz", "z_row"), ("gains.npz", "gain")])
def test_arrays_refuses_an_array_of_another_kind(folder, name, key, change):
    array = Bundle.open(folder).arrays(name)[key]
    damaged = changed(folder, name, **{key: CHANGES[change](array)})
    kind = f"{array.dtype} {array.shape}"
    refuses(f"{name} is damaged: {key} is ", damaged.arrays, name)
    refuses(f"; {kind} expected; install the bundle again", damaged.arrays, name)


def test_arrays_refuses_features_without_end(folder):
    levels = Bundle.open(folder).manifest["decoding"]["levels"]
    for width in (0, 1025):
        damaged = changed(folder, "quality.npz", shift=np.zeros((levels, width), np.int32))
        expected = f"shift is int32 ({levels}, {width}); int32 ({levels}, 1 to 1024) expected"
        refuses(expected, damaged.arrays, "quality.npz")


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
@pytest.mark.parametrize(
    ("name", "key"), [("quality.npz", "inverse_gain"), ("gains.npz", "z_gain")]
)
def test_arrays_refuses_gains_that_have_no_logarithm(folder, name, key, value):
    array = Bundle.open(folder).arrays(name)[key]
    array[-1, -1] = value
    damaged = changed(folder, name, **{key: array})
    refuses(f"{key} has values that are not positive and finite", damaged.arrays, name)


def test_arrays_allocates_nothing_on_the_word_of_a_file(folder):
    """A header that claims 4 TB is read, the array behind it is not."""
    header = io.BytesIO()
    form = {"descr": "<i4", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(header, form)
    with zipfile.ZipFile(folder / "quality.npz", "w") as archive:
        archive.writestr("row_offset.npy", header.getvalue())
    message = "row_offset is int32 (1000000, 1000000); "
    refuses(message, Bundle.open(folder).arrays, "quality.npz")


def test_arrays_refuses_a_pickle_and_does_not_run_it(folder):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("the pickle was run",)

    trap = np.array(Trap(), dtype=object)
    refuses("z_gain is object ()", changed(folder, "gains.npz", z_gain=trap).arrays, "gains.npz")
    (folder / "gains.npz").write_bytes(trap.dumps())
    refuses("gains.npz is damaged: it is no zip file", Bundle.open(folder).arrays, "gains.npz")


def test_arrays_refuses_a_second_array_of_a_name(folder):
    """NumPy would give a member "gain" where "gain.npy" was looked at."""
    with zipfile.ZipFile(folder / "gains.npz", "a") as archive:
        other = io.BytesIO()
        np.save(other, np.zeros(7))
        archive.writestr("gain", other.getvalue())
    refuses("gain, z_gain expected", Bundle.open(folder).arrays, "gains.npz")


def test_arrays_refuses_a_file_that_lacks_an_array_or_is_none(folder):
    damaged = changed(folder, "gains.npz", z_gain=None)
    refuses("gains.npz is damaged: z_gain cannot be read", damaged.arrays, "gains.npz")
    np.save(folder / "quality.npy", np.zeros(3))
    (folder / "quality.npy").replace(folder / "quality.npz")
    refuses("quality.npz is damaged: it is no zip", damaged.arrays, "quality.npz")
    (folder / "quality.npz").unlink()
    refuses("quality.npz cannot be read; ", damaged.arrays, "quality.npz")


def test_arrays_raises_nothing_but_model_errors_for_damage(folder):
    """Flips in what frames the arrays: their headers at the start, the directory at the end."""
    path, found = folder / "gains.npz", Bundle.open(folder)
    data = path.read_bytes()
    places = [*range(200), *range(len(data) - 200, len(data))]
    for at in places[::3]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        with suppress(ModelError):
            found.arrays("gains.npz")
        path.write_bytes(data[:at])
        refuses("gains.npz is damaged", found.arrays, "gains.npz")


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("step", lambda a: a.astype(np.float64), r"step is float64 (17, 3); float32 (17, 3) exp"),
        ("step", lambda a: a[:, :2], r"step is float32 (17, 2); float32 (17, 3) expected"),
        ("step", lambda a: a * 0, "step has values that are not positive and finite"),
        ("step", lambda a: a * np.nan, "step has values that are not positive and finite"),
        ("row", lambda a: a.astype(np.int8), r"row is int8 (17, 3); uint8 (17, 3) expected"),
        ("row", lambda _: None, "quality.npz is damaged: row cannot be read"),
    ],
)
def test_arrays_of_the_gaussian_family_are_checked_likewise(key, change, message, tmp_path):
    folder = patterns(tmp_path)
    array = Bundle.open(folder).arrays("quality.npz")[key]
    damaged = changed(folder, "quality.npz", **{key: change(array)})
    refuses(message, damaged.arrays, "quality.npz")


def test_a_photo_model_takes_any_size(tiny):
    assert Bundle.open(tiny).image_shape is None


# Where bundles are found


def test_find_looks_a_plain_name_up_before_it_takes_it_for_a_directory(models, manifest):
    write(models / "one", manifest)
    write(Path("one"), manifest | {"fingerprint": "cd" * 8})
    write(Path("two"), manifest)
    assert find("one").path == models / "one"
    assert find("two").path == Path.cwd() / "two"


def test_find_takes_a_path_and_what_has_a_separator_for_a_directory(models, manifest):
    write(models / "one", manifest)
    write(Path("one"), manifest)
    for model in (Path("one"), "./one", "one/", str(Path.cwd() / "one")):
        assert find(model).path == Path.cwd() / "one"
    write(Path(), manifest)
    assert find(".").path == Path.cwd()
    refuses("is no model bundle", find, models / "none")
    refuses("is no model bundle", find, "../models/none")


def test_find_does_not_pass_by_a_damaged_bundle_of_the_name(models, manifest):
    write(models / "one", manifest | {"halo": None})
    write(Path("one"), manifest)
    refuses("halo.encoder is missing", find, "one")


def test_find_names_the_models_at_hand(models, manifest):
    refuses("no model 'one'; at hand: none. Give a name or a bundle directory", find, "one")
    write(models / "two", manifest | {"name": "two"})
    write(models / "bad", {})
    refuses("no model 'one'; at hand: two. ", find, "one")


def test_the_path_of_a_bundle_is_never_taken_for_a_name(models, manifest):
    write(models / "one", manifest | {"fingerprint": "cd" * 8})
    write(Path("one"), manifest)
    wanted = bytes.fromhex(manifest["fingerprint"])
    found = find_fingerprint(wanted, Path("one"))
    assert find(str(found.path)).fingerprint == wanted


def test_find_fingerprint_says_which_model_is_needed(models, manifest):
    write(models / "one", manifest)
    assert find_fingerprint(bytes.fromhex(manifest["fingerprint"])).path == models / "one"
    refuses(f"written with model {'ab' * 8}, which is not here", find_fingerprint, b"\xab" * 8)
    refuses(f"written with model {'ab' * 8}, but ", find_fingerprint, b"\xab" * 8, models / "one")
