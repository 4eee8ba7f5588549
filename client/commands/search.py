"""``sluice search``: one question, answered for a person or for a program."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from client.commands.options import Config, Json, Target, Tenant  # noqa: TC001  # typer reads them


def search(
    query: Annotated[str, typer.Argument(help="The question.")],
    *,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Where to look.")],
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="Passages wanted.")] = 5,
    filter_: Annotated[
        str,
        typer.Option(
            "--filter",
            metavar="EXPR",
            help="""On metadata: 'lang = "en" AND year >= 2020 AND tags CONTAINS "hdfs"'.""",
        ),
    ] = "",
    rerank: Annotated[
        Literal["dense", "fused", "lexical", "cross-encoder"] | None,
        typer.Option(
            "--rerank",
            help="By meaning, by both (the default), by words, or by both and then by the"
            " server's cross-encoder.",
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            "--alpha", min=0, max=1, help="Share of meaning in fused; else it suits the query."
        ),
    ] = None,
    k1: Annotated[
        float | None, typer.Option("--k1", min=0, max=10, help="Term saturation of BM25.")
    ] = None,
    b: Annotated[
        float | None, typer.Option("--b", min=0, max=1, help="Length normalisation of BM25.")
    ] = None,
    title_weight: Annotated[
        float | None,
        typer.Option(
            "--title-weight", min=0, max=100, help="What a word counts in the title, 1 in the text."
        ),
    ] = None,
    proximity_weight: Annotated[
        float | None,
        typer.Option(
            "--proximity-weight", min=0, max=10, help="What words add that stand near each other."
        ),
    ] = None,
    cross_encoder_candidates: Annotated[
        int,
        typer.Option(
            "--cross-encoder-top",
            min=0,
            max=1000,
            help="How many passages the cross-encoder may score; 0: the server's default.",
        ),
    ] = 0,
    max_per_document: Annotated[
        int,
        typer.Option("--max-per-document", min=0, help="Passages of one document; 0: any number."),
    ] = 0,
    keep_duplicates: Annotated[
        bool,
        typer.Option(
            "--keep-duplicates",
            help="Show passages that say nearly the same each by itself, not as one.",
        ),
    ] = False,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Join passages that follow each other in a document."),
    ] = False,
    candidates: Annotated[
        int, typer.Option("--candidates", help="Passages to choose from; 0: the server's default.")
    ] = 0,
    index_version: Annotated[
        int,
        typer.Option(
            "--index-version",
            min=0,
            help="A version to ask instead of the active one, such as a candidate before its swap.",
        ),
    ] = 0,
    at_least: Annotated[
        str,
        typer.Option(
            "--at-least",
            metavar="TOKEN",
            help="Wait until the answer includes the write that was acknowledged with this token.",
        ),
    ] = "",
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what each score is made of, and the stages.")
    ] = False,
    target: Target = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Answer a question from a collection."""
    from client import render  # noqa: PLC0415  # imported when the command runs
    from client.answers import SearchQuery  # noqa: PLC0415  # as above
    from client.commands.session import ask, connection, print_json  # noqa: PLC0415  # as above

    asked = SearchQuery(
        text=query,
        collection=collection,
        top_k=top_k,
        candidates=candidates,
        filter=filter_,
        rerank="cross_encoder" if rerank == "cross-encoder" else rerank,
        alpha=alpha,
        k1=k1,
        b=b,
        title_weight=title_weight,
        proximity_weight=proximity_weight,
        cross_encoder_candidates=cross_encoder_candidates,
        max_per_document=max_per_document,
        keep_duplicates=keep_duplicates,
        merge_neighbours=merge,
        at_least=at_least,
        index_version=index_version,
        # A person sees the plan in the footer; it costs next to nothing.
        explain=explain or not as_json,
    )
    settings = connection(config, target, tenant)
    response = ask(settings, lambda client: client.search(asked))
    if as_json:
        print_json({"query": query, "collection": collection, **response.to_json()})
        return
    console = render.open_console()
    console.print(render.search_answer(response, explain=explain, width=console.width))
