"""Most events of a stream repeat each other but for a few letters, so that one that was read tells the others.

Where the text of a JSON string is exchanged for other text that needs no escape, what was valid stays valid and
says the same in all else. So an event that is byte for byte like one that has been read, but for its words (and
for the padding that OpenAI and Mistral send along), need not be read: to see that it is like it costs a fifth.
"""

from __future__ import annotations

import re
from typing import Final

# Random letters of random number, so that nobody on the line can tell words by their length.
_PADDING: Final = re.compile(rb'[{,]"(?:obfuscation|p)":"([^"\\]*)"')
_NEVER: Final = b"\n"
# A stream whose events all differ is not learnt from for ever.
_LESSONS: Final = 32


class Likeness:
    """What the events of one stream have in common. An event is one line here, without its line end."""

    __slots__ = ("_head", "_lessons", "_middle", "_seam", "_start", "_stop", "_tail")

    def __init__(self) -> None:
        """Know no event yet."""
        self._head = self._tail = _NEVER
        self._middle = self._seam = b""
        self._start = self._stop = 0
        self._lessons = _LESSONS

    def learn(self, event: bytes, name: bytes, words: str) -> bool:
        """Know events like this one: its data is valid JSON that says `words` under `name`, and nothing else of note.

        False for one that cannot tell others for certain.
        """
        if not self._lessons:
            return False
        self._lessons -= 1
        key, text = b'"%b"' % name, words.encode("utf-8", "replace")
        place = event.find(b'%b:"%b"' % (key, text))
        # Such a quotation mark begins a name in valid JSON, and cannot stand inside a text.
        if place < 1 or event[place - 1] not in b"{," or event.count(key) > 1 or not _letters(text):
            return False
        start = place + len(key) + 2
        end = start + len(text)
        padding = _PADDING.search(event, end)
        self._middle = b"" if padding is None else event[end : padding.start(1)]
        self._head, self._tail = event[:start], event[end if padding is None else padding.end(1) :]
        self._start, self._stop = start, -len(self._tail)
        self._seam = b"%b\n%b" % (self._tail, self._head)
        return True

    def letters(self, event: bytes) -> int:
        """Return how many letters an event says that is like the one learnt; 0 for any other."""
        if event[: self._start] != self._head or event[self._stop :] != self._tail:
            return 0
        # Nothing is left as well where head and tail share their quotation mark.
        words = event[self._start : self._stop]
        if self._middle:
            words, _, padding = words.partition(self._middle)
            if padding and not _letters(padding):
                return 0
        return _letters(words)

    def part(self, events: list[bytes]) -> tuple[int, list[bytes]]:
        """Return how many letters those of `events` say that are like the one learnt, and the others."""
        if self._head is _NEVER:
            return 0, [*events]
        if not self._middle:
            first, last = 0, len(events)
            while first < last and not self.letters(events[first]):
                first += 1
            while first < last and not self.letters(events[last - 1]):
                last -= 1
            alike = events[first:last]
            # What they have in common put around their words must give them again: one comparison for all.
            start, stop = self._start, self._stop
            words = [event[start:stop] for event in alike]
            again = b"%b%b%b" % (self._head, self._seam.join(words), self._tail)
            if again == b"\n".join(alike) and all(words) and (letters := _letters(b"".join(words))):
                return letters, [*events[:first], *events[last:]]
        letters, others = 0, []
        for event in events:
            if said := self.letters(event):
                letters += said
            else:
                others.append(event)
        return letters, others


def _letters(text: bytes) -> int:
    """Return the length of text that may stand in a JSON string as it is; 0 for other text."""
    try:
        words = text.decode()
    except UnicodeDecodeError:
        return 0
    return len(words) if words.isprintable() and '"' not in words and "\\" not in words else 0
