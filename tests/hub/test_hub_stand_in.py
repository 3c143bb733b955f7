"""Real clients against the stand-in: what the tests of publishing rely on."""

import io
import json
import os
import signal
import socket
from http.client import HTTPConnection, HTTPMessage

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.processes

CARD = """\
---
configs:
- config_name: sort-64
  data_files:
  - split: train
    path: sort-64/train-*.parquet
  - split: test
    path: sort-64/test-*.parquet
- config_name: dyck
  data_files:
  - split: train
    path: dyck/train-*.parquet
---
# Two configurations
"""


def parquet(first: int, rows: int) -> bytes:
    """A Parquet file of `rows` numbers from `first` on, in row groups of 50."""
    table = pa.table({"number": list(range(first, first + rows)), "text": [str(n) for n in range(rows)]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=50)
    return buffer.getvalue()


def two_configs(start: int = 0) -> dict[str, bytes | str]:
    """A dataset of two configurations, one of them in two shards."""
    return {
        "README.md": CARD,
        "sort-64/train-00000-of-00002.parquet": parquet(start, 100),
        "sort-64/train-00001-of-00002.parquet": parquet(start + 100, 100),
        "sort-64/test-00000-of-00001.parquet": parquet(start + 1000, 10),
        "dyck/train-00000-of-00001.parquet": parquet(start + 2000, 20),
    }


def test_files_are_created_uploaded_downloaded_and_deleted(hub, client):
    done = client(
        """
        import json
        from pathlib import Path
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
        from huggingface_hub import hf_hub_download, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi()
        assert api.whoami()["name"] == "user"
        url = api.create_repo("user/data", repo_type="dataset")
        assert (url.repo_id, url.repo_type) == ("user/data", "dataset")
        assert api.create_repo("data", repo_type="dataset", exist_ok=True).repo_id == "user/data"
        for repo_id, status in (("user/data", 409), ("somebody/data", 403)):
            try:
                api.create_repo(repo_id, repo_type="dataset")
            except HfHubHTTPError as error:
                assert error.response.status_code == status, error
            else:
                raise AssertionError(repo_id)

        folder = Path("upload")
        (folder / "sub").mkdir(parents=True)
        (folder / "notes.md").write_text("words")
        (folder / "sub" / "rows.parquet").write_bytes(b"PAR1" * 1000)
        (folder / "sub" / "same.parquet").write_bytes(b"PAR1" * 1000)
        (folder / "raw").write_bytes(bytes(range(256)))
        (folder / "empty.txt").write_text("")
        first = api.upload_folder(repo_id="user/data", repo_type="dataset", folder_path=folder)
        again = api.upload_folder(repo_id="user/data", repo_type="dataset", folder_path=folder)
        assert again.oid == first.oid, "nothing has changed: no commit"

        second = api.create_commit(
            "user/data",
            [
                CommitOperationAdd("notes.md", b"other words"),
                CommitOperationAdd("sub/more.parquet", b"PAR1" * 2000),
                CommitOperationDelete("raw"),
            ],
            commit_message="second",
            repo_type="dataset",
            parent_commit=first.oid,
        )
        third = api.delete_files("user/data", ["sub/*"], repo_type="dataset", commit_message="third")
        try:
            api.delete_file("never.txt", "user/data", repo_type="dataset")
        except HfHubHTTPError as error:
            assert error.response.status_code == 404, error
        else:
            raise AssertionError("a file that is not there was deleted")
        try:
            api.create_commit("user/data", [CommitOperationAdd("late", b"")], commit_message="late",
                              repo_type="dataset", parent_commit=first.oid)
        except HfHubHTTPError as error:
            assert error.response.status_code == 412, error
        else:
            raise AssertionError("a commit upon a commit that is no longer the last")

        api.create_tag("user/data", tag="v1", revision=first.oid, repo_type="dataset")
        api.create_branch("user/data", branch="trial/one", revision="v1", repo_type="dataset")
        api.upload_file(path_or_fileobj=b"on the branch", path_in_repo="notes.md", repo_id="user/data",
                        repo_type="dataset", revision="trial/one")
        refs = api.list_repo_refs("user/data", repo_type="dataset")
        assert {branch.name for branch in refs.branches} == {"main", "trial/one"}
        assert [tag.target_commit for tag in refs.tags] == [first.oid]
        titles = [commit.title for commit in api.list_repo_commits("user/data", repo_type="dataset")]
        assert titles == ["third", "second", "Upload folder using huggingface_hub", "initial commit"], titles

        assert sorted(api.list_repo_files("user/data", repo_type="dataset")) == [".gitattributes", "empty.txt",
                                                                                 "notes.md"]
        infos = api.get_paths_info("user/data", ["notes.md", "sub/rows.parquet", "sub", "no"], repo_type="dataset",
                                   revision="v1")
        assert [type(info).__name__ for info in infos] == ["RepoFile", "RepoFile", "RepoFolder"]
        assert [info.lfs is not None for info in infos[:2]] == [False, True]
        tree = api.list_repo_tree("user/data", repo_type="dataset", revision="v1", path_in_repo="sub")
        assert [entry.path for entry in tree] == ["sub/rows.parquet", "sub/same.parquet"]
        assert api.dataset_info("user/data", files_metadata=True).sha == third.oid

        path = hf_hub_download("user/data", "notes.md", repo_type="dataset", revision="trial/one")
        assert Path(path).read_text() == "on the branch"
        old = Path(snapshot_download("user/data", repo_type="dataset", revision="v1"))
        assert (old / "sub" / "rows.parquet").read_bytes() == b"PAR1" * 1000
        assert old.name == first.oid

        api.delete_folder("sub", "user/data", repo_type="dataset", revision="trial/one")
        assert "raw" in api.list_repo_files("user/data", repo_type="dataset", revision="trial/one")
        assert "sub" not in [entry.path for entry in api.list_repo_tree("user/data", repo_type="dataset",
                                                                        revision="trial/one")]
        api.delete_tag("user/data", tag="v1", repo_type="dataset")
        assert not api.revision_exists("user/data", "v1", repo_type="dataset")
        api.create_repo("user/short")
        api.delete_repo("user/short")
        assert not api.repo_exists("user/short")
        print(json.dumps([first.oid, second.oid, third.oid]))
        """
    )
    first, second, third = json.loads(done.stdout)
    assert [commit.id for commit in hub.commits("user/data")][:3] == [third, second, first]
    assert hub.files("user/data", first)["sub/rows.parquet"] == b"PAR1" * 1000
    assert hub.files("user/data", second)["notes.md"] == b"other words"
    assert "raw" not in hub.files("user/data", second)
    assert set(hub.files("user/data")) == {".gitattributes", "notes.md", "empty.txt"}
    assert {path for path, blob in hub.commits("user/data", first)[0].files.items() if blob.lfs} == {
        "sub/rows.parquet",
        "sub/same.parquet",
        "raw",
    }
    assert len({request.path for request in hub.seen("PUT", "/lfs/", 200)}) == 3


def test_datasets_load_by_configuration_by_revision_and_as_a_stream(hub, client):
    first = hub.put("user/repo", two_configs())
    last = hub.put("user/repo", two_configs(start=5))
    # Two columns of 10 MB one after the other; clients read 5 MB ahead.
    numbers, others = np.random.default_rng(0).integers(0, 2**63, (2, 1_250_000))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"number": numbers, "other": others}), buffer, len(numbers), use_dictionary=False)
    hub.put("user/wide", {"train.parquet": buffer.getvalue()})
    client(
        f"""
        import datasets

        assert datasets.get_dataset_config_names("user/repo") == ["sort-64", "dyck"]
        sort = datasets.load_dataset("user/repo", "sort-64")
        assert {{name: len(split) for name, split in sort.items()}} == {{"train": 200, "test": 10}}
        assert sort["train"]["number"][:] == list(range(5, 205))
        assert {last!r} in sort["train"].cache_files[0]["filename"]
        assert datasets.load_dataset("user/repo", "dyck", split="train")["number"][0] == 2005
        old = datasets.load_dataset("user/repo", "sort-64", split="train", revision={first!r})
        assert old["number"][0] == 0
        stream = datasets.load_dataset("user/repo", "sort-64", split="train", streaming=True)
        assert [row["number"] for row in stream] == list(range(5, 205))
        wide = datasets.load_dataset("user/wide", split="train", streaming=True, columns=["number"])
        assert [row["number"] for row in wide.take(3)] == {numbers[:3].tolist()}
        """
    )
    parts = hub.seen("GET", "user/wide/resolve")
    assert {part.status for part in parts} == {206}
    assert all(part.range.startswith("bytes=") for part in parts)
    assert sum(part.sent for part in parts) < 0.85 * len(buffer.getvalue())


