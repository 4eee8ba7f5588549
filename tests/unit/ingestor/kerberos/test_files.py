"""Names and times are read from both formats; whatever else the bytes are, they are refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.kerberos.files import MalformedError, Ticket, keytab_principals, read_cache
from tests.unit.ingestor.kerberos.kerberos_bytes import (
    cache,
    cache_principal,
    credential,
    keytab,
    keytab_entry,
    number,
)

GRANTING = credential(["krbtgt", "R.ORG"], "R.ORG", (100, 110, 200))
SERVICE = credential(["hdfs", "node.r.org"], "R.ORG", (100, 0, 190))
SETTING = credential(["krb5_ccache_conf_data", "pa_type"], "X-CACHECONF:", (0, 0, 0))


def test_a_keytab_names_each_principal_once():
    content = keytab((["alice"], "R.ORG"), (["hdfs", "node"], "R.ORG"), (["alice"], "R.ORG"))
    assert keytab_principals(content) == ("alice@R.ORG", "hdfs/node@R.ORG")


def test_marks_within_a_name_are_escaped():
    assert keytab_principals(keytab((["a/b", "c@d\\"], "R"))) == ("a\\/b/c\\@d\\\\@R",)


def test_holes_are_stepped_over_and_padding_ends_a_keytab():
    removed = number(-10, 4) + b"x" * 10
    content = keytab((["a"], "R")) + removed + keytab_entry(["b"], "R") + bytes(4) + b"rest"
    assert keytab_principals(content) == ("a@R", "b@R")


def test_a_keytab_without_entries_is_one():
    assert keytab_principals(b"\x05\x02") == ()


def test_a_cache_tells_whose_tickets_it_holds_and_until_when():
    held = read_cache(cache(SETTING, SERVICE, GRANTING, offset_s=-7))
    assert (held.principal, held.time_offset_s) == ("alice@R.ORG", -7)
    assert held.tickets == (
        Ticket("hdfs/node.r.org@R.ORG", 100, 190),  # without a start, from the authentication on
        Ticket("krbtgt/R.ORG@R.ORG", 110, 200),
    )
    assert held.granting_ticket == held.tickets[1]


def test_the_granting_ticket_that_ends_last_counts():
    older = credential(["krbtgt", "R.ORG"], "R.ORG", (1, 1, 2))
    ticket = read_cache(cache(GRANTING, older)).granting_ticket
    assert ticket is not None
    assert ticket.end == 200
    assert read_cache(cache(SERVICE)).granting_ticket is None


def test_a_cache_of_version_3_has_no_header_and_names_the_key_twice():
    whole = credential(["krbtgt", "R.ORG"], "R.ORG", (1, 2, 3), repeated_type=True)
    held = read_cache(b"\x05\x03" + cache_principal(["alice"], "R.ORG") + whole)
    assert held.tickets == (Ticket("krbtgt/R.ORG@R.ORG", 2, 3),)


@pytest.mark.parametrize("read", [keytab_principals, read_cache])
@pytest.mark.parametrize("content", [b"", b"\x05", b"hello", b"\x05\x01" + bytes(20)])
def test_other_files_are_refused(read, content):
    with pytest.raises(MalformedError):
        read(content)


@given(st.integers(min_value=1))
def test_a_file_that_is_cut_off_is_refused_or_holds_less(cut):
    content = keytab((["alice"], "R.ORG"), (["carol"], "R.ORG"))
    entry = (len(content) - 2) // 2
    length = 2 + cut % (len(content) - 2)
    if (length - 2) % entry:
        with pytest.raises(MalformedError):
            keytab_principals(content[:length])
    else:
        assert len(keytab_principals(content[:length])) == (length - 2) // entry


@given(st.integers(min_value=0, max_value=len(GRANTING) - 1))
def test_a_cache_that_is_cut_off_within_a_ticket_is_refused(length):
    content = cache(SERVICE)
    if length == 0:
        assert len(read_cache(content).tickets) == 1
        return
    with pytest.raises(MalformedError):
        read_cache(content + GRANTING[:length])


@given(st.binary(max_size=200), st.sampled_from([b"\x05\x02", b"\x05\x03", b"\x05\x04"]))
def test_any_bytes_are_read_or_refused(content, version):
    for read in (keytab_principals, read_cache):
        with contextlib.suppress(MalformedError):
            read(version + content)
