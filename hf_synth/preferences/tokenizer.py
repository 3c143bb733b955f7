"""A byte-level BPE tokenizer trained on a run's own texts, with a chat template that TRL can train on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

if TYPE_CHECKING:  # reading pairs needs no transformers, which takes seconds to import
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<sep>")  # ids 0..3, as in every tokenizer of this package
ROLES = ("system", "user", "assistant")
ROLE_TOKENS = tuple(f"<{role}>" for role in ROLES)  # ids 4..6

# <bos><user>Hi<assistant>Hello<eos><user>Bye<assistant>
#
# - A role token opens a turn; only assistant turns end in <eos>, so <eos> is what a model learns to stop with.
# - Every turn is rendered independently of the others, and with the generation prompt a text ends in a special token:
#   the prompt's ids are a strict prefix of the conversation's ids, which SFT, DPO and GRPO cut completions by.
# - `generation` marks reply and <eos>, not the role token: the mask of SFT's assistant_only_loss.
# - No text opens or ends a turn: a special token that it spells out becomes the ids of its characters, as with
#   transformers' split_special_tokens. A mark splits it, and the tokenizer's normalizer takes the mark out again.
SPLIT = "\ue000\ue001"  # private use: in no text but the template's
_CONTENT = "message['content'] | replace('<', '<" + SPLIT + "')"
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('Unknown role ' + message['role'] + ': wanted system, user or assistant') }}"
    "{% endif %}"
    "{{ '<' + message['role'] + '>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ (" + _CONTENT + ") + eos_token }}{% endgeneration %}"
    "{% else %}{{ " + _CONTENT + " }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)

# For checkpoints that were never taught to chat, in words that they know. The generation prompt ends before the space
# that opens the reply, so that its ids are a prefix of the conversation's. A special token in a text: `< eos>`.
_PLAIN = "message['content']SPACED"
PLAIN_CHAT_TEMPLATE = (
    "{{ bos_token if bos_token and bos_token != eos_token else '' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '\n\nAssistant:' }}{% generation %}{{ ' ' + (" + _PLAIN + ") + eos_token }}{% endgeneration %}"
    "{% elif message['role'] == 'system' %}{{ '\n\nSystem: ' + (" + _PLAIN + ") }}"
    "{% elif message['role'] == 'user' %}{{ '\n\nHuman: ' + (" + _PLAIN + ") }}"
    "{% else %}{{ raise_exception('Unknown role ' + message['role'] + ': wanted system, user or assistant') }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)


def ready_for_chat(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Add to a checkpoint's tokenizer, in place, what it may lack: the plain chat template, and `<eos>` as padding."""
    if tokenizer.chat_template is None:
        tokens = [json.dumps(token) for token in tokenizer.all_special_tokens if len(token) > 1]
        spaced = "".join(f" | replace({token}, {token[:2]} {token[2:]})" for token in tokens)
        tokenizer.chat_template = PLAIN_CHAT_TEMPLATE.replace("SPACED", spaced)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def read_plain_text(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Let a tokenizer of this package, in place, split special tokens that text outside a chat template spells out.

    Others stay: text for them may have gone through their chat template already. A saved tokenizer has no trace of it.
    """
    tokenizer.split_special_tokens = set(SPECIAL_TOKENS) <= set(tokenizer.all_special_tokens)
    return tokenizer


def train_bpe_tokenizer(texts: Iterable[str], *, vocab_size: int = 8192, chat: bool = True) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer: lossless on any text, the same bytes from the same texts.

    Ids 0..3 are `<pad> <bos> <eos> <sep>`; with `chat` 4..6 are `<system> <user> <assistant>`; then bytes and merges.
    Plain text gets `<bos>` in front and no `<eos>` (TRL adds that), conversations get what the template says.
    Padding is on the left, as generation needs it. The name of a special token inside a plain text counts as that
    token (not after `read_plain_text`), inside a conversation as the characters that it is written with.

    Args:
        texts: strings; read once.
        vocab_size: the most tokens there may be, special ones included; few texts give fewer: use len(tokenizer).
        chat: add the role tokens and the chat template.
    """
    special = [*SPECIAL_TOKENS, *(ROLE_TOKENS if chat else ())]
    least = len(special) + 256
    if vocab_size < least:
        raise ValueError(
            f"vocab_size is {vocab_size}: wanted {least} or more (256 bytes, {len(special)} special tokens)."
        )
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Replace(SPLIT, "")
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),  # every byte, seen in the texts or not
        show_progress=False,
    )
    backend.train_from_iterator(_checked(texts), trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", special.index("<bos>"))]
    )
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        sep_token="<sep>",
        extra_special_tokens=special[len(SPECIAL_TOKENS) :],
        padding_side="left",
        clean_up_tokenization_spaces=False,  # would change the text on its way back
        chat_template=CHAT_TEMPLATE if chat else None,
    )


def _checked(texts: Iterable[str]) -> Iterator[str]:
    if isinstance(texts, str):
        raise ValueError("texts is one string: wanted an iterable of strings; put it into a list.")
    count = 0
    for count, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise ValueError(f"Text {count - 1} is a {type(text).__name__}: wanted a string.")
        yield text
    if not count:
        raise ValueError("There are no texts: wanted at least one string to learn merges from.")
