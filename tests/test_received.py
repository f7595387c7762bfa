"""A bundle that somebody sent is refused where anything in it could do harm, in one line."""

import io
import json

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from tests import gaussian_bundle  # noqa: E402
from tests.commands import ROOT, fails, runs  # noqa: E402
from tests.packed import arrays, files_in, signed, write  # noqa: E402
from vaecodec import graphs, received  # noqa: E402
from vaecodec.bundle import Bundle  # noqa: E402
from vaecodec.tables import FrequencyTables  # noqa: E402

PHOTO = ROOT / "exported" / "photo-1"
RELEASED = sorted(path.parent for path in (ROOT / "exported").glob("*/manifest.json"))


@pytest.fixture(autouse=True)
def _nothing_at_hand(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_path", lambda _name: tmp_path / "data")
    monkeypatch.delenv("VAECODEC_MODELS", raising=False)


@pytest.fixture
def files(tiny):
    """The files of a bundle of photographs."""
    return files_in(tiny)


@pytest.fixture
def patterns(tmp_path):
    """The files of a bundle of the other family."""
    return files_in(gaussian_bundle.write(tmp_path / "patterns"))


@pytest.fixture
def refused(tmp_path):
    """What adding some files says; they are not installed."""

    def told(files, *messages):
        path = write(tmp_path / "sent.vzm", files)
        text = fails(tmp_path, "models", "add", path)
        for message in (f"{path} is refused: ", *messages):
            assert message in text
        assert text.strip().isprintable()
        assert len(text) < 400 + len(str(path))
        assert ".draft" not in text
        assert list((tmp_path / "data").glob("models/*")) == []

    return told


def changed(files, name, change):
    """The files, signed, with a graph that `change` was done to."""
    model = onnx.load_from_string(files[name])
    change(model)
    return signed(files | {name: model.SerializeToString()})


@pytest.mark.parametrize("folder", RELEASED, ids=lambda folder: folder.name)
def test_released_bundles_are_accepted(folder):
    received.verify(Bundle.open(folder))


def test_bundles_of_both_families_are_accepted(tmp_path, files, patterns):
    for name, content in (("tiny", files), ("patterns", patterns)):
        assert (
            "verified"
            in runs("models", "add", write(tmp_path / f"{name}.vzm", signed(content))).stdout
        )


# Files


@pytest.mark.parametrize("name", ["tables.bin", "encoder.onnx", "gains.npz"])
def test_a_wrong_hash_is_refused(refused, files, name):
    content = bytearray(files[name])
    content[len(content) // 2] ^= 1
    refused(files | {name: bytes(content)}, f"{name} is not the file that was released")


def test_a_wrong_fingerprint_is_refused(refused, files):
    manifest = json.loads(files["manifest.json"]) | {"fingerprint": "ab" * 8}
    forged = files | {"manifest.json": json.dumps(manifest).encode()}
    refused(forged, "does not state the fingerprint of its files")


@pytest.mark.parametrize("name", ["side.onnx", "step1.onnx", "gains.npz", "tables.bin"])
def test_a_missing_file_is_refused(refused, files, name):
    del files[name]
    refused(files, f"{name} cannot be read")
    refused(signed(files), name)


def test_a_file_that_the_manifest_does_not_name_is_refused(refused, files):
    refused(files | {"run.sh": b"#!"}, "it holds 'run.sh', which its manifest does not name")


@pytest.mark.parametrize("name", ["run.sh", "difference.npz", "step2.onnx", "README.md"])
def test_a_file_that_no_model_needs_is_refused(refused, files, name):
    content = files["gains.npz"]
    refused(signed(files | {name: content}), f"names the file '{name}', which no model needs")


@pytest.mark.parametrize(
    "name", ["a b", "-rf", "..", "x" * 65, "con.", "\x1b[2J", "../../etc", "ä", "name\n", ""]
)
def test_an_absurd_name_is_refused(refused, files, name):
    refused(signed(files, name=name), "name is ")


@pytest.mark.parametrize("text", [b"", b"[" * 10**5, b"{}", b"null", b'{"name": "tiny"}'])
def test_a_manifest_that_is_none_is_refused(refused, files, text):
    refused(files | {"manifest.json": text}, "manifest.json is damaged")


def test_a_manifest_without_end_is_refused(refused, files):
    refused(signed(files, card="x" * (1 << 20)), "manifest.json has more than 1 MiB")


def test_a_bundle_without_manifest_is_refused(refused, files):
    del files["manifest.json"]
    refused(files, "manifest.json cannot be read")


def test_a_search_without_gradients_is_refused(refused, files):
    refused(signed(files, search={"lambda": [1, 2]}), "lacks the file decoder_gradient.onnx")


def test_a_base_that_is_not_at_hand_is_named(refused, files):
    del files["side.onnx"]
    manifest = json.loads(files["manifest.json"])
    manifest["base"] = {"name": "mother", "fingerprint": "ab" * 8}
    refused(files | {"manifest.json": json.dumps(manifest).encode()}, "mother", "ab" * 8)


# Arrays and tables


class Trap:
    def __reduce__(self):
        return pytest.fail, ("the pickle was run",)


def test_a_pickle_is_refused_and_not_run(refused, files):
    trap = np.array([[Trap()]], dtype=object)
    inside = arrays(files["gains.npz"], z_gain=trap)
    refused(signed(files | {"gains.npz": inside}), "z_gain is object")
    refused(signed(files | {"gains.npz": trap.dumps()}), "gains.npz is damaged")


def test_arrays_of_too_many_members_are_refused(refused, files):
    many = {f"a{n}": np.zeros(0) for n in range(1100)}
    refused(signed(files | {"gains.npz": arrays(files["gains.npz"], **many)}), "1102 files")


@pytest.mark.parametrize("value", [2**20 + 1, -(2**20) - 1, -(2**31), 2**31 - 1])
@pytest.mark.parametrize("key", ["row_offset", "shift"])
def test_a_table_outside_of_the_proof_is_refused(refused, files, key, value):
    table = np.load(io.BytesIO(files["quality.npz"]))[key]
    table[0, 0] = value
    content = arrays(files["quality.npz"], **{key: table})
    limit = f"the table {key} reaches {abs(value)}; at most 1048576 is allowed"
    refused(signed(files | {"quality.npz": content}), limit)


@pytest.mark.parametrize("key", ["inverse_gain", "gain"])
def test_a_gain_that_is_not_finite_is_refused(refused, files, key):
    name = "gains.npz" if key == "gain" else "quality.npz"
    table = np.load(io.BytesIO(files[name]))[key] * np.float32(np.nan)
    refused(signed(files | {name: arrays(files[name], **{key: table})}), "not positive and finite")


@pytest.mark.parametrize("low", [-(2**31), -(2**17), 2**30])
def test_tables_that_would_fill_the_memory_are_refused(refused, tiny, files, low):
    tables = Bundle.open(tiny).tables
    lows = tables.low.copy()
    lows[5] = low
    content = FrequencyTables(lows, tables.cumulative).to_bytes()
    refused(signed(files | {"tables.bin": content}), "tables.bin has symbols up to", "65536")


def test_tables_of_too_few_rows_or_none_are_refused(refused, tiny, files, patterns):
    tables = Bundle.open(tiny).tables
    few = FrequencyTables(tables.low[:40].copy(), tables.cumulative[:40]).to_bytes()
    refused(signed(files | {"tables.bin": few}), "has 40 rows; 64 expected")
    refused(signed(files | {"tables.bin": b"VZT\x01\xff\xff"}), "tables of the model are damaged")
    rows = np.full((17, 3), 200, np.uint8)
    content = arrays(patterns["quality.npz"], row=rows)
    refused(signed(patterns | {"quality.npz": content}), "quality.npz names row 200")


# Graphs


def operator(kind, domain=""):
    def change(model):
        model.graph.node[0].op_type = kind
        model.graph.node[0].domain = domain
        if domain:
            model.opset_import.add(domain=domain, version=1)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (operator("Evil", "evil.corp"), "it needs operators of , evil.corp"),
        (operator("FusedConv", "com.microsoft"), "it needs operators of , com.microsoft"),
        (operator("RandomNormalLike"), "it has the operator RandomNormalLike, which no model"),
        (operator("NonZero"), "it has the operator NonZero"),
        (operator("Loop"), "it has the operator Loop"),
        (operator("If"), "it has the operator If"),
        (operator("Scan"), "it has the operator Scan"),
        (operator("\x1b[2J\n\u202e"), "it has the operator "),
    ],
)
@pytest.mark.parametrize("name", ["decoder.onnx", "side.onnx", "step0.onnx"])
def test_an_operator_of_no_model_is_refused(refused, files, name, change, message):
    refused(changed(files, name, change), f"{name}: {message}")


