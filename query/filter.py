"""Filter expressions: text such as ``lang = "en" AND year >= 2020`` into a small typed tree.

The grammar belongs to `lark`; this module names what is wrong and at which character. It never
knows a store: what a tree means there is the store's translation (`query.where`). Nesting is
bounded here and size by the caller's bytes, so a tree can be walked by recursion.

    expression  = conjunction { OR conjunction }
    conjunction = term { AND term }
    term        = NOT term | "(" expression ")" | comparison
    comparison  = field ( "=" | "!=" ) value
                | field ( "<" | "<=" | ">" | ">=" ) number
                | field [ NOT ] IN "(" value { "," value } ")"
                | field CONTAINS string

Strings stand in double quotes with JSON's escapes; keywords may be in any case, and a field that
is called like one is written in backquotes.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from common import records
from common.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lark.parsers.lalr_interactive_parser import InteractiveParser

MAX_FILTER_BYTES: Final = 4_096
MAX_DEPTH: Final = 8
# Programs repeat their filters, and reading one takes a good half millisecond.
KEPT_FILTERS: Final = 64
_EXCERPT_CHARACTERS: Final = 60
_INT64: Final = range(-(2**63), 2**63)

Scalar: TypeAlias = str | int | float | bool


class Operator(StrEnum):
    """How a field is compared; IN, NOT_IN with a tuple of values, the others with one."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    IN = "IN"
    NOT_IN = "NOT IN"
    CONTAINS = "CONTAINS"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field compared. CONTAINS asks whether a list of strings holds the value."""

    field: str
    operator: Operator
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """What does not match the operand, which is never itself a Not."""

    operand: Expression


@dataclass(frozen=True, slots=True)
class And:
    """What matches every operand: two or more, none of them an And."""

    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """What matches at least one operand: two or more, none of them an Or."""

    operands: tuple[Expression, ...]


Expression: TypeAlias = Comparison | Not | And | Or

_TEXT_FIELDS: Final = frozenset(
    {records.SOURCE_URI, records.TITLE, records.MEDIA_TYPE, records.DOCUMENT_ID}
)
_NUMBER_FIELDS: Final = frozenset({records.PAGE})

_GRAMMAR: Final = r"""
?start: disjunction
?disjunction: conjunction (_OR conjunction)*
?conjunction: _term (_AND _term)*
_term: negation | comparison | _LPAR disjunction _RPAR
negation: _NOT _term
comparison: FIELD (EQ | NE) value -> compare
          | FIELD (LT | LE | GT | GE) number -> compare
          | FIELD _CONTAINS string -> contains
          | FIELD _IN _LPAR value (_COMMA value)* _RPAR -> is_in
          | FIELD _NOT _IN _LPAR value (_COMMA value)* _RPAR -> is_not_in
?value: string | number | TRUE -> true | FALSE -> false
string: STRING
number: NUMBER

