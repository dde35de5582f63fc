"""Laws of classifiers: training, saving, and their guidance of samples."""

import json
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from textdiff import TextDiffusion
from textdiff.config import UserError
from textdiff.text import grammar
from textdiff.text.classifier import TextClassifier, load_classifier, train_classifier
from textdiff.text.control_config import ClassifierConfig, ControlConfig, LabelledDataConfig
from textdiff.text.tokenizer import MASK


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> str:
    """Sentences labelled by whether they mention a king."""
    path = tmp_path_factory.mktemp("data") / "labelled.jsonl"
    rows = [
        {"text": text, "about": "king" if "king" in text.split() else "others"}
        for text in grammar.corpus(400, seed=2)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def config(labelled, tmp_path_factory) -> ClassifierConfig:
    data = LabelledDataConfig(labelled, label="about")
    out = str(tmp_path_factory.mktemp("classifier"))
    return ClassifierConfig(data, out, steps=60, batch_size=32)


@pytest.fixture(scope="module")
def classifier(model, tokenizer, config) -> TextClassifier:
    return train_classifier(model, tokenizer, config)


@pytest.fixture(scope="module")
def pipe(model, tokenizer):
    return TextDiffusion(model, tokenizer)


def share(texts: list[str]) -> float:
    """Share of the texts that mention a king."""
    return sum("king" in text.split() for text in texts) / len(texts)


@pytest.mark.parametrize("sampler", ["ddpm", "dpm_solver"])
def test_guidance_moves_samples_to_the_label(pipe, config, classifier, sampler):
    options = {"steps": 8, "length": 7, "sampler": sampler, "classifier": config.out}
    shares = [
        share(pipe.sample(200, label=label, classifier_scale=scale, **options).texts)
        for label, scale in (("others", 2.0), ("king", 0.0), ("king", 2.0))
    ]
    assert shares[0] < shares[1] < shares[2] - 0.2


def test_guidance_scale_0_is_no_guidance(pipe, config, classifier):
    options = {"steps": 4, "temperature": 2.0}
    guided = pipe.sample(6, classifier=config.out, label="king", classifier_scale=0.0, **options)
    assert guided == pipe.sample(6, **options)


def test_guided_samples_do_not_depend_on_batches(pipe, config, classifier):
    options = {"steps": 4, "classifier": config.out, "label": "king", "precision": "no"}
    assert pipe.sample(6, batch_size=2, **options) == pipe.sample(6, **options)


def test_guidance_composes_with_constraints(pipe, config, classifier):
    """Given words never change."""
    options = {"steps": 6, "classifier": config.out, "label": "king", "classifier_scale": 3.0}
    text = f"the {MASK} {MASK} the {MASK} ."
    found = pipe.infill(text, n=20, require=["queen"], forbid=["sees"], **options).texts
    for each in found:
        words = each.split()
        assert (words[0], words[3]) == ("the", "the")
        assert "queen" in each
        assert "sees" not in each
    assert share(found) > share(pipe.infill(text, n=20, require=["queen"], steps=6).texts)


def test_tilt_is_the_change_of_the_probability(classifier):
    """For a small change of the words' probabilities."""
    p = torch.rand(2, 5, len(classifier.weight), generator=torch.Generator().manual_seed(0))
    p, mask = p.softmax(-1), torch.ones(2, 5, dtype=torch.bool)
    tilt = classifier.tilt(p, mask, "king")
    change = 1e-3 * (torch.eye(p.shape[-1])[7] - p[:, 2])
    moved = p.clone()
    moved[:, 2] += change
    rise = [classifier(each, mask).log_softmax(-1)[:, 0] for each in (p, moved)]
    assert_close(rise[1] - rise[0], 1e-3 * tilt[:, 2, 7], rtol=0.05, atol=1e-6)


def test_saved_classifier_is_loaded(model, config, classifier):
    loaded = load_classifier(config.out, model)
    assert loaded.labels == ["king", "others"]
    assert torch.equal(loaded.weight, classifier.weight)


def test_training_is_reproducible(model, tokenizer, config, classifier, tmp_path):
    again = train_classifier(model, tokenizer, replace(config, out=str(tmp_path)))
    assert torch.equal(again.weight, classifier.weight)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_files_are_not_overwritten(model, tokenizer, config, classifier):
    with pytest.raises(UserError, match="has files already: choose another folder"):
        train_classifier(model, tokenizer, config)


def test_classifiers_of_other_models_are_refused(new_model, config, classifier):
    other = new_model(embed_dim=8)
    with pytest.raises(UserError, match="belongs to another model"):
        load_classifier(config.out, other)


def test_bad_input_is_refused_in_one_line(pipe, config, classifier, tmp_path):
    with pytest.raises(UserError, match="label must be one of king, others, got 'dog'"):
        pipe.sample(1, classifier=config.out, label="dog")
    with pytest.raises(UserError, match="holds no classifier: make one with"):
        pipe.sample(1, classifier=str(tmp_path), label="king")
    with pytest.raises(UserError, match="belong together: --label is missing"):
        ControlConfig(classifier="folder")
    with pytest.raises(UserError, match="--classifier_scale must be between 0 and 1000"):
        ControlConfig(classifier_scale=-1.0)


@pytest.mark.parametrize(
    ("label", "rows", "message"),
    [
        ("other", 40, "has no field 'other', it has text, about: choose one with --data.label"),
        ("about", 1, "at least 20 texts of two labels are needed"),
    ],
)
def test_unusable_data_are_refused(model, tokenizer, labelled, tmp_path, label, rows, message):
    path = tmp_path / "data.jsonl"
    with open(labelled, encoding="utf-8") as file:
        path.write_text("".join(file.readlines()[:rows]), encoding="utf-8")
    data = LabelledDataConfig(str(path), label=label)
    with pytest.raises(UserError, match=message):
        train_classifier(model, tokenizer, ClassifierConfig(data, str(tmp_path / "out")))
