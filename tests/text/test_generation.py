"""Laws of `DiffusionLM.generate`, which has the signature of transformers."""

import json

import pytest
import torch
from transformers import AutoModel, GenerationConfig, PreTrainedTokenizerFast
from transformers.generation.streamers import TextDiffusionStreamer, TextStreamer

from textdiff import TextDiffusion
from textdiff.config import UserError
from textdiff.text.generation_config import DiffusionGenerationConfig
from textdiff.text.model import DiffusionLM
from textdiff.text.tokenizer import save_tokenizer

PROMPTS = ["the king", "a small dog sees"]


@pytest.fixture(scope="module")
def generator(new_model, tokenizer) -> DiffusionLM:
    """A model as training leaves it: with the special tokens of its tokenizer."""
    model = new_model().eval()
    model.prior_weight.fill_(1.0)
    model.generation_config = DiffusionGenerationConfig.of_tokenizer(tokenizer)
    return model


@pytest.fixture(scope="module")
def pipe(generator, tokenizer):
    return TextDiffusion(generator, tokenizer)


@pytest.fixture(scope="module")
def fast(tokenizer):
    """The tokenizer as transformers knows it."""
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]")


@pytest.fixture(scope="module")
def pairs(new_model, tokenizer):
    """A model of pairs; its separator is the token of the word "sees"."""
    model = new_model(separator=tokenizer.token_to_id("sees")).eval()
    model.generation_config = DiffusionGenerationConfig(suppress_tokens=[0, 1, 2])
    return model


class Recorder:
    """A streamer that keeps what it gets."""

    def __init__(self):
        self.calls = []

    def put(self, value):
        self.calls.append(("put", value))

    def put_draft(self, value):
        self.calls.append(("draft", value))

    def end(self):
        self.calls.append(("end", None))


def unpadded(rows):
    return [[token for token in row if token] for row in rows.tolist()]


@pytest.mark.parametrize("seed", [0, 5])
def test_samples_are_those_of_the_pipeline(generator, pipe, seed):
    found = generator.generate(num_return_sequences=4, max_denoising_steps=3, seed=seed)
    assert unpadded(found) == pipe.sample(4, steps=3, seed=seed).sequences


@pytest.mark.parametrize("side", ["left", "right"])
def test_completions_are_those_of_the_pipeline(generator, pipe, fast, side):
    """The prompts stay as they are, padding included."""
    options = {"seed": 3, "temperature": 2.0, "sampler": "ddim"}
    inputs = fast(PROMPTS, padding=True, padding_side=side, return_tensors="pt")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    found = generator.generate(ids, mask, num_return_sequences=2, max_denoising_steps=3, **options)
    assert torch.equal(found[:, : ids.shape[1]], ids.repeat_interleave(2, 0))
    expected = pipe.complete(PROMPTS, n=2, steps=3, **options)
    assert unpadded(found) == expected.sequences
    without = generator.generate(ids, num_return_sequences=2, max_denoising_steps=3, **options)
    assert torch.equal(without, found)


def test_targets_are_those_of_the_pipeline(pairs, tokenizer):
    ids = torch.tensor([tokenizer.encode("the king").ids])
    found = pairs.generate(ids, num_return_sequences=3, max_denoising_steps=2)
    pipe = TextDiffusion(pairs, tokenizer)
    expected = pipe.generate("the king", n=3, steps=2).sequences
    # the pipeline's sequences hold the source and the separator
    assert unpadded(found) == [row[ids.shape[1] + 1 :] for row in expected]


def test_new_tokens_are_counted(generator):
    prompts = torch.tensor([[5, 6, 7]])
    assert generator.generate(prompts, max_new_tokens=4, max_denoising_steps=1).shape == (1, 7)
    assert generator.generate(max_new_tokens=4, max_denoising_steps=1).shape == (1, 4)


def test_suppressed_tokens_are_never_sampled(generator):
    allowed = 9
    tokens = [token for token in range(generator.config.vocab_size) if token != allowed]
    options = {"max_new_tokens": 6, "max_denoising_steps": 2, "x0": "mean"}
    assert (generator.generate(suppress_tokens=tokens, **options) == allowed).all()


def test_streamer_gets_prompts_drafts_and_result(generator):
    streamer, ids = Recorder(), torch.tensor([[5, 6], [7, 8]])
    options = {"max_denoising_steps": 3, "batch_size": 1, "num_return_sequences": 2}
    found = generator.generate(ids, streamer=streamer, **options)
    kinds, values = zip(*streamer.calls, strict=True)
    assert kinds == ("put", *["draft"] * 12, "put", "end")
    assert torch.equal(values[0], ids.repeat_interleave(2, 0))
    assert torch.equal(values[-2], found[:, 2:])
    assert torch.equal(values[-3], values[-2])
    assert not torch.equal(values[1], values[-2])  # each draft is a copy


