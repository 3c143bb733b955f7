"""RoPE-GPT: the pre-LN decoder of "Emergent analogical reasoning" (arXiv 2602.01992), config and model in one file.

    x = embed(tokens)                            no absolute positions
    x = x + attention(norm(x))                   RoPE on queries and keys, base 100, biases everywhere
    x = x + mlp(norm(x))                         GELU, 4 times as wide
    logits = head(norm(x))                       untied, no bias; every matrix starts from N(0, 0.02)

Departures from the paper:
- Padding has a token of its own (the paper's pad id is an entity), is never attended to, and positions count real
  tokens only: a row gives the same logits with left padding, right padding and none.
- The loss is on whatever `labels` says, the last token being a special case.
- Dropout (off by default) on embeddings, attention weights and both residual branches.

The file imports torch and the Hugging Face libraries only: it travels with a checkpoint as its remote code.

Shapes: B rows, Q new tokens, K cached and new tokens, D hidden size, H heads, E = D / H size of a head,
F intermediate size, V vocabulary, N tokens that carry loss, C classes.
"""

import math
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    SequenceClassifierOutputWithPast,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, slice_logits_to_keep
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

# What other architectures call it: kept silently, such a key would change nothing.
_OTHERS_NAMES = {
    **dict.fromkeys(("n_embd", "d_model", "n_dim", "dim"), "'hidden_size'"),
    **dict.fromkeys(("n_layer", "n_layers", "num_layers"), "'num_hidden_layers'"),
    **dict.fromkeys(("n_head", "n_heads", "num_heads"), "'num_attention_heads'"),
    **dict.fromkeys(("n_inner", "d_ff", "ffn_dim"), "'intermediate_size'"),
    **dict.fromkeys(("n_positions", "n_ctx"), "'max_position_embeddings'"),
    **dict.fromkeys(("hidden_dropout", "attention_dropout", "resid_pdrop", "attn_pdrop", "embd_pdrop"), "'dropout'"),
}


