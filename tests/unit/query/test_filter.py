"""What a filter may say, what it means, and where a wrong one is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidArgument
from query.filter import (
    MAX_FILTER_BYTES,
    And,
    Comparison,
    Expression,
    Not,
    Operator,
    Or,
    conjunction,
    disjunction,
    negation,
    parse_filter,
)
from query.where import to_where

A = Comparison("a", Operator.EQ, 1)
B = Comparison("b", Operator.EQ, 2)
C = Comparison("c", Operator.EQ, 3)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ('lang = "en"', Comparison("lang", Operator.EQ, "en")),
        ("year != 2020", Comparison("year", Operator.NE, 2020)),
        ("year < -3", Comparison("year", Operator.LT, -3)),
        ("year<=2.5e1", Comparison("year", Operator.LE, 25.0)),
        ("year > .5", Comparison("year", Operator.GT, 0.5)),
        ("year >= 9223372036854775807", Comparison("year", Operator.GE, 2**63 - 1)),
        ("ok = TRUE", Comparison("ok", Operator.EQ, value=True)),
        ("ok = false", Comparison("ok", Operator.EQ, value=False)),
        ('tags contains "hdfs"', Comparison("tags", Operator.CONTAINS, "hdfs")),
        ('x IN(1, "a",2.5, true)', Comparison("x", Operator.IN, (1, "a", 2.5, True))),
        ("x not in (1)", Comparison("x", Operator.NOT_IN, (1,))),
        ('`not` = "x"', Comparison("not", Operator.EQ, "x")),
        ("input = 1", Comparison("input", Operator.EQ, 1)),
        ("a.b-c_d = 1", Comparison("a.b-c_d", Operator.EQ, 1)),
        (r'a = "\"q\" \\ \n \u00e9"', Comparison("a", Operator.EQ, '"q" \\ \n é')),
        (
            'source_uri = "hdfs://lake/a.md"',
            Comparison("source_uri", Operator.EQ, "hdfs://lake/a.md"),
        ),
        ("page >= 3", Comparison("page", Operator.GE, 3)),
        ("a=1 AND b=2 OR c=3", Or((And((A, B)), C))),
        ("a=1 OR b=2 AND c=3", Or((A, And((B, C))))),
        ("(a=1 OR b=2) AND c=3", And((Or((A, B)), C))),
        ("a=1 AND (b=2 AND c=3)", And((A, B, C))),
        ("NOT a=1 AND b=2", And((Not(A), B))),
        ("NOT (a=1 AND NOT NOT b=2)", Not(And((A, B)))),
        ("\n((a=1))\t", A),
        ("  ", None),
    ],
)
def test_a_filter_is_read_as_meant(text: str, meaning: Expression | None):
    assert repr(parse_filter(text)) == repr(meaning)  # repr tells 1, 1.0 and True apart


VALUE = 'expected a value ("text", a number, true or false)'
OPERATOR = "expected an operator (=, !=, <, <=, >, >=, IN, NOT IN or CONTAINS)"


@pytest.mark.parametrize(
    ("text", "what", "character"),
    [
        ("lang = AND", VALUE, 8),
        ("a =  ", VALUE, 4),
        ("a", OPERATOR, 2),
        ("a b", OPERATOR, 3),
        ("a = b", VALUE, 5),
        ("a == 3", VALUE, 4),
        ("a = 'x'", VALUE, 5),
        ("a = 12abc", VALUE, 5),
        ('a > "x"', "expected a number", 5),
        ("a < true", "expected a number", 5),
        ("a CONTAINS 3", "expected a string in double quotes", 12),
        ("a = 1 AND AND b = 2", "expected a field, NOT or (", 11),
        ("a = 1 b = 2", "expected AND, OR or the end", 7),
        ("é = 1", "expected a field, NOT or (", 1),
        ("a = 1 AND", "expected a field, NOT or (", 10),
        ("(a = 1", "expected AND, OR or )", 7),
        ("a = 1)", "expected AND, OR or the end", 6),
        ("a IN ()", VALUE, 7),
        ("a IN (1 2)", "expected a comma or )", 9),
        ("a NOT = 3", "expected IN", 7),
        ('ä = "ö" AND b = "x', None, 1),
        ('aa = "ö" AND b = "x', "the string is not closed that begins", 18),
        (r'a = "\q"', "no such escape", 6),
        (r'a = "\ud800"', "half a surrogate pair in the string", 5),
        ("a = 9223372036854775808", "a number beyond 64 bits", 5),
        ("a = 1e999", "a number beyond 64 bits", 5),
        ('page = "3"', "expected a number, as page holds", 8),
        ('title IN ("a", 3)', "expected a string in double quotes, as title holds", 16),
        ('title CONTAINS "x"', "title is no list, so it cannot CONTAIN", 1),
        ("x = 1 OR _revision = 3", None, 10),
        ('doc_id = "x"', None, 1),
        (f"{'a' * 65} = 1", "a field has at most 64 characters", 1),
        (f"{'(' * 9}a=1{')' * 9}", "more than 8 parentheses deep", 9),
        ("(" * 4000, "more than 8 parentheses deep", 9),
    ],
)
def test_a_wrong_filter_is_shown_with_the_character_of_its_fault(
    text: str, what: str | None, character: int
):
    with pytest.raises(InvalidArgument) as caught:
        parse_filter(text)
    fault, excerpt, caret = caught.value.message.split("\n")
    assert caught.value.field == "filter"
    assert fault.startswith("filter: ")
    assert fault.endswith(f" at character {character}")
    if what is not None:
        assert fault == f"filter: {what} at character {character}"
    below = excerpt[caret.index("^") :]
    assert below[:1].strip() == text[character - 1 : character].strip()


def test_what_is_the_indexs_own_is_named():
    with pytest.raises(InvalidArgument, match="_version is the index's own; use your metadata or"):
        parse_filter("_version = 3")


def test_a_fault_far_into_a_filter_is_shown_with_what_is_around_it():
    text = " AND ".join(["x = 1"] * 200) + " AND y ~ 2"
    with pytest.raises(InvalidArgument) as caught:
        parse_filter(text)
    _, excerpt, caret = caught.value.message.split("\n")
    assert excerpt[caret.index("^")] == "~"
    assert len(excerpt) < 70


def test_a_filter_that_is_too_long_is_refused():
    longest = f'a = "{"x" * (MAX_FILTER_BYTES - 6)}"'
    assert parse_filter(longest) is not None
    with pytest.raises(InvalidArgument, match=r"filter: at most 4,096 bytes, this has 4,097"):
        parse_filter(longest + " ")


def test_as_deep_as_allowed_is_read():
    text = "(" * 8 + "a IN (1)" + ")" * 8
    assert parse_filter(text) == Comparison("a", Operator.IN, (1,))


def test_a_long_row_of_negations_is_read():
    assert parse_filter("NOT " * 1_001 + "a=1") == Not(A)


fields = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(
    lambda name: (
        name not in {"document_id", "doc_id", "ref_doc_id", "source_uri", "title"}
        and name not in {"media_type", "page"}
    )
)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
scalars = strings | numbers | st.booleans()
comparisons = (
    st.builds(Comparison, fields, st.sampled_from([Operator.EQ, Operator.NE]), scalars)
    | st.builds(
        Comparison,
        fields,
        st.sampled_from([Operator.LT, Operator.LE, Operator.GT, Operator.GE]),
        numbers,
    )
    | st.builds(
        Comparison,
        fields,
        st.sampled_from([Operator.IN, Operator.NOT_IN]),
        st.lists(scalars, min_size=1, max_size=3).map(tuple),
    )
    | st.builds(Comparison, fields, st.just(Operator.CONTAINS), strings)
)
expressions: st.SearchStrategy[Expression] = st.recursive(
    comparisons,
    lambda inner: (
        st.lists(inner, min_size=2, max_size=3).map(conjunction)
        | st.lists(inner, min_size=2, max_size=3).map(disjunction)
        | inner.map(negation)
    ),
    max_leaves=8,
)


def printed(expression: Expression) -> str:
    match expression:
        case Not(operand):
            return f"NOT {in_parentheses(operand)}"
        case And(operands):
            return " AND ".join(in_parentheses(operand) for operand in operands)
        case Or(operands):
            return " or ".join(in_parentheses(operand) for operand in operands)
        case Comparison(field, operator, tuple(values)):
            return f"`{field}` {operator} ({', '.join(json.dumps(value) for value in values)})"
        case Comparison(field, operator, value):
            return f"`{field}` {operator} {json.dumps(value, ensure_ascii=False)}"


def in_parentheses(expression: Expression) -> str:
    if isinstance(expression, Comparison | Not):
        return printed(expression)
    return f"({printed(expression)})"


def depth(expression: Expression) -> int:
    match expression:
        case Not(operand):
            return depth(operand)
        case And(operands) | Or(operands):
            return 1 + max(depth(operand) for operand in operands)
        case _:
            return 0


@given(expressions.filter(lambda tree: depth(tree) <= 8 and len(printed(tree).encode()) <= 4_096))
def test_what_is_printed_reads_back_the_same(expression: Expression):
    assert repr(parse_filter(printed(expression))) == repr(expression)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a = 1", {"a": {"$eq": 1}}),
        ("a IN (1, 2)", {"a": {"$in": [1, 2]}}),
        ('a IN (1, "x", 2)', {"$or": [{"a": {"$in": [1, 2]}}, {"a": {"$in": ["x"]}}]}),
        ('a NOT IN (1, "x")', {"$and": [{"a": {"$nin": [1]}}, {"a": {"$nin": ["x"]}}]}),
        ('NOT a IN (1, "x")', {"$and": [{"a": {"$nin": [1]}}, {"a": {"$nin": ["x"]}}]}),
        (
            "NOT (a < 1 AND (b >= 2 OR NOT c != 3))",
            {
                "$or": [
                    {"a": {"$gte": 1}},
                    {"$and": [{"b": {"$lt": 2}}, {"c": {"$ne": 3}}]},
                ]
            },
        ),
        ('NOT tags CONTAINS "x"', {"tags": {"$not_contains": "x"}}),
    ],
)
def test_a_negation_reaches_the_comparisons(text: str, where: dict[str, object]):
    tree = parse_filter(text)
    assert tree is not None
    assert to_where(tree) == where
