# Data, training and evaluation in a container: docker compose run train recipes/grpo.py --max_steps 20
# TORCH_INDEX: an index of CPU builds makes the image some gigabytes smaller; without one torch brings its CUDA libraries.
FROM python:3.11.13-slim-bookworm

ARG TORCH_INDEX=""
WORKDIR /app
ENV HF_HOME=/cache/huggingface PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1

COPY constraints.txt ./
RUN pip install -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY pyproject.toml README.md LICENSE ./
COPY hf_synth ./hf_synth
COPY recipes ./recipes
COPY datasets_scripts ./datasets_scripts
COPY .agents ./.agents
COPY spaces ./spaces
RUN pip install -c constraints.txt ".[metrics]"
RUN pip install -c constraints.txt wandb tensorboardX

ENTRYPOINT ["accelerate", "launch"]
CMD ["recipes/grpo.py"]