def test_an_operator_of_a_domain_that_is_not_declared_is_refused(refused, files):
    def change(model):
        model.graph.node[0].domain = "evil"

    refused(changed(files, "encoder.onnx", change), "it has the operator evil.Shape")


def test_a_subgraph_is_refused_whatever_holds_it(refused, files):
    inner = helper.make_graph([], "inner", [], [])

    def change(model):
        model.graph.node[0].attribute.append(helper.make_attribute("body", inner))

    refused(changed(files, "decoder.onnx", change), "decoder.onnx: its Cast has a subgraph")


def test_functions_and_sparse_weights_are_refused(refused, files):
    def function(model):
        model.functions.add(name="f", domain="")

    def sparse(model):
        model.graph.sparse_initializer.add()

    for change in (function, sparse):
        refused(changed(files, "decoder.onnx", change), "it has functions, training steps or sp")


def external(location, offset="0", length="16", **more):
    def change(model):
        tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
        tensor.ClearField("raw_data")
        tensor.ClearField("external_data")
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": location, "offset": offset, "length": length} | more
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)

    return change


@pytest.mark.parametrize("location", ["/etc/passwd", "../../x", "decoder.onnx", "encoder.onnx"])
@pytest.mark.parametrize("name", ["decoder.onnx", "encoder.onnx", "hyper.onnx"])
def test_weights_in_other_files_are_refused(refused, files, name, location):
    refused(changed(files, name, external(location)), f"'{location}'; none is allowed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external("/etc/passwd"), "'/etc/passwd'; step1.onnx is allowed"),
        (external("decoder.onnx"), "'decoder.onnx'; step1.onnx is allowed"),
        (external("step1.onnx", basepath="/etc"), "step1.onnx is allowed"),
        (external("step1.onnx", offset="-8"), "does not say where it stands"),
        (external("step1.onnx", length="1e9"), "does not say where it stands"),
        (external("step1.onnx", offset="99999999"), "is said to stand beyond step1.onnx"),
        (external("step1.onnx", length="16"), "is damaged"),
    ],
)
def test_gradients_borrow_weights_of_their_own_graph_alone(change, message):
    bundle = Bundle.open(PHOTO)
    name = "step1_gradient.onnx"
    model = onnx.load_from_string(bundle.read(name))
    role, lent = received.roles(bundle)[name], bundle.read("step1.onnx")
    graphs.check(model.SerializeToString(), role, lent)
    change(model)
    with pytest.raises(ValueError, match="constant") as caught:
        graphs.check(model.SerializeToString(), role, lent)
    assert message in str(caught.value)


