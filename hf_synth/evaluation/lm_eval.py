"""Tasks for lm-eval, EleutherAI's evaluation harness, that give the numbers of recipes/evaluation.py elsewhere.

One task a setting, all under one tag: the YAML file, the rows as JSON lines, and a Python file of a few lines that
reads them by a path of its own and takes means over tokens. Nothing of hf_synth is needed to run them.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from hf_synth.evaluation.model import Plan
from hf_synth.io import write_tables, write_text
from hf_synth.tasks.base import Rows, Task
from hf_synth.tokenization import all_words, render

FUNCTIONS = "hf_synth_rows.py"
_SOURCE = '''"""Rows and measures of the lm-eval tasks beside this file."""

from pathlib import Path

import datasets


def rows(name, **_):
    """The rows of a task: prompt, target, and the number of the target's tokens."""
    return {"test": datasets.Dataset.from_json(str(Path(__file__).with_name(f"{name}.jsonl")))}


def measures(row, results):
    """Whether every token of the target is the most likely one, and the target's loss with its number of tokens."""
    log_prob, greedy = results[0]
    return {"acc": float(greedy), "loss": (-log_prob, row["tokens"])}


def per_token(pairs):
    """The mean loss in nats per token of all targets together."""
    return sum(loss for loss, _ in pairs) / sum(tokens for _, tokens in pairs)
'''

_YAML = """\
task: {name}
tag: {tag}
custom_dataset: !function {module}.rows
dataset_kwargs: {{name: {name}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{target}}}}"
process_results: !function {module}.measures
metric_list:
- {{metric: acc, aggregation: mean, higher_is_better: true}}
- {{metric: loss, aggregation: !function {module}.per_token, higher_is_better: false}}
metadata: {metadata}
"""


def write_lm_eval(folder: Path, plan: Plan, rows: Sequence[Rows]) -> str:
    """Write the tasks of all settings into a folder; returns their tag, which is what `lm_eval --tasks` takes.

    `acc` is our row_accuracy and `loss` our loss: lm-eval's loglikelihood gives ln P of the target and whether it is
    what greedy decoding would write. Both encode prompt and target as one text, with `<bos>` before it.
    """
    tag = f"hf_synth_{plan.task_name}"
    for old in folder.glob(f"{tag}_*.yaml"):  # of settings that are not measured now, which the tag would run too
        if f"\ntag: {tag}\n" in old.read_text(encoding="utf-8"):
            old.unlink()
            old.with_suffix(".jsonl").unlink(missing_ok=True)
    write_text(folder / FUNCTIONS, _SOURCE)
    for setting, some in zip(plan.settings, rows, strict=True):
        name = f"{tag}_{setting.name}"
        write_tables(folder / f"{name}.jsonl", _SCHEMA, [_table(setting.task, some)])
        version = {"version": setting.task.version, "config": setting.task.config.to_json()}
        values = {"name": name, "tag": tag, "module": Path(FUNCTIONS).stem, "metadata": json.dumps(version)}
        write_text(folder / f"{name}.yaml", _YAML.format(**values))
    return tag


def command(folder: Path, tag: str, model: str, own_code: bool) -> str:
    """Return the command that runs the tasks of a folder; `own_code`: the model brings an architecture of its own."""
    argv = ["lm_eval", "--tasks", tag, "--include_path", str(folder), "--model", "hf", "--model_args"]
    return shlex.join([*argv, f"pretrained={model}" + (",trust_remote_code=True" if own_code else "")])


_SCHEMA = pa.schema({"prompt": pa.string(), "target": pa.string(), "tokens": pa.int32()})


def _table(task: Task, rows: Rows) -> pa.Table:
    vocabulary, first = all_words(task), np.ones_like(rows.loss_start)
    prompts = render(rows.tokens, first, rows.loss_start, vocabulary)
    targets = render(rows.tokens, rows.loss_start, rows.loss_stop, vocabulary, " ")
    return pa.table([prompts, targets, pa.array(rows.loss_stop - rows.loss_start)], schema=_SCHEMA)
