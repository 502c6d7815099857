"""Tables of a TOML file as frozen dataclasses that check themselves.

A section's fields carry their limits as metadata (`limited`). Whether a value came from a file or from
Python, an error names the table, the key, the value and the limit.
"""

import difflib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

S = TypeVar("S", bound="Section")


def limited(
    default: Any = MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> Any:
    """A dataclass field whose number must be ``>= low``, ``<= high`` and ``> above``."""
    limits = {"low": low, "high": high, "above": above}
    return field(metadata=limits) if default is MISSING else field(default=default, metadata=limits)


@dataclass(frozen=True)
class Section:
    """Base of every table."""

    TABLE: ClassVar[str] = ""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in fields(self):
            name = f"{self.TABLE}.{item.name}" if self.TABLE else item.name
            value = _convert(getattr(self, item.name), hints[item.name], name)
            _check_limits(value, item.metadata, name)
            object.__setattr__(self, item.name, value)
        self.check()

    def check(self) -> None:
        """Checks between fields; the sections that have any override it."""

    @classmethod
    def from_table(cls: type[S], table: Mapping[str, Any]) -> S:
        """Builds a section, and the sections in it, from parsed TOML.

        Raises:
            ValueError: an unknown or missing key, or a bad value.
        """
        where = f"table [{cls.TABLE}]" if cls.TABLE else "the file"
        if not isinstance(table, Mapping):
            raise ValueError(f"[{cls.TABLE}]: expected a table, got {table!r}")
        known = {item.name: item for item in fields(cls)}
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=3)
                hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
                raise ValueError(f"unknown key '{key}' in {where}{hint} (known: {', '.join(sorted(known))})")
        hints = get_type_hints(cls)
        values = {}
        for name, item in known.items():
            section = hints[name]
            if isinstance(section, type) and issubclass(section, Section):
                values[name] = section.from_table(table.get(name, {}))
            elif name in table:
                values[name] = table[name]
            elif item.default is MISSING and item.default_factory is MISSING:
                raise ValueError(f"missing key '{name}' in {where}")
        section = cls(**values)
        object.__setattr__(section, "_named", frozenset(table))
        return section

    def following(self: S, **values: Any) -> S:
        """The section with other values for keys that were not set: defaults that depend on other tables."""
        section = replace(self, **{name: value for name, value in values.items() if name not in self.given})
        object.__setattr__(section, "_named", self.given)
        return section

    def overridden(self: S, **values: Any) -> S:
        """The section with other values, which count as given."""
        section = replace(self, **values)
        object.__setattr__(section, "_named", self.given | values.keys())
        return section

    @property
    def given(self) -> frozenset[str]:
        """Keys that were set: those a table named, and those that differ from their default."""
        named: frozenset[str] = self.__dict__.get("_named", frozenset())
        return named | {item.name for item in fields(self) if getattr(self, item.name) != item.default}


def _describe(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in get_args(kind))
    if origin in (Union, UnionType):
        return " or ".join(_describe(part) for part in get_args(kind) if part is not NoneType)
    if origin is tuple:
        parts = get_args(kind)
        return (
            f"a list of {_describe(parts[0])}"
            if Ellipsis in parts
            else f"[{', '.join(map(_describe, parts))}]"
        )
    return {int: "an integer", float: "a number", str: "text", bool: "true or false"}.get(kind, str(kind))


def _convert(value: Any, kind: Any, name: str) -> Any:
    """`value` as the type `kind` of a field; TOML's lists become tuples, integers become floats."""
    try:
        return _converted(value, kind)
    except TypeError:
        raise ValueError(f"{name}: must be {_describe(kind)}, got {value!r}") from None


def _converted(value: Any, kind: Any) -> Any:
    origin = get_origin(kind)
    if origin is Literal:
        # Type too: True == 1 in Python.
        if any(value == choice and type(value) is type(choice) for choice in get_args(kind)):
            return value
    elif origin in (Union, UnionType):
        for part in get_args(kind):
            try:
                return _converted(value, part)
            except TypeError:
                continue
    elif origin is tuple and isinstance(value, list | tuple):
        parts = get_args(kind)
        if Ellipsis in parts:
            return tuple(_converted(item, parts[0]) for item in value)
        if len(parts) == len(value):
            return tuple(_converted(item, part) for item, part in zip(value, parts, strict=True))
    elif kind is NoneType and value is None:
        return None
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif kind in (bool, int, str):
        if type(value) is kind:  # not isinstance: True is an int in Python
            return value
    elif isinstance(kind, type) and isinstance(value, kind):
        return value
    raise TypeError


def _check_limits(value: Any, limits: Mapping[str, Any], name: str) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        low, high, above = limits.get("low"), limits.get("high"), limits.get("above")
        if low is not None and number < low:
            raise ValueError(f"{name}: must be at least {low}, got {number!r}")
        if above is not None and number <= above:
            raise ValueError(f"{name}: must be above {above}, got {number!r}")
        if high is not None and number > high:
            raise ValueError(f"{name}: must be at most {high}, got {number!r}")


def to_dict(section: Section) -> dict[str, Any]:
    """Nested plain dicts and lists; keys whose value is None are left out, as TOML has no null."""
    result: dict[str, Any] = {}
    for item in fields(section):
        value = getattr(section, item.name)
        if is_dataclass(value):
            result[item.name] = to_dict(value)  # type: ignore[arg-type]
        elif value is not None:
            result[item.name] = _plain(value)
    return result


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def to_toml(section: Section, left_out: Collection[str] = ()) -> str:
    """A file that loads to an equal section: plain keys first, then one table per nested section.

    Args:
        left_out: ``table.key`` of values that are not written because they are defaults.
    """
    lines: list[str] = []
    tables: list[str] = []
    for key, value in to_dict(section).items():
        if isinstance(value, dict):
            kept = {name: item for name, item in value.items() if f"{key}.{name}" not in left_out}
            tables += [f"\n[{key}]", *(f"{name} = {toml_value(item)}" for name, item in kept.items())]
        else:
            lines.append(f"{key} = {toml_value(value)}")
    return "\n".join(lines + tables).lstrip("\n") + "\n"


def toml_value(value: Any) -> str:
    """A plain value as TOML writes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, float):
        return repr(value)
    # JSON writes text, integers and booleans as TOML does, except DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
