"""What leaves the machine when a run ends: the model, its card, report and numbers, and nothing else.

Trainer's own uploads send whole folders: users' prompts, optimizer states, pickles. No recipe uses them; all of them
take PublishArguments, which keep what the user said of the Hub, and end in `publish_run`.
"""

import dataclasses
import fnmatch
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from hf_synth.errors import option
from hf_synth.evaluation.held_out import SAMPLES
from hf_synth.hub.model_cards import ADAPTER, adapted_model, model_card, without_paths
from hf_synth.hub.repository import CARD, Operation, Repository
from hf_synth.io import is_main_process, load_json
from hf_synth.reports.read import Run, read_run
from hf_synth.reports.report import report_text
from hf_synth.training.run_directory import METRICS, WEIGHTS_TABLE

WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "adapter_model.safetensors")
FILES = (  # of the folder of a run; what else lies there stays there
    *WEIGHTS, "model.safetensors.index.json", "config.json", "generation_config.json", "modeling_*.py",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", METRICS, "dynamics.csv",
)  # fmt: skip
REPORT = "report.md"
TEXTS = (WEIGHTS_TABLE, SAMPLES)  # the user's prompts, and answers to them
_UPLOADED = re.compile(r"<!-- hf_synth: uploaded (.*?) -->")
_FIGURES = re.compile(r"\(figures/([\w.-]+\.png)\)")


@dataclasses.dataclass
class PublishArguments:
    """What goes to the Hub when a run ends; push_to_hub, hub_model_id and their like are Trainer's own names."""

    push_samples: bool = option(
        False, "Upload prompts.parquet and samples.parquet too, and a report that quotes from them."
    )
    overwrite_card: bool = option(False, "Replace a model card that others wrote.")
    push_arms: bool = option(False, "Upload every arm of the run, not only the first; the others to NAME-ARM.")
    # Taken from TrainingArguments by `check_beside`: kept in memory, and in no file.
    wanted: bool = dataclasses.field(default=False, init=False)
    repo_id: str | None = dataclasses.field(default=None, init=False)
    token: str | None = dataclasses.field(default=None, init=False, repr=False)
    private: bool | None = dataclasses.field(default=None, init=False)
    revision: str | None = dataclasses.field(default=None, init=False)

    def check_beside(self, others: Sequence[Any]) -> None:
        """Take the upload and the token out of the TrainingArguments, which Trainer pickles into every checkpoint.

        Raises ValueError for an upload that is not the one at the end.
        """
        (args,) = (part for part in others if isinstance(part, TrainingArguments))
        if args.hub_strategy not in (HubStrategy.EVERY_SAVE, HubStrategy.END):
            raise ValueError(
                f"hub_strategy: got {HubStrategy(args.hub_strategy).value!r}, wanted 'end' or the default: a run is "
                "uploaded once, at its end, and its checkpoints stay in output_dir"
            )
        if args.hub_always_push:
            raise ValueError("hub_always_push: got true, wanted false: a run is uploaded once, at its end")
        # TRL's own upload, of every prompt while it trains.
        if repo := getattr(args, "log_completions_hub_repo", None):
            raise ValueError(
                f"log_completions_hub_repo: got {repo!r}, wanted none: a run is uploaded once, at its end; "
                "--push_samples true uploads its prompts and samples"
            )
        asked = [name for name in ("push_samples", "push_arms", "overwrite_card") if getattr(self, name)]
        if asked and not args.push_to_hub:
            name = asked[0]
            raise ValueError(f"{name}: got true without push_to_hub; add --push_to_hub true, or leave {name} out")
        self.wanted, self.repo_id, self.token = args.push_to_hub, args.hub_model_id, args.hub_token
        self.private, self.revision = args.hub_private_repo, args.hub_revision
        args.push_to_hub, args.hub_token = False, None


