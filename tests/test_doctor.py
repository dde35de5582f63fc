"""Laws of `textdiff doctor`: it finds a machine that computes wrong, and says what a bug report needs."""

import pytest
import torch

from textdiff import doctor, layers
from textdiff.cli import main
from textdiff.doctor_text import subject


@pytest.fixture
def quick(monkeypatch):
    """Text alone, and no training times but the demo's."""

    class Entry:
        @staticmethod
        def load():
            return lambda: subject()._replace(configurations=("text_demo",))

    monkeypatch.setattr(doctor, "entry_points", lambda group: [Entry])


def test_it_says_what_a_bug_report_needs(quick, capsys):
    main(["doctor"])
    said = capsys.readouterr().out
    for part in (torch.__version__, "Python 3", "GFLOP/s", "precision: ", "extras: ", "configs/text_demo.yaml: 1,500 steps"):
        assert part in said
    assert said.count("  ok      text: ") == 4


def test_a_machine_that_computes_wrong_results_is_found(quick, capsys, monkeypatch):
    def broken(x, rotation):  # in single precision only, as a faulty device would
        return layers.exact(x) * (1.5 if x.dtype == torch.float32 else 1)

    monkeypatch.setattr("textdiff.transformer.rotate", broken)
    monkeypatch.setattr(doctor.devices, "best_precision", lambda *_: doctor.devices.Choice("no", "a test"))
    doctor.devices.choose_precision.cache_clear()
    with pytest.raises(SystemExit) as end:
        main(["doctor"])
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert "FAILED  text: sampling step" in printed.out
    assert "computes wrong results: text: " in printed.err
    doctor.devices.choose_precision.cache_clear()


def test_every_kind_of_model_is_examined():
    names = {entry.load()().name for entry in doctor.entry_points(group=doctor.GROUP)}
    assert names == {"text", "images"}


def test_every_configuration_is_timed():
    subjects = [entry.load()() for entry in doctor.entry_points(group=doctor.GROUP)]
    found = {subject.configuration(path).name for subject in subjects for path in doctor._found(subject)}
    assert found == {f"configs/{path.name}" for path in doctor.Path("configs").glob("*.yaml")}