def test_datasets_are_pushed(hub, client):
    client(
        """
        import datasets

        rows = datasets.Dataset.from_dict({"prompt": ["a", "b", "c"], "number": [1, 2, 3]})
        pair = datasets.DatasetDict(train=rows, test=rows.select([0]))
        pair.push_to_hub("user/both", "small", private=True)
        rows.push_to_hub("user/both", "other", split="train", num_shards=2)
        rows.push_to_hub("user/both", "other", split="train", revision="trial")
        back = datasets.load_dataset("user/both", "small")
        assert back["train"][:] == rows[:] and len(back["test"]) == 1
        assert datasets.load_dataset("user/both", "other", split="train")[:] == rows[:]
        """
    )
    repository = hub.repository("user/both")
    assert repository.private
    shards = {path for path in hub.files("user/both") if path.endswith(".parquet")}
    assert shards == {
        "small/train-00000-of-00001.parquet",
        "small/test-00000-of-00001.parquet",
        "other/train-00000-of-00002.parquet",
        "other/train-00001-of-00002.parquet",
    }
    assert "other/train-00000-of-00001.parquet" in hub.files("user/both", "trial")
    assert all(blob.lfs == (path in shards) for path, blob in repository.at("main").files.items())
    hub.put("user/both", {"config.json": "{}"}, repo_type="model")
    with pytest.raises(ValueError, match="user/both: 2 repositories, wanted 1"):
        hub.files("user/both")


