"""Plant each fault of faults.yaml in a copy of the checkout and run the tests that must fail there.

    python tests/faults/run.py [NAME ...] [--list]

A fault is caught where its tests pass on the untouched copy and one of them fails with the fault. Exit code 1 where
a fault is not caught.

Each run of tests is a fork of this process, which has loaded what takes seconds to load and nothing of hf_synth.
"""

import argparse
import importlib
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FAULTS = Path(__file__).with_name("faults.yaml")
# Neither datasets, whose cache would be that of all runs, nor what imports it.
PRELOADED = (
    "torch",
    "torch._dynamo",
    "transformers.modeling_utils",
    "transformers.generation",
    "accelerate",
    "pyarrow",
)
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "runs", "build", "*.egg-info")


def read_faults() -> dict[str, dict]:
    """Return name -> {file, old, new, tests, why}, in the order of the file."""
    faults = yaml.safe_load(FAULTS.read_text(encoding="utf-8"))
    by_name = {fault["name"]: fault for fault in faults}
    if len(by_name) < len(faults):
        raise ValueError(f"{FAULTS.name}: got two faults of one name; wanted a name for each")
    return by_name


def planted(fault: dict, root: Path = ROOT) -> str:
    """Return the faulty text of a fault's file; ValueError where the text to replace does not occur once."""
    text = (root / fault["file"]).read_text(encoding="utf-8")
    if (count := text.count(fault["old"])) != 1:
        raise ValueError(f"fault {fault['name']}: its old text occurs {count} times in {fault['file']}; wanted once")
    return text.replace(fault["old"], fault["new"])


def run_tests(copy: Path, tests: list[str], kernels: Path, *options: str) -> tuple[int, str]:
    """Run tests of the copy; return pytest's exit code and what it printed. `kernels`: where numba keeps its own."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        sys.stdout.flush()
        if (child := os.fork()) == 0:
            code = 70
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                os.chdir(copy)
                os.environ |= {"PYTHONPATH": str(copy), "NUMBA_CACHE_DIR": str(kernels)}
                sys.path[0] = str(copy)  # before the checkout, wherever that is installed
                code = pytest.main(["-q", "-p", "no:cacheprovider", *options, *tests])
            finally:
                sys.stdout.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return code, said.read()


def is_caught(fault: dict, copy: Path, kernels: Path, verbose: bool = False) -> bool:
    """Plant a fault in the copy, run its tests, and mend it. Collection errors (code 2 and up) are no catch."""
    path = copy / fault["file"]
    sound, faulty = path.read_text(encoding="utf-8"), planted(fault, copy)
    with tempfile.TemporaryDirectory() as fresh:
        own = Path(fresh) / "kernels"
        # Kernels of other files have those of this one compiled into them.
        if kernels.is_dir() and "kernel" not in sound:
            shutil.copytree(kernels, own)
        path.write_text(faulty, encoding="utf-8")
        try:
            code, said = run_tests(copy, fault["tests"], own, "-x")
        finally:
            path.write_text(sound, encoding="utf-8")
    if verbose or code not in (0, 1):
        print(said[-3000:])
    return code == 1


def main() -> int:
    """Run the faults that are named, or all; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to plant (default: all)")
    parser.add_argument("--list", action="store_true", help="list the faults and stop")
    parser.add_argument("--verbose", action="store_true", help="show what pytest says of each fault")
    arguments = parser.parse_args()
    faults = read_faults()
    if unknown := [name for name in arguments.names if name not in faults]:
        parser.error(f"got unknown fault {unknown[0]!r}; wanted some of {', '.join(faults)}")
    chosen = [faults[name] for name in arguments.names or faults]
    if arguments.list:
        print("\n".join(f"{fault['name']:32} {fault['file']}" for fault in chosen))
        return 0
    sys.dont_write_bytecode = True  # a .pyc of the same second and size would hide a fault
    with tempfile.TemporaryDirectory(prefix="hf_synth_faults_") as folder:
        os.environ |= {
            "HF_HOME": folder,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        for name in PRELOADED:
            importlib.import_module(name)
        copy, kernels = Path(folder) / "hf_synth", Path(folder) / "kernels"
        shutil.copytree(ROOT, copy, ignore=NOT_COPIED)
        if (ROOT.parent / "shared").exists():
            (Path(folder) / "shared").symlink_to(ROOT.parent / "shared")
        code, said = run_tests(copy, sorted({test for fault in chosen for test in fault["tests"]}), kernels)
        if code > 1:
            print(f"{said[-3000:]}\nthe tests cannot be run")
            return 1
        failures = re.findall(r"^(?:FAILED|ERROR) (.*?)(?: - |$)", said, re.MULTILINE)
        broken = {t for fault in chosen for t in fault["tests"] if any(each.startswith(t) for each in failures)}
        print(
            f"without a fault: {said.splitlines()[-1]}", *(f"fails without any: {t}" for t in sorted(broken)), sep="\n"
        )
        missed = []
        for fault in chosen:
            started = time.monotonic()
            caught = not broken & set(fault["tests"]) and is_caught(fault, copy, kernels, arguments.verbose)
            missed += [] if caught else [fault["name"]]
            verdict = "caught" if caught else "NOT CAUGHT"
            print(f"{verdict:10}  {time.monotonic() - started:5.1f} s  {fault['name']}: {fault['why']}", flush=True)
    print(f"{len(chosen) - len(missed)} of {len(chosen)} faults caught", *missed, sep="\n  not caught: ")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
