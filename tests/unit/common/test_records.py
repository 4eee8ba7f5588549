import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import media_types, records
from common.errors import InvalidArgument
from sluice.document.v1 import document_pb2

VALUES = st.one_of(
    st.text(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.lists(st.text(), min_size=1, max_size=records.MAX_LIST_VALUES),
)


@given(VALUES)
def test_a_value_crosses_the_contract_with_its_type(value):
    back = records.from_proto(records.to_proto(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "message",
    [
        document_pb2.MetadataValue(),
        document_pb2.MetadataValue(double_value=math.nan),
        document_pb2.MetadataValue(double_value=math.inf),
        document_pb2.MetadataValue(string_list_value=document_pb2.StringList()),
        document_pb2.MetadataValue(string_list_value=document_pb2.StringList(values=["x"] * 65)),
    ],
)
def test_what_cannot_be_kept_is_refused(message):
    with pytest.raises(InvalidArgument):
        records.from_proto(message)


@pytest.mark.parametrize(
    "key", ["", "_x", "1x", "a b", "document_id", "title", "page", "é", "a" * 65]
)
def test_the_names_of_the_system_are_not_the_users(key):
    assert not records.is_user_key(key)


def test_only_the_users_part_is_given_back():
    stored: dict[str, records.MetadataValue] = {
        "lang": "en",
        records.VERSION: 3,
        records.TITLE: "t",
        records.DOC_ID: "d",
    }
    assert records.user_metadata(stored) == {"lang": "en"}


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.MD", "text/markdown"),
        ("b/c.jsonl", "application/jsonl"),
        ("x.bin", None),
        (".log", None),
    ],
)
def test_a_name_tells_a_media_type(name, media_type):
    assert media_types.guess(name) == media_type


@pytest.mark.parametrize("name", ["a.txt", "a.docx", "a.pdf", "a.html", "a.csv", "a.json"])
def test_what_a_name_tells_is_supported(name):
    assert media_types.is_supported(media_types.guess(name) or "")


@pytest.mark.parametrize(
    "text", ["", "text", "TEXT/PLAIN", "image/png", "text/", "a b/c", "text/x\n"]
)
def test_other_media_types_are_not(text):
    assert not media_types.is_supported(text)
