"""Laws of loading a text model: the same samples, and one-line errors that name the folder."""

import pytest

from image import ImageDiffusion
from image.model import ImageDiffusionModel
from image.model_config import ImageDiffusionConfig
from textdiff.config import SamplingConfig, UserError
from textdiff.sampling import collect
from textdiff.text.config import TokenizerConfig
from textdiff.text.hub import load_model
from textdiff.text.requests import sample_request
from textdiff.text.sampling import generate
from textdiff.text.tokenizer import save_tokenizer, train_tokenizer


@pytest.fixture
def saved(model, tokenizer, tmp_path):
    """A run folder with a model in it."""
    folder = tmp_path / "run" / "model"
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return tmp_path / "run"


@pytest.mark.parametrize("part", ["", "model"])
def test_saved_model_draws_the_same_samples(saved, draw, part):
    model, tokenizer = load_model(str(saved / part))
    request = sample_request(model, 3, seed=0)
    samples = list(collect(generate(model, tokenizer, request, SamplingConfig(steps=4))))
    assert samples == draw(request)


@pytest.mark.parametrize("name", ["missing", "./missing/run", "/no/such/run", "no/such-run"])
def test_missing_folder_is_refused(name):
    with pytest.raises(UserError, match=name):
        load_model(name)


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no model: no config.json"):
        load_model(str(tmp_path))


def test_model_of_another_kind_names_its_command(saved, tmp_path):
    with pytest.raises(UserError, match=r"ImageDiffusionModel: sample it with textdiff sample$"):
        ImageDiffusion.from_pretrained(str(saved))
    ImageDiffusionModel(ImageDiffusionConfig(width=4)).save_pretrained(tmp_path / "images")
    with pytest.raises(UserError, match=r"sample it with scripts/sample_image\.py$"):
        load_model(str(tmp_path / "images"))


def test_file_instead_of_a_folder_is_refused(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match="is not a folder"):
        load_model(str(tmp_path / "model.bin"))


@pytest.mark.parametrize(
    ("file", "size"),
    [
        ("model.safetensors", 0),
        ("model.safetensors", 1000),
        ("model.safetensors", -100),
        ("config.json", 20),
    ],
)
def test_truncated_model_is_refused(saved, file, size):
    path = saved / "model" / file
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=str(saved)):
        load_model(str(saved))


def test_model_without_weights_is_refused(saved):
    (saved / "model" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=str(saved)):
        load_model(str(saved))


def test_model_without_tokenizer_is_refused(saved):
    (saved / "model" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=str(saved)):
        load_model(str(saved))


def test_weights_of_another_size_are_refused(saved, new_model):
    new_model(width=16).save_pretrained(saved / "other")
    (saved / "other" / "model.safetensors").replace(saved / "model" / "model.safetensors")
    with pytest.raises(UserError, match=f"{saved} has weights of another size .* denoiser"):
        load_model(str(saved))


def test_tokenizer_of_another_size_is_refused(saved):
    save_tokenizer(train_tokenizer(["a few words"], TokenizerConfig(min_count=1)), saved / "model")
    problem = f"{saved} is a model of .* tokens, but its tokenizer.json has 6"
    with pytest.raises(UserError, match=problem):
        load_model(str(saved))


def test_weights_without_a_layer_are_refused(saved):
    config = saved / "model" / "config.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"depth": 1', '"depth": 2'), encoding="utf-8")
    with pytest.raises(UserError, match=f"{saved} lacks weights"):
        load_model(str(saved))
