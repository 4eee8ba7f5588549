"""`sluice doctor` opens the cross-encoder that is set and says what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from query.checks import checks
from tests.unit.query.cross_encoder_folders import write_tiny

if TYPE_CHECKING:
    from pathlib import Path

    from common.doctor import Check


def check(folder: Path) -> Check:
    environ = {"SLUICE_QUERY__CROSS_ENCODER__FOLDER": str(folder)}
    found = checks(file=None, environ=environ)
    return next(check for check in found if check.name == "cross-encoder")


def test_a_model_that_opens_and_scores(tmp_path: Path) -> None:
    assert check(write_tiny(tmp_path / "tiny")).ok


def test_a_folder_that_lacks_the_model(tmp_path: Path) -> None:
    found = check(tmp_path)
    assert not found.ok
    assert f"{tmp_path} lacks model.onnx" in found.detail
    assert found.cure
