"""RLM transformer: the small decoder trained on sentences of a Random Language Model, config and model in one file.

    x = embed(tokens) + embed(positions)         both learned
    x = x + attention(norm(x))                   causal, no biases
    x = x + mlp(norm(x))                         GELU, 4 times as wide, with biases
    logits = head(norm(x))                       untied, no bias

    weights                      start from               source
    attention's four matrices    N(0, 1/D)                the reference
    head                         N(0, 0.02^2/D)           the reference: the first logits are N(0, 0.02^2), the first
                                                          loss is ln V
    both embeddings              N(0, 1)                  open there; torch's own, and the scale of what attention adds
    MLP's two matrices           N(0, 1/fan-in)           open there; as attention's
    biases; norms                0; 1 and 0               open there

The reference also leaves open the nonlinearity, the MLP's biases, and the norm before the head: without that norm the
first logits would grow with depth.

Departures from it:
- Padding is never attended to and positions count real tokens only: a row gives the same logits wherever it is padded.
- The loss is on whatever `labels` says, the last token being a special case.
- Dropout (off by default) on embeddings, attention weights and both residual branches.

The file imports torch and the Hugging Face libraries only: it travels with a checkpoint as its remote code.

Shapes: B rows, Q new tokens, K cached and new tokens, D hidden size, H heads, E = D / H size of a head,
F intermediate size, V vocabulary, P positions, N tokens that carry loss.
"""

import math
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, slice_logits_to_keep
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

# What other architectures and the reference call it: kept silently, such a key would change nothing.
_OTHERS_NAMES = {
    **dict.fromkeys(("n_embd", "d_model", "n_dim", "dim", "embedding_dim"), "'hidden_size'"),
    **dict.fromkeys(("n_layer", "n_layers", "num_layers", "depth"), "'num_hidden_layers'"),
    **dict.fromkeys(("n_head", "n_heads", "num_heads"), "'num_attention_heads'"),
    **dict.fromkeys(("n_inner", "d_ff", "ffn_dim"), "'intermediate_size'"),
    "ffwd_size": "'intermediate_size', which is ffwd_size * hidden_size",
    **dict.fromkeys(("n_positions", "n_ctx", "num_tokens"), "'max_position_embeddings'"),
    **dict.fromkeys(("hidden_dropout", "attention_dropout", "resid_pdrop", "attn_pdrop", "embd_pdrop"), "'dropout'"),
    **dict.fromkeys(("rope_theta", "rope_parameters", "rope_scaling"), "none: positions are learned"),
}


@strict
class RLMTransformerConfig(PreTrainedConfig):
    """Shape and ids of an RLM transformer; the defaults are the reference run's, whose V = 128 got four special ids.

    `intermediate_size=None` means `4 * hidden_size`. `initializer_range` is the standard deviation of the first
    logits. `dropout` holds for embeddings, attention weights and residual branches.

    Errors: ValueError for values that fit no model, and for a key one slip away from a field's name
    (transformers would keep it as an attribute that nobody reads; so does a config that is loaded).

    >>> RLMTransformerConfig(hidden_size=32, num_attention_heads=4).intermediate_size
    128
    """

    model_type = "rlm_transformer"
    keys_to_ignore_at_inference = ["past_key_values"]
    base_model_tp_plan = {
        "layers.*.self_attn.q_proj": "colwise",
        "layers.*.self_attn.k_proj": "colwise",
        "layers.*.self_attn.v_proj": "colwise",
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }

    vocab_size: int = 132
    hidden_size: int = 64
    num_hidden_layers: int = 1
    num_attention_heads: int = 1
    intermediate_size: int | None = None
    max_position_embeddings: int = 128
    initializer_range: float = 0.02
    dropout: float | int = 0.0
    layer_norm_eps: float = 1e-5
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        known = [name for name in RLMTransformerConfig.__annotations__ if not name.endswith("_token_id")]
        for key, value in () if kwargs.pop("_saved", False) else kwargs.items():
            if key in _OTHERS_NAMES and value is not None:
                wanted = _OTHERS_NAMES[key]
                raise ValueError(f"got the unknown config key {key!r}; wanted {wanted}. Rename or remove it.")
            if near := get_close_matches(key, known, n=1, cutoff=0.74):
                raise ValueError(f"got the unknown config key {key!r}; wanted {near[0]!r}? Rename or remove it.")
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        # Here as well as after init: there, @strict wraps a ValueError into a type that is none.
        self.validate_architecture()
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
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"got hidden_size={self.hidden_size} with num_attention_heads={self.num_attention_heads}; "
                "wanted a multiple of the heads, which are equal. Change one of the two."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"got dropout={self.dropout}; wanted 0 <= dropout < 1. Use 0 to switch it off.")
        if not self.initializer_range > 0:
            raise ValueError(f"got initializer_range={self.initializer_range}; wanted a positive standard deviation.")
        if not 0 < self.layer_norm_eps < math.inf:
            raise ValueError(
                f"got layer_norm_eps={self.layer_norm_eps}; wanted a small positive number, such as 1e-5."
            )
        if self.tie_word_embeddings:
            raise ValueError(
                "got tie_word_embeddings=True; wanted False: head and embeddings start at scales of their own, "
                "which makes the first loss ln V. Remove it."
            )
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


def require_learned_positions(position_ids: Tensor, limit: int) -> None:
    """Check that positions [B, Q] are below `limit`; ValueError for a longer row, padding not counted."""
    if torch.compiler.is_compiling():  # a graph cannot branch on values; the compiled look-up has a check of its own
        return
    if (length := int(position_ids.max()) + 1) > limit:
        raise ValueError(
            f"got a row of {length} tokens; wanted at most max_position_embeddings={limit}, the positions that are "
            "learned. Shorten the row, or train a model with more positions."
        )


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


