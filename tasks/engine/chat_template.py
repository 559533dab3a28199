"""A chat → token ids and labels, as the model's own chat template has it, guarded so that the
reasoning is really learned.

The template writes the prompt. What it puts around the reasoning and the answer of a reply is
found once, with words that stand in for them, and put around those of every reply: templates know
the reasoning by several keys, trim it, or drop it from some turns, but do not vary what stands
around it. A template that drops it from all turns gets the <think> tags.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import normalize

from specs.prompts import Message, neutralise
from specs.replies import CLOSE_TAG, OPEN_TAG
from tasks.engine.requests import EngineConfig

NOT_LEARNED = -100
"""The label of a token that the loss leaves out."""

_QUESTION, _REASONING, _ANSWER = "standinquestion", "standinreasoning", "standinanswer"
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_EARLIER_TURNS: list[Message] = [
    {"role": "user", "content": "earlierquestion"},
    {"role": "assistant", "content": "earlieranswer"},
]
_OTHER_MARK = re.compile(rf"(?!{OPEN_TAG}$|{CLOSE_TAG}$).*(?:think|channel)", re.IGNORECASE)
_NUM_GUARDED = 20


class ChatError(ValueError):
    """A chat that cannot be learned, or a model whose chats cannot."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A prompt that ends on a user turn, and the two parts of the reply to learn."""

    messages: Sequence[Message]
    reasoning: str
    answer: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chat in tokens. Each learned token counts as reasoning or as answer.

    The reasoning's run from the first one to the one on which the reasoning is closed: by the
    closing tag, or by the header of the channel the answer stands in. The answer's are the rest,
    the token that ends the turn among them.
    """

    input_ids: list[int]
    labels: list[int]
    """The same ids, but -100 on the prompt, and on nothing else."""
    num_prompt_tokens: int
    num_reasoning_tokens: int
    num_answer_tokens: int


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around the two parts of every reply."""

    prompt_ending: str
    """What follows the user's last words in the prompt."""
    opening: str
    between: str
    ending: str
    """Goes up to the token that ends the turn: the line break after it is not the model's."""

    @property
    def closing(self) -> str:
        """What closes the reasoning, and stands in a reply once."""
        return CLOSE_TAG if CLOSE_TAG in self.between else self.between.strip()


@dataclass(frozen=True, slots=True)
class _Reply:
    text: str
    closed_at: int
    """Where in the text the reasoning has been closed."""
    reasoning: str
    answer: str


