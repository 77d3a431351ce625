"""Definitions as text: every problem has its place, and no text is a bomb."""

from __future__ import annotations

import pytest

from nexus.automation.document import check_definition, read_document
from nexus.automation.errors import WorkflowInvalid

GOOD = b"""
name: receipt-to-note
inputs: {image: {type: file}, webhook: {type: url, optional: true}}
steps:
  - {key: read, uses: vision.ocr, with: {image: "{{ inputs.image }}"}, retries: {max: 3}, timeout: 60}
  - {key: tell, uses: http.request, needs: [read], with: {method: POST, url: "{{ inputs.webhook }}"}}
"""


def test_reads_yaml_and_json_alike() -> None:
    data, places = read_document(GOOD)
    definition = check_definition(data, places)
    assert (definition.name, [step.key for step in definition.steps]) == ("receipt-to-note", ["read", "tell"])
    assert definition.steps[0].timeout == 60
    again = check_definition(*read_document(definition.model_dump_json(by_alias=True, exclude_defaults=True).encode()))
    assert again == definition


@pytest.mark.parametrize(
    ("text", "field", "line"),
    [
        (b"", "", None),
        (b"name: [", "", 1),
        (b"name: x\nsteps: 5", "steps", 2),
        (b"name: Not A Slug\nsteps: [{key: a, uses: b}]", "name", 1),
        (b"name: x\nsteps:\n  - {key: a}", "steps.0.uses", 3),
        (b"name: x\nsteps:\n  - key: a\n    uses: b\n    timeout: soon", "steps.0.timeout", 5),
        (b"name: x\nsteps:\n  - key: a\n    uses: b\n    timout: 5", "steps.0.timout", 5),
        (b"name: x\nsteps: []", "steps", 2),
        (b"name: x\nsteps: [{key: a, uses: b, retries: {max: 51}}]", "steps.0.retries.max", 2),
        (b"name: x\nproject_id: prj_other\nsteps: [{key: a, uses: b}]", "project_id", 2),
        (b"a: &a [x]\nb: *a", "", 2),
        (b"name: !!python/object/apply:os.system [id]", "", 1),
        (b"name: .nan\nsteps: []", "name", 1),
        (b'{"name": "a\\u0000b"}', "name", 1),
        (b'{"name": "\\ud800"}', "name", 1),
        (b"1: x", "", 1),
        (b"name: 123456789012345678901234567890", "name", 1),
        (b"name: \xff", "", None),
        (b"[" * 5000, "", None),
        (b"- " * 3000 + b"x", "", None),
        (b"x" * 600_000, "", None),
        (b"just text", "", 1),
        (b"name: schema\nsteps: [{key: a, uses: b}]", "name", 1),
        (b"name: wf_01ja8w3xk5v0m2c7tqz9r4h6ye\nsteps: [{key: a, uses: b}]", "name", 1),
    ],
)
def test_says_what_is_wrong_and_where(text: bytes, field: str, line: int | None) -> None:
    with pytest.raises(WorkflowInvalid) as caught:
        check_definition(*read_document(text))
    problem = caught.value.problems[0]
    assert problem.field == field or (field == "" and len(text) > 1000)
    if line is not None:
        assert problem.line == line


def test_a_billion_laughs_are_refused_at_the_first_alias() -> None:
    text = b"a: &a [x,x]\n" + b"".join(b"%c: &%c [*%c,*%c]\n" % (i, i, i - 1, i - 1) for i in range(98, 120))
    with pytest.raises(WorkflowInvalid, match="alias"):
        read_document(text)
