"""What never reaches a log, a trace or an error event: registered secrets, and whatever looks like one."""

from __future__ import annotations

import json
import re
import threading
from typing import Final

MASK: Final = "[redacted]"
_SHORTEST: Final = 8

_NAMES: Final = "x-goog-api-key|x-api-key|api[-_]?key|authorization|password|passwd|secret|token"
# Each keeps what tells a reader which kind of secret stood there (group 1).
_PATTERNS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b(sk-(?:ant-|proj-|or-|svcacct-)?)[A-Za-z0-9_-]{12,}",
        r"\b(nx_)[A-Za-z0-9]{4,}(?:_[A-Za-z0-9]{4,})*",
        r"\b(whsec_)[A-Za-z0-9+/=_-]{8,}",
        r"\b(hf_|gsk_|xai-|AIza|ghp_|gho_|ghs_|github_pat_|glpat-|xox[abprs]-)[A-Za-z0-9_-]{12,}",
        r"\b((?:AKIA|ASIA|ABIA|ACCA))[A-Z0-9]{12,}",
        r"\b(eyJ)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
        r"(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}",
        rf"(?i)((?:{_NAMES})[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&}}\[]{{6,}}",
        r"(?i)([a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+(?=@)",
        r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    )
)
# Almost no line has one of these; it saves ten searches of the others.
_HINT: Final = re.compile(
    r"sk-|nx_|whsec_|hf_|gsk_|xai-|AIza|gh[pos]_|github_pat|glpat|xox|A[KSBC][ICI]A|eyJ|://|PRIVATE"
    r"|(?i:bearer|basic|key|authorization|passw|secret|token)"
)


class Redactor:
    """Masks secrets in text. Safe to use from every thread."""

    def __init__(self) -> None:
        """Know only the patterns."""
        self._known: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None
        self._changing = threading.Lock()

    def register(self, *secrets: str) -> None:
        """Mask these values wherever they appear; values under eight characters would mask too much."""
        with self._changing:
            self._known |= {form for secret in secrets if len(secret) >= _SHORTEST for form in _forms(secret)}
            self._compile()

    def forget(self, *secrets: str) -> None:
        """Stop looking for these values: they are no longer in use."""
        with self._changing:
            self._known -= {form for secret in secrets for form in _forms(secret)}
            self._compile()

    def _compile(self) -> None:
        # Longest first: a secret that begins with another is masked whole.
        ordered = sorted(self._known, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        """Return `text` without secrets."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        if _HINT.search(text) is None:
            return text
        for pattern in _PATTERNS:
            text = pattern.sub(rf"\g<1>{MASK}", text)
        return text


def _forms(secret: str) -> set[str]:
    """A secret as it is, and as it looks inside JSON and in a `repr`."""
    return {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}


redactor = Redactor()
"""The one of this process: whoever decrypts a credential registers it here."""