@strict
class RopeGPTConfig(PreTrainedConfig):
    """Shape and ids of a RoPE-GPT; the defaults are the paper's reference run.

    `intermediate_size=None` means `4 * hidden_size`. `rope_parameters` is the usual dict of transformers, with
    `rope_theta` 100 where it names none. `dropout` holds for embeddings, attention weights and residual branches.

    Errors: ValueError for values that fit no model, and for a key one slip away from a field's name
    (transformers would keep it as an attribute that nobody reads; so does a config that is loaded).

    >>> RopeGPTConfig(hidden_size=64, num_attention_heads=4).intermediate_size
    256
    """

    model_type = "rope_gpt"
    keys_to_ignore_at_inference = ["past_key_values"]
    default_theta = 100.0
    base_model_tp_plan = {
        "layers.*.self_attn.q_proj": "colwise",
        "layers.*.self_attn.k_proj": "colwise",
        "layers.*.self_attn.v_proj": "colwise",
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }

    vocab_size: int = 1024
    hidden_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 1
    intermediate_size: int | None = None
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    dropout: float | int = 0.0
    layer_norm_eps: float = 1e-5
    rope_parameters: dict | None = None
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        # Ids of other tokens, such as sep_token_id, are fine.
        known = [name for name in RopeGPTConfig.__annotations__ if not name.endswith("_token_id")]
        for key in () if kwargs.pop("_saved", False) else kwargs:
            if key in _OTHERS_NAMES:
                wanted = _OTHERS_NAMES[key]
                raise ValueError(f"got the unknown config key {key!r}; wanted {wanted}. Rename or remove it.")
            if near := get_close_matches(key, known, n=1, cutoff=0.74):
                raise ValueError(f"got the unknown config key {key!r}; wanted {near[0]!r}? Rename or remove it.")
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        # Here as well as after init: there, @strict wraps a ValueError into a type that is none.
        self.validate_architecture()
        self.rope_parameters = dict(self.rope_parameters or {})  # transformers fills it in place: not the caller's
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As usual; whatever else a saved config says is kept, as all models of transformers keep it."""
        return super().from_dict({**config_dict, "_saved": True}, **kwargs)

    def validate_architecture(self) -> None:
        """Check the values against each other; ValueError says what was got, wanted, and what to do."""
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        for name in (*sizes, "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ValueError(f"got {name}={getattr(self, name)}; wanted at least 1. Raise {name}.")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"got hidden_size={self.hidden_size} with num_attention_heads={self.num_attention_heads}; wanted a "
                "multiple of twice the heads: equal heads, of even size since RoPE turns pairs. Change one of the two."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"got dropout={self.dropout}; wanted 0 <= dropout < 1. Use 0 to switch it off.")
        if not self.initializer_range > 0:
            raise ValueError(f"got initializer_range={self.initializer_range}; wanted a positive standard deviation.")
        if not 0 < self.layer_norm_eps < math.inf:
            raise ValueError(
                f"got layer_norm_eps={self.layer_norm_eps}; wanted a small positive number, such as 1e-5."
            )
        if (theta := (self.rope_parameters or {}).get("rope_theta", self.default_theta)) <= 0:
            raise ValueError(f"got rope_theta={theta}; wanted a positive base of the RoPE angles, such as 100.")
        eos = self.eos_token_id if isinstance(self.eos_token_id, list) else [self.eos_token_id]
        for name, token in [("pad", self.pad_token_id), ("bos", self.bos_token_id), *(("eos", t) for t in eos)]:
            if token is not None and not 0 <= token < self.vocab_size:
                wanted = f"None or an id below vocab_size={self.vocab_size}. Take both from the tokenizer."
                raise ValueError(f"got {name}_token_id={token}; wanted {wanted}")


def positions_from_mask(attention_mask: Tensor | None, past_length: int | Tensor, embeds: Tensor) -> Tensor:
    """Positions of the new tokens, real tokens counted alone: mask [B, K] -> [B, Q], or [1, Q] without a 2-D mask.

    `embeds` is [B, Q, D]. Padding gets a position too, which nobody sees.
    Errors: ValueError for a mask that leaves out the cached tokens.
    """
    columns = torch.arange(embeds.shape[1], device=embeds.device) + past_length  # [Q]
    if attention_mask is None or attention_mask.ndim != 2:
        return columns[None]
    if isinstance(past_length, int) and attention_mask.shape[1] < past_length + embeds.shape[1]:
        raise ValueError(
            f"got an attention_mask of {attention_mask.shape[1]} columns for {past_length} cached and "
            f"{embeds.shape[1]} new tokens; wanted one column for each. Pass the mask of the whole row."
        )
    counted = attention_mask.to(device=embeds.device, dtype=torch.long).cumsum(-1) - 1  # [B, K]
    return counted.clamp(min=0).index_select(1, columns)


class RopeGPTRotaryEmbedding(nn.Module):
    """Cosines and sines of positions: [B, Q] -> two of [B, Q, E], computed in float32.

    Names are those that `PreTrainedModel` looks for when it fills these unsaved buffers after loading.
    """

    def __init__(self, config: RopeGPTConfig) -> None:
        super().__init__()
        self.config = config
        self.max_seq_len_cached = config.max_position_embeddings
        self.original_max_seq_len = config.max_position_embeddings
        self.rope_type = (config.rope_parameters or {})["rope_type"]
        rope_init_fn: Callable = ROPE_INIT_FUNCTIONS.get(self.rope_type, self.compute_default_rope_parameters)
        inv_freq, self.attention_scaling = rope_init_fn(config)
        self.inv_freq = nn.Buffer(inv_freq, persistent=False)  # [E / 2]
        self.original_inv_freq = nn.Buffer(inv_freq.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(config: RopeGPTConfig, **kwargs: Any) -> tuple[Tensor, float]:
        """Angular frequencies theta ** (-2 i / E), [E / 2], and the factor 1 on cosines and sines."""
        head_size, rope = config.hidden_size // config.num_attention_heads, config.rope_parameters or {}
        exponents = torch.arange(0, head_size, 2, dtype=torch.float) / head_size
        return rope["rope_theta"] ** -exponents, 1.0

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        """Move the frequencies, but leave them in float32: `.to(torch.bfloat16)` would misplace far tokens."""
        before = {name: buffer for name, buffer in self.named_buffers() if buffer.dtype == torch.float}
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            if getattr(self, name).dtype != torch.float:
                setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    @torch.no_grad()
    @dynamic_rope_update  # for rope types that depend on the length
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = position_ids[..., None].float() * self.inv_freq.to(device=x.device, dtype=torch.float)  # [B, Q, E/2]
        angles = torch.cat((angles, angles), dim=-1)  # [B, Q, E]
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return cos.to(x.dtype), sin.to(x.dtype)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + E/2) of [B, H, Q, E] by angles given as [B, Q, E]."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x * cos[:, None] + turned * sin[:, None]


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,  # [B, H, Q, E]
    key: Tensor,  # [B, H, K, E]
    value: Tensor,  # [B, H, K, E]
    attention_mask: Tensor | None,  # [B, 1, Q, K], 0 or very negative
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention written out: [B, Q, H, E] and the weights [B, H, Q, K]."""
    scores = (query @ key.transpose(2, 3)).float() * scaling
    if attention_mask is not None:
        scores = scores + attention_mask  # in float32: a float16 sum could be -inf in all of a padded row, hence NaN
    weights = nn.functional.softmax(scores, dim=-1).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class RopeGPTAttention(nn.Module):
    """Causal self-attention with rotary positions: [B, Q, D] -> [B, Q, D]."""

    def __init__(self, config: RopeGPTConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = True
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        batch_and_length = hidden_states.shape[:-1]
        split = (*batch_and_length, -1, self.head_dim)  # -1 and not H: under tensor parallelism a rank has some heads
        query = self.q_proj(hidden_states).view(split).transpose(1, 2)  # [B, H, Q, E]
        key = self.k_proj(hidden_states).view(split).transpose(1, 2)
        value = self.v_proj(hidden_states).view(split).transpose(1, 2)
        query, key = apply_rotary(query, *position_embeddings), apply_rotary(key, *position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)  # [B, H, K, E]
        implementation = self.config._attn_implementation
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        dropout = self.config.dropout if self.training else 0.0
        mixed, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )  # [B, Q, H, E]
        return self.o_proj(mixed.reshape(*batch_and_length, -1)), weights


