"""Values, files and flags that nobody would write on purpose: each is taken, or refused in one line.

    python tests/fuzz.py configs --count 5000
    python tests/fuzz.py files --count 500
    python tests/fuzz.py flags --count 100

Prints what was found: an exception other than ValueError, an exit code other than 0 and 2, more than one line; and,
of configs, numbers that are none (NaN, infinite) or negative where the default is not, taken without a word.
`--seed` chooses what is tried; the same seed tries the same.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import gzip
import importlib
import io
import json
import logging
import math
import os
import random
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ("sft", "reward", "dpo", "grpo", "pretrain", "evaluation", "density")
LONGEST = 20  # seconds of a command whose flags were taken: it is at work then
# Of the libraries: what starts other processes or needs other machines.
LEFT_OUT = ("deepspeed", "fsdp", "fsdp_config", "parallelism_config", "accelerator_config", "ddp_backend", "use_vllm")
FINITE = (0, -1, 1, 2, 3, -(2**31), 2**31, 10**6)
NUMBERS = (0, -1, 1, 2, -(2**63), 2**64, 1e308, -0.5, 0.5, math.nan, math.inf, -math.inf, 10**400)
TEXTS = (
    "",
    " ",
    "nan",
    "1e-5",
    "true",
    "null",
    "a\nb",
    "\x1b[31m",
    "x" * 300,
    "é\u200b",
    "../..",
    "/proc/self/mem",
    "[",
)
OTHERS = (None, True, [], {}, [[]], [None], {"": None}, {"a": {"b": []}}, [1, "a"], [math.nan])
Findings = collections.Counter[str]


def classes_of(recipe: str) -> list[type]:
    """The dataclasses that a recipe parses."""
    module = importlib.import_module(recipe)
    return list(getattr(module, "CLASSES", ())) or [module.MeasuringArguments]


def values(draw: random.Random, field: dataclasses.Field[Any]) -> Any:
    """Mostly of the field's own kind, and often out of its range; else of any kind."""
    kind = str(field.type)
    if draw.random() < 0.15:
        return draw.choice([*NUMBERS, *TEXTS, *OTHERS])
    if "bool" in kind:
        return draw.choice([True, False])
    if "int" in kind or "float" in kind:
        default = field.default if isinstance(field.default, int | float) else 1
        near = [-default, default * 1000, default + 1, default / 2]
        return draw.choice(
            [number if "float" in kind else int(number) for number in (*FINITE, *near)]
            + ([math.nan, math.inf, -math.inf] if "float" in kind else [])
        )
    if "dict" in kind or "list" in kind:
        return draw.choice([*OTHERS, "{}", '{"length": 8}', "[1]", ["a", "b"]])
    return draw.choice([*TEXTS, *(field.metadata.get("choices") or ())])


