"""Rows of tasks with their floors, a map of prompts by density, and runs over steps, in the browser."""

import argparse
import importlib.util
import runpy
from pathlib import Path

from hf_synth.cli.recipes import shipped
from hf_synth.errors import install_hint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder of runs, and where the page is served."""
    parser.add_argument("runs", type=Path, nargs="?", default=Path("runs"), help="a folder of runs (default: runs)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: for other machines, too (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")


def run(arguments: argparse.Namespace) -> None:
    """Serve the page until it is interrupted."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError(install_hint("gradio", "explore"))
    explorer = runpy.run_path(str(shipped("spaces", "explorer", "app.py")))
    explorer["app"](arguments.runs).launch(server_name=arguments.host, server_port=arguments.port)
