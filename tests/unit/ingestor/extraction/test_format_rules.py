import pytest

from common.config import load
from common.errors import ConfigurationError
from ingestor.extraction.format_rules import FormatRule, LinesRule, LogRule, TableRule, recipe
from ingestor.settings import IngestorConfig


def configured(tmp_path, rules):
    file = tmp_path / "sluice.yaml"
    file.write_text(f"ingest:\n  formats:\n{rules}")
    return load(IngestorConfig, file=file, environ={}).ingest.formats


def test_rules_as_they_are_written(tmp_path):
    rules = """
    - {match: "orders/*.parquet", format: parquet, id: order_id, text: note, metadata: [Order Date]}
    - {match: "*.jsonl", format: jsonl, template: "{a}: {b.c}", metadata: {state: status.name}}
    - {match: "*.log", format: log, window_s: 600, timestamp: "%b %d %H:%M:%S", year: 2026}
    - {match: "*.txt", format: lines, lines: 50}
"""
    table, jsonl, log, lines = configured(tmp_path, rules)
    assert isinstance(table, TableRule)
    assert table.text == ("note",)
    assert table.metadata == {"Order_Date": "Order Date"}
    assert isinstance(jsonl, TableRule)
    assert jsonl.metadata == {"state": "status.name"}
    assert isinstance(log, LogRule)
    assert log.year == 2026
    assert isinstance(lines, LinesRule)
    assert lines.lines == 50


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ('{match: "*.x", format: xml}', "formats.0"),
        ('{match: "a//b", format: csv}', "empty components"),
        ('{match: "*", format: csv, text: [a], template: "{a}"}', "exclude each other"),
        ('{match: "*", format: csv, template: "no column"}', "template: it names no"),
        ('{match: "*", format: csv, template: "{}"}', "placeholders"),
        ('{match: "*", format: csv, template: "{a!r}"}', "placeholders"),
        ('{match: "*", format: csv, template: "{a:>9}"}', "placeholders"),
        ('{match: "*", format: csv, template: "{a"}', "template"),
        ('{match: "*", format: csv, metadata: [title]}', "'title' is reserved"),
        ('{match: "*", format: csv, metadata: [folder]}', "'folder' is reserved"),
        ('{match: "*", format: csv, metadata: [1st]}', "'1st' is reserved"),
        ('{match: "*", format: csv, metadata: {"a b": a}}', "'a b' is reserved"),
        ('{match: "*", format: csv, metadata: ["a b", a_b]}', "same key"),
        ('{match: "*", format: csv, id: ""}', "id"),
        ('{match: "*", format: lines, lines: 0}', "lines"),
        ('{match: "*", format: log, timestamp: "%b %d"}', "timestamp"),
        ('{match: "*", format: log, lines: 5}', "lines"),
    ],
)
def test_rules_that_cannot_work_are_configuration_errors(tmp_path, rule, told):
    with pytest.raises(ConfigurationError) as raised:
        configured(tmp_path, f"    - {rule}\n")
    assert told in raised.value.message
    assert raised.value.message.startswith("ingest.formats.0")


def test_a_recipe_tells_rules_apart_by_what_shapes_documents():
    rules: list[FormatRule] = [
        TableRule(match="*", format="csv"),
        TableRule(match="*", format="tsv"),
        TableRule(match="*", format="csv", id="a"),
        TableRule(match="*", format="csv", text=("a", "b")),
        TableRule(match="*", format="csv", text=("b", "a")),
        TableRule(match="*", format="csv", metadata={"k": "a"}),
        LinesRule(match="*", format="lines", lines=9),
        LogRule(match="*", format="log", window_s=60),
    ]
    assert len({recipe(rule) for rule in rules}) == len(rules)
    assert recipe(rules[0]) == recipe(TableRule(match="other/*", format="csv"))
