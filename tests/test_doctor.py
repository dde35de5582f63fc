"""Laws of `textdiff doctor`: it finds wrong results, and reports what a bug report needs."""

import pytest
import torch

from textdiff import doctor, nn
from textdiff.cli.main import main
from textdiff.text.doctor import subject


@pytest.fixture
def quick(monkeypatch):
    """Limits the report to text and to the training time of the demo."""

    class Entry:
        @staticmethod
        def load():
            return lambda: subject()._replace(configurations=("text_demo",))

    monkeypatch.setattr(doctor, "entry_points", lambda group: [Entry])


def test_report_has_what_a_bug_report_needs(quick, capsys):
    main(["doctor"])
    printed = capsys.readouterr().out
    for part in (
        torch.__version__,
        "Python 3",
        "GFLOP/s",
        "precision: ",
        "extras: ",
        "configs/text_demo.yaml: 1,050 steps",
    ):
        assert part in printed
    assert printed.count("  ok      text: ") == 4


def test_wrong_results_are_found(quick, capsys, monkeypatch):
    def broken(x, rotation):  # in single precision only, as a faulty device would
        return nn.upcast(x) * (1.5 if x.dtype == torch.float32 else 1)

    monkeypatch.setattr("textdiff.text.transformer.rotate", broken)
    choice = doctor.devices.PrecisionChoice("no", "a test")
    monkeypatch.setattr(doctor.devices, "best_precision", lambda *_: choice)
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
    kinds = [entry.load()() for entry in doctor.entry_points(group=doctor.GROUP)]
    timed = {kind.configuration(path).name for kind in kinds for path in doctor._config_files(kind)}
    assert timed == {f"configs/{path.name}" for path in doctor.Path("configs").glob("*.yaml")}
