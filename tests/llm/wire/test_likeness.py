import random

import pytest

from nexus.llm.dialects.openai_chat import OpenAIRelay
from nexus.llm.errors import UpstreamMalformed
from nexus.llm.wire.likeness import Likeness

EVENT = 'data: {"id":"c1","choices":[{"delta":{"content":"%s"},"finish_reason":null}]}'
PADDED = 'data: {"choices":[{"delta":{"content":"%s"}}],"usage":null,"obfuscation":"%s"}'


def learnt(event: str, words: str, name: bytes = b"content") -> Likeness:
    likeness = Likeness()
    assert likeness.learn(event.encode(), name, words)
    return likeness


@pytest.mark.parametrize(
    ("words", "letters"),
    [
        ("there", 5),
        (" ", 1),
        ("größer, 中文 🙂", 12),
        ("", 0),
        ('a"b', 0),
        ("a\\nb", 0),
        ("a\tb", 0),
        ("a\x00b", 0),
        ('"},"finish_reason":"stop","x":{"content":"', 0),
    ],
)
def test_an_event_is_like_another_that_differs_in_plain_words_only(words: str, letters: int) -> None:
    likeness = learnt(EVENT % "Hello", "Hello")
    event = (EVENT % words).encode()
    assert likeness.letters(event) == letters
    others = [] if letters else [event]
    assert likeness.part([event]) == (letters, others)
    around = [(EVENT % "one").encode(), event, (EVENT % "two").encode()]
    assert likeness.part(around) == (6 + letters, others)


@pytest.mark.parametrize(
    "event",
    [
        EVENT.replace("null", '"stop"') % "Hello",
        EVENT.replace("c1", "c2") % "Hello",
        EVENT % "Hello" + " ",
        (EVENT % "").replace('""', '"'),
        "data: {}",
        "",
        ": ping",
    ],
)
def test_any_other_difference_makes_it_another_event(event: str) -> None:
    likeness = learnt(EVENT % "Hello", "Hello")
    assert likeness.letters(event.encode()) == 0
    around = [(EVENT % "one").encode(), event.encode(), (EVENT % "two").encode()]
    assert likeness.part(around) == (6, [event.encode()])


def test_what_is_no_text_is_like_nothing() -> None:
    likeness = learnt(EVENT % "Hello", "Hello")
    event = (EVENT % "~").encode().replace(b"~", b"\xff")
    assert likeness.letters(event) == 0
    assert likeness.part([event, (EVENT % "b").encode()]) == (1, [event])


@pytest.mark.parametrize(
    ("words", "padding", "letters"),
    [
        ("there", "x8Kq", 5),
        ("there", "", 5),
        ("", "abc", 0),
        ("there", 'a"b', 0),
        ("there", "a\\u0020", 0),
        ('"', "a", 0),
    ],
)
def test_padding_may_differ_too(words: str, padding: str, letters: int) -> None:
    likeness = learnt(PADDED % ("Hello", "aB3"), "Hello")
    event = (PADDED % (words, padding)).encode()
    assert likeness.letters(event) == letters
    assert likeness.part([event]) == (letters, [] if letters else [event])


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (EVENT % "", ""),
        (EVENT % "a\\nb", "a\nb"),
        (EVENT % 'say \\"content\\":\\"Hello\\"', 'say "content":"Hello"'),
        ('data: {"content":"Hello","delta":{"content":"Hello"}}', "Hello"),
        ('data: {"delta":{"content": "Hello"}}', "Hello"),
        ('data: {"x\\"content":"Hello"}', "Hello"),
        ("data: {}", "Hello"),
        ("", "Hello"),
    ],
)
def test_what_cannot_be_told_for_certain_is_not_learnt(event: str, words: str) -> None:
    likeness = Likeness()
    assert not likeness.learn(event.encode(), b"content", words)
    assert likeness.letters((EVENT % "Hello").encode()) == 0
    assert likeness.part([b"a", b"b"]) == (0, [b"a", b"b"])


def test_lessons_end() -> None:
    likeness = Likeness()
    taken = [likeness.learn((EVENT % "a").replace("c1", f"c{n}").encode(), b"content", "a") for n in range(40)]
    assert taken == [True] * 32 + [False] * 8


class OneByOne(OpenAIRelay):
    def feed(self, data: bytes) -> bytes:
        return self._pass(self._splitter.feed(data))


WORDS = [
    "Hello",
    " there",
    "",
    "größer",
    "中文",
    "\u00a0",
    '\\"',
    "\\n",
    "a\\u00e9",
    "{",
    "},",
    "content",
    "null",
    "\t",
    "~",
]
FORMS = [
    '{"id":"c1","choices":[{"delta":{"content":"@"},"finish_reason":null}]}',
    '{"choices":[{"delta":{"content":"@"}}],"usage":null,"obfuscation":"@@"}',
    '{"choices":[{"delta":{"content":"@"}}],"p":"abc"}',
    '{"choices":[{"index":0,"delta":{"role":"assistant","content":"@"}}]}',
    '{"choices":[{"delta":{"content":null,"reasoning_content":"@"}}]}',
    '{"choices":[{"delta":{"content":"","reasoning":"@"}}]}',
    '{"choices":[{"delta":{"content":"@","reasoning":"@"}}]}',
    '{"choices":[{"delta":{"content":"@","refusal":"no"}}]}',
    '{"choices":[{"delta":{"content":"@"},"finish_reason":"stop"}]}',
    '{"choices":[{"delta":{"content":"@"},"text":"x"}]}',
    '{"choices":[{"delta":{"content":"@"}},{"delta":{"content":"b"}}]}',
    '{"choices":[{"message":{"content":"@"}}]}',
    '{"choices":[{"delta":{"content":"@"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
    '{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
    '{"error":{"message":"@"}}',
    '{"choices":[{"delta":{"content":"@"}}],"error":null}',
]


def fed(relay: OpenAIRelay, data: bytes) -> bytes | type[Exception]:
    try:
        return relay.feed(data)
    except UpstreamMalformed as error:
        return type(error)


def pieces(seed: int) -> list[bytes]:
    pick = random.Random(seed)
    forms = pick.sample(FORMS, pick.randint(1, 3))
    words = WORDS[: pick.choice((5, 8, len(WORDS)))]
    made = []
    for _ in range(8):
        events = [pick.choice(forms).replace("@", pick.choice(words)) for _ in range(pick.choice((1, 1, 3, 9)))]
        data = "".join(f"data: {event}\n\n" for event in events).encode()
        made.append(data.replace(b"~", pick.choice((b"~", b"\xff"))))
    return made


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("seed", range(150))
def test_a_stream_comes_to_the_same_as_one_that_is_read_whole(seed: int, strip: bool) -> None:
    known, read = OpenAIRelay(strip_usage=strip, choices=1), OneByOne(strip_usage=strip, choices=1)
    for data in pieces(seed):
        passed = fed(known, data)
        assert passed == fed(read, data), data
        for name in ("usage", "characters", "events", "finished", "finish_reason", "done"):
            assert getattr(known.tally, name) == getattr(read.tally, name), (name, data)
        assert type(known.tally.failure) is type(read.tally.failure)
        if known.tally.failure is not None or not isinstance(passed, bytes):
            return
