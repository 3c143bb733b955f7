"""The command line of the scripts that publish: choose, make, measure, write the card, upload."""

import argparse
import datetime
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.training.errors import user_errors

if TYPE_CHECKING:
    from hf_synth.hub.publication import Choices, Publication, Published
    from hf_synth.hub.publish import Repository
    from hf_synth.hub.shards import Measured

_LONGEST_WAIT = datetime.timedelta(days=7)  # for the rank whose shards take longest to make or to upload


def main(publication: "Publication", argv: Sequence[str] | None = None) -> None:
    """Run the command line of a publication; exit code 2 with one line for a user's error."""
    arguments = _parser(publication).parse_args(argv)
    with user_errors(Path(sys.argv[0]).name):
        from hf_synth.hub.publication import Choices

        if arguments.repo_id is not None and arguments.repo_id.count("/") != 1:
            raise ValueError(f"repo_id: got {arguments.repo_id!r}, wanted user/name")
        choices = Choices(row_numbers(arguments.rows), arguments.seed, arguments.holdout)
        configs = chosen(publication, arguments.configs, choices)
        if arguments.list:
            list_configs(configs)
        else:
            publish(publication, configs, Path(arguments.output_dir), arguments.repo_id, arguments.private)


def _parser(publication: "Publication") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=f"{publication.about} Written as Parquet with a dataset card, and with --repo_id published on the "
        "Hub. Killed, the same command goes on with the missing shards. Under `accelerate launch --multi_gpu "
        "--num_processes N` (which needs no GPU here; `--cpu` runs one process), on one machine or many, each process "
        "makes and sends its own shards, of the same bytes as one process would.",
    )
    parser.add_argument(
        "--repo_id", metavar="USER/REPO", help="publish there; without it only --output_dir is written"
    )
    parser.add_argument("--configs", nargs="+", metavar="CONFIG", help="TASK-PRESET ... (default: all; see --list)")
    parser.add_argument("--output_dir", default=f"published/{publication.name}", help="default: %(default)s")
    parser.add_argument(
        "--rows", nargs="+", default=[], metavar="SPLIT=NUMBER", help="such as train=100000 test=10000"
    )
    parser.add_argument("--seed", type=int, default=0, help="the seed of the rows (default: 0)")
    parser.add_argument(
        "--holdout",
        choices=("auto", "content", "none"),
        default="auto",
        help="content: no two splits share a row; auto: so where contents suffice and some texts are wrong (default)",
    )
    parser.add_argument("--private", action="store_true", help="make the repository a private one, where it is new")
    parser.add_argument("--list", action="store_true", help="print what would be published, and how large it is")
    return parser


def row_numbers(given: Sequence[str]) -> dict[str, int]:
    """["train=100", "test=10"] as a dict; ValueError for anything else."""
    from hf_synth.tasks.base import SPLITS, nearest

    rows = {}
    for text in given:
        split, _, number = text.partition("=")
        if split not in SPLITS:
            raise ValueError(f"rows: got unknown split {split!r}; {nearest(split, SPLITS)}")
        if not number.isdecimal() or int(number) == 0:
            raise ValueError(f"rows: got {text!r}, wanted SPLIT=NUMBER with a number of at least 1")
        rows[split] = int(number)
    return rows


def chosen(publication: "Publication", names: Sequence[str] | None, choices: "Choices") -> "list[Published]":
    """The configs of these names, or all, in the order of the publication; an unknown name is a ValueError."""
    from hf_synth.tasks.base import nearest

    offers = publication.offers()
    for name in names or ():
        if name not in offers:
            raise ValueError(f"configs: got unknown config {name!r}; {nearest(name, offers)}")
    return [offer(choices) for name, offer in offers.items() if names is None or name in names]


def list_configs(configs: "Sequence[Published]") -> None:
    """Print a line for each config: rows of each split, shards, and the size in memory by its first rows."""
    from hf_synth.hub.shards import plan

    for config in configs:
        split = next(iter(config.splits))
        sample = config.table(split, 0, min(100, config.splits[split]))
        size = sum(config.splits.values()) * sample.nbytes / sample.num_rows
        rows = ", ".join(f"{split} {number:,}" for split, number in config.splits.items())
        print(f"{config.name}: {rows}; {len(plan([config]))} shards, about {size / 1e6:,.1f} MB in memory")


def publish(
    publication: "Publication", configs: "Sequence[Published]", folder: Path, repo_id: str | None, private: bool
) -> None:
    """Make the shards of this process, upload them, and on the main process write and upload the card."""
    from accelerate import PartialState
    from tqdm import tqdm

    from hf_synth.hub.metadata import is_ours
    from hf_synth.hub.publish import CARD, Repository
    from hf_synth.hub.shards import ensure, plan, refuse_others

    state = PartialState(cpu=True, timeout=_LONGEST_WAIT)
    repository = Repository(repo_id) if repo_id else None
    shards = plan(configs)
    refuse_others(shards, folder)
    if (folder / CARD).exists() and not is_ours((folder / CARD).read_text("utf-8")):
        raise ValueError(f"output_dir: {folder} has a {CARD} that was not written by hf_synth; give another folder")
    if repository and state.is_main_process:
        repository.open(private)
    state.wait_for_everyone()
    own = shards[state.process_index :: state.num_processes]
    quiet = True if not state.is_main_process else None
    measured = {shard.path: ensure(shard, folder) for shard in tqdm(own, "shards", unit="", disable=quiet)}
    if repository:
        repository.send_shards(folder, {path: (shard.size, shard.sha256) for path, shard in measured.items()})
    manifests = _gathered(state, configs, measured)
    if state.is_main_process:
        _finish(publication, folder, repository, manifests)
    state.wait_for_everyone()
    state.destroy_process_group()


def _gathered(
    state: Any, configs: "Sequence[Published]", measured: "Mapping[str, Measured]"
) -> dict[str, dict[str, Any]]:
    """On the main process the manifest of each config, from what every process measured; elsewhere nothing."""
    from accelerate.utils import gather_object

    from hf_synth.hub.manifests import manifest

    own = configs[state.process_index :: state.num_processes]
    facts = dict(gather_object([(config.name, config.facts()) for config in own]))
    manifests = {}
    for config in configs:
        mine = [(path, shard) for path, shard in measured.items() if path.startswith(f"{config.name}/")]
        shards = dict(gather_object(mine))
        if state.is_main_process:
            manifests[config.name] = manifest(config, shards, facts[config.name])
    return manifests


def _finish(
    publication: "Publication", folder: Path, repository: "Repository | None", manifests: dict[str, dict[str, Any]]
) -> None:
    """Write manifests and card into the folder and onto the Hub, once every shard is where it should be."""
    from hf_synth.hub.cards import card
    from hf_synth.hub.manifests import MANIFEST, read_all, sent_shards, to_text, write_text
    from hf_synth.hub.publish import CARD

    name = repository.id if repository else "user/repo"
    if repository:
        repository.finish(manifests, functools.partial(card, publication, name))
    elif missing := [path for path in sent_shards(manifests) if not (folder / path).exists()]:
        raise ValueError(
            f"output_dir: {len(missing)} shards, such as {missing[0]}, are on other machines; wanted a folder "
            "that all processes share, or --repo_id"
        )
    for config, manifest in manifests.items():
        write_text(folder / config / MANIFEST, to_text(manifest))
    write_text(folder / CARD, card(publication, name, {**read_all(folder), **manifests}))
    print(f"https://huggingface.co/datasets/{name}" if repository else folder / CARD)
