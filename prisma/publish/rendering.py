"""Cards from templates: the same facts give the same text."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from prisma.publish.markdown import bibtex, cell, code, fenced, number, text


def rendered(template: str, facts: Mapping[str, Any]) -> str:
    """A card: a file of `templates/`, filled in with facts. A fact that is missing is an error of ours."""
    return re.sub(r"\n{3,}", "\n\n", _template(template).render(**facts)).strip() + "\n"


@cache
def _template(name: str) -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "text": text,
        "code": code,
        "fenced": fenced,
        "cell": cell,
        "bibtex": bibtex,
        "number": number,
        "n": "{:,}".format,
    }
    return environment.from_string((files("prisma.publish") / "templates" / name).read_text("utf-8"))
