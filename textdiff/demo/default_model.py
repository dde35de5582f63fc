"""The model of a page that was asked for without one: that of the built-in grammar."""

import logging
from pathlib import Path

from textdiff.demo.waiting import waiting_page
from textdiff.options import load_config, load_run_config, shipped_configs
from textdiff.text.config import TextConfig
from textdiff.training.run_dir import open_run_dir, steps_done

RUN = Path("runs/demo")

log = logging.getLogger("textdiff")


def default_model(host: str, port: int) -> str:
    """The run folder of the default model, which is trained or continued first where needed.

    Args:
        host: Address on which a page shows the progress meanwhile.
        port: Port of this page.
    """
    if (saved := RUN / "config.yaml").exists():
        config = load_run_config(saved, TextConfig)
        if steps_done(RUN / "state") >= config.train.steps:
            return str(RUN)
    else:
        config = load_config(shipped_configs()["text_demo"], TextConfig)
    log.info("training a model of the built-in grammar in %s, which takes some minutes", RUN)
    from textdiff.text.train import train

    run_dir = open_run_dir(config, resume=(RUN / "state").exists())
    with waiting_page(host, port, RUN, config.train.steps) as address:
        log.info("the page at %s shows the progress", address)
        return str(train(config, run_dir))
