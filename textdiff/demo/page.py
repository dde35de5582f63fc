"""The page of `textdiff demo`: its frame, its server, and what the server refuses."""

import logging
import os
import signal
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read by the import

import gradio as gr
import PIL.Image

from textdiff.config import UserError, check
from textdiff.demo.default_model import default_model
from textdiff.demo.frames import asset
from textdiff.demo.kinds import Tab, open_model
from textdiff.memory import use_few_arenas

log = logging.getLogger("textdiff")

MOST_WAITING = 128  # requests in the queue; further ones are refused
LARGEST_UPLOAD = "4mb"
MOST_PIXELS = 2**22  # of an uploaded picture; Pillow refuses twice as many


def serve(models: Sequence[str], host: str, port: int) -> None:
    """Serves the page until it is interrupted.

    Args:
        models: Models by name. If there are none, the default model, which is trained if needed.
        host: Address to listen on.
        port: Port to listen on.

    Raises:
        UserError: If the port is in use, the host is not an address of this machine, or a model
            cannot be loaded.
    """
    check_free(host, port)
    use_few_arenas()
    names = [*models] or [default_model(host, port)]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the folder is removed
    with tempfile.TemporaryDirectory(prefix="textdiff-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # pictures of the page, and those that browsers send
        page = build_page({name: open_model(name) for name in names})
        log.info("the page is at http://%s:%d (Ctrl-C ends it)", host, port)
        launch(page, host, port, wait=True)


def launch(page: gr.Blocks, host: str, port: int | None, wait: bool = False) -> str:
    """Starts the server and returns the address of the page.

    Args:
        port: Port to listen on. If None, a free one.
        wait: Whether to return only when the server is interrupted.
    """
    PIL.Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=not wait,
        share=False,
        quiet=True,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        max_file_size=LARGEST_UPLOAD,
        state_session_capacity=100,
        theme=theme(),
        css=asset("page.css"),
    )
    return address


def check_free(host: str, port: int) -> None:
    """Raises UserError if the server cannot listen there."""
    check(0 <= port <= 65535, "--port", "between 0 and 65535", port)
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{host}:{port}: {reason}: choose another --port or --host") from error


def build_page(models: dict[str, list[Tab]]) -> gr.Blocks:
    """The page with the tabs of each model. Several models have a tab each."""
    with gr.Blocks(title="textdiff", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gr.Markdown("# textdiff", elem_classes="td-title")
        if len(models) == 1:
            _build(*models.values())
        else:
            with gr.Tabs():
                for name, tabs in models.items():
                    with gr.Tab(Path(name).name):
                        _build(tabs)
    page.queue(max_size=MOST_WAITING)
    return page


def _build(tabs: Sequence[Tab]) -> None:
    with gr.Tabs():
        for tab in tabs:
            with gr.Tab(tab.title):
                tab.build()


def theme() -> gr.themes.Base:
    """A plain theme with fonts of the system, so that the page asks no other server."""
    fonts, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=fonts, font_mono=mono)
