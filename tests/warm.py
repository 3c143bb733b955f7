"""A process that imports libraries once, and then forks one process for every script that it is told to run.

    python tests/warm.py LIBRARY ...

Importing takes most of the time of a short run and is the same for all. What is forked is a process of its own all the
same: `__main__` of the script's file, with its own signals, exit code and output. One order a line on stdin: {argv,
cwd, env, stdout, stderr}, and where wanted `blocked`, libraries that cannot be imported, `session`, whether it leads a
group of processes, and `processes`, how many run it together as `torchrun` starts them. Answers on stdout: the id of
the first process, and when all have ended, the exit code.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import traceback


class Blocked:
    """Finds some libraries not to be there, whatever is installed."""

    def __init__(self, libraries: list[str]) -> None:
        self.libraries = libraries

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise for these, find nothing of the others."""
        if name.partition(".")[0] in self.libraries:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked in this client)", name=name)


def become(order: dict, rank: int, ranks: dict[str, str]) -> int:
    """Run the script as `python argv[0] argv[1] ...` would; returns the exit code."""
    if order.get("session"):
        os.setsid()
    os.chdir(order["cwd"])
    os.environ.update(order["env"] | ranks)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for target, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(order[name], os.O_WRONLY | os.O_APPEND), target)
    sys.meta_path.insert(0, Blocked(order.get("blocked", [])))
    sys.argv = order["argv"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def fork(order: dict, rank: int, ranks: dict[str, str], ended: tuple[int, int]) -> int:
    """Start one process; returns its id. The first serves the rendezvous: it ends last, unless it failed."""
    if process := os.fork():
        return process
    code = become(order, rank, ranks)
    sys.stdout.flush()
    sys.stderr.flush()
    if rank == 0 and code == 0:
        os.close(ended[1])
        os.read(ended[0], 1)
    os._exit(code)  # taking the libraries down takes longer than most errors


def carry_out(order: dict) -> None:
    """Start the processes of an order, wait for them, and say so."""
    for name in ("stdout", "stderr"):
        open(order[name], "wb").close()
    count, ended = order.get("processes", 1), os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    together = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    processes = []
    for rank in range(count):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": str(port), **together}
        processes.append(fork(order, rank, ranks if count > 1 else {}, ended))
    for end in ended:
        os.close(end)
    print(processes[0], flush=True)
    codes = []
    while processes:
        process, status = os.wait()
        processes.remove(process)
        codes.append(os.waitstatus_to_exitcode(status))
        if codes[-1]:  # the others would wait for it
            for other in processes:
                os.kill(other, signal.SIGTERM)
    print(next(filter(None, codes), 0), flush=True)


for library in sys.argv[1:]:
    importlib.import_module(library)
if "numba" in sys.modules:
    sys.modules["numba"].njit(lambda: 0)()  # the first kernel loads what all of them need
gc.freeze()  # so that no fork looks through all of this for garbage
for line in sys.stdin:
    carry_out(json.loads(line))