def test_models_are_pushed_by_hand_and_by_a_trainer(hub, client):
    client(
        """
        import torch
        from datasets import Dataset
        from tokenizers import Tokenizer, models
        from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel
        from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments

        model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=1))
        words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
        model.push_to_hub("user/model")
        PreTrainedTokenizerFast(tokenizer_object=words).push_to_hub("user/model")
        loaded = AutoModelForCausalLM.from_pretrained("user/model")
        assert torch.equal(loaded.transformer.wte.weight, model.transformer.wte.weight)
        assert AutoTokenizer.from_pretrained("user/model").get_vocab() == {"a": 0, "b": 1}

        rows = Dataset.from_dict({"input_ids": [[1, 2, 3]] * 8, "labels": [[1, 2, 3]] * 8})
        arguments = TrainingArguments(
            "out", push_to_hub=True, hub_model_id="user/trained", hub_strategy="every_save", max_steps=4, save_steps=2,
            report_to=[], use_cpu=True, disable_tqdm=True,
        )
        trainer = Trainer(model, arguments, train_dataset=rows)
        trainer.train()
        trainer.push_to_hub(commit_message="the end")
        trained = AutoModelForCausalLM.from_pretrained("user/trained")
        assert torch.equal(trained.transformer.wte.weight, model.transformer.wte.weight)
        assert not torch.equal(trained.transformer.wte.weight, loaded.transformer.wte.weight)
        """
    )
    assert {"config.json", "model.safetensors", "tokenizer.json"} < set(hub.files("user/model"))
    assert hub.repository("user/model").at("main").files["model.safetensors"].lfs
    assert {"README.md", "config.json", "model.safetensors", "training_args.bin"} < set(hub.files("user/trained"))
    assert hub.commits("user/trained")[0].title == "the end"


