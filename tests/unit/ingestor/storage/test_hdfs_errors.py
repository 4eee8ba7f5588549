import errno

import hdfs_native
import pytest
from pyarrow import fs

from ingestor.faults import Cause, FaultStage, os_fault
from ingestor.storage.hdfs_errors import BlockError, UnauthenticatedError, translated
from ingestor.storage.outage import is_passing

JAVA = "org.apache.hadoop"
DENIED = f"{JAVA}.security.AccessControlException"
TRACE = r"\n\tat org.apache.hadoop.hdfs.server.namenode.FSNamesystem.check(FSNamesystem.java:1)"


def translation(error: BaseException) -> OSError:
    with pytest.raises(OSError) as raised, translated():  # noqa: PT011 — each test asks its kind
        raise error
    assert "\n" not in str(raised.value)
    assert "java:" not in str(raised.value)
    return raised.value


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [
        # as hdfs-native 0.14 writes them
        (
            rf'RPCError("{DENIED}", "Permission denied: inode=\"/x\":root:drwx------{TRACE}")',
            PermissionError,
            errno.EACCES,
        ),
        (
            rf'RPCError("{DENIED}", "/a/b (is not a directory){TRACE}")',
            NotADirectoryError,
            errno.ENOTDIR,
        ),
        (
            rf'RPCError("{JAVA}.fs.PathIsNotEmptyDirectoryException", "`/a is non empty\'{TRACE}")',
            OSError,
            errno.ENOTEMPTY,
        ),
        (
            rf'RPCError("{JAVA}.ipc.StandbyException", "Operation category READ is not supported")',
            ConnectionError,
            errno.EAGAIN,
        ),
        (rf'RPCError("{JAVA}.ipc.RetriableException", "x{TRACE}")', ConnectionError, errno.EAGAIN),
        (
            rf'RPCError("{JAVA}.hdfs.server.namenode.SafeModeException", "Cannot create{TRACE}")',
            ConnectionError,
            errno.EAGAIN,
        ),
        (rf'RPCError("{JAVA}.Unheard", "of{TRACE}")', OSError, errno.EIO),
        (
            f'FatalRPCError("{DENIED}", "SIMPLE authentication is not enabled.")',
            UnauthenticatedError,
            errno.EACCES,
        ),
        (
            rf'FatalRPCError("{JAVA}.ipc.RpcServerException", "Unknown out of band call")',
            ConnectionError,
            errno.EPROTO,
        ),
        ('GSSAPIError(GSS_S_NO_CRED, 1, "No credentials")', UnauthenticatedError, errno.EACCES),
        (
            'GSSAPIError(GssMajorCodes { raw: "0xd0000" }, 2529639068, "Cannot contact any KDC")',
            ConnectionError,
            errno.EHOSTUNREACH,
        ),
        ("NoSASLMechanism", UnauthenticatedError, errno.EACCES),
        ('DataTransferError("All DataNodes failed: [DatanodeInfo")', BlockError, errno.EIO),
        ("ChecksumError", BlockError, errno.EIO),
        ('BlocksNotFound("/a")', BlockError, errno.EIO),
        ('InvalidArgument("No NameNode hosts found")', OSError, errno.EINVAL),
        ('InternalError("x")', OSError, errno.EIO),
        ("", OSError, errno.EIO),
    ],
)
def test_errors_of_the_client_are_told_by_their_kind(text, kind, number):
    error = translation(RuntimeError(text))
    assert (type(error), error.errno) == (kind, number)
    assert is_passing(error) is issubclass(kind, ConnectionError)


def test_messages_keep_what_people_need():
    text = rf'RPCError("{JAVA}.ipc.StandbyException", "Operation \"READ\" in state standby{TRACE}")'
    error = translation(RuntimeError(text))
    assert error.strerror == 'StandbyException: Operation "READ" in state standby'
    text = (
        'GSSAPIError(GssMajorCodes { raw: "0xd0000", routine_error: "GSS_S_FAILURE" }, 2529638944, '
        '"Unspecified GSS failure.  Minor code may provide more information: Ticket expired")'
    )
    assert translation(RuntimeError(text)).strerror == "Ticket expired"


def test_errors_of_the_system_are_numbered_and_pass():
    refused = translation(OSError("Connection refused (os error 111)"))
    assert (type(refused), refused.errno) == (ConnectionRefusedError, errno.ECONNREFUSED)
    unreachable = translation(OSError("No route to host (os error 113)"))
    assert (type(unreachable), unreachable.errno) == (ConnectionError, errno.EHOSTUNREACH)
    assert is_passing(translation(OSError("RPC listener disconnected")))
    assert is_passing(translation(OSError("Connection timed out (os error 110)")))
    assert os_fault(FaultStage.READ, refused).cause == Cause.UNREACHABLE


def test_what_is_missing_is_told_from_what_is_a_folder():
    gone = translation(FileNotFoundError("File does not exist: /a\n\tat java"))
    assert (type(gone), gone.errno) == (FileNotFoundError, errno.ENOENT)
    folder = translation(FileNotFoundError("Path is not a file: /a\n\tat java"))
    assert type(folder) is IsADirectoryError


def test_a_name_node_that_is_not_there_is_told_as_such():
    client = hdfs_native.Client("hdfs://127.0.0.1:1", {"dfs.client.failover.max.attempts": "0"})
    with pytest.raises(ConnectionRefusedError), translated():
        client.get_file_info("/")


def test_what_is_no_error_of_the_client_stays():
    with pytest.raises(KeyError), translated():
        raise KeyError
    with pytest.raises(KeyboardInterrupt), translated():
        raise KeyboardInterrupt


def test_an_object_store_that_is_not_there_passes():
    once = fs.AwsStandardS3RetryStrategy(max_attempts=1)
    store = fs.S3FileSystem(
        anonymous=True,
        region="us-east-1",
        scheme="http",
        endpoint_override="127.0.0.1:1",
        retry_strategy=once,
    )
    with pytest.raises(OSError, match="NETWORK_CONNECTION") as raised:
        store.get_file_info("bucket/key")
    assert is_passing(raised.value)
    assert not is_passing(OSError("AWS Error ACCESS_DENIED during HeadObject operation"))
    assert not is_passing(OSError(errno.EIO, "x"))
