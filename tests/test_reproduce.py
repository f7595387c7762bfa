"""The systems of the articles, all in one command: stages, interruptions, the page."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
pytest.importorskip("onnxscript")

import torch

from tests.commands import ROOT
from train import recipes, reproduce, seeds, vae_evaluate
from train.loop import Trainer
from vaecodec.bundle import Bundle
from vaecodec.datasets import write_idx
from vaecodec.errors import VaecodecError

RECIPE = """
family = "gaussian"
seed = 3
epochs = 2
[model]
latents = 2
encoder = { net = "dense", sizes = [6] }
decoder = { net = "dense", sizes = [6] }
log_sigma = true
likelihood = { kind = "bernoulli" }
[data]
shape = [4, 4, 1]
train = "train-images-idx3-ubyte"
test = "t10k-images-idx3-ubyte"
batch = 10
[optimiser]
rate = 1e-2
"""

PICTURES = ("samples --rows 2 --columns 4", "codes TEST", "lost", "losses", "epochs", "beside")
SYSTEMS = (
    seeds.System("first", "001", "set", "noise", ()),
    seeds.System("second", "002", "set", "noise", PICTURES),
)
PAGE = "{trained}\n\n{measured}\n\n{r[second][release][kl]:.3f}\n{commands[second]}\n{machine}"


@pytest.fixture
def places(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "data" / "set").mkdir(parents=True)
    for system in SYSTEMS:
        (tmp_path / "recipes" / f"{system.recipe}.toml").write_text(RECIPE)
    (tmp_path / "page.md").write_text(PAGE)
    monkeypatch.setattr(recipes, "FOLDER", tmp_path / "recipes")
    monkeypatch.setattr(seeds, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(vae_evaluate, "ALONE", 4)
    random = np.random.default_rng(0)
    for name, count in (("train", 60), ("t10k", 30)):
        images = random.integers(0, 256, (count, 4, 4, 1), np.uint8)
        path = tmp_path / "data" / "set" / f"{name}-images-idx3-ubyte"
        path.write_bytes(write_idx(images))
    folders = [tmp_path / name for name in ("data", "out", "bundles", "docs")]
    return reproduce.Places(*folders)


@pytest.fixture
def stages(monkeypatch):
    """Stages that do nothing but say so, and stop where they are told to."""
    done, stop = [], set()

    def stage(name):
        def run(system, places):
            if (name, system.recipe) in stop:
                raise KeyboardInterrupt
            if name == "release":
                (places.bundles / system.recipe).mkdir()
            done.append((name, system.recipe))
            return {"minutes": 1.0}

        return run

    monkeypatch.setattr(reproduce, "STAGES", {n: stage(n) for n in ("train", "release", "draw")})
    monkeypatch.setattr(seeds, "write_page", lambda *_: done.append("page"))
    return done, stop


ALL = [(stage, s.recipe) for s in SYSTEMS for stage in ("train", "release", "draw")]


def test_what_was_done_before_an_interruption_is_not_done_again(places, stages):
    done, stop = stages
    stop.add(("release", "second"))
    with pytest.raises(KeyboardInterrupt):
        reproduce.reproduce(places, systems=SYSTEMS)
    assert done == ALL[:4]
    stop.clear()
    reproduce.reproduce(places, systems=SYSTEMS)
    assert done == [*ALL, "page"]


def test_one_recipe_is_done_anew_and_alone(places, stages, capsys):
    done, _ = stages
    reproduce.reproduce(places, ["second"], SYSTEMS)
    assert done == ALL[3:]
    assert "no page yet: first are to be done" in capsys.readouterr().err
    reproduce.reproduce(places, systems=SYSTEMS)
    done.clear()
    reproduce.reproduce(places, ["second"], SYSTEMS)
    assert done == [*ALL[3:], "page"]


def test_a_bundle_of_other_making_is_never_replaced(places, stages):
    done, _ = stages
    (places.bundles / "second").mkdir(parents=True)
    for only in ([], ["second"]):
        with pytest.raises(FileExistsError, match="name another folder with --bundles"):
            reproduce.reproduce(places, only, SYSTEMS)
    assert done == []
    assert (places.bundles / "second").is_dir()


def test_a_recipe_that_is_none_of_the_articles_is_refused(places):
    with pytest.raises(ValueError, match="photo-1: no recipe of the articles"):
        reproduce.reproduce(places, ["photo-1"], SYSTEMS)


def test_a_tiny_system_is_trained_drawn_measured_and_written_about(places, monkeypatch):
    fit, stops = Trainer.fit, [True]

    def stopped_once(self, plan, validation):
        """As by Ctrl-C in the second epoch, of six steps."""
        if not stops:
            return fit(self, plan, validation)
        stops.pop()
        fit(self, dataclasses.replace(plan, steps=8), validation)
        return False

    monkeypatch.setattr(Trainer, "fit", stopped_once)
    (system,) = systems = SYSTEMS[1:]
    with pytest.raises(VaecodecError, match="second was stopped; the same command goes on"):
        reproduce.reproduce(places, systems=systems)
    assert places.known(system) == {}
    reproduce.reproduce(places, systems=systems)

    known = places.known(system)
    assert known["train"]["epochs"] == 2
    assert known["train"]["encoder"] == 16 * 6 + 6 + 2 * (6 * 2 + 2)
    assert known["train"]["decoder"] == 2 * 6 + 6 + 6 * 16 + 16
    measured = known["release"]
    assert measured["elbo"] == pytest.approx(known["train"]["test"][-1], rel=0.02)
    assert measured["bits"] == pytest.approx(8 * measured["bytes"] / 30, abs=1e-5)
    assert measured["packed"] == (places.data / "set" / "t10k-images-idx3-ubyte").stat().st_size
    bundle = Bundle.open(places.bundles / "second")
    bundle.verify()
    assert bundle.manifest["data"] == "noise"

    drawn = {path.name: path.stat().st_size for path in (places.docs / "seeds").iterdir()}
    assert drawn == {name: size for name, size in known["draw"].items() if name != "minutes"}
    assert set(drawn) == {f"second-{picture.split()[0]}.png" for picture in PICTURES}
    for name in drawn:
        with Image.open(places.docs / "seeds" / name) as image:
            assert image.mode == "P"
    page = (places.docs / "seeds.md").read_text()
    assert "| `second` | 002 | 2 | 130 and 130 | 2 |" in page
    assert f"\n\n{measured['kl']:.3f}\n" in page
    assert "python -m train fit second DATA/set --out runs/second" in page


def test_each_picture_of_the_page_is_drawn_and_each_one_drawn_is_on_it():
    page = Path(seeds.PAGE).read_text("utf-8")
    shown = re.findall(r"\]\(seeds/([\w-]+\.png)\)", page)
    drawn = [f"{s.recipe}-{p.split()[0]}.png" for s in seeds.SYSTEMS for p in s.pictures]
    assert len(set(shown)) == len(shown)
    assert sorted(shown) == sorted(drawn)


def test_there_is_a_recipe_of_each_system():
    assert {s.recipe for s in seeds.SYSTEMS} <= {
        path.stem for path in (ROOT / "train" / "recipes").glob("*.toml")
    }
    for system in seeds.SYSTEMS:
        assert system.load().model.latents
