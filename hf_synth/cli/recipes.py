"""Copy the recipes and their configs into a new folder, to train without a clone."""

import argparse
import importlib.metadata
import shutil
from pathlib import Path

import hf_synth


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder."""
    parser.add_argument("folder", type=Path, help="a folder that is not there yet")


def run(arguments: argparse.Namespace) -> None:
    """Copy, and print the commands that start from there."""
    folder: Path = arguments.folder
    if folder.exists():
        raise ValueError(f"got {str(folder)!r}, which exists; wanted a new folder for the recipes")
    shutil.copytree(shipped("recipes", "grpo.py").parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    print(f"accelerate launch {folder / 'grpo.py'}    # the quickstart; configs are in {folder / 'configs'}")


def shipped(*parts: str) -> Path:
    """Return the path of a file that comes with the package: beside an installation's data, or in the clone."""
    for file in importlib.metadata.files("hf_synth") or []:
        if file.parts[-len(parts) - 1 :] == ("hf_synth", *parts):
            return Path(str(file.locate())).resolve()
    return Path(hf_synth.__file__).resolve().parents[1].joinpath(*parts)
