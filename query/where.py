"""A filter as Chroma's ``where``: the only place that knows its operators and their limits.

Chroma 1.5 has no NOT, so a negation is pushed down to the comparisons; it wants two operands or
more in ``$and`` and ``$or``, one type in ``$in``. Negated equality, membership and CONTAINS also
match what lacks the field, as ``$ne``, ``$nin`` and ``$not_contains`` do; an ordering, negated or
not, asks for a number that is there.

Chroma compares stored integers with a fraction as if it were cut to its whole part (2020 counts as
equal to 2020.5, and not as less): where that would be wrong, the whole part is taken out or put in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard

from query.filter import And, Comparison, Not, Operator, Or

if TYPE_CHECKING:
    from query.filter import Expression, Scalar

Where: TypeAlias = dict[str, Any]

_NEGATED: Final = {
    Operator.EQ: "$ne",
    Operator.NE: "$eq",
    Operator.LT: "$gte",
    Operator.LE: "$gt",
    Operator.GT: "$lte",
    Operator.GE: "$lt",
    Operator.IN: "$nin",
    Operator.NOT_IN: "$in",
    Operator.CONTAINS: "$not_contains",
}
_PLAIN: Final = {
    Operator.EQ: "$eq",
    Operator.NE: "$ne",
    Operator.LT: "$lt",
    Operator.LE: "$lte",
    Operator.GT: "$gt",
    Operator.GE: "$gte",
    Operator.IN: "$in",
    Operator.NOT_IN: "$nin",
    Operator.CONTAINS: "$contains",
}


def to_where(expression: Expression, *, negated: bool = False) -> Where:
    """Translate a filter, or what it does not match."""
    match expression:
        case Not(operand):
            return to_where(operand, negated=not negated)
        case And(operands):
            key = "$or" if negated else "$and"
            return {key: [to_where(operand, negated=negated) for operand in operands]}
        case Or(operands):
            key = "$and" if negated else "$or"
            return {key: [to_where(operand, negated=negated) for operand in operands]}
        case Comparison(field, operator, value):
            sign = (_NEGATED if negated else _PLAIN)[operator]
            if isinstance(value, tuple):
                return _membership(field, sign, value)
            return _compare(field, sign, value)


def _compare(field: str, sign: str, value: Scalar) -> Where:
    where: Where = {field: {sign: value}}
    if not _is_fraction(value):
        return where
    whole = int(value)
    if sign in {"$eq", "$gte" if value > 0 else "$lte"}:
        return {"$and": [where, {field: {"$ne": whole}}]}
    if sign in {"$ne", "$lt" if value > 0 else "$gt"}:
        return {"$or": [where, {field: {"$eq": whole}}]}
    return where


def _membership(field: str, sign: str, values: tuple[Scalar, ...]) -> Where:
    """One ``$in`` or ``$nin`` for each type among the values, fractions apart."""
    within = sign == "$in"
    groups: dict[type, list[Scalar]] = {}
    fractions = [value for value in values if _is_fraction(value)]
    for value in values:
        if not _is_fraction(value):
            groups.setdefault(type(value), []).append(value)
    parts: list[Where] = [{field: {sign: group}} for group in groups.values()]
    if fractions:
        whole = [int(value) for value in fractions]
        both = [{field: {sign: fractions}}, {field: {"$nin" if within else "$in": whole}}]
        parts.append({"$and" if within else "$or": both})
    if len(parts) == 1:
        return parts[0]
    return {"$or" if within else "$and": parts}


def _is_fraction(value: Scalar) -> TypeGuard[float]:
    return isinstance(value, float) and not value.is_integer()