class RLMTransformerAttention(nn.Module):
    """Causal self-attention without biases: [B, Q, D] -> [B, Q, D]."""

    def __init__(self, config: RLMTransformerConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = True
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        batch_and_length = hidden_states.shape[:-1]
        split = (*batch_and_length, -1, self.head_dim)  # -1 and not H: under tensor parallelism a rank has some heads
        query = self.q_proj(hidden_states).view(split).transpose(1, 2)  # [B, H, Q, E]
        key = self.k_proj(hidden_states).view(split).transpose(1, 2)
        value = self.v_proj(hidden_states).view(split).transpose(1, 2)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)  # [B, H, K, E]
        implementation = self.config._attn_implementation
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        dropout = self.config.dropout if self.training else 0.0
        mixed, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )  # [B, Q, H, E]
        return self.o_proj(mixed.reshape(*batch_and_length, -1)), weights


class RLMTransformerMLP(nn.Module):
    """Two projections with a GELU between: [B, Q, D] -> [B, Q, F] -> [B, Q, D]."""

    def __init__(self, config: RLMTransformerConfig) -> None:
        super().__init__()
        width: Any = config.intermediate_size  # the config has replaced None
        self.up_proj = nn.Linear(config.hidden_size, width)
        self.down_proj = nn.Linear(width, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.down_proj(nn.functional.gelu(self.up_proj(hidden_states)))


class RLMTransformerDecoderLayer(GradientCheckpointingLayer):
    """One block: attention, then MLP, each on the normalised stream and added to it; [B, Q, D] -> [B, Q, D]."""

    def __init__(self, config: RLMTransformerConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = RLMTransformerAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = RLMTransformerMLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.post_attention_layernorm(hidden_states)))


class RLMTransformerPreTrainedModel(PreTrainedModel):
    """What the two models share: the initialisation of the table above, and what transformers may do with them."""

    config_class = RLMTransformerConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["RLMTransformerDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": RLMTransformerDecoderLayer, "attentions": RLMTransformerAttention}

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, nn.Linear):
            scale = self.config.initializer_range if module is self.get_output_embeddings() else 1
            init.normal_(module.weight, std=scale * module.in_features**-0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As usual, and with every class of this file in the config: the decoder loads without the head, too."""
        file = __name__.rsplit(".", 1)[-1]
        classes = (RLMTransformerConfig, RLMTransformerModel, RLMTransformerForCausalLM)
        self.config.auto_map = {each._auto_class: f"{file}.{each.__name__}" for each in classes}
        super().save_pretrained(*args, **kwargs)


class RLMTransformerModel(RLMTransformerPreTrainedModel):
    """The decoder without a head: [B, Q] -> `last_hidden_state` [B, Q, D], after the final norm."""

    def __init__(self, config: RLMTransformerConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)  # [P, D]
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList([RLMTransformerDecoderLayer(config, i) for i in range(config.num_hidden_layers)])
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
        """One of `input_ids` [B, Q] and `inputs_embeds` [B, Q, D]; the mask [B, K] gives `position_ids` by default.

        Errors: ValueError for a row of more than `max_position_embeddings` tokens.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("got both or neither of input_ids and inputs_embeds; wanted exactly one. Pass one.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        past_length = past_key_values.get_seq_length() if past_key_values is not None else 0
        columns, limit = past_length + inputs_embeds.shape[1], self.config.max_position_embeddings
        # So few columns cannot hold a longer row: no need to wait for the device to say so.
        settled = position_ids is None and isinstance(columns, int) and columns <= limit
        given_positions = position_ids  # only they can tell of several texts in one row: no need to look at our own
        if position_ids is None:
            position_ids = positions_from_mask(attention_mask, past_length, inputs_embeds)
        if not settled:
            require_learned_positions(position_ids, limit)
        causal_mask = create_causal_mask(
            self.config, inputs_embeds, attention_mask, past_key_values=past_key_values, position_ids=given_positions
        )
        hidden_states = self.dropout(inputs_embeds + self.embed_positions(position_ids))  # [B, Q, D]
        context = {"attention_mask": causal_mask, "past_key_values": past_key_values, "position_ids": position_ids}
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


class RLMTransformerForCausalLM(RLMTransformerPreTrainedModel, GenerationMixin):
    """The decoder with a head of its own: [B, Q] -> `logits` [B, Q, V], and `loss` where labels are given."""

    _tp_plan = {"lm_head": "colwise_gather_output"}
    accepts_loss_kwargs = True  # the loss divides by num_items_in_batch: Trainer shall not divide again

    def __init__(self, config: RLMTransformerConfig) -> None:
        super().__init__(config)
        self.model = RLMTransformerModel(config)
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
        `logits=None`: with the last token's loss alone, the head costs one position a row. Its default is yes when
        training with labels, no otherwise; pass False to get logits from a training step. The loss does not depend
        on it, nor on `logits_to_keep`, which selects the logits returned.
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


# `save_pretrained` copies this file beside the weights; `hf_synth.models` registers the classes for local use.
RLMTransformerConfig.register_for_auto_class("AutoConfig")
RLMTransformerModel.register_for_auto_class("AutoModel")
RLMTransformerForCausalLM.register_for_auto_class("AutoModelForCausalLM")

__all__ = ["RLMTransformerConfig", "RLMTransformerForCausalLM", "RLMTransformerModel"]