class ChatTemplate:
    """The chats of one model, by its tokenizer of transformers.

    Special tokens in what the messages, the reasoning and the answer say are broken first, so
    that only the template's own make structure; white space around either part is the template's.
    """

    def __init__(
        self, tokenizer: Any, *, chat_template_kwargs: Mapping[str, bool | str] = {}
    ) -> None:
        """A model whose template leaves no place for reasoning raises ChatError."""
        if not tokenizer.is_fast:
            raise ChatError(
                f"{type(tokenizer).__name__} does not tell where its tokens stand in a text; "
                "use a model that has a tokenizer.json"
            )
        self._tokenizer = tokenizer
        self._kwargs = dict(chat_template_kwargs)
        # All that the tokenizer adds: the turn marks of some models are not "special" to it.
        added = [token.content for token in tokenizer.added_tokens_decoder.values()]
        self._special_tokens = [token for token in added if len(token.strip()) > 1]
        starts = {"<", *(token.strip()[0] for token in self._special_tokens)}
        self._suspect = re.compile(f"[{re.escape(''.join(starts))}]")
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

    @classmethod
    def of(cls, engine: EngineConfig) -> "ChatTemplate":
        """The chats of the model that an engine serves."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(engine.model_path, revision=engine.revision)
        return cls(tokenizer, chat_template_kwargs=engine.chat_template_kwargs)

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a reply: the template's, and the tokenizer's own."""
        known = (self._end_id, self._tokenizer.eos_token_id)
        return frozenset(token for token in known if token is not None)

    @property
    def prefilled(self) -> bool:
        """Whether the prompt ends on an opened <think>, so that a reply begins with reasoning."""
        return self.frame.prompt_ending.rstrip().endswith(OPEN_TAG)

    def neutral(self, messages: Sequence[Message]) -> list[Message]:
        """The messages, with special tokens in what they say broken."""
        return [
            {"role": message["role"], "content": self._neutral(message["content"])}
            for message in messages
        ]

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The text that the model goes on from; ChatError where the template has none."""
        role = messages[-1]["role"] if messages else "none"
        if role != "user":
            raise ChatError(
                f"prompt ends on no user turn: its last is {role}; leave such prompts out"
            )
        text = self._render(self.neutral(messages), add_generation_prompt=True)
        usual = self.frame.prompt_ending
        if not text.endswith(usual):
            raise ChatError(
                f"chat template ends this prompt unlike others: on {text[-len(usual) - 20 :]!r}, "
                f"not on {usual!r}; leave out prompts that switch reasoning off"
            )
        return text

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The prompt's token ids: those that `encode` puts before the reply."""
        return list(self._tokenize([self.prompt_text(messages)])["input_ids"][0])

    def reply_text(self, *, reasoning: str, answer: str) -> str:
        """The text that follows the prompt's; ChatError where either part is empty."""
        return self._write_reply(reasoning, answer).text

    def encode(self, messages: Sequence[Message], *, reasoning: str, answer: str) -> Encoded:
        """The chat in tokens; ChatError where its reasoning or its answer would not be learned."""
        [encoded] = self.encode_all([Chat(messages, reasoning, answer)])
        if isinstance(encoded, ChatError):
            raise encoded
        return encoded

    def encode_all(self, chats: Sequence[Chat]) -> list[Encoded | ChatError]:
        """Each chat in tokens, or why it cannot be learned, in order.

        The tokenizer spreads the chats of one call over the processors.
        """
        written = [self._write(chat) for chat in chats]
        good = [pair for pair in written if not isinstance(pair, ChatError)]
        if not good:
            return [error for error in written if isinstance(error, ChatError)]
        tokens = self._tokenize([text for prompt, reply in good for text in (prompt, reply.text)])
        learned = self._tokenizer.backend_tokenizer.decode_batch(
            tokens["input_ids"][1::2], skip_special_tokens=False
        )
        labelled = (
            self._label(reply, tokens, 2 * index, learned[index])
            for index, (_, reply) in enumerate(good)
        )
        return [one if isinstance(one, ChatError) else next(labelled) for one in written]

    def _write(self, chat: Chat) -> tuple[str, _Reply] | ChatError:
        try:
            return self.prompt_text(chat.messages), self._write_reply(chat.reasoning, chat.answer)
        except ChatError as error:
            return error

    def _write_reply(self, reasoning: str, answer: str) -> _Reply:
        reasoning, answer = self._neutral(reasoning).strip(), self._neutral(answer).strip()
        for name, part in (("reasoning", reasoning), ("answer", answer)):
            if not part:
                raise ChatError(f"{name} is empty; leave out chats that lack either part")
        frame = self.frame
        before = f"{frame.opening}{reasoning}{frame.between}"
        closed_at = before.rindex(frame.closing) + len(frame.closing)
        return _Reply(f"{before}{answer}{frame.ending}", closed_at, reasoning, answer)

    def _label(self, reply: _Reply, tokens: Any, place: int, learned: str) -> Encoded | ChatError:
        """The chat whose prompt stands at that place of the tokens, and its reply at the next.

        `learned` is what the labels decode to.
        """
        prompt_ids, reply_ids = tokens["input_ids"][place : place + 2]
        fault = self._find_fault(reply, learned, reply_ids[-1])
        if fault:
            return ChatError(fault)
        num_reasoning_tokens = tokens.char_to_token(place + 1, reply.closed_at - 1) + 1
        return Encoded(
            input_ids=prompt_ids + reply_ids,
            labels=[NOT_LEARNED] * len(prompt_ids) + reply_ids,
            num_prompt_tokens=len(prompt_ids),
            num_reasoning_tokens=num_reasoning_tokens,
            num_answer_tokens=len(reply_ids) - num_reasoning_tokens,
        )

    def _find_fault(self, reply: _Reply, learned: str, last_id: int) -> str | None:
        """Why such labels would not teach the reply, or None."""
        closing = self.frame.closing
        if (count := learned.count(closing)) != 1:
            return (
                f"labels do not close the reasoning once: {count} times {closing!r}; "
                "leave such chats out"
            )
        hidden, _, visible = learned.partition(closing)
        for name, part, text in [
            ("reasoning", reply.reasoning, hidden),
            ("answer", reply.answer, visible),
        ]:
            if not _holds(text, part):
                return (
                    f"labels do not hold the {name}: {text[:_NUM_GUARDED]!r}… for "
                    f"{part[:_NUM_GUARDED]!r}…; use a tokenizer that keeps what it reads"
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

    def _neutral(self, text: str) -> str:
        # Some models have thousands of special tokens: most texts need not be searched for them.
        if not self._suspect.search(text):
            return text
        return neutralise(text, special_tokens=self._special_tokens)

    def _render(
        self, turns: Sequence[Message | dict[str, str]], *, add_generation_prompt: bool
    ) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                list(turns),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **self._kwargs,
            )
        except Exception as error:  # a chat template may raise anything on odd roles
            raise ChatError(f"chat template cannot write this chat: {error}") from error
        return str(text)

    def _find_frame(self, earlier: Sequence[Message]) -> Frame:
        """What the template writes around a reply to a question, after these turns."""
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
                f"chat template drops what is said: {whole[-60:]!r}; set one that takes plain text"
            )
        prompt_ending = prompt.rpartition(_QUESTION)[2]
        ending = self._turn_ending(whole.rpartition(_ANSWER)[2])
        if whole.startswith(prompt):
            opening, _, rest = whole.removeprefix(prompt).partition(_REASONING)
            between, answered, _ = rest.partition(_ANSWER)
            if answered and between.strip() and _REASONING not in between:
                return Frame(prompt_ending, opening, between, ending)
        others = [token for token in self._special_tokens if _OTHER_MARK.match(token)]
        if others:
            raise ChatError(
                f"chat template drops the reasoning, which this model marks by {others}, not by "
                f"{OPEN_TAG}; set a chat template that keeps it"
            )
        opening = "" if prompt.rstrip().endswith(OPEN_TAG) else f"{OPEN_TAG}\n"
        return Frame(prompt_ending, opening, f"\n{CLOSE_TAG}\n\n", ending)

    def _turn_ending(self, text: str) -> str:
        """What follows an answer, up to its last special token; the eos token if it has none."""
        ends = [text.rfind(token) + len(token) for token in self._special_tokens if token in text]
        ending = text[: max(ends)] if ends else self._tokenizer.eos_token
        if not ending:
            raise ChatError(
                f"chat template ends a turn on {text!r}, without a special token, and the "
                "tokenizer has no eos token; set its eos_token"
            )
        return str(ending)


def _holds(text: str, part: str) -> bool:
    """Whether both ends of a part stand in the text, also where the tokenizer composed letters."""
    return any(
        form[:_NUM_GUARDED] in text and form[-_NUM_GUARDED:] in text
        for form in (part, normalize("NFC", part))
    )
