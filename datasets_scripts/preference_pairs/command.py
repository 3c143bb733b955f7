"""The command line that makes preference pairs: read, deduplicate, weigh, write the card, upload."""

import argparse
import dataclasses
import hashlib
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hf_synth.errors import user_errors

if TYPE_CHECKING:
    from hf_synth.preferences import Source
    from preference_pairs.weighing import Weighing


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exit code 2 with one line for a user's error."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s")
    for package in ("hf_synth", __package__):  # the command's own modules log the stages
        logging.getLogger(package).setLevel(logging.INFO)
    with user_errors(Path(sys.argv[0]).name, "the same command starts over"):
        if (arguments.private or arguments.repo_id is not None) and str(arguments.repo_id).count("/") != 1:
            raise ValueError(f"repo_id: got {arguments.repo_id!r}, wanted user/name")
        from preference_pairs.weighing import Weighing

        names = (field.name for field in dataclasses.fields(Weighing))
        weighing = Weighing(**{name: getattr(arguments, name) for name in names})
        sources = chosen_sources(arguments.sources, arguments.splits, arguments.columns, arguments.max_rows)
        from hf_synth.io import directory_lock

        with directory_lock(arguments.output_dir):
            publish(
                sources,
                weighing,
                Path(arguments.output_dir),
                arguments.repo_id,
                private=arguments.private,
                jsonl=arguments.jsonl,
                overwrite_card=arguments.overwrite_card,
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Preference pairs of several sources in one format, without repeats, with the density of their "
        "prompts and sampling weights; written as Parquet with a dataset card, and with --repo_id published on the "
        "Hub. Killed, the same command starts over; finished, it only uploads.",
    )
    add = parser.add_argument
    add(
        "--sources",
        nargs="+",
        required=True,
        metavar="NAME[=PLACE]",
        help="hh, uf, se from the Hub, or any name with a place: a file, a folder or a Hub id",
    )
    add("--splits", nargs="+", default=[], metavar="NAME=SPLIT", help="another split of a source, such as hh=test")
    add(
        "--columns",
        nargs="+",
        default=[],
        metavar="NAME:OURS=YOURS,...",
        help="your columns, such as mine:prompt=question,chosen=good,rejected=bad",
    )
    add("--max_rows", type=int, help="read no more than the first so many rows of each source")
    add("--output_dir", default="published/preferences", help="default: %(default)s")
    add("--jsonl", action="store_true", help="write pairs and prompts as JSON lines, too")
    add("--near_duplicates", choices=("drop", "keep"), default="drop", help="prompts that repeat (default: drop)")
    add("--similarity", type=float, default=0.8, help="from which prompts are near duplicates (default: 0.8)")
    add("--embedder", default="hashing", help="hashing, or a sentence-transformers model by path or Hub id")
    add("--density_k", type=int, default=10, help="neighbours that measure density (default: 10)")
    add("--density_estimator", choices=("volume", "mean_distance"), default="volume", help="default: volume")
    add("--density_smoothing", type=int, default=0, help="rounds of averaging over neighbours (default: 0)")
    add("--sampling_strength", type=float, default=1.0, help="weights are density**-strength (default: 1)")
    add("--max_ratio", type=float, default=100.0, help="the largest weight over the smallest (default: 100)")
    add("--repo_id", metavar="USER/REPO", help="publish there; without it only --output_dir is written")
    add("--private", action="store_true", help="make the repository a private one, where it is new")
    add("--overwrite_card", action="store_true", help="replace the text of a card that others wrote")
    return parser


def chosen_sources(
    sources: Sequence[str], splits: Sequence[str] = (), columns: Sequence[str] = (), max_rows: int | None = None
) -> "list[Source]":
    """Parse ["hh", "mine=a.jsonl"] and the flags of each name into sources; ValueError for anything else."""
    from hf_synth.preferences import KNOWN_SOURCES, Source

    if max_rows is not None and max_rows < 1:
        raise ValueError(f"max_rows: got {max_rows}, wanted at least 1")
    paths: dict[str, str] = {}
    for text in sources:
        name, equals, path = text.partition("=")
        if not name or (equals and not path) or name in paths:
            raise ValueError(f"sources: got {text!r}, wanted different names, NAME or NAME=PLACE")
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"sources: got the name {name!r}, wanted letters, digits, '_', '-' and '.'")
        if not equals and name not in KNOWN_SOURCES:
            raise ValueError(f"sources: got unknown name {name!r}; known: {', '.join(KNOWN_SOURCES)}, or NAME=PLACE")
        paths[name] = path or name
    split = _by_name("splits", splits, "=", paths)
    named = {name: _columns(name, text) for name, text in _by_name("columns", columns, ":", paths).items()}
    defaults = {name: split for name, (_, split) in KNOWN_SOURCES.items()}
    return [
        Source(
            path,
            src=name,
            split=split.get(name),
            default_split=defaults.get(name, "train"),
            columns=named.get(name),
            max_rows=max_rows,
        )
        for name, path in paths.items()
    ]


def _by_name(flag: str, texts: Sequence[str], sign: str, names: Mapping[str, str]) -> dict[str, str]:
    """Return a flag's text for each name, NAME<sign>TEXT."""
    values = {}
    for entry in texts:
        name, separator, text = entry.partition(sign)
        if not separator or not text:
            raise ValueError(f"{flag}: got {entry!r}, wanted NAME{sign}...")
        if name not in names:
            raise ValueError(f"{flag}: got {name!r}, which is none of the sources {', '.join(names)}")
        values[name] = text
    return values


def _columns(name: str, text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(ours and theirs for ours, _, theirs in pairs):
        raise ValueError(f"columns: got {name}:{text}, wanted {name}:prompt=YOURS,chosen=YOURS,rejected=YOURS")
    return {ours: theirs for ours, _, theirs in pairs}


def publish(
    sources: "Sequence[Source]",
    weighing: "Weighing",
    folder: Path,
    repo_id: str | None,
    *,
    private: bool,
    jsonl: bool,
    overwrite_card: bool = False,
) -> None:
    """Make the folder, print the counts of each source, and upload where a repository is named."""
    from hf_synth.hub.repository import CARD, Repository, read_manifests, refuse_card, sent_shards, text_in
    from hf_synth.io import write_text
    from preference_pairs.building import COUNTS, FEATURES_OF, build
    from preference_pairs.card import card, counts_lines, weight_lines

    refuse_card(text_in(folder, CARD), f"output_dir: {folder}", overwrite_card)
    repository = Repository(repo_id) if repo_id else None
    url = repository.open(private, overwrite_card) if repository else None
    built = build(sources, folder, weighing, jsonl=jsonl)
    for line in (*counts_lines(built["sources"]), *weight_lines(built["weights"])):
        print(" | ".join(line))
    manifests = {name: manifest for name, manifest in read_manifests(folder).items() if name in FEATURES_OF}
    write_text(folder / CARD, card(folder.as_posix(), built, weighing, manifests, text_in(folder, CARD)))
    if repository:
        repository.send_shards(folder, {**sent_shards(manifests), COUNTS: _content(folder / COUNTS)})
        repository.finish(
            manifests, lambda known, text: {CARD: card(repository.id, built, weighing, known, text(CARD)).encode()}
        )
    print(url or folder / CARD)


def _content(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