def open_repository(folder: Path, publishing: PublishArguments, repo_id: str | None = None) -> None:
    """Make the repository of a run, if it is to be uploaded; `repo_id`: another name than the arguments have.

    Called before training, since whoever may not write there should not learn it at its end. Raises ValueError then.
    """
    if publishing.wanted and is_main_process():
        name = repo_id or publishing.repo_id or folder.resolve().name
        repository = Repository(name, "model", token=publishing.token, revision=publishing.revision)
        repository.open(publishing.private, publishing.overwrite_card)


def publish_run(folder: Path, publishing: PublishArguments, repo_id: str | None = None) -> None:
    """Upload a finished run, if that is wanted: each arm in one commit, the first under the run's own name.

    Raises ValueError where the folder holds no finished run, and for whatever the Hub refuses.
    """
    if not (publishing.wanted and is_main_process()):
        return
    run = read_run(folder)
    name = repo_id or publishing.repo_id or folder.resolve().name
    url = _upload(run, name, publishing)
    for arm in run.others if publishing.push_arms else []:
        report = f"{url}/blob/{publishing.revision or 'main'}/{REPORT}"
        _upload(arm, f"{name}-{arm.folder.name}", publishing, report)


def _upload(run: Run, name: str, publishing: PublishArguments, report: str = "") -> str:
    """Upload a run, and delete what an earlier upload brought that the run does not have; what else is there stays."""
    repository = Repository(name, "model", token=publishing.token, revision=publishing.revision)
    url = repository.open(publishing.private, publishing.overwrite_card)
    files = files_of(run, repository.id, samples=publishing.push_samples, report=report)
    left: list[str] = []

    def operations() -> list[Operation]:
        there = repository.files()
        listed = _UPLOADED.search(repository.text(CARD, there))
        before = listed[1].split() if listed else []
        others = [path for path in there if path not in {*files, *before}]
        left[:] = [path for path in others if any(fnmatch.fnmatch(path, pattern) for pattern in FILES)]
        added = [CommitOperationAdd(path, content) for path, content in files.items()]
        return [*added, *(CommitOperationDelete(path) for path in before if path in there and path not in files)]

    print(f"On the Hub: {repository.commit(operations, lambda: 'Model, card and report', alone=True)}")
    if left:
        print(f"Left there, not uploaded by an earlier run: {', '.join(left)}")
    return url


def files_of(run: Run, repo_id: str, *, samples: bool = False, report: str = "") -> dict[str, Path | bytes]:
    """All that is uploaded of a run, by its path in the repository: files as they are, and texts for readers.

    `samples`: prompts and answers, and their quotes in the report, as well. `report`: the address of the report of
    all arms, for an arm that has none. Raises ValueError without weights.
    """
    there = [path for path in sorted(run.folder.iterdir()) if path.is_file()]
    if not any(fnmatch.fnmatch(path.name, pattern) for path in there for pattern in WEIGHTS):
        raise ValueError(f"got {str(run.folder)!r}, which holds no weights; wanted {' or '.join(WEIGHTS)}")
    wanted = (*FILES, *TEXTS) if samples else FILES
    files: dict[str, Path | bytes] = {
        path.name: path for path in there if any(fnmatch.fnmatch(path.name, pattern) for pattern in wanted)
    }
    if (run.folder / ADAPTER).exists():
        adapter = load_json(run.folder / ADAPTER) or {}
        adapter["base_model_name_or_path"], _ = adapted_model(run.folder)
        files[ADAPTER] = (json.dumps(adapter, indent=2) + "\n").encode()
    texts = {}
    if not report:
        texts[REPORT] = without_paths(report_text(run.folder, published=True, quote_texts=samples), run.config)
    texts[CARD] = model_card(run, repo_id, report or REPORT)
    for name in sorted(set(_FIGURES.findall("".join(texts.values())))):
        files[f"figures/{name}"] = run.folder / "figures" / name
    paths = sorted({*files, *texts} - {CARD})
    texts[CARD] += f"\n<!-- hf_synth: uploaded {' '.join(paths)} -->\n"  # read when the next run is uploaded
    return files | {name: text.encode() for name, text in texts.items()}
