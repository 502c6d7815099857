"""What a program is graded by, as one of three frozen records. Nothing is run here.

Sets of programming problems keep their tests in many shapes; `read_tests` knows those of TACO and APPS
(``inputs``, ``outputs``, ``fn_name``), of SYNTHETIC-1 and DeepCoder (lists of cases) and of LiveCodeBench
(``testtype``; private tests packed as base64 of zlib of a pickled text). Two fields are our own:
``any_order`` of a case, or of an object of cases, and ``accepted``, a list of other right outputs of a case.
"""

import base64
import io
import json
import pickle
import zlib
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

from elastic.data.answers import shown
from elastic.data.columns import Row, literal

_MOST_UNPACKED = 1 << 30  # bytes; LiveCodeBench's largest problem has some hundred MB of tests


@dataclass(frozen=True)
class StdinTest:
    """A program reads ``input`` on its standard input and must print ``output``.

    Attributes:
        input: all of the standard input.
        output: what is right.
        accepted: other outputs that are right as well.
        any_order: whether the order of the lines is free.
    """

    kind: ClassVar[str] = "stdin"

    input: str
    output: str
    accepted: tuple[str, ...] = ()
    any_order: bool = False


@dataclass(frozen=True)
class CallTest:
    """A function, or a method of the class ``Solution``, is called.

    Attributes:
        function: its name.
        arguments: a JSON list.
        expected: JSON values, each of which is right. Sets of the APPS family wrap some results in a list and
            do not say which.
        any_order: whether the order of a returned list's items is free.
    """

    kind: ClassVar[str] = "call"

    function: str
    arguments: str
    expected: tuple[str, ...]
    any_order: bool = False


@dataclass(frozen=True)
class ProgramTest:
    """Python that runs behind the solution and must not raise, as HumanEval's ``check(candidate)``."""

    kind: ClassVar[str] = "program"

    program: str


CodeTest = StdinTest | CallTest | ProgramTest


def read_tests(value: Any, place: str, function: str | None = None) -> tuple[CodeTest, ...]:
    """The tests in a column; empty where it holds none.

    Args:
        value: a list of cases, or an object with ``test_cases`` or with ``inputs`` and ``outputs``; also as
            JSON, as Python's literal, or packed as LiveCodeBench does.
        place: row and field, for errors.
        function: what is called, where the cases do not say.

    Raises:
        ValueError: another shape; a case without input and output; a call without a function's name.
    """
    if isinstance(value, str):
        value = _unpacked(value, place)
    any_order = False
    if isinstance(value, dict):
        any_order = _flag(value, place)
        value = value["test_cases"] if "test_cases" in value else _columns(value, place)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"{place}: expected tests, got {shown(value)}")
    return tuple(
        _test(case, f"{place}, test {number}", function, any_order) for number, case in enumerate(value)
    )


def program_test(program: Any, place: str, function: Any) -> ProgramTest:
    """A test that is Python source; with a function, ``check(function)`` is called behind it.

    Raises:
        ValueError: no text.
    """
    if not isinstance(program, str) or not program.strip():
        raise ValueError(f"{place}: expected a program, got {shown(program)}")
    return ProgramTest(f"{program}\ncheck({function})\n" if function else program)


def _columns(value: dict[str, Any], place: str) -> list[dict[str, Any]]:
    """TACO's lists of inputs and of outputs as a list of cases."""
    inputs, outputs = value.get("inputs"), value.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise ValueError(f"{place}: tests need 'inputs' and 'outputs', got the fields {sorted(value)}")
    if len(inputs) != len(outputs):
        raise ValueError(f"{place}: has {len(inputs)} inputs and {len(outputs)} outputs")
    name = {"fn_name": value["fn_name"]} if value.get("fn_name") else {}
    return [{"input": i, "output": o, **name} for i, o in zip(inputs, outputs, strict=True)]


def _flag(value: dict[str, Any], place: str, default: bool = False) -> bool:
    flag = value.get("any_order", default)
    if not isinstance(flag, bool):
        raise ValueError(f"{place}: any_order must be true or false, got {shown(flag)}")
    return flag


def _test(case: Any, place: str, function: str | None, any_order: bool) -> CodeTest:
    if isinstance(case, list) and len(case) == 2:  # CodeElo's examples
        case = {"input": case[0], "output": case[1]}
    if not isinstance(case, dict) or not {"input", "output"} <= case.keys():
        raise ValueError(f"{place}: expected an object with 'input' and 'output', got {shown(case)}")
    given, wanted = case["input"], case["output"]
    more = case.get("accepted", [])
    if not isinstance(more, list):
        raise ValueError(f"{place}: accepted must be a list of outputs, got {shown(more)}")
    any_order = _flag(case, place, any_order)
    kind = case.get("testtype") or case.get("type")
    name = case.get("fn_name") or Row(case, place, {}).get("function") or function
    if kind in ("stdin", "stdin_stdout") or (kind is None and not name):
        accepted = tuple(_lines(output, place) for output in more)
        return StdinTest(_lines(given, place), _lines(wanted, place), accepted, any_order)
    if kind not in (None, "functional", "function_call"):
        raise ValueError(f"{place}: unknown kind of test {kind!r}")
    if not name:
        raise ValueError(f"{place}: calls a function, but names none")
    if kind == "functional":  # LiveCodeBench: one JSON value a line
        values = [_json(line, place) for line in str(given).split("\n") if line.strip()]
        right = [_json(str(output), place) for output in (wanted, *more)]
        return CallTest(str(name), _dumped(values), tuple(map(_dumped, right)), any_order)
    arguments = _json(given, place) if isinstance(given, str) else given
    result = literal(wanted) if isinstance(wanted, str) else wanted
    if not isinstance(arguments, list):
        raise ValueError(f"{place}: expected a list of arguments, got {shown(given)}")
    alone = [result[0]] if isinstance(result, list) and len(result) == 1 else []
    return CallTest(str(name), _dumped(arguments), tuple(map(_dumped, [result, *alone, *more])), any_order)


def _lines(value: Any, place: str) -> str:
    if isinstance(value, list):
        return "\n".join(_lines(item, place) for item in value)
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(f"{place}: expected text, got {shown(value)}")
    return str(value)


def _dumped(value: Any) -> str:
    return json.dumps(value, default=float)  # numbers of JSON files come as decimals


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{place}: not JSON: {shown(text)}") from error


def _unpacked(text: str, place: str) -> Any:
    if not text.strip():
        return None
    value = literal(text)
    if isinstance(value, str):
        stream = zlib.decompressobj()
        try:
            data = stream.decompress(base64.b64decode(text, validate=True), _MOST_UNPACKED)
            value = _PlainUnpickler(io.BytesIO(data)).load() if not stream.unconsumed_tail else None
        except Exception as error:  # a broken pickle may raise anything
            raise ValueError(f"{place}: neither JSON nor packed tests: {shown(text)}") from error
        if stream.unconsumed_tail:
            raise ValueError(f"{place}: packed tests of more than {_MOST_UNPACKED} bytes")
        if not isinstance(value, str):
            raise ValueError(f"{place}: packed tests must be a text, got {type(value).__name__}")
        value = literal(value)
    return value


class _PlainUnpickler(pickle.Unpickler):
    """Reads values that need no class. A pickle that names one could run anything."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"names {module}.{name}")