@pytest.mark.parametrize("streamer", [TextStreamer, TextDiffusionStreamer])
@pytest.mark.parametrize("prompt", [None, [[5, 6]]])
def test_streamers_of_transformers_print_the_text(generator, fast, capsys, streamer, prompt):
    ids = None if prompt is None else torch.tensor(prompt)
    printed = streamer(fast, skip_prompt=True)
    found = generator.generate(ids, streamer=printed, max_denoising_steps=1)
    new = found[0, 0 if ids is None else 2 :]
    assert capsys.readouterr().out.endswith(fast.decode(new) + "\n")


def test_output_object_holds_the_sequences(generator):
    options = {"max_denoising_steps": 1, "seed": 2}
    found = generator.generate(return_dict_in_generate=True, **options)
    assert torch.equal(found.sequences, generator.generate(**options))


def test_arguments_outweigh_configurations(generator):
    """Arguments come before a given configuration, and that before the model's own."""
    given = DiffusionGenerationConfig(max_new_tokens=3, max_denoising_steps=1)
    assert generator.generate(generation_config=given).shape == (1, 3)
    assert generator.generate(generation_config=given, max_new_tokens=5).shape == (1, 5)
    plain = GenerationConfig(max_new_tokens=4)
    assert generator.generate(generation_config=plain, max_denoising_steps=1).shape == (1, 4)


def test_configuration_is_saved_with_the_model(generator, tmp_path):
    options = {"max_denoising_steps": 2, "sampler": "ddim", "seed": 7, "max_new_tokens": 6}
    before = generator.generation_config
    generator.generation_config = DiffusionGenerationConfig(**options).over(before)
    generator.save_pretrained(tmp_path)
    expected = generator.generate()
    generator.generation_config = before
    saved = json.loads((tmp_path / "generation_config.json").read_text(encoding="utf-8"))
    own = options | {"pad_token_id": 0, "suppress_tokens": [0, 1, 2]}
    assert saved == own | {"transformers_version": saved["transformers_version"]}
    for kind in (AutoModel, DiffusionLM):
        loaded = kind.from_pretrained(tmp_path)
        assert torch.equal(loaded.generate(), expected)
    changed = DiffusionLM.from_pretrained(
        tmp_path, generation_config=DiffusionGenerationConfig(max_new_tokens=3)
    )
    assert changed.generate().shape == (1, 3)
    assert changed.generation_config.sampler == "ddim"


def test_older_models_take_the_special_tokens(generator, tokenizer, tmp_path):
    generator.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    assert AutoModel.from_pretrained(tmp_path).generation_config.suppress_tokens is None
    save_tokenizer(tokenizer, tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.generation_config == generator.generation_config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ('{"top_k": 3}', "unexpected argument top_k"),
        ('{"max_denoising_steps": "many"}', "must be a whole number from 1, got 'many'"),
    ],
)
def test_damaged_configuration_is_named(generator, tmp_path, content, message):
    generator.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=rf"generation_config.json.*{message}"):
        DiffusionLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temprature": 2.0}, "temprature: did you mean temperature"),
        ({"steps": 2}, "steps: did you mean max_denoising_steps"),
        ({"num_inference_steps": 2}, "did you mean max_denoising_steps"),
        ({"top_k": 5}, "top_k: did you mean temperature"),
        ({"forbid": ["king"]}, "forbid: use TextDiffusion"),
    ],
)
def test_unknown_arguments_name_the_nearest(generator, options, message):
    with pytest.raises(TypeError, match=message):
        generator.generate(**options)


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        ([5, 6], {}, r"input_ids must be a tensor of shape \(b, p\)"),
        ([[5], [0]], {}, "prompts of at least one token"),
        ([[10**6]], {}, "input_ids must be between 0 and"),
        ([[5]], {"attention_mask": torch.ones(1, 2)}, r"attention_mask must be \(1, 1\)"),
        ([[5, 6]], {"max_new_tokens": 19}, "max_new_tokens must be between 1 and 18 after 2"),
        ([[5] * 30], {}, "leaves no room"),
        (None, {"attention_mask": torch.ones(1, 2)}, "given together with input_ids"),
        (None, {"suppress_tokens": [10**6]}, "suppress_tokens must be below"),
        (None, {"max_new_tokens": 0}, "max_new_tokens must be a whole number from 1"),
        (None, {"order": "random", "window": 99}, "--window must be at most"),
    ],
)
def test_impossible_input_is_one_line(generator, ids, options, message):
    with pytest.raises(UserError, match=message) as error:
        generator.generate(None if ids is None else torch.tensor(ids), **options)
    assert "\n" not in str(error.value)


def test_models_of_pairs_need_sources(pairs):
    with pytest.raises(UserError, match="give input_ids"):
        pairs.generate()
