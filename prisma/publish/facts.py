"""Values of a run's files that know where they stand, so that a wrong one is a sentence with its file and field."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from prisma.errors import PrismaError, quoted, shown

MOST = 100  # entries of a table
LARGEST = 2**53  # whole numbers above have no float


@dataclass(frozen=True)
class Fact:
    """A value of JSON, and its place: the field of a file, such as `task.name` of `recipe.json`.

    Every method raises PrismaError, which names the place, unless the value is of its kind.
    """

    value: Any
    file: str
    field: str = ""

    def __getitem__(self, key: str) -> "Fact":
        """A field of an object; it must be there, and not null."""
        found = self.get(key)
        if found is None:
            raise PrismaError(f"expected {self._of(key)} in {self.file}; found none")
        return found

    def get(self, key: str) -> "Fact | None":
        """The same; None if it is not there, or null."""
        value = self._object().get(key)
        return None if value is None else Fact(value, self.file, self._of(key))

    def items(self) -> dict[str, "Fact"]:
        """The fields of an object that are not null, of which there may be `MOST`, by name."""
        found = self._object()
        self._expect_few(found, MOST)
        return {key: Fact(value, self.file, self._of(key)) for key, value in found.items() if value is not None}

    def rows(self, least: int = 1, most: int = MOST) -> list["Fact"]:
        """The values of a list, which has at least `least` and at most `most`."""
        if not isinstance(self.value, Sequence) or isinstance(self.value, str):
            self.refuse("to be a list")
        if len(self.value) < least:
            self.refuse("to have an entry")
        self._expect_few(self.value, most)
        return [Fact(value, self.file, f"{self.field}[{i}]") for i, value in enumerate(self.value)]

    def text(self) -> str:
        """Text that is not empty."""
        if not isinstance(self.value, str) or not self.value.strip():
            self.refuse("to be text")
        return self.value

    def number(self, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number in these bounds."""
        if type(self.value) not in (int, float) or abs(self.value) > 1e300 or not math.isfinite(self.value):
            self.refuse("to be a finite number")
        if not low <= self.value <= high:
            self.refuse(f"to be at least {low:,g}" if high == math.inf else f"to be from {low:,g} to {high:,g}")
        return float(self.value)

    def whole(self, low: int = 0) -> int:
        """A whole number that is at least `low`."""
        if type(self.value) is not int or not low <= self.value <= LARGEST:
            self.refuse(f"to be a whole number of at least {low:,}")
        return self.value

    def setting(self) -> str:
        """A setting, as text: text, a number, true or false, or a list of these."""
        if isinstance(self.value, list | tuple):
            return ", ".join(row.setting() for row in self.rows())
        if type(self.value) is int:
            return str(self.whole(-LARGEST))
        if type(self.value) is float:
            return str(self.number())
        return str(self.value).lower() if isinstance(self.value, bool) else self.text()

    def refuse(self, what: str) -> NoReturn:
        """Say what was expected of this value."""
        raise PrismaError(f"expected {self.field or 'its content'} in {self.file} {what}; found {quoted(self.value)}")

    def _object(self) -> Mapping[str, Any]:
        if not isinstance(self.value, Mapping):
            self.refuse("to be an object with named fields")
        return self.value

    def _expect_few(self, found: Mapping[str, Any] | Sequence[Any], most: int) -> None:
        if len(found) > most:
            self.refuse(f"to have at most {most:,} entries, not {len(found):,}")

    def _of(self, key: str) -> str:
        return f"{self.field}.{shown(key)}" if self.field else shown(key)