def version(key, value):
    def change(model):
        if key == "opset":
            model.opset_import[0].version = value
        else:
            setattr(model, key, value)

    return change


@pytest.mark.parametrize(("key", "value"), [("opset", 1), ("opset", 99), ("ir_version", 99)])
def test_versions_that_are_not_known_are_refused(refused, files, key, value):
    refused(changed(files, "decoder.onnx", version(key, value)), "are known")


def test_a_graph_that_is_none_is_refused(refused, files):
    for content in (b"\xff" * 100, b"<html>"):
        refused(signed(files | {"decoder.onnx": content}), "decoder.onnx: it is no ONNX graph")
    refused(signed(files | {"decoder.onnx": b""}), "decoder.onnx: it needs operators of no domain")


def test_a_graph_with_another_part_is_refused(refused, files):
    swapped = signed(files | {"decoder.onnx": files["side.onnx"]})
    refused(swapped, "decoder.onnx: it gives z; pixels are expected")
    swapped = signed(files | {"step1.onnx": files["step0.onnx"]})
    refused(swapped, "step1.onnx: it takes features, offset, sigma4; ")


def typed(kind, dims):
    def change(model):
        value = model.graph.input[0]
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, dims))

    return change


@pytest.mark.parametrize(
    ("kind", "dims"),
    [
        (TensorProto.DOUBLE, [1, 48, "h", "w"]),
        (TensorProto.FLOAT, [1, 47, "h", "w"]),
        (TensorProto.FLOAT, [1, 48, 10**6, "w"]),
        (TensorProto.FLOAT, [1, 48, "h"]),
        (TensorProto.FLOAT, None),
    ],
)
def test_an_input_of_another_kind_is_refused(refused, files, kind, dims):
    told = "its input y is not float32 (1, 48, any, any)"
    refused(changed(files, "decoder.onnx", typed(kind, dims)), told)


def last(**attributes):
    """Other attributes for the last node that has them."""

    def change(model):
        for node in reversed(model.graph.node):
            found = {a.name: a for a in node.attribute}
            if found.keys() >= attributes.keys():
                for key, value in attributes.items():
                    found[key].CopyFrom(helper.make_attribute(key, value))
                return

    return change


