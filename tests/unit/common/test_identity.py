from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import identity
from common.errors import InvalidArgument
from common.identity import ConsistencyToken

PARTS: dict[str, Any] = {
    "content_digest": identity.content_digest("text"),
    "title": "t",
    "media_type": "text/plain",
    "pages": [(1, 0, 4)],
    "chunking": "sentence/256/32",
}


def test_digests_are_fixed_for_ever():
    # Chunks in production are stored under these names: a change here orphans every index.
    assert identity.document_id("file:///a") == "c0b7e0aae82669ae2a4961362ccdb8ce"
    assert identity.content_digest("text").startswith("b2cf2360422d3261")
    assert identity.revision(**PARTS) == "77ff4ec5bc88c2f8"


@pytest.mark.parametrize(
    "change",
    [
        {"content_digest": identity.content_digest("other")},
        {"title": "u"},
        {"media_type": "text/markdown"},
        {"pages": [(1, 0, 3)]},
        {"chunking": "sentence/128/32"},
    ],
)
def test_whatever_shapes_the_chunks_changes_the_revision(change):
    assert identity.revision(**(PARTS | change)) != identity.revision(**PARTS)


@given(st.integers(0, 10**9 - 1))
def test_a_chunk_id_can_be_taken_apart(ordinal):
    name = identity.chunk_id("a" * 32, "b" * 16, ordinal)
    assert identity.parse_chunk_id(name) == ("a" * 32, "b" * 16, ordinal)


@pytest.mark.parametrize("ordinal", ["", "01", "-1", "x", "0 "])
def test_what_is_no_chunk_id_is_refused(ordinal):
    with pytest.raises(InvalidArgument, match="chunk_id"):
        identity.parse_chunk_id(f"{'a' * 32}:{'b' * 16}:{ordinal}")


def test_the_empty_tenant_is_the_default_one():
    assert identity.check_tenant("") == "default"


@pytest.mark.parametrize("name", ["A", "a.b", "-a", "a" * 64, "a b", "é", "a\n"])
def test_malformed_tenants_are_refused(name):
    with pytest.raises(InvalidArgument, match="tenant: "):
        identity.check_tenant(name)


@pytest.mark.parametrize("name", ["", "A", "a.b", "_a", "a" * 129, "a/b"])
def test_malformed_collections_are_refused(name):
    with pytest.raises(InvalidArgument, match="collection: "):
        identity.check_collection(name)


def test_the_store_knows_a_version_by_a_name_of_its_own():
    assert identity.store_collection("default", "docs", 7) == "default.docs.v000007"


def test_a_token_comes_back_as_it_went():
    token = ConsistencyToken("default", "docs", 7, 12)
    assert identity.decode_token(identity.encode_token(token)) == token


@pytest.mark.parametrize("text", ["x", "e30=", "W10=", "é", "WyJhIiwgImIiLCAiYyIsIDFd"])
def test_a_foreign_token_is_refused(text):
    with pytest.raises(InvalidArgument, match="at_least: "):
        identity.decode_token(text)
