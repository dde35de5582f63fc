"""The model of a page that was asked for without one: that of the built-in grammar."""

import logging
from pathlib import Path

from textdiff.config import UserError
from textdiff.options import load_config, load_run_config
from textdiff.text.config import TextConfig
from textdiff.training.run_dir import open_run_dir, steps_done

CONFIG = Path(__file__).parents[2] / "configs" / "text_demo.yaml"
RUN = Path("runs/demo")

log = logging.getLogger("textdiff")


def default_model() -> str:
    """The run folder of the default model, which is trained or continued first where needed.

    Raises:
        UserError: If it must be trained and its configuration is not installed.
    """
    if (saved := RUN / "config.yaml").exists():
        config = load_run_config(saved, TextConfig)
        if steps_done(RUN / "state") >= config.train.steps:
            return str(RUN)
    elif CONFIG.exists():
        config = load_config(CONFIG, TextConfig)
    else:
        raise UserError(f"name a model: {RUN} does not exist, and {CONFIG.name} is not installed")
    log.info("training a model of the built-in grammar in %s, which takes some minutes", RUN)
    from textdiff.text.train import train

    run_dir = open_run_dir(config, resume=(RUN / "state").exists())
    return str(train(config, run_dir))