def test_an_output_of_another_size_is_refused(refused, files):
    refused(changed(files, "side.onnx", last(strides=[4, 4])), "side.onnx: its output z is not ")


def besides(kind, constant, **attributes):
    """A node more: `kind` of the input and a constant."""

    def change(model):
        node = helper.make_node(kind, ["y", "more"], ["y_more"], **attributes)
        model.graph.initializer.append(numpy_helper.from_array(constant, "more"))
        model.graph.node.insert(0, node)

    return change


@pytest.mark.parametrize(
    "change",
    [
        besides("Pad", np.array([0, 0, 0, 0, 0, 0, 2**20, 2**20])),
        besides("Gather", np.zeros(10**6, np.int64), axis=3),
        besides("Mul", np.zeros((10**5, 1, 1, 1), np.float32)),
    ],
)
def test_arrays_without_end_are_refused(refused, files, change):
    refused(changed(files, "side.onnx", change), "numbers for a small image; 67108864 are allowed")


def test_an_array_of_no_elements_is_refused(refused, files):
    """ONNX's own inference of shapes can end the process over one."""

    def change(model):
        constants = {"none": np.zeros((1, 0), np.float32), "one": np.array([1])}
        constants |= {"back": np.array([-1]), "first": np.array([-(2**31)])}
        for name, array in constants.items():
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        inputs = ["none", "back", "first", "one", "back"]
        model.graph.node.insert(0, helper.make_node("Slice", inputs, ["odd"]))

    refused(changed(files, "side.onnx", change), "its none would have the shape (1, 0)")


def test_arrays_whose_size_depends_on_values_are_refused(refused, files):
    def change(model):
        model.graph.node.insert(0, helper.make_node("Cast", ["y"], ["sizes"], to=TensorProto.INT64))
        model.graph.node.insert(1, helper.make_node("Reshape", ["sizes", "sizes"], ["odd"]))

    refused(changed(files, "side.onnx", change), "side.onnx: ")


def test_a_graph_of_too_many_nodes_is_refused(refused, files):
    def change(model):
        model.graph.node.extend([model.graph.node[0]] * graphs.MAX_NODES)

    refused(changed(files, "side.onnx", change), "nodes; 10000 are allowed")


def short(kind):
    """A bias, or weights, of fewer numbers than are stated or needed."""

    def change(model):
        tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
        if kind == "weight":
            tensor.raw_data = tensor.raw_data[:-4]
            return
        node = next(n for n in model.graph.node if n.op_type == "Conv" and len(n.input) == 3)
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "b"))
        node.input[2] = "b"

    return change


def test_weights_of_too_few_numbers_are_refused(refused, files):
    refused(changed(files, "side.onnx", short("weight")), "is damaged")
    refused(changed(files, "side.onnx", short("bias")), "the bias of its Conv has not")


# The integer prior


def weights(change):
    def apply(model):
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.INT8:
                array = change(numpy_helper.to_array(tensor).copy())
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    return apply


def constants(old, new):
    """Every constant of the value `old` becomes `new`."""

    def apply(model):
        for tensor in model.graph.initializer:
            single = tensor.data_type == TensorProto.FLOAT and not tensor.dims
            if single and numpy_helper.to_array(tensor) == old:
                tensor.CopyFrom(numpy_helper.from_array(np.float32(new), tensor.name))

    return apply


def test_a_prior_that_float32_would_round_is_refused(refused, files):
    def wide(model):
        scales = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
        for tensor in scales:
            if len(tensor.dims) == 4:
                array = numpy_helper.to_array(tensor) * np.float32(1 + 2**-20)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    refused(changed(files, "hyper.onnx", wide), "hyper.onnx: ", "can reach", "above 2**24")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("hyper.onnx", constants(255, 256), "features of hyper can be 0 to 256; 0 to 255"),
        ("hyper.onnx", constants(255, 2.0**40), ""),
        ("step0.onnx", constants(63, 64), "row of step can be 0 to 64; 0 to 63"),
        ("step1.onnx", constants(63, 300), "its values are no bytes"),
        ("step0.onnx", constants(0.5, np.nan), "a constant is no multiple of 2**-40"),
        ("step0.onnx", constants(0.5, 1 / 3), ""),
    ],
)
def test_a_prior_that_is_not_proved_is_refused(refused, files, name, change, message):
    refused(changed(files, name, change), f"{name}: ", message)


def test_a_prior_of_other_weights_is_accepted_where_it_stays_within_bounds(tmp_path, files):
    sent = write(tmp_path / "sent.vzm", changed(files, "step0.onnx", weights(np.negative)))
    assert "verified" in runs("models", "add", sent).stdout