EQ: "="
NE: "!="
LT: "<"
LE: "<="
GT: ">"
GE: ">="
_LPAR: "("
_RPAR: ")"
_COMMA: ","
_OR.2: /OR(?![A-Za-z0-9_.-])/i
_AND.2: /AND(?![A-Za-z0-9_.-])/i
_NOT.2: /NOT(?![A-Za-z0-9_.-])/i
_IN.2: /IN(?![A-Za-z0-9_.-])/i
_CONTAINS.2: /CONTAINS(?![A-Za-z0-9_.-])/i
TRUE.2: /TRUE(?![A-Za-z0-9_.-])/i
FALSE.2: /FALSE(?![A-Za-z0-9_.-])/i
FIELD: /[A-Za-z_][A-Za-z0-9_.-]*|`[A-Za-z_][A-Za-z0-9_.-]*`/
STRING: /"(?:[^"\\]|\\.)*"/
NUMBER: /[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_.])/
%ignore /[ \t\r\n]+/
"""

_OPERATORS: Final = frozenset({"EQ", "NE", "LT", "LE", "GT", "GE", "_IN", "_NOT", "_CONTAINS"})
_VALUES: Final = frozenset({"STRING", "NUMBER", "TRUE", "FALSE"})
# Each row: if all these terminals would be right, this is how to say so.
_PHRASES: Final = (
    (_OPERATORS, "an operator (=, !=, <, <=, >, >=, IN, NOT IN or CONTAINS)"),
    (_VALUES, 'a value ("text", a number, true or false)'),
    (frozenset({"FIELD"}), "a field"),
    (frozenset({"STRING"}), "a string in double quotes"),
    (frozenset({"NUMBER"}), "a number"),
    (frozenset({"_NOT"}), "NOT"),
    (frozenset({"_IN"}), "IN"),
    (frozenset({"_LPAR"}), "("),
    (frozenset({"_COMMA"}), "a comma"),
    (frozenset({"_AND"}), "AND"),
    (frozenset({"_OR"}), "OR"),
    (frozenset({"_RPAR"}), ")"),
    (frozenset({"$END"}), "the end"),
)


class _FaultError(Exception):
    """What is wrong, and the index of the character."""

    def __init__(self, what: str, index: int) -> None:
        super().__init__(what)
        self.what = what
        self.index = index


@lru_cache(maxsize=KEPT_FILTERS)
def parse_filter(text: str) -> Expression | None:
    """Read a filter; None for a blank one, which means all.

    Raises:
        InvalidArgument: of field ``filter``; says what is wrong, at which character (counted from
            1), and shows the place with a caret on lines of their own.
    """
    size = len(text.encode())
    if size > MAX_FILTER_BYTES:
        raise InvalidArgument(
            f"at most {MAX_FILTER_BYTES:,} bytes, this has {size:,}", field="filter"
        )
    if not text.strip():
        return None
    parser = _PARSER.parse_interactive(text)
    try:
        return _parse(parser)
    except UnexpectedToken as error:
        end = len(text.rstrip())
        index = end if error.token.type == "$END" else _index(error.token)
        fault = _FaultError(f"expected {_expected(text, index)}", index)
    except UnexpectedCharacters as error:
        fault = _unreadable(text, cast("int", error.pos_in_stream))
    except _FaultError as error:
        fault = error
    raise InvalidArgument(_point(text, fault), field="filter")


def _parse(parser: InteractiveParser) -> Expression:
    depth, previous = 0, None
    for token in parser.iter_parse():
        if token.type == "_LPAR":
            depth += 1
            if depth > MAX_DEPTH and previous != "_IN":
                raise _FaultError(f"more than {MAX_DEPTH} parentheses deep", _index(token))
        elif token.type == "_RPAR":
            depth -= 1
        previous = token.type
    return cast("Expression", parser.feed_eof())  # type: ignore[no-untyped-call]  # lark's gap


def conjunction(operands: Iterable[Expression]) -> Expression:
    """All of these, as one tree in which no And holds an And."""
    flat = tuple(
        part
        for operand in operands
        for part in (operand.operands if isinstance(operand, And) else (operand,))
    )
    return flat[0] if len(flat) == 1 else And(flat)


def disjunction(operands: Iterable[Expression]) -> Expression:
    """Any of these, as one tree in which no Or holds an Or."""
    flat = tuple(
        part
        for operand in operands
        for part in (operand.operands if isinstance(operand, Or) else (operand,))
    )
    return flat[0] if len(flat) == 1 else Or(flat)


def negation(operand: Expression) -> Expression:
    """What the operand does not match; two negations are none."""
    return operand.operand if isinstance(operand, Not) else Not(operand)


@v_args(inline=True)
class _ToTree(Transformer[Token, Expression]):
    """Rules of the grammar to the tree; checks what only a typed look can see."""

    def disjunction(self, *operands: Expression) -> Expression:
        return disjunction(operands)

    def conjunction(self, *operands: Expression) -> Expression:
        return conjunction(operands)

    def negation(self, operand: Expression) -> Expression:
        return negation(operand)

    def compare(self, field: Token, operator: Token, value: Token) -> Expression:
        return Comparison(_field(field), Operator(str(operator)), _typed(field, value))

    def contains(self, field: Token, value: Token) -> Expression:
        name = _field(field)
        if name in _TEXT_FIELDS | _NUMBER_FIELDS:
            raise _FaultError(f"{name} is no list, so it cannot CONTAIN", _index(field))
        return Comparison(name, Operator.CONTAINS, _value(value))

    def is_in(self, field: Token, *values: Token) -> Expression:
        return Comparison(_field(field), Operator.IN, tuple(_typed(field, v) for v in values))

    def is_not_in(self, field: Token, *values: Token) -> Expression:
        return Comparison(_field(field), Operator.NOT_IN, tuple(_typed(field, v) for v in values))

    def string(self, token: Token) -> Token:
        return token

    number = true = false = string


def _field(token: Token) -> str:
    name = str(token).strip("`")
    if name in _TEXT_FIELDS or name in _NUMBER_FIELDS or records.is_user_key(name):
        return name
    if name.startswith("_") or name in records.RESERVED:
        builtin = ", ".join(sorted(_TEXT_FIELDS | _NUMBER_FIELDS))
        what = f"{name} is the index's own; use your metadata or one of {builtin}"
    else:
        what = "a field has at most 64 characters"
    raise _FaultError(what, _index(token))


def _typed(field: Token, token: Token) -> Scalar:
    """The value, if the field could ever hold it."""
    name = str(field).strip("`")
    if name in _TEXT_FIELDS and token.type != "STRING":
        raise _FaultError(f"expected a string in double quotes, as {name} holds", _index(token))
    if name in _NUMBER_FIELDS and token.type != "NUMBER":
        raise _FaultError(f"expected a number, as {name} holds", _index(token))
    return _value(token)


def _value(token: Token) -> Scalar:
    text = str(token)
    match token.type:
        case "TRUE" | "FALSE":
            return token.type == "TRUE"
        case "STRING":
            try:
                string = json.loads(text, strict=False)
                string.encode()
            except json.JSONDecodeError as error:
                raise _FaultError("no such escape", _index(token) + error.pos) from None
            except UnicodeEncodeError:
                raise _FaultError("half a surrogate pair in the string", _index(token)) from None
            return cast("str", string)
        case _ if text.lstrip("+-").isdigit():
            return _checked(token, int(text) in _INT64, int(text))
        case _:
            return _checked(token, math.isfinite(float(text)), float(text))


def _checked(token: Token, fits: bool, number: float) -> int | float:  # noqa: FBT001 — one line
    if not fits:
        raise _FaultError("a number beyond 64 bits", _index(token))
    return number


def _index(token: Token) -> int:
    return cast("int", token.start_pos)


def _expected(text: str, index: int) -> str:
    """What could stand at this character, as the parser sees it before it reads on."""
    parser = _PARSER.parse_interactive(text)
    with suppress(UnexpectedCharacters):
        for token in parser.iter_parse():
            if _index(token) >= index:
                break
    accepted: set[str] = parser.accepts()  # type: ignore[no-untyped-call]  # lark's gap
    phrases = []
    for terminals, phrase in _PHRASES:
        if terminals <= accepted:
            phrases.append(phrase)
            accepted -= terminals
    return " or ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))


def _unreadable(text: str, index: int) -> _FaultError:
    if text[index] == '"':
        return _FaultError("the string is not closed that begins", index)
    return _FaultError(f"expected {_expected(text, index)}", index)


def _point(text: str, fault: _FaultError) -> str:
    """The fault, then the filter around it, then a caret below the character."""
    start = max(0, fault.index - _EXCERPT_CHARACTERS // 2)
    excerpt = "".join(
        character if character.isprintable() else " "
        for character in text[start : start + _EXCERPT_CHARACTERS]
    )
    lines = (
        f"{fault.what} at character {fault.index + 1}",
        f"  {excerpt}",
        f"  {' ' * (fault.index - start)}^",
    )
    return "\n".join(lines)


# Built once: a table of constants, no input and no side effect.
_PARSER: Final = Lark(
    _GRAMMAR, parser="lalr", lexer="basic", transformer=_ToTree(), maybe_placeholders=False
)
