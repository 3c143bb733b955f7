"""A corpus for pretraining: a task's examples, explanations among them, and canonical text around them.

Written as JSONL, one {"text": ...} a line, or as a folder of Parquet shards that `datasets.load_dataset` reads.
Interrupted, the same command goes on where it stood; what is finished is not overwritten unless asked for.
"""

import argparse
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.cli.common import add_output, add_selection, selected_task
from hf_synth.corpora.streams import UNITS, share_of
from hf_synth.tasks import Task

if TYPE_CHECKING:
    from hf_synth.corpora import Stream
    from hf_synth.corpora.streams import TokenCounter

_UNIT_HELP = "the number of documents (default), or of their tokens as --tokenizer counts them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arm, the canonical text, and where the corpus goes."""
    add_selection(parser, size=None, size_help="how many documents, canonical ones included (required)")
    add_output(parser, default=None, help="a .jsonl or .jsonl.gz file, or a folder; -: JSONL on standard output")
    parser.add_argument("--kind", action="store_true", help='add "kind": example, explanation or canonical')
    arm = parser.add_argument_group("explanations")
    arm.add_argument("--explanation_ratio", default="0", help="their share of the arm, 0 to 1 (default: 0)")
    arm.add_argument(
        "--explanation_form",
        default="source",
        choices=("source", "statements", "block"),
        help="single statements, one block of all, or as in the experiment that the task is from (default)",
    )
    arm.add_argument(
        "--explanation_unit", default="documents", choices=UNITS, help=f"what that is a share of: {_UNIT_HELP}"
    )
    text = parser.add_argument_group("canonical text")
    text.add_argument("--canonical", metavar="SOURCE", help='files, a folder, an id on the Hub, or "stand_in"')
    text.add_argument("--mix_ratio", help="the share of synthetic documents among canonical ones (default: 0.1)")
    text.add_argument("--mix_unit", default="documents", choices=UNITS, help=f"what that is a share of: {_UNIT_HELP}")
    text.add_argument("--document", default="paragraph", help="of .txt files: paragraph, article, line or file")
    text.add_argument("--text_column", default="text", help="of all other sources (default: text)")
    text.add_argument("--repeat", action="store_true", help="begin again where the text ends, instead of an error")
    for name in ("config", "split", "revision"):
        text.add_argument(f"--canonical_{name}", help="of an id on the Hub")
    parser.add_argument("--tokenizer", help="what counts tokens, a path or an id on the Hub (default: words)")
    parser.set_defaults(interrupted="the same command goes on where it stood")


def run(arguments: argparse.Namespace) -> None:
    """Write the corpus, with a progress bar where standard error is a terminal."""
    if arguments.size is None:
        raise ValueError("size: got none, wanted how many documents to write")
    share_of("explanation_ratio", arguments.explanation_ratio)
    if arguments.mix_ratio is not None and arguments.canonical is None:
        raise ValueError(f"mix_ratio: got {arguments.mix_ratio} and no --canonical, wanted canonical text to mix with")
    ratio = share_of("mix_ratio", "0.1" if arguments.mix_ratio is None else arguments.mix_ratio)
    task = selected_task(arguments)

    from tqdm import tqdm

    from hf_synth.corpora.arms import corpus_spec
    from hf_synth.corpora.writing import check_output

    if arguments.output != "-":
        check_output(Path(arguments.output))
    chosen = {name: getattr(arguments, name) for name in ("explanation_form", "explanation_unit", "seed", "split")}
    spec = corpus_spec(arguments.task, task, arguments.explanation_ratio, size=arguments.size, **chosen)
    spec["tokenizer"] = arguments.tokenizer
    if arguments.canonical is not None:
        spec |= {"canonical": _canonical_spec(arguments), "mix_ratio": str(ratio), "mix_unit": arguments.mix_unit}
    stream = _stream(task, ratio, arguments, chosen)
    with tqdm(total=arguments.size, unit=" documents", disable=None, desc=task.name) as bar:
        _write(stream, arguments, spec, bar.update)
    if arguments.output != "-":
        print(arguments.output)


def _write(
    stream: "Stream", arguments: argparse.Namespace, spec: dict[str, Any], progress: Callable[[int], None]
) -> None:
    from hf_synth.corpora.writing import blocks, write_corpus
    from hf_synth.io import json_lines

    columns, size = (("text", "kind") if arguments.kind else ("text",)), arguments.size
    if arguments.output != "-":
        chosen: dict[str, Any] = {"split": arguments.split, "columns": columns, "overwrite": arguments.overwrite}
        write_corpus(stream, Path(arguments.output), size=size, spec=spec, progress=progress, **chosen)
        return
    for table in blocks(stream, 0, size, size=size, columns=columns):
        sys.stdout.write(json_lines(table))
        progress(table.num_rows)


def _stream(task: Task, ratio: Fraction, arguments: argparse.Namespace, chosen: dict[str, Any]) -> "Stream":
    """Return the arm, among canonical text where there is some."""
    from hf_synth.corpora import arm_stream, interleave

    count_tokens = _counter(arguments.tokenizer)
    arm = arm_stream(task, arguments.explanation_ratio, count_tokens=count_tokens, **chosen)
    if arguments.canonical is None:
        return arm
    mixed: dict[str, Any] = {"unit": arguments.mix_unit, "seed": arguments.seed, "count_tokens": count_tokens}
    return interleave(_canonical(arguments), arm, ratio=ratio, **mixed)


def _canonical(arguments: argparse.Namespace) -> "Stream":
    from hf_synth.corpora import canonical_text

    return canonical_text(
        arguments.canonical,
        document=arguments.document,
        text_column=arguments.text_column,
        config=arguments.canonical_config,
        split=arguments.canonical_split or "train",
        revision=arguments.canonical_revision,
        seed=arguments.seed,
        repeat=arguments.repeat,
    )


def _canonical_spec(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the canonical documents depend on; of local files digests, so that changes show."""
    from hf_synth.corpora.text import file_digests

    names = ("document", "text_column", "repeat", "canonical_config", "canonical_split", "canonical_revision")
    spec = {"source": arguments.canonical, **{name: getattr(arguments, name) for name in names}}
    source = Path(arguments.canonical)
    if source.exists():
        spec["files"] = file_digests(source)
    return spec


def _counter(name: str | None) -> "TokenCounter":
    from hf_synth.corpora import count_words, token_counter

    if name is None:
        return count_words
    from transformers import AutoTokenizer

    try:
        return token_counter(AutoTokenizer.from_pretrained(name))
    except OSError as error:
        raise ValueError(f"tokenizer: {str(error).splitlines()[0]}") from None
