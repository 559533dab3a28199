"""A model's chat template, read backwards: a chat → token ids and labels that teach the reasoning.

The template writes the prompt. The text that it puts around the reasoning and the answer of a
reply is read once, with placeholders for the two, and put around those of every reply: templates
differ in the key they read the reasoning from, trim it, or drop it from some turns, but the text
around it does not vary. A template that drops it from every turn gets the <think> tags.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unicodedata import normalize

from specs.prompts import Message, with_text
from specs.replies import CLOSE_TAG, OPEN_TAG
from tasks.engine.neutral import Neutraliser
from tasks.engine.requests import EngineConfig
from tasks.engine.turns import TurnRules, TurnsError, Written, write

NOT_LEARNED = -100
"""The label of a token that the loss leaves out."""

_QUESTION, _REASONING, _ANSWER = "standinquestion", "standinreasoning", "standinanswer"
"""Placeholders, in letters that no template changes."""
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_EARLIER_TURNS: list[Message] = [
    {"role": "user", "content": "earlierquestion"},
    {"role": "assistant", "content": "earlieranswer"},
]
_OTHER_MARK = re.compile(rf"(?!{OPEN_TAG}$|{CLOSE_TAG}$).*(?:think|channel)", re.IGNORECASE)
_GUARD_LENGTH = 20
"""Characters at each end of a part that must be found in the labels."""


class ChatError(ValueError):
    """A chat that cannot be learned, or a model none of whose chats can."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A prompt that ends on a user turn, and the two parts of the reply to learn."""

    messages: Sequence[Message]
    reasoning: str | None
    """None for the answer alone, after reasoning that is left empty."""
    answer: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chat in tokens. Each learned token counts as reasoning or as answer.

    The reasoning ends with the token that closes it: the closing tag, or the header of the channel
    in which the answer stands. The other tokens are the answer's, with the one that ends the turn.
    """

    input_ids: list[int]
    labels: list[int]
    """The same ids, with -100 on the prompt and on nothing else."""
    num_prompt_tokens: int
    num_reasoning_tokens: int
    num_answer_tokens: int


@dataclass(frozen=True, slots=True)
class Frame:
    """The text around reasoning and answer, the same in every reply of a model."""

    prompt_ending: str
    """Text between the user's last words and the reply."""
    opening: str
    """Text before the reasoning."""
    between: str
    """Text between reasoning and answer."""
    ending: str
    """Text after the answer, up to the token that ends the turn; a line break after that token is
    the template's, not the model's."""

    @property
    def closing(self) -> str:
        """The text that closes the reasoning; a reply holds it once."""
        return CLOSE_TAG if CLOSE_TAG in self.between else self.between.strip()


@dataclass(frozen=True, slots=True)
class _Reply:
    """A reply as text, and its two parts as they stand in it."""

    text: str
    closed_at: int
    """Index of the first character after the text that closes the reasoning."""
    reasoning: str
    answer: str


