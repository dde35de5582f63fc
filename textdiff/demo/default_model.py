"""The model of a page that was asked for without one: the built-in grammar's."""

import logging
from pathlib import Path

from textdiff.config import UserError
from textdiff.options import load_config
from textdiff.text.config import TextConfig
from textdiff.training.run_dir import open_run_dir

CONFIG = Path(__file__).parents[2] / "configs" / "text_demo.yaml"

log = logging.getLogger("textdiff")


def default_model() -> str:
    """The run folder of the default model, which is trained first if that was not done.

    Raises:
        UserError: If it must be trained and its configuration is not installed.
    """
    run = "runs/demo"
    if (Path(run) / "model" / "model.safetensors").exists():
        return run
    if not CONFIG.exists():
        raise UserError(f"name a model: {run} does not exist, and {CONFIG.name} is not installed")
    config = load_config(CONFIG, TextConfig)
    log.info("training a model of the built-in grammar in %s, which takes some minutes", run)
    from textdiff.text.train import train

    return str(train(config, open_run_dir(config, resume=(Path(run) / "state").exists())))