class RopeGPTMLP(nn.Module):
    """Two projections with a GELU between: [B, Q, D] -> [B, Q, F] -> [B, Q, D]."""

    def __init__(self, config: RopeGPTConfig) -> None:
        super().__init__()
        width: Any = config.intermediate_size  # the config has replaced None
        self.up_proj = nn.Linear(config.hidden_size, width)
        self.down_proj = nn.Linear(width, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.down_proj(nn.functional.gelu(self.up_proj(hidden_states)))


class RopeGPTDecoderLayer(GradientCheckpointingLayer):
    """One block: attention, then MLP, each on the normalised stream and added to it; [B, Q, D] -> [B, Q, D]."""

    def __init__(self, config: RopeGPTConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = RopeGPTAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = RopeGPTMLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.post_attention_layernorm(hidden_states)))


class RopeGPTPreTrainedModel(PreTrainedModel):
    """What the three models share; weights start from N(0, initializer_range), biases from 0, norms from 1 and 0."""

    config_class = RopeGPTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["RopeGPTDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": RopeGPTDecoderLayer, "attentions": RopeGPTAttention}

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As usual, and with every class of this file in the config: a language model can become a reward model."""
        file = __name__.rsplit(".", 1)[-1]
        classes = (RopeGPTConfig, RopeGPTModel, RopeGPTForCausalLM, RopeGPTForSequenceClassification)
        self.config.auto_map = {each._auto_class: f"{file}.{each.__name__}" for each in classes}
        super().save_pretrained(*args, **kwargs)


class RopeGPTModel(RopeGPTPreTrainedModel):
    """The decoder without a head: [B, Q] -> `last_hidden_state` [B, Q, D], after the final norm."""

    def __init__(self, config: RopeGPTConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.rotary_emb = RopeGPTRotaryEmbedding(config)
        self.layers = nn.ModuleList([RopeGPTDecoderLayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """One of `input_ids` [B, Q] and `inputs_embeds` [B, Q, D]; the mask [B, K] gives `position_ids` by default."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("got both or neither of input_ids and inputs_embeds; wanted exactly one. Pass one.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        given_positions = position_ids  # only they can tell of several texts in one row: no need to look at our own
        if position_ids is None:
            past_length = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = positions_from_mask(attention_mask, past_length, inputs_embeds)
        causal_mask = create_causal_mask(
            self.config, inputs_embeds, attention_mask, past_key_values=past_key_values, position_ids=given_positions
        )
        hidden_states = self.dropout(inputs_embeds)  # [B, Q, D]
        context = {"attention_mask": causal_mask, "past_key_values": past_key_values, "position_ids": position_ids}
        context["position_embeddings"] = self.rotary_emb(hidden_states, position_ids=position_ids)
        for layer in self.layers[: self.config.num_hidden_layers]:  # fewer for `assistant_early_exit`
            hidden_states = layer(hidden_states, use_cache=use_cache, **context, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values)


