"""The command line of the scripts that publish: choose, make, measure, write the card, upload."""

import argparse
import datetime
import difflib
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from hf_synth.errors import nearest, user_errors
from hf_synth.hub.publication import Choices, Publication
from hf_synth.hub.repository import (
    CARD,
    MANIFEST,
    Repository,
    manifest_text,
    read_manifests,
    refuse_card,
    sent_shards,
    text_in,
)
from hf_synth.hub.shards import ensure, manifest, plan, refuse_others
from hf_synth.io import directory_lock, write_text
from hf_synth.tasks.base import SPLITS

if TYPE_CHECKING:
    from hf_synth.hub.publication import Published

_SHOWN_NAMES = 8
_LONGEST_WAIT = datetime.timedelta(days=7)  # for the rank whose shards take longest to make or to upload


def main(publication: Publication, argv: Sequence[str] | None = None) -> None:
    """Run the command line of a publication; exit code 2 with one line for a user's error."""
    run(publication, parser_of(publication).parse_args(argv))


def run(publication: Publication, arguments: argparse.Namespace) -> None:
    """Do what parsed arguments say."""
    with user_errors(Path(sys.argv[0]).name, "the same command goes on where it stood"):
        if (arguments.private or arguments.repo_id is not None) and str(arguments.repo_id).count("/") != 1:
            raise ValueError(f"repo_id: got {arguments.repo_id!r}, wanted user/name")
        choices = Choices(row_numbers(arguments.rows), arguments.seed, arguments.holdout, arguments.view)
        configs = chosen(publication, arguments.configs, choices)
        if choices.rows and all(config.task.size(split) for config in configs for split in choices.rows):
            raise ValueError(
                f"rows: got {' '.join(arguments.rows)} of finite sets, wanted none: they have all their rows"
            )
        if not arguments.list:
            more = {name: getattr(arguments, name) for name in ("private", "overwrite_card")}
            return publish(publication, configs, Path(arguments.output_dir), arguments.repo_id, **more)
        for config in configs:
            split = next(iter(config.splits))
            sample = config.table(split, 0, min(100, config.splits[split]))
            size = sum(config.splits.values()) * sample.nbytes / sample.num_rows
            rows = ", ".join(f"{split} {number:,}" for split, number in config.splits.items())
            print(f"{config.name}: {rows}; {len(plan([config]))} shards, about {size / 1e6:,.1f} MB in memory")


def parser_of(publication: Publication) -> argparse.ArgumentParser:
    """Return what all scripts that publish understand."""
    parser = argparse.ArgumentParser(
        description=f"{publication.about} Written as Parquet with a dataset card. Killed, the same command goes on."
    )
    parser.add_argument("--repo_id", metavar="USER/REPO", help="publish there; a tokenizer as a model of that name")
    parser.add_argument("--configs", nargs="+", metavar="CONFIG", help="TASK-PRESET ... (default: all; see --list)")
    parser.add_argument("--output_dir", default=f"published/{publication.name}", help="default: %(default)s")
    parser.add_argument("--rows", nargs="+", default=[], metavar="SPLIT=NUMBER", help="such as train=1000 test=100")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the rows (default: 0)")
    parser.add_argument(
        "--holdout",
        choices=("auto", "content", "none"),
        default="auto",
        help="content: no two splits share a row; auto: so where contents suffice and some texts are wrong (default)",
    )
    parser.add_argument("--view", default="", help="another view, such as text, as the config TASK-PRESET-VIEW")
    parser.add_argument("--private", action="store_true", help="make the repository a private one, where it is new")
    parser.add_argument("--overwrite_card", action="store_true", help="replace the text of a card that others wrote")
    parser.add_argument("--list", action="store_true", help="print what would be published, and how large it is")
    return parser


def row_numbers(texts: Sequence[str]) -> dict[str, int]:
    """["train=100", "test=10"] as a dict; ValueError for anything else."""
    rows = {}
    for text in texts:
        split, equals, number = text.partition("=")
        if equals and split not in SPLITS:
            raise ValueError(f"rows: got unknown split {split!r}; {nearest(split, SPLITS)}")
        if not number.isdecimal() or not 0 < int(number) <= 10**10 or split in rows:
            raise ValueError(
                f"rows: got {text!r}, wanted SPLIT=NUMBER, such as train=100000, with a number of at least 1 and at "
                "most 10,000,000,000, each split once"
            )
        rows[split] = int(number)
    return rows