class ChatTemplate:
    """The chat template of one model, with the tokenizer of transformers that it belongs to.

    Special tokens in messages, reasoning and answers are broken first, so that only the template's
    own make structure. White space around either part of a reply is the template's.
    """

    def __init__(
        self, tokenizer: Any, *, chat_template_kwargs: Mapping[str, bool | str] = {}
    ) -> None:
        """Reads the frame of replies; raises ChatError if the model's chats cannot be learned."""
        if not tokenizer.is_fast:
            raise ChatError(
                f"{type(tokenizer).__name__} does not tell where its tokens stand in a text; "
                "use a model that has a tokenizer.json"
            )
        # transformers gives a model without the files of one a tokenizer that knows no text.
        if not tokenizer(_QUESTION, add_special_tokens=False)["input_ids"]:
            raise ChatError(
                "tokenizer has no tokens for plain text; put the model's tokenizer.json into the "
                "folder"
            )
        if tokenizer.chat_template is None:
            raise ChatError(
                "tokenizer has no chat template; use a model that was tuned for chats, or put its "
                "chat_template.jinja into the folder"
            )
        self._tokenizer = tokenizer
        self._kwargs = dict(chat_template_kwargs)
        self._neutral = Neutraliser(tokenizer)
        self.frame = self._find_frame([])
        later = self._find_frame(_EARLIER_TURNS)
        if later != self.frame:
            raise ChatError(
                f"chat template writes a first reply as {self.frame} and a later one as {later}; "
                "set a chat template that writes both alike"
            )
        self._end_id = self._tokenize([self.frame.ending])["input_ids"][0][-1]
        if self._end_id not in tokenizer.added_tokens_decoder:
            raise ChatError(
                f"tokenizer reads {self.frame.ending!r} as plain text; leave its "
                "split_special_tokens off"
            )
        try:
            self._rules = TurnRules.of(self._render_prompt)
        except TurnsError as error:
            raise ChatError(str(error)) from error

    @classmethod
    def of(cls, engine: EngineConfig) -> "ChatTemplate":
        """Returns the chat template of the model that an engine serves.

        Raises ChatError if it has no tokenizer, or its chats cannot be learned.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(engine.model_path, revision=engine.revision)
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0].rstrip(" .:")
            raise ChatError(
                f"tokenizer cannot be read ({first}); put the model's tokenizer.json into the "
                "folder, or download the model first"
            ) from error
        return cls(tokenizer, chat_template_kwargs=engine.chat_template_kwargs)

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a reply: the template's, and the tokenizer's eos token."""
        ends = (self._end_id, self._tokenizer.eos_token_id)
        return frozenset(token for token in ends if token is not None)

    @property
    def prefilled(self) -> bool:
        """True if the prompt ends on the opening tag, so that a reply begins with its reasoning."""
        return self.frame.prompt_ending.rstrip().endswith(OPEN_TAG)

    def shown(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Returns the messages as the template is given them: neutral, in turns it can write."""
        return self._rules.apply(self.neutral(messages))

    def flat(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Returns the same with calls of tools and their results as text.

        For libraries that keep chats in tables: arguments differ from row to row.
        """
        has_calls = any(message.get("tool_calls") for message in messages)
        as_text = replace(self._rules, arguments=None, takes_results=False)
        return (as_text if has_calls else self._rules).apply(self.neutral(messages))

    def neutral(self, messages: Sequence[Message]) -> list[Message]:
        """Returns the messages with the special tokens in their texts broken."""
        return [with_text(message, self._neutral) for message in messages]

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """Returns the text that a reply follows.

        Raises ChatError if the messages end on no user turn, or the template cannot write them.
        """
        role = messages[-1]["role"] if messages else "none"
        if role != "user":
            raise ChatError(
                f"prompt must end on a user turn: its last is {role}; leave such prompts out"
            )
        try:
            text = write(self._render_prompt, self.shown(messages))
        except TurnsError as error:
            raise ChatError(f"chat template cannot write this chat: {error}") from error
        usual = self.frame.prompt_ending
        if not text.endswith(usual):
            raise ChatError(
                f"chat template ends this prompt unlike others: on {text[-len(usual) - 20 :]!r}, "
                f"not on {usual!r}; leave out prompts that switch reasoning off"
            )
        return text

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Returns the token ids of the prompt, which `encode` puts before the reply."""
        return list(self._tokenize([self.prompt_text(messages)])["input_ids"][0])

    def reply_text(self, *, reasoning: str | None, answer: str) -> str:
        """Returns the text that follows the prompt; raises ChatError if either part is empty.

        Without reasoning, which is None, the answer stands alone.
        """
        return self._write_reply(reasoning, answer).text

    def encode(self, messages: Sequence[Message], *, reasoning: str | None, answer: str) -> Encoded:
        """Returns a chat in tokens; raises ChatError if it cannot be learned whole."""
        [encoded] = self.encode_all([Chat(messages, reasoning, answer)])
        if isinstance(encoded, ChatError):
            raise encoded
        return encoded

    def encode_all(self, chats: Sequence[Chat]) -> list[Encoded | ChatError]:
        """Returns each chat in tokens, or why it cannot be learned, in order.

        The tokenizer spreads the chats of one call over the processors.
        """
        texts = [self._write(chat) for chat in chats]
        writable = [pair for pair in texts if not isinstance(pair, ChatError)]
        if not writable:
            return [error for error in texts if isinstance(error, ChatError)]
        tokens = self._tokenize(
            [text for prompt, reply in writable for text in (prompt, reply.text)]
        )
        decoded = self._tokenizer.backend_tokenizer.decode_batch(
            tokens["input_ids"][1::2], skip_special_tokens=False
        )
        encoded = (
            self._label(reply, tokens, 2 * index, decoded[index])
            for index, (_, reply) in enumerate(writable)
        )
        return [pair if isinstance(pair, ChatError) else next(encoded) for pair in texts]

    def _write(self, chat: Chat) -> tuple[str, _Reply] | ChatError:
        """Returns prompt and reply as text, or why they cannot be written."""
        try:
            return self.prompt_text(chat.messages), self._write_reply(chat.reasoning, chat.answer)
        except ChatError as error:
            return error

    def _write_reply(self, reasoning: str | None, answer: str) -> _Reply:
        is_alone = reasoning is None
        reasoning, answer = self._neutral(reasoning or "").strip(), self._neutral(answer).strip()
        for name, part in (("reasoning", reasoning), ("answer", answer)):
            if not part and not (is_alone and name == "reasoning"):
                raise ChatError(f"{name} is empty; leave out chats that lack either part")
        frame = self.frame
        before = f"{frame.opening}{reasoning}{frame.between}"
        closed_at = before.rindex(frame.closing) + len(frame.closing)
        return _Reply(f"{before}{answer}{frame.ending}", closed_at, reasoning, answer)

    def _label(self, reply: _Reply, tokens: Any, index: int, decoded: str) -> Encoded | ChatError:
        """Returns the chat whose prompt is text `index` of the batch, and its reply the next one.

        `decoded` is the text that the ids of the reply decode to.
        """
        prompt_ids, reply_ids = tokens["input_ids"][index : index + 2]
        fault = self._find_fault(reply, decoded, reply_ids[-1])
        if fault:
            return ChatError(fault)
        # A token that closes the reasoning and goes on is counted as reasoning.
        num_reasoning_tokens = tokens.char_to_token(index + 1, reply.closed_at - 1) + 1
        return Encoded(
            input_ids=prompt_ids + reply_ids,
            labels=[NOT_LEARNED] * len(prompt_ids) + reply_ids,
            num_prompt_tokens=len(prompt_ids),
            num_reasoning_tokens=num_reasoning_tokens,
            num_answer_tokens=len(reply_ids) - num_reasoning_tokens,
        )

    def _find_fault(self, reply: _Reply, decoded: str, last_id: int) -> str | None:
        """Returns why labels that decode so would not teach the reply, or None."""
        closing = self.frame.closing
        if (count := decoded.count(closing)) != 1:
            return (
                f"labels do not close the reasoning once: {count} times {closing!r}; "
                "leave such chats out"
            )
        hidden, _, visible = decoded.partition(closing)
        for name, part, text in [
            ("reasoning", reply.reasoning, hidden),
            ("answer", reply.answer, visible),
        ]:
            if not _holds(text, part):
                return (
                    f"labels do not hold the {name}: {text[:_GUARD_LENGTH]!r}… for "
                    f"{part[:_GUARD_LENGTH]!r}…; use a tokenizer that keeps what it reads"
                )
        if last_id != self._end_id:
            return (
                f"labels do not end on the token that ends a turn: {last_id}, not {self._end_id}; "
                "use a tokenizer that reads special tokens in text"
            )
        return None

    def _tokenize(self, texts: Sequence[str]) -> Any:
        return self._tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )

    def _render_prompt(self, turns: Sequence[Written]) -> str:
        return self._apply(turns, add_generation_prompt=True)

    def _render(self, turns: Sequence[Written], *, add_generation_prompt: bool) -> str:
        try:
            return self._apply(turns, add_generation_prompt=add_generation_prompt)
        except Exception as error:  # a chat template may raise anything on odd roles
            raise ChatError(
                f"chat template cannot write this chat: {str(error).rstrip('.')}; give the model "
                "another chat template"
            ) from error

    def _apply(self, turns: Sequence[Written], *, add_generation_prompt: bool) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                list(turns),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **self._kwargs,
            )
        )

    def _find_frame(self, earlier: Sequence[Message]) -> Frame:
        """Returns the text that the template puts around a reply, after these earlier turns."""
        question: Message = {"role": "user", "content": _QUESTION}
        prompt = self._render([*earlier, question], add_generation_prompt=True)
        if prompt.rstrip().endswith(CLOSE_TAG):
            raise ChatError(
                f"chat template ends the prompt on {prompt[-40:]!r}, after which nothing is left "
                "to reason; set chat_template_kwargs that let the model think"
            )
        reply = {"role": "assistant", "content": _ANSWER}
        reply |= dict.fromkeys(_REASONING_KEYS, _REASONING)
        whole = self._render([*earlier, question, reply], add_generation_prompt=False)
        if _QUESTION not in prompt or _ANSWER not in whole:
            raise ChatError(
                f"chat template drops the messages: {whole[-60:]!r}; set one that takes plain text"
            )
        prompt_ending = prompt.rpartition(_QUESTION)[2]
        ending = self._turn_ending(whole.rpartition(_ANSWER)[2])
        if whole.startswith(prompt):
            opening, _, rest = whole.removeprefix(prompt).partition(_REASONING)
            between, answered, _ = rest.partition(_ANSWER)
            if answered and between.strip() and _REASONING not in between:
                return Frame(prompt_ending, opening, between, ending)
        others = [token for token in self._neutral.special_tokens if _OTHER_MARK.match(token)]
        if others:
            raise ChatError(
                f"chat template drops the reasoning, which this model marks by {others}, not by "
                f"{OPEN_TAG}; set a chat template that keeps it"
            )
        opening = "" if prompt.rstrip().endswith(OPEN_TAG) else f"{OPEN_TAG}\n"
        return Frame(prompt_ending, opening, f"\n{CLOSE_TAG}\n\n", ending)

    def _turn_ending(self, text: str) -> str:
        """Returns the text after an answer up to its last special token, or the eos token if it has
        none."""
        tokens = self._neutral.special_tokens
        ends = [text.rfind(token) + len(token) for token in tokens if token in text]
        ending = text[: max(ends)] if ends else self._tokenizer.eos_token
        if not ending:
            raise ChatError(
                f"chat template ends a turn on {text!r}, without a special token, and the "
                "tokenizer has no eos token; set its eos_token"
            )
        return str(ending)


def _holds(text: str, part: str) -> bool:
    """Returns whether a text holds both ends of a part, as given or with composed letters."""
    # Some tokenizers compose letters and accents (NFC) before they read a text.
    return any(
        form[:_GUARD_LENGTH] in text and form[-_GUARD_LENGTH:] in text
        for form in (part, normalize("NFC", part))
    )