def mean_cross_entropy(logits: Tensor, targets: Tensor, num_items_in_batch: int | Tensor | None) -> Tensor:
    """Cross entropy in nats per token, in float32: logits [N, V], targets [N] -> []; 0 for N = 0.

    The sum is over `num_items_in_batch` where it is given, which makes gradient accumulation exact, else over N.
    """
    total = nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
    count = targets.numel() if num_items_in_batch is None else num_items_in_batch
    return total / torch.as_tensor(count, device=total.device).clamp(min=1)


class RopeGPTForCausalLM(RopeGPTPreTrainedModel, GenerationMixin):
    """The decoder with an untied head: [B, Q] -> `logits` [B, Q, V], and `loss` where labels are given."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # used if config.tie_word_embeddings
    _tp_plan = {"lm_head": "colwise_gather_output"}
    accepts_loss_kwargs = True  # the loss divides by num_items_in_batch: Trainer shall not divide again

    def __init__(self, config: RopeGPTConfig) -> None:
        super().__init__(config)
        self.model = RopeGPTModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    # `shift_labels` stays in kwargs: Trainer takes every parameter with "label" in its name for a required label.
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        skip_logits: bool | None = None,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the next token, and the loss on the tokens whose label is not -100.

        `labels` [B, Q] are aligned with `input_ids` and shifted here (`shift_labels` [B, Q]: shifted already).
        `skip_logits` computes the loss with the head on the N positions that carry loss alone, and returns
        `logits=None`: a large vocabulary then costs nothing elsewhere. Its default is yes when training with labels,
        no otherwise; pass False to get logits from a training step. The loss does not depend on it, nor on
        `logits_to_keep`, which selects the logits returned.
        """
        targets = kwargs.pop("shift_labels", None)  # [B, Q], the label of the token that follows
        out: BaseModelOutputWithPast = self.model(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache=use_cache, **kwargs
        )
        hidden_states = out.last_hidden_state  # [B, Q, D]
        if targets is None and labels is not None:
            targets = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
        if skip_logits is None:
            skip_logits = self.training and targets is not None
        logits = None if skip_logits else self.lm_head(slice_logits_to_keep(hidden_states, logits_to_keep))
        loss = None
        if targets is not None:
            targets = targets.to(hidden_states.device)
            carries_loss = targets != -100
            chosen = self.lm_head(hidden_states[carries_loss])  # [N, V]
            loss = mean_cross_entropy(chosen, targets[carries_loss], num_items_in_batch)
        return CausalLMOutputWithPast(loss, logits, out.past_key_values, out.hidden_states, out.attentions)