def chosen(publication: Publication, names: Sequence[str] | None, choices: Choices) -> list["Published"]:
    """The configs of these names, or all, in the order of the publication; an unknown name is a ValueError."""
    offers = publication.offers()
    for name in names or ():
        if name in offers:
            continue
        # The configs of the task of this name, or that begin so, or the nearest; else some.
        known = [other for other in offers if "-preference" in name or not other.endswith("-preference")]
        starts = ([other for other in known if other.startswith(start)] for start in (f"{name}-", name) if name)
        close = next(filter(None, starts), None) or difflib.get_close_matches(name, known)
        shown = close or known
        more = f", ... ({len(shown) - _SHOWN_NAMES} more)" if len(shown) > _SHOWN_NAMES else ""
        listed = ", ".join(shown[:_SHOWN_NAMES]) + more
        hint = f"did you mean {listed}?" if close else f"known: {listed};"
        raise ValueError(f"configs: got unknown config {name!r}; {hint} --list names all")
    configs = (offer(choices) for name, offer in offers.items() if names is None or name in names)
    return list({config.name: config for config in configs}.values())  # one, where --view replaces a config's own


def publish(
    publication: Publication,
    configs: Sequence["Published"],
    folder: Path,
    repo_id: str | None,
    *,
    private: bool,
    overwrite_card: bool = False,
) -> None:
    """Make the shards of this process, upload them, and on the main process write and upload manifests and card."""
    repository = Repository(repo_id) if repo_id else None
    from accelerate import PartialState  # after what every process refuses alike: it brings torch
    from accelerate.utils import gather_object

    from hf_synth.hub.cards import card
    from hf_synth.hub.tokenizers import TOKENIZER, open_tokenizer, send, tokenizer_files

    state = PartialState(cpu=True, timeout=_LONGEST_WAIT)
    shards = plan(configs)
    refuse_others(shards, folder)
    refuse_card(text_in(folder, CARD), f"output_dir: {folder}", overwrite_card)
    url = repository.open(private, overwrite_card) if repository and state.is_main_process else None
    for text in (text_in(folder, TOKENIZER), repository.text(TOKENIZER) if repository and url else ""):
        tokenizer_files({}, text)  # one of others is refused before anything is made
    with directory_lock(str(folder)):  # made here: an error before leaves no folder
        state.wait_for_everyone()
        shards, measured = shards[state.process_index :: state.num_processes], {}
        quiet = None if state.is_main_process else True
        with tqdm(total=sum(shard.rows for shard in shards), unit=" rows", unit_scale=True, disable=quiet) as bar:
            for shard in shards:
                bar.set_description(shard.path)
                measured[shard.path] = ensure(shard, folder, bar.update)
        if repository:
            repository.send_shards(folder, {path: (shard.size, shard.sha256) for path, shard in measured.items()})
        own = tqdm(configs[state.process_index :: state.num_processes], "measuring", unit=" configs", disable=quiet)
        measures = [(config.name, config.facts()) for config in own]
        facts, made = dict(gather_object(measures)), dict(gather_object(list(measured.items())))
        if state.is_main_process:
            described = {"publication": publication.described()}
            manifests = {config.name: manifest(config, made, facts[config.name]) | described for config in configs}
            name = repository.id if repository else folder.as_posix()
            worded = any("words" in each for each in facts.values())
            model = open_tokenizer(name, private) if repository and worded else None
            tokenizers: dict[str, bytes] = {}

            def beside(known: Mapping[str, Any], text: Callable[[str], str]) -> dict[str, bytes]:
                tokenizers.update(tokenizer_files(known, text(TOKENIZER)))
                page = card(publication, name, known, text(CARD), model is not None or repository is None)
                return {CARD: page.encode(), **tokenizers}

            if repository:
                repository.finish(manifests, beside)
                if model:
                    send(tokenizers, model)
            elif missing := [path for path in sent_shards(manifests) if not (folder / path).exists()]:
                raise ValueError(
                    f"output_dir: {len(missing)} shards, such as {missing[0]}, are on other machines; wanted a folder "
                    "that all processes share, or --repo_id"
                )
            for config_name, content in manifests.items():
                write_text(folder / config_name / MANIFEST, manifest_text(content))
            known = {**read_manifests(folder), **manifests}
            for path, file in beside(known, functools.partial(text_in, folder)).items():
                write_text(folder / path, file.decode())
            print(url or folder / CARD)
        state.wait_for_everyone()
    state.destroy_process_group()
