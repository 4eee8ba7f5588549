"""What happens around every method on a server.

One interceptor wraps each behaviour once and keeps the wrapping: it opens the RPC's span, turns
exceptions into statuses, and turns requests that do not parse into INVALID_ARGUMENT. What a
service has no room for it refuses before the request is read. It never lets the message of an
unexpected exception out, neither to the client nor to a log.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError

from common.errors import DeadlineExceeded, InvalidArgument, SluiceError
from common.rpc.status import clip, trailing_metadata
from common.telemetry import ServerSpan, current_trace_id, describe_exception
from common.telemetry.rpc_spans import TRACE_HEADERS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
    Behaviour: TypeAlias = Callable[[Any, Context], Any]
    Deserializer: TypeAlias = Callable[[bytes], Any]
    Refusal: TypeAlias = Callable[[], SluiceError | None]

logger = logging.getLogger(__name__)

_CODES = {code.value[0]: code for code in grpc.StatusCode}
# Probes and tooling: left as they are, and not logged.
_EXEMPT = ("/grpc.health.", "/grpc.reflection.")


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handler of each method, once.

    Args:
        refusals: by service, as ``ServiceBinding.refusal``.
    """

    def __init__(self, refusals: Mapping[str, Refusal]) -> None:
        self._refusals = refusals
        # As many entries as the server has methods: unknown ones have no handler.
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(  # noqa: D102  # documented by the interface
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_EXEMPT):
            return handler
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = (handler, _wrap(method.removeprefix("/"), handler))
        alone = not handler.request_streaming and not handler.response_streaming
        service, _, _ = method.removeprefix("/").partition("/")
        if alone and (refusal := self._refusals.get(service)) and (error := refusal()) is not None:
            return _refusing(method.removeprefix("/"), error)
        return known[1]


def _refusing(method: str, error: SluiceError) -> Handler:
    """A handler that fails without reading: for gRPC the request is a stream, which may wait."""

    async def refuse(_requests: object, context: Context) -> None:
        async with _around(method, context):
            raise error

    return grpc.stream_unary_rpc_method_handler(refuse)


def _wrap(method: str, handler: Handler) -> Handler:
    behaviour, make = _kind(handler)

    async def respond(request: Any, context: Context) -> Any:  # noqa: ANN401  # any message
        async with _around(method, context):
            if isinstance(request, _Malformed):
                raise request.error
            return await behaviour(request, context)

    async def respond_stream(request: Any, context: Context) -> None:  # noqa: ANN401  # any message
        # The writer's API, so that span and generator end here, whatever happens to the RPC.
        async with _around(method, context):
            if isinstance(request, _Malformed):
                raise request.error
            responses = behaviour(request, context)
            if not isinstance(responses, AsyncIterator):
                await responses
                return
            async with aclosing(cast("AsyncGenerator[Any]", responses)):
                async for response in responses:
                    await context.write(response)

    deserializer = handler.request_deserializer
    if deserializer is not None:
        deserializer = _parse(deserializer, in_stream=bool(handler.request_streaming))
    return make(
        respond_stream if handler.response_streaming else respond,
        request_deserializer=deserializer,
        response_serializer=handler.response_serializer,
    )


def _kind(handler: Handler) -> tuple[Behaviour, Callable[..., Handler]]:
    """The behaviour of a handler and what makes another of its kind."""
    behaviour: object
    make: Callable[..., Handler]
    if handler.request_streaming and handler.response_streaming:
        behaviour, make = handler.stream_stream, grpc.stream_stream_rpc_method_handler
    elif handler.request_streaming:
        behaviour, make = handler.stream_unary, grpc.stream_unary_rpc_method_handler
    elif handler.response_streaming:
        behaviour, make = handler.unary_stream, grpc.unary_stream_rpc_method_handler
    else:
        behaviour, make = handler.unary_unary, grpc.unary_unary_rpc_method_handler
    # Typed for the synchronous server; on this one it takes the asynchronous context.
    return cast("Behaviour", behaviour), make


class _Malformed:
    """Stands in for a request that does not parse."""

    def __init__(self, error: InvalidArgument) -> None:
        self.error = error


def _parse(deserializer: Deserializer, *, in_stream: bool) -> Deserializer:
    """A deserializer for which a malformed message is the caller's fault.

    In a stream the error is raised where the servicer reads; a single request is read before any
    servicer runs, so there a ``_Malformed`` carries it to the wrapped behaviour.
    """
    message: type[object] | None = getattr(deserializer, "__self__", None)
    descriptor = getattr(message, "DESCRIPTOR", None)
    name: str = getattr(descriptor, "full_name", "protobuf")

    def parse(raw: bytes) -> Any:  # noqa: ANN401  # any message
        try:
            return deserializer(raw)
        except (DecodeError, UnicodeDecodeError):
            error = InvalidArgument(
                f"is not a valid {name} message; text must be UTF-8 and the message must follow"
                " the contract",
                field="request",
            )
        if in_stream:
            raise error
        return _Malformed(error)

    return parse


@asynccontextmanager
async def _around(method: str, context: Context) -> AsyncIterator[None]:
    """Span and statuses around one RPC."""
    headers = {
        key: value
        for key, value in context.invocation_metadata() or ()
        if key in TRACE_HEADERS and isinstance(value, str)
    }
    with ServerSpan(method, headers) as span:
        try:
            yield
        except grpc.aio.AbortError:
            span.code = _code_of(context)
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it becomes a status
            if isinstance(error, NotImplementedError) and _code_of(context) == "UNIMPLEMENTED":
                span.code = "UNIMPLEMENTED"  # set by the generated base class of the servicer
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not served here")
            failure = _translate(error)
            span.code = failure.code.name
            await context.abort(failure.code, clip(failure.message), trailing_metadata(failure))
        except BaseException:
            # Cancelled by the client, its deadline or the server's stop: grpc ends the RPC.
            span.code = grpc.StatusCode.CANCELLED.name
            raise
        else:
            span.code = _code_of(context)


def _translate(error: Exception) -> SluiceError:
    if isinstance(error, SluiceError):
        return error
    if isinstance(error, TimeoutError):
        return DeadlineExceeded("the deadline passed; allow more time or ask for less")
    # Not logged as exc_info: any log handler would then write the exception's message.
    logger.error("unexpected error", extra=describe_exception(error))
    return SluiceError(f"internal error; trace {current_trace_id()}")


def _code_of(context: Context) -> str:
    # Typed as StatusCode; None until a servicer or an abort sets it, and either may set an int.
    code: object = context.code()
    if code is None:
        code = grpc.StatusCode.OK
    elif isinstance(code, int):
        code = _CODES.get(code)
    return code.name if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN.name
