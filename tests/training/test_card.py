"""Laws of the model card that training writes: complete, reproducible and without private paths."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from textdiff.cli.main import main
from textdiff.config import TrainConfig, UserError
from textdiff.evaluation.config import EvaluationConfig
from textdiff.text import grammar
from textdiff.text.card import text_facts
from textdiff.text.config import DataConfig, ModelConfig, TextConfig, TokenizerConfig
from textdiff.text.dataset import Corpus
from textdiff.text.hub import load_model
from textdiff.text.train import train
from textdiff.training.card import add_evaluation
from textdiff.training.provenance import hub_datasets, public_name, reproduce


def configuration(folder: Path, **options: object) -> TextConfig:
    """A run of two steps on a file in a private folder."""
    private = folder / "private"
    private.mkdir(exist_ok=True)
    (private / "kings.txt").write_text("\n".join(grammar.corpus(60)), encoding="utf-8")
    return TextConfig(
        run=str(private / "royal"),
        data=DataConfig(train=str(private / "kings.txt"), length=20),
        model=ModelConfig(width=16, depth=1, heads=2, embed_dim=8),
        train=TrainConfig(**{"steps": 2, "batch_size": 8, "precision": "no", "seed": 3} | options),
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TextConfig:
    """The configuration of a finished run."""
    config = configuration(tmp_path_factory.mktemp("card"))
    train(config)
    return config


@pytest.fixture(scope="module")
def card(config: TextConfig) -> ModelCard:
    return ModelCard.load(Path(config.run) / "model" / "README.md")


def test_card_has_what_the_hub_reads(card: ModelCard) -> None:
    found = card.data.to_dict()
    assert found["license"] == "unknown"
    assert (found["library_name"], found["pipeline_tag"]) == ("textdiff", "text-generation")
    (example,) = found["widget"]
    assert example["output"]["text"].startswith(example["text"].split()[0])


def test_card_names_data_seed_and_machine(card: ModelCard) -> None:
    for line in ("- Training: kings.txt: 57 examples", "| seed | 3 |", "| steps | 2 of 2 |"):
        assert f"\n{line}\n" in card.content
    assert re.search(r"\n\| hardware \| .+, 1 process \|\n", card.content)
    assert re.search(r"\n\| minutes \| \d.* \|\n", card.content)


@pytest.mark.parametrize("on_hub", [True, False])
def test_card_names_the_held_out_part(config: TextConfig, monkeypatch, on_hub: bool) -> None:
    monkeypatch.setattr("textdiff.text.card.has_validation_split", lambda source: on_hub)
    model, tokenizer = load_model(config.run)
    split = text_facts(config, model, tokenizer, 57, Corpus.of([[4]])).split
    assert split == ("its validation split on the hub" if on_hub else "5% of it")


def test_card_has_no_private_path(card: ModelCard, config: TextConfig) -> None:
    assert "private" not in card.content
    assert str(Path(config.run).parent) not in card.content


def test_nothing_on_the_card_is_blank(card: ModelCard) -> None:
    titles = re.split(r"^#+ .*$", card.text, flags=re.MULTILINE)[1:]
    assert len(titles) == 8
    assert all(map(str.strip, titles))
    assert not re.search(r"None|null|TODO|\{|\}", card.text)


def test_loss_on_the_card_is_that_of_the_log(card: ModelCard, config: TextConfig) -> None:
    lines = (Path(config.run) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    loss = next(line["valid/ce"] for line in map(json.loads, lines) if "valid/ce" in line)
    assert f"in nats per word | {loss:.3f} |" in card.content


def test_command_on_the_card_repeats_the_run(card: ModelCard, config, tmp_path, monkeypatch):
    """In a folder with the same file, it gives the same weights."""
    (command,) = re.findall(r"^```\n(textdiff train.*?)\n```$", card.text, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(Path(config.run).parent)
    again = tmp_path / "again"
    main([*command.replace("\\\n", " ").split()[1:], "--run", str(again)])
    weights = [Path(run) / "model" / "model.safetensors" for run in (config.run, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_code_on_the_card_runs(card: ModelCard, config, monkeypatch, capsys) -> None:
    (code,) = re.findall(r"^```python\n(.*?)\n```$", card.text, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(Path(config.run).parent)
    exec(code.replace('"royal"', '"./royal"'), {})
    assert capsys.readouterr().out.count("[") == 2


def test_evaluation_replaces_an_earlier_one(config: TextConfig, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = Path(config.run) / "model" / "README.md"
    (folder / "README.md").write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    for value in (1.0, 2.5):
        table = {"text": {"nats": 0.5, "mauve": None}, "model": {"nats": value, "mauve": None}}
        options = EvaluationConfig(n=20, data="/private/held.txt")
        add_evaluation(str(folder), table, ["model"], "textdiff evaluate", options)
    card = ModelCard.load(folder / "README.md")
    (result,) = card.data.eval_results
    assert (result.task_type, result.dataset_name) == ("text-generation", "held.txt")
    assert (result.metric_type, result.metric_value) == ("nats", 2.5)
    assert card.text.count("| nats | 0.500 | 2.500 |") == 1
    assert "textdiff evaluate royal --data held.txt --n 20\n" in card.text
    assert "## Limits and biases" in card.text


def test_resume_of_finished_run_keeps_card(config: TextConfig) -> None:
    path = Path(config.run) / "model" / "README.md"
    before = path.read_bytes()
    path.write_bytes(before + b"An evaluation.\n")
    main(["train", "--run", config.run, "--resume"])
    assert path.read_bytes() == before + b"An evaluation.\n"
    path.write_bytes(before)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/home/someone/texts/my.txt", "my.txt"),
        ("C:\\Users\\someone\\my.txt", "my.txt"),
        ("file:///home/someone/my.txt", "my.txt"),
        ("../texts/*.jsonl.gz", "*.jsonl.gz"),
        ("https://someone:secret@example.org/a.csv?token=1", "https://example.org/a.csv"),
        ("someone/poems", "someone/poems"),
    ],
)
def test_public_names_have_no_private_part(source: str, name: str) -> None:
    assert public_name(source) == name
    assert hub_datasets(source, None) == ([name] if name == "someone/poems" else [])


def test_command_has_the_options_that_differ() -> None:
    config = TextConfig(
        run="/private/run", tokenizer=TokenizerConfig(name="/private/words", size=99)
    )
    found = reproduce("textdiff train", asdict(config), asdict(TextConfig()))
    assert found == "textdiff train --tokenizer.name words --tokenizer.size 99"


def test_impossible_license_is_refused() -> None:
    with pytest.raises(UserError, match=r"train\.license must be a name such as mit"):
        TrainConfig(license="the license of\nmy data")


def test_card_of_pairs_has_a_source(config: TextConfig, new_model, tokenizer) -> None:
    """That of the first held-out pair, of which the first sample is the target."""
    pair = tokenizer.encode("the king sees .", add_special_tokens=False).ids
    model = new_model(separator=pair[-1])
    facts = text_facts(config, model, tokenizer, 57, Corpus.of([[*pair, pair[0]]]))
    assert "pipe.generate('the king sees', n=2)" in facts.usage
    assert facts.widget(["a queen"]) == [{"text": "the king sees", "output": {"text": "a queen"}}]
