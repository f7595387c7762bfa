"""What a run is made of: recipes and images."""

from itertools import pairwise, permutations

import pytest

torch = pytest.importorskip("torch")

from tests.training import RECIPE, photographs, recipe  # noqa: E402
from train import recipes  # noqa: E402
from train.data import TURN, Crops, Shapes  # noqa: E402
from train.recolour import recoloured  # noqa: E402


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return photographs(tmp_path_factory.mktemp("data") / "images")


# Recipes


def test_a_recipe_file_is_the_recipe(tmp_path):
    (tmp_path / "test.toml").write_text(RECIPE)
    assert recipes.load(str(tmp_path / "test.toml")) == recipe()
    assert recipes.read(recipe().to_dict()) == recipe()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("crop = 64", "crop = 100", "multiple of 64"),
        ("steps = 2", "steps = 3", "1, 2 or 4"),
        ("levels = 3", "levels = 1", "2 or more"),
        ("width = 8", "breadth = 8", "breadth"),
        ("first_step = 0.02", "first_step = 0.02\ndensity = 'laplace'", "gaussian or logistic"),
        ("[loss]", "[costs]", r"no \[loss\]"),
        ("seed = 3", "", "seed"),
        ("seed = 3", "seed = = 3", "Invalid"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path, old, new, message):
    (tmp_path / "test.toml").write_text(RECIPE.replace(old, new))
    with pytest.raises(ValueError, match=message):
        recipes.load(str(tmp_path / "test.toml"))


def test_an_unknown_recipe_is_refused_with_those_there_are():
    with pytest.raises(FileNotFoundError, match="photo-1"):
        recipes.load("photo-0")


# Data


def test_a_file_that_cannot_be_read_is_skipped_with_a_message(images, tmp_path, capsys):
    for path in images.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "cut.png").write_bytes((images / "dog.png").read_bytes()[:5000])
    (tmp_path / "notes.txt").write_text("not looked at")
    crops = Crops([tmp_path], Shapes(64, (1.0,)), torch.device("cpu"))
    assert len(crops.images) == 3
    message = capsys.readouterr().err
    assert f"skipped {tmp_path / 'broken.png'}" in message
    assert f"skipped {tmp_path / 'cut.png'}" in message
    assert "2 of 5 images" in message


def test_a_folder_without_a_usable_image_is_an_error(images, tmp_path):
    with pytest.raises(ValueError, match=r"none of the 3 image files .* has 512x512 pixels"):
        Crops([images], Shapes(512, (1.0,)), torch.device("cpu"))
    with pytest.raises(ValueError, match="none of the 0"):
        Crops([tmp_path], Shapes(64, (1.0,)), torch.device("cpu"))
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        Crops([tmp_path / "missing"], Shapes(64, (1.0,)), torch.device("cpu"))


def test_images_are_used_at_every_scale_that_is_large_enough(images):
    crops = Crops([images], Shapes(128, (1.0, 0.8, 0.5)), torch.device("cpu"))
    assert sorted({tuple(i.shape) for i in crops.images}) == [(141, 128, 3), (176, 160, 3)]
    batch = crops.batch(5, torch.Generator().manual_seed(0))
    assert batch.shape == (5, 128, 128, 3)
    assert batch.dtype == torch.uint8
    assert torch.equal(batch, crops.batch(5, torch.Generator().manual_seed(0)))


def test_crops_are_flipped_and_transposed_but_not_made_up(images):
    crops = Crops([images], Shapes(128, (0.8,)), torch.device("cpu"))
    seen = crops.batch(40, torch.Generator().manual_seed(0))
    turned = [
        image[top : top + 128].permute(*axes, 2).flip(flips).numpy().tobytes()
        for image in crops.images
        for top in range(image.shape[0] - 127)
        for axes in ((0, 1), (1, 0))
        for flips in ((), (0,), (1,), (0, 1))
    ]
    assert all(crop.contiguous().numpy().tobytes() in turned for crop in seen)
    assert len({crop.contiguous().numpy().tobytes() for crop in seen}) > 30


def test_more_images_than_the_memory_holds_take_turns(images):
    crops = Crops([images], Shapes(64, (1.0,)), torch.device("cpu"), memory=1)
    seen = []
    for _ in range(6 * TURN):
        crops.batch(1, torch.Generator().manual_seed(0))
        assert len(crops.images) == 1
        seen.append(hash(crops.images[0].numpy().tobytes()))
    assert len(set(seen)) == 3
    turns = [seen[i] for i in range(0, len(seen), TURN)]
    assert turns[:3] == turns[3:]
    assert sum(a != b for a, b in pairwise(seen)) == len(seen) // TURN


# Other colours


def test_recoloured_crops_have_other_colours_and_the_same_shapes():
    generator = torch.Generator().manual_seed(1)
    crop = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8, generator=generator)
    crop[0, 0], crop[0, 1] = 0, 255
    orders, turned, whole = set(), 0, 0
    for _ in range(100):
        other = recoloured(crop, generator)
        assert other.dtype == torch.uint8
        assert other.shape == crop.shape
        flat = torch.cat([crop, other], 2).reshape(-1, 6).T.double()
        like = torch.corrcoef(flat)[:3, 3:]
        orders.add(tuple(like.abs().argmax(0).tolist()))
        assert (like.abs().amax(0) > 0.999).all()  # each a straight line of one
        black, white = other[0, 0].tolist(), other[0, 1].tolist()
        assert len({*black}) == len({*white}) == 1  # what was grey is grey
        assert abs(white[0] - black[0]) >= 127
        turned += white < black
        whole += abs(white[0] - black[0]) == 255
    assert orders == {*permutations(range(3))}
    assert 35 < turned < 65
    assert 35 < whole < 65


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_so_many_crops_have_other_colours(images, share):
    places, shapes, device = [images], Shapes(64, (1.0,)), torch.device("cpu")
    plain = Crops(places, shapes, device)
    other = Crops(places, shapes, device, recolour=share)
    draw = [crops.batch(200, torch.Generator().manual_seed(2)) for crops in (plain, other)]
    changed = (draw[0] != draw[1]).flatten(1).any(1).float().mean().item()
    # Of six orders one is the same, and of those a quarter is neither turned nor pressed.
    assert changed == pytest.approx(share * 23 / 24, abs=0.1)
