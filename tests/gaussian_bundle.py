"""A bundle of the gaussian family that needs no training: patterns, and how much of each there is.

Its images, of 4x4 pixels, are 128 plus multiples of orthogonal patterns of +1 and -1. The encoder
measures the multiples, the decoder adds the patterns up; the last latent is never coded.
"""

import hashlib
import io
import json

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from scipy.linalg import hadamard
from scipy.special import ndtr

from vaecodec.bundle import FORMAT, fingerprint
from vaecodec.layouts import LAYOUTS
from vaecodec.rans import TOTAL
from vaecodec.tables import FrequencyTables

SIDE = 4
DIMENSIONS = 3
LEVELS = 17
CONTRAST = 20.0
"""Grey values that a latent of 1 makes."""
SIGMA = 0.2
"""Standard deviation of the posterior of the latents that are coded."""

PATTERNS = hadamard(SIDE * SIDE)[1 : 1 + DIMENSIONS].astype(np.float32)
CODED = np.array([True, True, False])


def write(folder, colours=1):
    """Write the bundle into a new folder `folder` and return it."""
    folder.mkdir()
    decoding = {"height": SIDE, "width": SIDE, "colours": colours}
    decoding |= {"dimensions": DIMENSIONS, "levels": LEVELS}
    steps, rows, tables = quality()
    files = {
        "encoder.onnx": encoder(colours),
        "decoder.onnx": decoder(colours),
        "tables.bin": tables.to_bytes(),
        "quality.npz": npz(step=steps, row=rows),
    }
    named = fingerprint(decoding, [files[n] for n in LAYOUTS["gaussian"].files(decoding)])
    manifest = {
        "name": folder.name,
        "family": "gaussian",
        "format": FORMAT,
        "fingerprint": named.hex(),
        "default_quality": 50,
        "decoding": decoding,
        "likelihood": {"kind": "normal", "sigma": 0.1},
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    files["manifest.json"] = json.dumps(manifest).encode()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def images(number, colours=1, seed=0):
    """Return images, uint8 (number, 4, 4, colours), whose latents are normal."""
    codes = np.random.default_rng(seed).standard_normal((number, DIMENSIONS))
    pixels = 128 + CONTRAST * (codes * CODED) @ PATTERNS
    grey = np.clip(np.rint(pixels), 0, 255).astype(np.uint8).reshape(number, SIDE, SIDE, 1)
    return np.repeat(grey, colours, 3)


def quality():
    """Return steps, rows and tables: row 1 + level for the latents that are coded, else 0."""
    step = np.sqrt(12) * SIGMA * 2 ** ((LEVELS // 2 - np.arange(LEVELS)) / 4)
    rows = (1 + np.arange(LEVELS))[:, None] * CODED
    lows, cumulative = [0], [np.array([0, TOTAL], np.uint32)]
    for width in step:
        reach = int(np.ceil(5 / width))
        masses = np.diff(ndtr((np.arange(-reach, reach + 2) - 0.5) * width))
        frequencies = np.maximum(np.rint(np.append(masses, 1 - masses.sum()) * TOTAL), 1)
        frequencies[reach] += TOTAL - frequencies.sum()
        lows.append(-reach)
        cumulative.append(np.append(0, np.cumsum(frequencies)).astype(np.uint32))
    tables = FrequencyTables(np.array(lows, np.int32), tuple(cumulative))
    steps = np.repeat(step.astype(np.float32)[:, None], DIMENSIONS, 1)
    return steps, rows.astype(np.uint8), tables


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def encoder(colours):
    size = SIDE * SIDE * colours
    measure = np.repeat(PATTERNS / CONTRAST / size * 255, colours, 1).T  # of samples in 0..1
    constants = {
        "peak": np.float32(255),
        "middle": np.float32(128 / 255),
        "measure": measure,
        "flat": np.array([-1, size]),
        "zero": np.float32(0),
        "spread": np.float32(np.log(SIGMA**2)),
    }
    nodes = [
        ("Cast", ["pixels"], "samples", {"to": TensorProto.FLOAT}),
        ("Div", ["samples", "peak"], "scaled", {}),
        ("Transpose", ["scaled"], "target", {"perm": [0, 3, 1, 2]}),
        ("Reshape", ["scaled", "flat"], "row", {}),
        ("Sub", ["row", "middle"], "centred", {}),
        ("MatMul", ["centred", "measure"], "mean", {}),
        ("Mul", ["mean", "zero"], "nothing", {}),
        ("Add", ["nothing", "spread"], "log_variance", {}),
    ]
    return model(
        nodes,
        constants,
        [("pixels", TensorProto.UINT8, [None, SIDE, SIDE, colours])],
        [
            ("mean", TensorProto.FLOAT, [None, DIMENSIONS]),
            ("log_variance", TensorProto.FLOAT, [None, DIMENSIONS]),
            ("target", TensorProto.FLOAT, [None, colours, SIDE, SIDE]),
        ],
    )


def decoder(colours):
    constants = {
        "peak": np.float32(255),
        "low": np.float32(0),
        "middle": np.float32(128 / 255),
        "patterns": np.repeat(PATTERNS * CONTRAST / 255, colours, 1),
        "shape": np.array([-1, SIDE, SIDE, colours]),
    }
    nodes = [
        ("MatMul", ["y", "patterns"], "sum", {}),
        ("Add", ["sum", "middle"], "row", {}),
        ("Reshape", ["row", "shape"], "scaled", {}),
        ("Transpose", ["scaled"], "parameter", {"perm": [0, 3, 1, 2]}),
        ("Mul", ["scaled", "peak"], "samples", {}),
        ("Clip", ["samples", "low", "peak"], "clipped", {}),
        ("Round", ["clipped"], "rounded", {}),
        ("Cast", ["rounded"], "pixels", {"to": TensorProto.UINT8}),
    ]
    return model(
        nodes,
        constants,
        [("y", TensorProto.FLOAT, [None, DIMENSIONS])],
        [
            ("pixels", TensorProto.UINT8, [None, SIDE, SIDE, colours]),
            ("parameter", TensorProto.FLOAT, [None, colours, SIDE, SIDE]),
        ],
    )


def model(nodes, constants, inputs, outputs):
    graph = helper.make_graph(
        [helper.make_node(kind, into, [out], **more) for kind, into, out, more in nodes],
        "graph",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
