"""The reference pages that follow from code.  `python -m tests.docs` writes them; a test compares.

A page that is written by hand beside the code it describes begins to lie on the second change.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from audit.schema import COMMON, EVENTS
from gateway import errors
from gateway.rpc.status import CODES
from gateway.settings import Settings
from tests.compliance import compliance_page

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTE = "\nThis page is made from the code: `python -m tests.docs`.\n"
LEAF = """# The leaf

A leaf is one line of restricted RFC 8785 JSON in UTF-8; its hash is SHA-256(00 || line) (RFC 6962). The
schema is closed: a field that is not listed, or a value outside its pattern (`audit/schema.py`), is refused
when it is written and when it is verified. No field holds a person: staff appear under a token that is new
for every event, ids are random and name things.
"""
REFUSALS = """# Refusals

Every refusal is a `google.rpc.Status` with an `ErrorInfo` (`domain` is `lethe.dev`): `reason` is one of
these, `metadata.detail` narrows it. What may be tried again carries a `RetryInfo`, what breaks a rule of its
message a `BadRequest` that names fields and rules, never values. `DENY_*` names `deciding_pack` and
`citations` in its metadata. A fault that nobody foresaw is `INTERNAL` with a `trace_id`.

| reason | code | meaning |
|---|---|---|
"""
CONFIGURATION = """# Configuration

One YAML file, then the environment: `LETHE__SECTION__KEY` wins over the file. Unknown keys are refused
(`lethe config check`). Secrets are paths of files, never values; relative paths start at the file's folder.
"""


def leaf_page() -> str:
    """Return the page on leaves: which fields each event type has."""
    rows = [
        f"| `{ty}` | {_codes(fields.required)} | {_codes(fields.optional)} |"
        for ty, fields in sorted(EVENTS.items())
    ]
    head = f"{LEAF}\nEvery leaf has {_codes(COMMON)}.\n\n| event | has | may have |\n|---|---|---|\n"
    return head + "\n".join(rows) + "\n" + NOTE


def _codes(names: Mapping[str, object]) -> str:
    return " ".join(f"`{name}`" for name in names)


def reason_page() -> str:
    """Return the page on refusals: reason, gRPC code, meaning."""
    rows = [
        f"| `{kind.reason if kind is not errors.PolicyDenied else 'DENY_*'}` | {code.name} | {_first(kind)} |"
        for kind, code in sorted(CODES.items(), key=lambda pair: pair[0].reason)
    ]
    return REFUSALS + "\n".join(rows) + "\n" + NOTE


def settings_page() -> str:
    """Return the page on the configuration: every key, its type and default."""
    return CONFIGURATION + "".join(_section(*item) for item in Settings.model_fields.items()) + NOTE


def _section(name: str, field: FieldInfo) -> str:
    models = list(_models(field.annotation))
    assert models, name
    many = {dict: f"{name}.NAME", tuple: f"{name}[]"}.get(get_origin(field.annotation) or object, name)
    if len(models) == 1:
        return _table(f"`{many}`", models[0])
    return "".join(_table(f"`{many}`, {_kind(model)}", model) for model in models)


def _kind(model: type[BaseModel]) -> str:
    said = get_args(model.model_fields["kind"].annotation)
    return f"kind `{said[0]}`" if said else "any other kind"


def _table(title: str, model: type[BaseModel]) -> str:
    rows = "\n".join(f"| `{key}` | {kind} | {default} |" for key, kind, default in _rows(model))
    return f"\n## {title}\n\n{_first(model)}\n\n| key | type | default |\n|---|---|---|\n{rows}\n"


def _rows(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        inner = next(_models(field.annotation), None)
        if inner is not None:
            yield from _rows(inner, f"{path}{name}.")
        else:
            default = "required" if field.default is PydanticUndefined else f"`{field.default}`"
            yield f"{path}{name}", _name(field.annotation), default


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections inside an annotation."""
    if inspect.isclass(annotation) and get_origin(annotation) is None:
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for part in get_args(annotation):
        yield from _models(part)


def _name(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _name(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return " or ".join(_name(part) for part in get_args(annotation))
    if get_origin(annotation) is Literal:
        return " or ".join(get_args(annotation))
    if get_origin(annotation) is tuple:
        return f"list of {_name(get_args(annotation)[0])}"
    return "none" if annotation is type(None) else str(annotation.__name__)


def _first(thing: type) -> str:
    return (thing.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


PAGES = {
    "leaf.md": leaf_page,
    "refusals.md": reason_page,
    "configuration.md": settings_page,
    "../COMPLIANCE.md": compliance_page,
}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page())


if __name__ == "__main__":
    main()
