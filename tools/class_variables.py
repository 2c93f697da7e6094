"""For mkdocstrings: a class variable with a bare `ClassVar` annotation is no argument of a dataclass's constructor."""

from typing import Any

import griffe


class ClassVariables(griffe.Extension):
    """Marks such attributes, so that the signature of the class leaves them out."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        if str(attr.annotation) == "ClassVar":
            attr.labels.discard("instance-attribute")
