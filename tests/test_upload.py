"""Laws of uploading to the hub and loading from it, against a stand-in for its HTTP interface."""

from collections.abc import Callable

import pytest
from huggingface_hub import constants
from local_hub import TOKEN, LocalHub

from textdiff import TextDiffusion
from textdiff.config import UserError


@pytest.fixture(scope="module")
def pipe(model, tokenizer) -> TextDiffusion:
    return TextDiffusion(model, tokenizer)


def refused(call: Callable[..., object], *arguments: object, **options: object) -> str:
    """The message of the UserError of a call, which is one line."""
    with pytest.raises(UserError) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pushed_model_draws_the_same_samples(hub: LocalHub, pipe: TextDiffusion) -> None:
    assert pipe.push_to_hub("user/kings") == f"{hub.url}/user/kings"
    again = TextDiffusion.from_pretrained("user/kings")
    wanted = pipe.sample(3, steps=4, seed=1).texts
    assert again.sample(3, steps=4, seed=1).texts == wanted


def test_weights_go_by_large_file_storage(hub: LocalHub, pipe: TextDiffusion) -> None:
    pipe.push_to_hub("user/kings")
    assert hub.repositories["user/kings"].large == {"model.safetensors"}
    assert len(hub.objects) == 1


def test_revision_is_an_earlier_commit(hub, new_model, tokenizer) -> None:
    for temperature in (0.5, 2.0):
        model = new_model(sampling_temperature=temperature)
        TextDiffusion(model, tokenizer).push_to_hub("user/kings")
    _, first, _ = hub.repositories["user/kings"].commits
    for revision, temperature in ((first.sha, 0.5), (None, 2.0)):
        found = TextDiffusion.from_pretrained("user/kings", revision=revision)
        assert found.model.config.sampling_temperature == temperature


def test_private_model_needs_the_token(
    hub: LocalHub, pipe: TextDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    pipe.push_to_hub("user/secret", private=True, token=TOKEN)
    assert "user/secret is not on the hub, or is private" in refused(
        TextDiffusion.from_pretrained, "user/secret"
    )
    assert TextDiffusion.from_pretrained("user/secret", token=TOKEN).sample(1, steps=2).texts


@pytest.mark.parametrize("load", [False, True])
def test_wrong_token_is_one_line(hub: LocalHub, pipe: TextDiffusion, load: bool) -> None:
    call = TextDiffusion.from_pretrained if load else pipe.push_to_hub
    line = refused(call, "user/kings", token="hf_wrong")
    assert line.startswith("user/kings: the hub does not accept the token: log in")


def test_missing_token_is_one_line(hub, pipe, monkeypatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "log in with `hf auth login`" in refused(pipe.push_to_hub, "user/kings")


def test_folder_of_others_is_refused(hub: LocalHub, pipe: TextDiffusion) -> None:
    assert "no right" in refused(pipe.push_to_hub, "others/kings")


def test_missing_model_is_one_line(hub: LocalHub) -> None:
    line = refused(TextDiffusion.from_pretrained, "user/nothing")
    assert line.startswith("user/nothing is not on the hub, or is private: check the name")


def test_missing_revision_is_one_line(hub: LocalHub, pipe: TextDiffusion) -> None:
    pipe.push_to_hub("user/kings")
    line = refused(TextDiffusion.from_pretrained, "user/kings", revision="none")
    assert line.startswith("user/kings has no such revision")


@pytest.mark.parametrize("load", [False, True])
def test_impossible_name_is_one_line(hub, pipe, monkeypatch, load) -> None:
    """Before the model is written."""
    monkeypatch.setattr(pipe, "save_pretrained", None)
    call = TextDiffusion.from_pretrained if load else pipe.push_to_hub
    assert refused(call, "a name/with spaces").startswith("a name/with spaces is no name on the")


@pytest.mark.parametrize("load", [False, True])
def test_unreachable_hub_is_one_line(hub, pipe, monkeypatch, load) -> None:
    closed = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    call = TextDiffusion.from_pretrained if load else pipe.push_to_hub
    line = refused(call, "user/kings")
    assert line.startswith(f"user/kings: cannot reach {closed}")
    assert line.endswith("check the network, or try later")


def test_model_in_the_cache_needs_no_network(hub, pipe, monkeypatch) -> None:
    pipe.push_to_hub("user/kings")
    TextDiffusion.from_pretrained("user/kings")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert TextDiffusion.from_pretrained("user/kings").sample(1, steps=2).texts
