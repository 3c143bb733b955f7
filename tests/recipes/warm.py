"""A process that imports the recipes' libraries once, and then forks one process for every recipe it is told to run.

Importing takes most of the time of a short run and is the same for all. What is forked is a process of its own all the
same: `__main__` of the recipe's file, with its own signals, exit code and output. One order a line on stdin:
{argv, cwd, env, stdout, stderr}; answers on stdout: the process id, and when it has ended, its exit code.
"""

import importlib
import json
import os
import runpy
import sys
import traceback

LIBRARIES = (
    "accelerate",
    "datasets",
    "evaluate",
    "matplotlib.pyplot",
    "numba",
    "peft",
    "sklearn.decomposition",
    "sklearn.feature_extraction.text",
    "sklearn.neighbors",
    "torch",
    "transformers",
    "trl.trainer.dpo_trainer",
    "trl.trainer.grpo_trainer",
    "trl.trainer.reward_trainer",
    "trl.trainer.sft_trainer",
)


def become(order: dict) -> int:
    """Run the recipe as `python argv[0] argv[1] ...` would; returns the exit code."""
    os.chdir(order["cwd"])
    os.environ.update(order["env"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for target, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), target)
    sys.argv = order["argv"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


for library in LIBRARIES:
    importlib.import_module(library)
for line in sys.stdin:
    process = os.fork()
    if not process:
        code = become(json.loads(line))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # taking the libraries down takes longer than most errors
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
