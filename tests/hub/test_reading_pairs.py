"""Pairs and prompts of a dataset on the Hub, as real clients read them."""

CLIENT = """
import json
import datasets
from huggingface_hub import HfApi
from hf_synth.preferences import Source, read_preferences

rows = [{"prompt": f"Q{n}", "chosen": "a", "rejected": "b"} for n in range(4)]
lines = "".join(json.dumps(row) + "\\n" for row in rows) + "broken\\n"
api = HfApi()
api.create_repo("user/pairs", repo_type="dataset")
card = "---\\nconfigs:\\n"
for name in ("one", "two"):
    card += f"- config_name: {name}\\n  data_files:\\n  - split: train\\n    path: {name}/train.jsonl\\n"
for path, text in (("one/train.jsonl", lines), ("two/train.jsonl", lines * 2), ("README.md", card + "---\\n")):
    api.upload_file(path_or_fileobj=text.encode(), path_in_repo=path, repo_id="user/pairs", repo_type="dataset")
for streaming in (False, True):
    found = list(Source("user/pairs:two").open(streaming=streaming).rows())
    print(len(found), [row.reason for row in found if row.reason])
data = read_preferences("user/pairs:one@main")
print(data.src, len(data.dataset), data.dropped)
try:
    read_preferences("user/pairs")
except ValueError as error:
    print(error)
"""


def test_configs_streams_and_broken_rows(client):
    first, second, third, last = client(CLIENT, blocked=()).stdout.splitlines()
    assert first == second == "10 ['not JSON', 'not JSON']"
    assert third == "user/pairs/one 4 {'not JSON': 1}"
    assert "Config name is missing" in last
    assert last.endswith("Write user/pairs:CONFIG.")
