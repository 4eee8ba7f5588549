"""Writes keytabs and credential caches byte by byte, as MIT documents their formats."""


def number(value, size):
    return value.to_bytes(size, "big", signed=value < 0)


def counted(content, size):
    content = content.encode() if isinstance(content, str) else content
    return number(len(content), size) + content


def keytab_entry(components, realm):
    name = number(len(components), 2) + counted(realm, 2)
    name += b"".join(counted(component, 2) for component in components)
    rest = number(1, 4) + number(1_700_000_000, 4) + b"\x03" + number(18, 2) + counted(b"k" * 32, 2)
    return counted(name + rest + number(3, 4), 4)


def keytab(*entries):
    return b"\x05\x02" + b"".join(keytab_entry(*entry) for entry in entries)


def cache_principal(components, realm):
    parts = b"".join(counted(component, 4) for component in components)
    return number(1, 4) + number(len(components), 4) + counted(realm, 4) + parts


def credential(server, realm, times, *, repeated_type=False):
    authenticated, start, end = times
    key = number(18, 2) * (2 if repeated_type else 1) + counted(b"k" * 32, 4)
    moments = b"".join(number(time, 4) for time in (authenticated, start, end, 0))
    lists = number(1, 4) + number(2, 2) + counted(b"\x7f\x00\x00\x01", 4) + number(0, 4)
    rest = b"\x00" + number(0, 4) + lists + counted(b"ticket", 4) + counted(b"", 4)
    client = cache_principal(["alice"], "R.ORG")
    return client + cache_principal(server, realm) + key + moments + rest


def cache(*credentials, offset_s=None):
    header = b""
    if offset_s is not None:
        header = number(9, 2) + counted(b"new", 2)  # a field of a kind to come
        header += number(1, 2) + counted(number(offset_s, 4) + number(5, 4), 2)
    first = b"\x05\x04" + counted(header, 2) + cache_principal(["alice"], "R.ORG")
    return first + b"".join(credentials)
