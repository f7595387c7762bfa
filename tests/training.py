"""What the tests of training share: a recipe that takes milliseconds a step, and photographs."""

from pathlib import Path

import torch
from PIL import Image

from train import loop
from train.recipes import Data, Loss, Model, Optimiser, Recipe

loop._device = lambda: torch.device("cpu")
"""Tests of training compare to the last bit, and a GPU would have to compile each tiny network."""

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "vaecodec" / "samples"


def recipe(**sections) -> Recipe:
    """A tiny recipe; sections given replace its own."""
    values = {
        "model": Model(12, 4, 8, 8, 2, 3, (1, 1), (1, 1), 0.25, 0.5),
        "loss": Loss(0.0008, 0.25, 0.02),
        "data": Data(64, 2, (1.0,)),
        "optimiser": Optimiser(4e-3, 2e-3, 2e-4, 1e-2, 5.0, 0.9, 5),
    }
    return Recipe("test", 3, **values | sections)


RECIPE = """
seed = 3
[model]
channels = 12
side = 4
width = 8
hidden = 8
steps = 2
levels = 3
encoder_blocks = [1, 1]
decoder_blocks = [1, 1]
expansion = 0.25
whitening = 0.5
[loss]
lambda_min = 0.0008
lambda_max = 0.25
first_step = 0.02
[data]
crop = 64
batch = 2
scales = [1.0]
[optimiser]
muon = 4e-3
adamw = 2e-3
linear = 2e-4
tables = 1e-2
clip = 5.0
average = 0.9
warmup = 5
"""


def photographs(folder: Path, side: int = 160) -> Path:
    """Write small photographs to a new folder and return it."""
    folder.mkdir()
    for path in sorted(SAMPLES.glob("*.webp")):
        with Image.open(path) as image:
            image.convert("RGB").resize((side, side + 16)).save(folder / f"{path.stem}.png")
    return folder