def test_parts_and_heads_of_a_file_are_answered_as_by_a_server_of_files(hub):
    commit = hub.put("user/repo", {"a b/ten.txt": "0123456789"})

    def ask(method: str, part: str = "", file: str = "ten.txt") -> tuple[int, bytes, HTTPMessage]:
        connection = HTTPConnection(hub.url.removeprefix("http://"))
        wanted = {"Range": part} if part else {}
        connection.request(method, f"/datasets/user/repo/resolve/main/a%20b/{file}", headers=wanted)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers

    status, content, headers = ask("HEAD")
    assert (status, content, headers["Content-Length"], headers["X-Repo-Commit"]) == (200, b"", "10", commit)
    etag = headers["ETag"]
    assert etag == '"ad471007bd7f5983d273b9584e5629230150fd54"', "git hash-object names it so"
    assert ask("GET")[:2] == (200, b"0123456789")
    for part, wanted, where in (
        ("2-4", b"234", "2-4"),
        ("7-", b"789", "7-9"),
        ("-3", b"789", "7-9"),
        ("8-99", b"89", "8-9"),
    ):
        status, content, headers = ask("GET", f"bytes={part}")
        assert (status, content, headers["Content-Range"]) == (206, wanted, f"bytes {where}/10")
        assert headers["ETag"] == etag
    assert ask("GET", "bytes=10-")[0] == 416
    status, _, headers = ask("HEAD", file="none")
    assert (status, headers["X-Error-Code"], headers["X-Repo-Commit"]) == (404, "EntryNotFound", commit)


def test_what_is_missing_is_named_as_on_the_hub(hub, client):
    hub.put("user/repo", two_configs())
    hub.put("user/secret", {"README.md": "hidden"})
    hub.repository("user/secret").private = True
    client(
        """
        import datasets
        from huggingface_hub import HfApi, HfFileSystem, hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
        )

        def refused(error, call, *arguments, **options):
            try:
                call(*arguments, **options)
            except error as raised:
                assert error is EntryNotFoundError or type(raised) is error, type(raised)
                return raised
            raise AssertionError((call, arguments))

        api = HfApi()
        for call in (api.dataset_info, api.list_repo_files, api.list_repo_refs):
            options = {} if call == api.dataset_info else {"repo_type": "dataset"}
            refused(RepositoryNotFoundError, call, "user/none", **options)
        refused(RepositoryNotFoundError, api.model_info, "user/repo")
        refused(RepositoryNotFoundError, hf_hub_download, "user/none", "a", repo_type="dataset")
        refused(RepositoryNotFoundError, api.upload_file, path_or_fileobj=b"", path_in_repo="a", repo_id="user/none")
        refused(RevisionNotFoundError, api.dataset_info, "user/repo", revision="none")
        refused(RevisionNotFoundError, hf_hub_download, "user/repo", "README.md", repo_type="dataset", revision="none")
        refused(EntryNotFoundError, hf_hub_download, "user/repo", "none.md", repo_type="dataset")
        refused(EntryNotFoundError, lambda: list(api.list_repo_tree("user/repo", "none", repo_type="dataset")))
        assert api.repo_exists("user/repo", repo_type="dataset") and not api.repo_exists("user/none")
        assert api.file_exists("user/repo", "README.md", repo_type="dataset")
        assert not api.file_exists("user/repo", "none.md", repo_type="dataset")
        assert not api.revision_exists("user/repo", "none", repo_type="dataset")
        refused(datasets.exceptions.DatasetNotFoundError, datasets.load_dataset, "user/none")
        refused(ValueError, datasets.load_dataset, "user/repo", "none")
        assert HfFileSystem().exists("datasets/user/repo/dyck") and not HfFileSystem().exists("datasets/user/repo/no")

        assert hf_hub_download("user/secret", "README.md", repo_type="dataset")
        nobody, wrong = HfApi(token=False), HfApi(token="hf_wrong")
        refused(RepositoryNotFoundError, nobody.dataset_info, "user/secret")
        assert nobody.dataset_info("user/repo").id == "user/repo"
        assert refused(HfHubHTTPError, nobody.create_repo, "user/new").response.status_code == 401
        assert refused(HfHubHTTPError, wrong.whoami).response.status_code == 401
        """
    )