def base_of(recipe: str) -> dict[str, Any]:
    """The recipe's own config, of which values are changed: else few would be all that is wrong."""
    if recipe == "evaluation":
        return {"model_name_or_path": "runs/one", "task": "sort"}
    module = importlib.import_module(recipe)
    quickstart = ROOT / "recipes/configs/density/quickstart.yaml"
    path = getattr(module, "QUICKSTART", None) or getattr(module, "CONFIG", None) or quickstart
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def is_nonsense(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a value stands for no number that can be meant; -1 often means none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    default = field.default
    positive = isinstance(default, int | float) and not isinstance(default, bool) and default >= 0
    return (
        not math.isfinite(value)
        if isinstance(value, float) and not (positive and value < 0)
        else (positive and value < -1)
    )


def fuzz_configs(count: int, draw: random.Random, folder: Path) -> Findings:
    """Parse configs of one to three values each, as each recipe does before it loads anything."""
    from hf_synth.training.arguments import parse_recipe

    findings: Findings = collections.Counter()
    every = {
        recipe: [field for part in classes_of(recipe) for field in dataclasses.fields(part) if field.init]
        for recipe in RECIPES
    }
    bases = {recipe: base_of(recipe) for recipe in RECIPES}
    path = folder / "config.yaml"
    for number in range(count):
        recipe = RECIPES[number % len(RECIPES)]
        fields = [field for field in every[recipe] if field.name not in LEFT_OUT]
        chosen = {field.name: (field, values(draw, field)) for field in draw.sample(fields, draw.choice((1, 1, 2, 3)))}
        config = {name: value for name, (_, value) in chosen.items()}
        path.write_text(
            yaml.safe_dump({**bases[recipe], "output_dir": str(folder / "run"), **config}), encoding="utf-8"
        )
        environment = dict(os.environ)
        try:
            parsed = parse_recipe(classes_of(recipe), ["--config", str(path)])
        except ValueError:
            findings["refused"] += 1
            continue
        except BaseException as error:
            findings[f"{recipe}: {_shown(error)} of {config}"] += 1
            continue
        finally:
            os.environ.clear()
            os.environ.update(environment)
        findings["taken"] += 1
        for name, (field, _) in chosen.items():
            for part in parsed:
                if is_nonsense(field, taken := getattr(part, name, None)) and (name, taken) != ("max_ratio", math.inf):
                    findings[f"{recipe}: took {name}={taken!r}"] += 1
    return findings


def _shown(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} ({str(error)[:100]!r}) in {Path(last.filename).name}:{last.lineno}"


def whole_files(folder: Path) -> dict[str, tuple[Path, Callable[[Path], Any]]]:
    """A whole file of each kind, and what reads it."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hf_synth import build_tokenizer, get_task
    from hf_synth.corpora import canonical_text
    from hf_synth.io import load_json
    from hf_synth.models import RopeGPTConfig, RopeGPTForCausalLM
    from hf_synth.preferences import read_preferences
    from hf_synth.sampling import embed_texts
    from hf_synth.training.arguments import read_yaml
    from hf_synth.training.data import usable_prompts
    from hf_synth.training.models import from_pretrained

    pairs = [{"prompt": f"say {n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(20)]
    pairs_lines = "".join(json.dumps(pair) + "\n" for pair in pairs).encode()
    table = pa.table({"text": [f"text {n}" for n in range(50)]})
    model, cache = folder / "model", folder / "cache"
    task = get_task("sort", "8")
    tokenizer = build_tokenizer(task)
    tokenizer.save_pretrained(model)
    config = RopeGPTConfig(vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    RopeGPTForCausalLM(config).save_pretrained(model)
    embed_texts(["a", "b"], dim=8, cache=cache)

    def written(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    def read_table(path: Path) -> None:
        canonical_text(path).read(100)

    def read_model(path: Path) -> None:
        from_pretrained(AutoModelForCausalLM, str(path.parent))

    def read_prompts(path: Path) -> None:
        list(usable_prompts(str(path), folder))

    pq.write_table(table, folder / "text.parquet")
    pq.write_table(pa.Table.from_pylist(pairs), folder / "pairs.parquet")
    recipe = (ROOT / "recipes/configs/density/quickstart.yaml").read_bytes()
    own_task = (ROOT / "hf_synth/tasks/sort.py").read_bytes()
    return {
        "config": (written("config.yaml", recipe), read_yaml),
        "state": (written("state.json", b'{"a": 1, "b": [1, 2, 3]}'), load_json),
        "pairs.jsonl": (written("pairs.jsonl", pairs_lines), read_preferences),
        "pairs.jsonl.gz": (written("pairs.jsonl.gz", gzip.compress(pairs_lines)), read_preferences),
        "pairs.parquet": (folder / "pairs.parquet", read_preferences),
        "prompts.jsonl": (written("prompts.jsonl", pairs_lines), read_prompts),
        "text.txt": (written("text.txt", "Ein Satz.\n\nNoch einer: é.\n".encode() * 20), read_table),
        "text.jsonl": (written("text.jsonl", b'{"text": "one"}\n' * 20), read_table),
        "text.parquet": (folder / "text.parquet", read_table),
        "weights": (model / "model.safetensors", read_model),
        "model config": (model / "config.json", read_model),
        "tokenizer": (model / "tokenizer.json", lambda path: from_pretrained(AutoTokenizer, str(path.parent))),
        "embeddings": (next(cache.glob("*/*")), lambda path: embed_texts(["a", "b"], dim=8, cache=cache)),
        "task": (written("my_task.py", own_task), lambda path: _command(["show", str(path), "--size", "1"])),
    }


def _command(argv: list[str]) -> None:
    """A subcommand of hf-synth in this process: an exit code of 2 is a refusal."""
    from hf_synth.cli import main

    errors = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            main(argv)
    except SystemExit as error:
        lines = errors.getvalue().strip().splitlines()
        if error.code != 2 or sum(": error: " in line for line in lines) != 1 or ": error: " not in lines[-1]:
            raise RuntimeError(f"exit code {error.code}, {lines[-3:]}") from None
        raise ValueError(lines[-1]) from None


def damaged(draw: random.Random, content: bytes, others: list[bytes]) -> tuple[str, bytes]:
    """What is wrong with a file, and its content then."""
    at = draw.randrange(max(1, len(content)))
    bad = bytearray(content)
    for _ in range(draw.choice((1, 1, 8))):
        if bad:
            bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
    ways = {
        "truncated": content[:at],
        "flipped": bytes(bad),
        "empty": b"",
        "zeros": content[:at] + bytes(len(content) - at),
        "noise": draw.randbytes(len(content) % 5000),
        "another kind": draw.choice(others),
        "UTF-16": content.decode("latin1").encode("utf-16"),
        "BOM": b"\xef\xbb\xbf" + content,
        "doubled": content + content,
        "deep lists": b"[" * 100_000,
        "deep mappings": b'{"a":' * 100_000,
        "deep blocks": b"- " * 20_000 + b"a",
        "NUL inside": content[:at] + b"\0" + content[at:],
        "CRLF": content.replace(b"\n", b"\r\n"),
        "JSON of another shape": draw.choice((b"[]", b"null", b"3", b'"a"', b'{"a": []}', b"{}", b"[[1]]", b"NaN")),
        "huge number": b'{"text": 1e999999, "prompt": ' + b"9" * 5000 + b"}",
        "surrogates": b'{"text": "\\ud800", "prompt": "\\ud800", "chosen": "\\udfff", "rejected": "a"}\n',
    }
    way = draw.choice(list(ways))
    return way, ways[way]


def fuzz_files(count: int, draw: random.Random, folder: Path) -> Findings:
    """Read damaged files of every kind, each by what reads it in a run."""
    findings: Findings = collections.Counter()
    files = whole_files(folder)
    contents = {kind: path.read_bytes() for kind, (path, _) in files.items()}
    for path, read in files.values():
        read(path)  # or the rest shows nothing
    for number in range(count):
        kind = list(files)[number % len(files)]
        path, read = files[kind]
        way, content = damaged(draw, contents[kind], list(contents.values()))
        path.write_bytes(content)
        try:
            read(path)
            findings["taken"] += 1
        except ValueError as error:
            findings["refused"] += 1
            if not str(error).strip():
                findings[f"{kind}, {way}: an empty message"] += 1
        except BaseException as error:
            findings[f"{kind}, {way}: {_shown(error)}"] += 1
        path.write_bytes(contents[kind])
    return findings


def fuzz_flags(count: int, draw: random.Random, folder: Path) -> Findings:
    """Start recipes with a flag out of its range, each in a forked process."""
    from hf_synth.errors import user_errors

    findings: Findings = collections.Counter()
    modules = {recipe: importlib.import_module(recipe) for recipe in RECIPES}
    for number in range(count):
        recipe = RECIPES[number % len(RECIPES)]
        fields = [field for part in classes_of(recipe) for field in dataclasses.fields(part) if field.init]
        field = draw.choice([field for field in fields if field.name not in LEFT_OUT])
        value = values(draw, field)
        shown = json.dumps(value) if isinstance(value, dict | list) else str(value)
        argv = [f"--output_dir={folder / str(number)}", f"--{field.name}={shown}"]
        log = folder / f"{number}.log"
        child = os.fork()
        if not child:
            os.chdir(folder)
            signal.alarm(LONGEST)
            for stream in (1, 2):
                os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
            code = 1
            try:
                with user_errors(f"{recipe}.py"):
                    modules[recipe].main(argv)
                code = 0
            except SystemExit as error:
                code = int(error.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
            findings["at work"] += 1
        elif os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            findings["done"] += 1
        elif os.WIFEXITED(status) and os.WEXITSTATUS(status) == 2 and sum(": error: " in line for line in lines) == 1:
            findings["refused"] += 1
        else:
            findings[f"{recipe} {argv[1]}: status {status}, {lines[-1:]}"] += 1
    return findings


KINDS = {"configs": fuzz_configs, "files": fuzz_files, "flags": fuzz_flags}
EXPECTED = ("taken", "refused", "at work", "done")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and bars of libraries, offline."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    sys.path[:0] = [str(ROOT / "recipes"), str(ROOT / "datasets_scripts")]
    import warnings

    import datasets

    datasets.disable_progress_bars()
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def fuzz(kind: str, count: int, seed: int = 0) -> Findings:
    """What was found: `EXPECTED` names with their counts, and a line for each finding."""
    with quiet(), tempfile.TemporaryDirectory() as folder:
        return KINDS[kind](count, random.Random(f"{kind} {seed}"), Path(folder))


def main() -> None:
    """Print the counts, then the findings; exit code 1 if there is one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    findings = fuzz(options.kind, options.count, options.seed)
    for name, number in sorted(findings.items(), key=lambda item: (item[0] not in EXPECTED, -item[1])):
        print(f"{number:6}  {name}")
    sys.exit(1 if findings.keys() - set(EXPECTED) else 0)


if __name__ == "__main__":
    main()