class RopeGPTForSequenceClassification(RopeGPTPreTrainedModel):
    """The decoder with a linear score of each row's last real token: [B, Q] -> `logits` [B, C].

    With `num_labels=1` it is the reward model that TRL accepts. The decoder is built directly: the stock
    classification head builds it through `AutoModel`, which does not know this class when it is remote code.
    """

    accepts_loss_kwargs = True  # the loss divides by num_items_in_batch: Trainer shall not divide again

    def __init__(self, config: RopeGPTConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = RopeGPTModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutputWithPast:
        """The last real token is the mask's, or without a mask the last that is not padding, or the last of all.

        `kwargs` are those of the decoder. `labels` are classes [B], numbers ([B] with `num_labels=1`, else [B, C]),
        or 0 and 1 for each of several labels [B, C]; a missing one is -100, or NaN. The loss is the mean over those
        that are there, or their sum over `num_items_in_batch`, which makes gradient accumulation exact.
        """
        out: BaseModelOutputWithPast = self.model(input_ids, attention_mask, **kwargs)
        hidden_states = out.last_hidden_state  # [B, Q, D]
        rows, length = hidden_states.shape[:2]
        real = torch.ones(rows, length, dtype=torch.long, device=hidden_states.device)
        if attention_mask is not None and attention_mask.ndim == 2:
            real = attention_mask[:, -length:].to(real)
        elif input_ids is not None and self.config.pad_token_id is not None:
            real = (input_ids != self.config.pad_token_id).to(real)
        last = (real * torch.arange(length, device=real.device)).argmax(-1)  # [B]
        logits = self.score(hidden_states[torch.arange(rows, device=real.device), last])  # [B, C]
        loss = None
        if labels is not None:
            loss = self._loss(logits, labels.to(logits.device), num_items_in_batch)
        return SequenceClassifierOutputWithPast(loss, logits, out.past_key_values, out.hidden_states, out.attentions)

    def _loss(self, logits: Tensor, labels: Tensor, num_items_in_batch: int | Tensor | None) -> Tensor:
        """Give [] from logits [B, C] and labels [B] or [B, C]; labels tell the kind of problem where it is not set."""
        if self.config.problem_type is None:
            classes = labels.dtype in (torch.long, torch.int)
            several = "single_label_classification" if classes else "multi_label_classification"
            self.config.problem_type = "regression" if self.num_labels == 1 else several
        if self.config.problem_type == "single_label_classification":
            known = labels.flatten() != -100
            return mean_cross_entropy(logits[known], labels.flatten()[known], num_items_in_batch)
        labels = labels.reshape(logits.shape)
        known = (labels != -100) & ~labels.isnan()
        regression = self.config.problem_type == "regression"
        loss = nn.functional.mse_loss if regression else nn.functional.binary_cross_entropy_with_logits
        total = loss(logits[known].float(), labels[known].float(), reduction="sum")
        count = known.sum() if num_items_in_batch is None else num_items_in_batch
        return total / torch.as_tensor(count, device=total.device).clamp(min=1)


# `save_pretrained` copies this file beside the weights; `hf_synth.models` registers the classes for local use.
RopeGPTConfig.register_for_auto_class("AutoConfig")
RopeGPTModel.register_for_auto_class("AutoModel")
RopeGPTForCausalLM.register_for_auto_class("AutoModelForCausalLM")
RopeGPTForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

__all__ = ["RopeGPTConfig", "RopeGPTForCausalLM", "RopeGPTForSequenceClassification", "RopeGPTModel"]
