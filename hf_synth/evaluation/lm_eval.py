"""Tasks for lm-eval, EleutherAI's evaluation harness, that give the numbers of recipes/evaluation.py elsewhere.

One task a setting, all under one tag: the YAML file, the rows as JSON lines, and a Python file of a few lines that
reads them by a path of its own and takes means over tokens. Nothing of hf_synth is needed to run them. Where texts can
be wrong, a second tag, ending in `_verified`, has greedy completions judged by the task's verifier: by hf_synth.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from hf_synth.evaluation.model import Plan
from hf_synth.io import write_tables, write_text
from hf_synth.rng import RowRandom
from hf_synth.tasks.base import EOS, Rows, Task
from hf_synth.tokenization import all_words, render
from hf_synth.views import with_prompts

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

_VERDICTS_SOURCE = '''"""The verdict of the task on generated completions."""

from hf_synth.tasks import task_from_json


def verified(row, results):
    """1.0 for a right completion; 0.0 for any other, and for one with so many words that its end was cut off."""
    (text,) = results
    right = len(text.split()) <= row["longest"] and task_from_json(row["task"]).verify(row["prompt"], text)
    return {"validity": float(right)}
'''

_YAML = """\
task: {name}
tag: {tag}
custom_dataset: !function {module}.rows
dataset_kwargs: {{name: {name}}}
test_split: test
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{target}}}}"
metadata: {metadata}
"""
_LOG_LIKELIHOOD = f"""\
output_type: loglikelihood
process_results: !function {Path(FUNCTIONS).stem}.measures
metric_list:
- {{metric: acc, aggregation: mean, higher_is_better: true}}
- {{metric: loss, aggregation: !function {Path(FUNCTIONS).stem}.per_token, higher_is_better: false}}
"""
_GENERATION = """\
output_type: generate_until
generation_kwargs: {{until: ["<eos>"], max_gen_toks: {most}, do_sample: false}}
process_results: !function hf_synth_verdicts.verified
metric_list:
- {{metric: validity, aggregation: mean, higher_is_better: true}}
"""


def write_lm_eval(folder: Path, plan: Plan, rows: Sequence[Rows]) -> str:
    """Write the tasks of all settings into a folder; returns their tag, which is what `lm_eval --tasks` takes.

    `acc` is our row_accuracy and `loss` our loss: lm-eval's loglikelihood gives ln P of the target and whether it is
    what greedy decoding would write. Both encode prompt and target as one text, with `<bos>` before it.

    `validity` is the verifier's, of completions that end with `<eos>` where the task's rows do. lm-eval decodes
    without special tokens: a stray `<sep>`, which our own recipes count as an error, is not seen there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tag = f"hf_synth_{plan.task_name}"
    for file, source in ((FUNCTIONS, _SOURCE), ("hf_synth_verdicts.py", _VERDICTS_SOURCE)):
        write_text(folder / file, source)
    for setting, some in zip(plan.settings, rows, strict=True):
        task, forms = setting.task, {"": (_table(setting.task, some), _LOG_LIKELIHOOD)}
        if task.verifiable:
            rng = RowRandom(seed=plan.rows_seed, split="test", purpose="prompt", index=np.arange(len(some)))
            asked = with_prompts(some, rng)
            most = int((asked.lengths - asked.loss_start).max())  # tokens, with `<eos>` where rows have one
            table, longest = _table(task, asked), most - int((asked.tokens == EOS).any())
            for column, value in (("task", task.to_json()), ("longest", longest)):
                table = table.append_column(column, pa.array([value] * len(asked)))
            forms["_verified"] = table, _GENERATION.format(most=most)
        version = json.dumps({"version": task.version, "config": task.config.to_json()})
        for form, (table, how) in forms.items():
            name = f"{tag}_{setting.name}{form}"
            write_tables(folder / f"{name}.jsonl", table.schema, [table])
            values = {"name": name, "tag": tag + form, "module": Path(FUNCTIONS).stem, "metadata": version}
            write_text(folder / f"{name}.yaml", _YAML.format(**values) + how)
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