def test_uploads_fail_when_they_are_told_to(hub, client):
    upload = """
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi()
        api.create_repo("user/repo", repo_type="dataset", exist_ok=True)
        files = [CommitOperationAdd(f"{name}.parquet", name.encode() * 999) for name in "abcd"]
        api.create_commit("user/repo", files, commit_message="all", repo_type="dataset", num_threads=1)
        """
    hub.fail_next("PUT", status=500)
    client(upload)
    assert [request.status for request in hub.seen("PUT")] == [500, 200, 200, 200, 200], "clients try again"

    hub.api.repositories.clear()
    hub.api.objects.clear()
    hub.requests.clear()
    hub.fail_next("PUT", status=403, after=2)
    refused = client(upload, check=False)
    assert refused.returncode == 1
    assert "403" in refused.stderr
    assert not hub.seen("POST", "/commit/")

    hub.kill_next("POST", path="/commit/")
    assert client(upload, check=False).returncode == -signal.SIGKILL
    assert set(hub.files("user/repo")) == {".gitattributes"}

    hub.fail_next("POST", path="/commit/", status=0, done=True)
    assert "disconnected" in client(upload, check=False).stderr
    assert set(hub.files("user/repo")) == {".gitattributes", "a.parquet", "b.parquet", "c.parquet", "d.parquet"}
    client(upload)
    assert [commit.title for commit in hub.commits("user/repo")] == ["all", "initial commit"]
    assert len(hub.seen("PUT", status=200)) == 4, "objects that have arrived are not sent again"


def test_clients_are_alone(hub, client):
    seen = client("import os, sys; print(os.listdir('.'), sys.argv, os.environ['HF_HOME'])").stdout
    assert seen.startswith("['client.py'] ['client.py']")
    nobody = "from huggingface_hub import get_token; print(get_token())"
    assert client(nobody, HF_TOKEN="").stdout == "None\n"
    blocked = client("import hf_synth", check=False)
    assert "No module named 'hf_synth' (blocked in this client)" in blocked.stderr
    assert client("import hf_synth; print('there')", blocked=()).stdout == "there\n"
    cached = """
        from pathlib import Path
        from datasets.config import HF_DATASETS_CACHE
        from huggingface_hub.constants import HF_HUB_CACHE

        for cache in map(Path, (HF_DATASETS_CACHE, HF_HUB_CACHE)):
            cache.mkdir(parents=True, exist_ok=True)
            print(*cache.iterdir())
            (cache / "mine").touch()
        """
    assert client(cached).stdout == "\n\n"
    assert client(cached).stdout == "\n\n", "no client sees what another one has cached"


def test_a_fork_that_outlives_a_hub_leaves_its_port_to_the_next(hub):
    with type(hub)() as first:
        port = first.server.server_port
        reader, writer = os.pipe()
        fork = os.fork()
        if fork == 0:
            os.write(writer, b"1")  # what a fork does first is done
            signal.pause()
        os.read(reader, 1)
    try:
        with type(hub)(port) as again:
            assert again.server.server_port == port
    finally:
        os.kill(fork, signal.SIGKILL)
        os.waitpid(fork, 0)


def test_a_port_that_another_process_took_is_left_to_it(machine):
    with machine.hub() as first:
        url = first.url
    with socket.create_server(("127.0.0.1", machine.port)), machine.hub() as second:
        assert second.url != url
