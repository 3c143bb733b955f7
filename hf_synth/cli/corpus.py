"""A corpus for pretraining: a task's examples, explanations among them, and canonical text around them.

Written as JSONL, one {"text": ...} a line, or as a folder of Parquet shards that `datasets.load_dataset` reads.
Interrupted, the same command goes on where it stood; what is finished is not overwritten unless asked for.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.cli.common import add_output, add_selection, selected_task
from hf_synth.corpora.streams import UNITS, share_of

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
    arm.add_argument("--explanation_ratio", default="0", help="their fraction of the arm, 0 to 1 (default: 0)")
    arm.add_argument(
        "--explanation_form",
        default="source",
        choices=("source", "statements", "block"),
        help="single statements, one block of all, or as in the experiment that the task is from (default)",
    )
    arm.add_argument(
        "--explanation_unit", default="documents", choices=UNITS, help=f"what that is a fraction of: {_UNIT_HELP}"
    )
    text = parser.add_argument_group("canonical text")
    text.add_argument("--canonical", metavar="SOURCE", help='files, a folder, an id on the Hub, or "stand_in"')
    text.add_argument("--mix_ratio", help="the fraction of synthetic documents among canonical ones (default: 0.1)")
    text.add_argument("--mix_unit", default="documents", choices=UNITS, help=f"of what: {_UNIT_HELP}")
    text.add_argument("--document", default="paragraph", help="of .txt files: paragraph, article, line or file")
    text.add_argument("--text_column", default="text", help="of all other sources (default: text)")
    text.add_argument("--repeat", action="store_true", help="begin again where the text ends, instead of an error")
    for name in ("config", "split", "revision"):
        text.add_argument(f"--canonical_{name}", help="of an id on the Hub")
    parser.set_defaults(of_canonical={action.dest: action.default for action in text._group_actions})
    parser.add_argument("--tokenizer", help="what counts tokens, a path or an id on the Hub (default: words)")
    parser.set_defaults(interrupted="the same command goes on where it stood")


def run(arguments: argparse.Namespace) -> None:
    """Write the corpus, with a progress bar where standard error is a terminal."""
    if arguments.size is None:
        raise ValueError("size: got none, wanted how many documents to write")
    share_of("explanation_ratio", arguments.explanation_ratio)
    for name, default in arguments.of_canonical.items():
        if arguments.canonical is None and (value := getattr(arguments, name)) != default:
            raise ValueError(f"{name}: got {value} and no --canonical, wanted canonical text to mix with")
    ratio = share_of("mix_ratio", "0.1" if arguments.mix_ratio is None else arguments.mix_ratio)
    task = selected_task(arguments)

    from tqdm import tqdm

    from hf_synth.corpora import arm_stream, interleave
    from hf_synth.corpora.arms import corpus_spec
    from hf_synth.corpora.writing import blocks, check_output, write_corpus
    from hf_synth.io import json_lines

    if arguments.output != "-":
        check_output(Path(arguments.output))
    chosen = {name: getattr(arguments, name) for name in ("explanation_form", "explanation_unit", "seed", "split")}
    spec = corpus_spec(arguments.task, task, arguments.explanation_ratio, size=arguments.size, **chosen)
    spec["tokenizer"] = arguments.tokenizer
    count_tokens = _counter(arguments.tokenizer)
    stream = arm_stream(task, arguments.explanation_ratio, count_tokens=count_tokens, **chosen)
    if arguments.canonical is not None:
        text, mixed = _canonical(arguments)
        spec |= {"canonical": text, "mix_ratio": str(ratio), "mix_unit": arguments.mix_unit}
        options: dict[str, Any] = {"unit": arguments.mix_unit, "seed": arguments.seed, "count_tokens": count_tokens}
        stream = interleave(mixed, stream, ratio=ratio, **options)
    columns, size = (("text", "kind") if arguments.kind else ("text",)), arguments.size
    with tqdm(total=size, unit=" documents", disable=None, desc=task.name) as bar:
        if arguments.output != "-":
            options = {"split": arguments.split, "columns": columns, "overwrite": arguments.overwrite}
            write_corpus(stream, Path(arguments.output), size=size, spec=spec, progress=bar.update, **options)
            print(arguments.output)
            return
        for table in blocks(stream, 0, size, size=size, columns=columns):
            sys.stdout.write(json_lines(table))
            bar.update(table.num_rows)


def _canonical(arguments: argparse.Namespace) -> tuple[dict[str, Any], "Stream"]:
    """Return what the canonical documents depend on (of local files digests, so that changes show), and themselves."""
    from hf_synth.corpora import canonical_text
    from hf_synth.corpora.text import file_digests

    values = {name: getattr(arguments, name) for name in ("document", "text_column", "repeat")}
    hub = {name: getattr(arguments, f"canonical_{name}") for name in ("config", "split", "revision")}
    spec = {"source": arguments.canonical, **values, **{f"canonical_{name}": value for name, value in hub.items()}}
    if (source := Path(arguments.canonical)).exists():
        spec["files"] = file_digests(source)
    hub["split"] = hub["split"] or "train"
    return spec, canonical_text(arguments.canonical, seed=arguments.seed, **values, **hub)


def _counter(name: str | None) -> "TokenCounter":
    from hf_synth.corpora import count_words, token_counter

    if name is None:
        return count_words
    from transformers import AutoTokenizer

    try:
        return token_counter(AutoTokenizer.from_pretrained(name))
    except OSError as error:
        raise ValueError(f"tokenizer: {str(error).splitlines()[0]}") from None
