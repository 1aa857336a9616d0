from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from lapidist.hardware.wafer.decode_layer import decode_layer
from lapidist.hardware.wafer.decoder import MeshDecoder
from lapidist.hardware.wafer.decoder_layouts import matrices, parameters, prefill_hidden
from lapidist.hardware.wafer.decoder_weights import DecoderWeights, LayerWeights, checkpoint_weights
from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.mesh import Mesh
from lapidist.hardware.wafer.prefill_layer import PrefillPlan, prefill_layer
from lapidist.hardware.wafer.prefill_operations import prefill_operations
from lapidist.hardware.wafer.simulator import Simulator
from lapidist.kernels import reference
from lapidist.models.load import load_decoder
from tests.checkpoints import write_random_llama
from tests.hardware.wafer.dense_decoder import SmallShape, dense_logits, random_weights
from tests.paged_decoding import logits_in_steps

WSE2 = load_device("wse-2")
ROOMY = WSE2.with_values("test of numerics only", memory_bytes_per_core=1 << 22)
GQA = SmallShape(64, 96, num_heads=4, num_kv_heads=2, head_dim=16)
MHA = SmallShape(48, 80, num_heads=6, num_kv_heads=6, head_dim=8)
MQA = SmallShape(40, 72, num_heads=4, num_kv_heads=1, head_dim=10)
NARROW = SmallShape(32, 48, num_heads=4, num_kv_heads=2, head_dim=4)
PROMPT = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46, 26, 43, 38, 32, 79, 50]
TOLERANCE = 1e-4


def reference_logits(shape: SmallShape, weights: DecoderWeights, tokens: list[int]) -> np.ndarray:
    """The same decoder by the operators of ``kernels.reference``; ``[tokens, vocab_size]``."""

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).double()

    x = tensor(weights.embedding[tokens])
    angles = tensor(np.arange(len(tokens))[:, None] * weights.rope_frequencies)
    for layer in weights.layers:
        inner = reference.rms_norm(x, tensor(layer.norm1), weights.norm_eps)
        query, key, value = (
            reference.linear(inner, tensor(matrix)).view(len(tokens), -1, shape.head_dim)
            for matrix in (layer.query, layer.key, layer.value)
        )
        query, key = reference.rope(query, angles), reference.rope(key, angles)
        attended = reference.attention(query, key, value, shape.head_dim**-0.5).flatten(1)
        x = x + reference.linear(attended, tensor(layer.output))
        inner = reference.rms_norm(x, tensor(layer.norm2), weights.norm_eps)
        gate = torch.nn.functional.silu(reference.linear(inner, tensor(layer.gate)))
        x = x + reference.linear(gate * reference.linear(inner, tensor(layer.up)), tensor(layer.down))
    x = reference.rms_norm(x, tensor(weights.norm), weights.norm_eps)
    return reference.linear(x, tensor(weights.head)).numpy()


def decoder(shape: SmallShape, prefill: tuple[int, int], decode: tuple[int, int], context: int, **options):
    weights = random_weights(shape)
    return MeshDecoder(
        shape, weights, Mesh(ROOMY, *prefill), Mesh(ROOMY, *decode), context, **options
    ), weights


@pytest.mark.parametrize("shape", [GQA, MHA, MQA, NARROW], ids=["GQA", "MHA", "MQA", "narrow heads"])
@pytest.mark.parametrize(
    "meshes",
    [
        ((1, 1), (1, 1)),
        ((3, 3), (3, 3)),
        ((4, 4), (4, 4)),
        ((6, 6), (4, 4)),
        ((7, 7), (5, 5)),
        ((2, 4), (3, 2)),
        ((3, 4), (4, 6)),
        ((6, 2), (2, 6)),
        ((8, 8), (3, 8)),
        ((9, 6), (6, 9)),
    ],
    ids=str,
)
def test_prefill_and_decode_against_dense_and_reference_kernels(
    shape: SmallShape, meshes: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    mesh, weights = decoder(shape, *meshes, context=32)
    tokens, logits = list(PROMPT), [mesh.prefill(PROMPT)]
    for token in (7, 77, 1, 50):
        tokens.append(token)
        logits.append(mesh.decode(token))
    expected = dense_logits(shape, weights, tokens)[len(PROMPT) - 1 :]
    assert expected.std() > 0.5, "logits this flat would prove nothing"
    assert np.abs(np.array(logits) - expected).max() <= TOLERANCE
    by_kernels = reference_logits(shape, weights, tokens)[len(PROMPT) - 1 :]
    assert np.abs(np.array(logits) - by_kernels).max() <= TOLERANCE


@pytest.mark.parametrize("policy", ["shift", "concat"])
@pytest.mark.parametrize(
    "change",
    [{"qkv_bias": True}, {"sliding_windows": (5, None)}, {"qkv_bias": True, "sliding_windows": (1, 30)}],
    ids=["biases", "window and none", "biases and windows"],
)
def test_relatives_of_llama(change: dict, policy: str) -> None:
    shape = replace(GQA, **change)
    mesh, weights = decoder(shape, (6, 6), (4, 4), context=48, policy=policy)
    tokens, logits = list(PROMPT), [mesh.prefill(PROMPT)]
    for token in (7, 77, 1, 50, 3, 99):
        tokens.append(token)
        logits.append(mesh.decode(token))
    expected = dense_logits(shape, weights, tokens)[len(PROMPT) - 1 :]
    assert np.abs(np.array(logits) - expected).max() <= TOLERANCE
    without = dense_logits(replace(shape, sliding_windows=(), qkv_bias=False), weights, tokens)
    assert np.abs(without[len(PROMPT) - 1 :] - expected).max() > 100 * TOLERANCE, "the change matters"


@given(
    shape=st.builds(
        lambda groups, shared, half, hidden, wide: SmallShape(
            hidden, wide, groups * shared, groups, 2 * half, num_layers=1, vocab_size=17
        ),
        groups=st.integers(1, 4),
        shared=st.integers(1, 3),
        half=st.integers(1, 6),
        hidden=st.integers(5, 40),
        wide=st.integers(3, 50),
    ),
    prefill=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    decode=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    prompt=st.lists(st.integers(0, 16), min_size=1, max_size=20),
    phases=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_any_shape_on_any_meshes(
    shape: SmallShape,
    prefill: tuple[int, int],
    decode: tuple[int, int],
    prompt: list[int],
    phases: int,
) -> None:
    mesh, weights = decoder(shape, prefill, decode, len(prompt) + 2, phases=phases)
    logits = [mesh.prefill(prompt), mesh.decode(3), mesh.decode(16)]
    expected = dense_logits(shape, weights, [*prompt, 3, 16])[-3:]
    assert np.abs(np.array(logits) - expected).max() <= TOLERANCE
    assert mesh.occupancy.max() - mesh.occupancy.min() <= 1


@pytest.mark.parametrize("shape", [GQA, MQA, NARROW], ids=["GQA", "MQA", "narrow heads"])
@pytest.mark.parametrize("mesh", [(4, 4), (8, 8), (2, 4), (6, 4)], ids=str)
def test_memory_is_described_as_it_is_used(shape: SmallShape, mesh: tuple[int, int]) -> None:
    """Every tile of the running layer has the elements that the description counts for a core."""
    weights = random_weights(shape)
    running = MeshDecoder(shape, weights, Mesh(ROOMY, *mesh), Mesh(ROOMY, *mesh), context=24)
    plan = PrefillPlan(shape, *mesh, len(PROMPT))
    operations = prefill_operations(plan, weights.rope_frequencies, weights.norm_eps)
    prefill = Simulator(*mesh, {}, operations)
    prefill.tiles["x"] = prefill_hidden(plan).place(weights.embedding[PROMPT])
    for parameter in parameters(plan, running.plan):
        matrix = matrices(weights.layers[0])[parameter.prefill_name]
        prefill.tiles[parameter.prefill_name] = parameter.prefill.place(matrix)
    described = prefill_layer(plan)
    prefill.run(described)
    reused = {"a", "sums", "maxima"}
    cores = mesh[0] * mesh[1]
    assert set(prefill.tiles) == set(described.tiles) - {"caches of other layers"}
    for name, tile in prefill.tiles.items():
        if name in reused:
            assert tile.size <= cores * described.tiles[name].elements, name
        else:
            assert tile.size == cores * described.tiles[name].elements, name
    running.prefill(PROMPT)
    running.decode(1)
    described = decode_layer(running.plan)
    for name, tile in running._decode_tiles[0].items():
        assert tile.size == cores * described.tiles[name].elements, name


@pytest.mark.parametrize("shape", [GQA, MHA], ids=["GQA", "MHA"])
@pytest.mark.parametrize("policy", ["shift", "concat"])
def test_sixty_four_greedy_tokens(shape: SmallShape, policy: str) -> None:
    context = 4 * 80 if policy == "concat" else 82
    mesh, weights = decoder(shape, (6, 6), (4, 4), context, policy=policy)
    generated = mesh.generate(PROMPT, 64)
    expected = dense_logits(shape, weights, PROMPT + generated[:-1])[len(PROMPT) - 1 :]
    assert generated == expected.argmax(axis=-1).tolist()
    assert len(set(generated)) > 4, "a sequence that only repeats would prove little"
    assert mesh.tokens == len(PROMPT) + 63


def test_a_llama_checkpoint_as_our_own_models_run_it(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    directory = write_random_llama(tmp_path / "llama")
    model = load_decoder(directory)
    tensors = load_file(directory / "model.safetensors")
    frequencies = model.config.rope.theta ** (-np.arange(8) / 8)
    weights = checkpoint_weights(
        model.config, lambda name, _: tensors[name], frequencies, model.config.norm_eps
    )
    mesh = MeshDecoder(model.config, weights, Mesh(ROOMY, 4, 4), Mesh(ROOMY, 3, 3), context=90)
    logits = [mesh.prefill(PROMPT)]
    generated = [int(logits[0].argmax())]
    while len(generated) < 64:
        logits.append(mesh.decode(generated[-1]))
        generated.append(int(logits[-1].argmax()))
    tokens = PROMPT + generated[:-1]
    theirs = logits_in_steps(model, tokens, len(PROMPT), [len(tokens)], scattered=False)
    theirs = theirs[len(PROMPT) - 1 :].numpy()
    assert generated == theirs.argmax(axis=-1).tolist()
    assert theirs.std() > 0.5
    assert np.abs(np.array(logits) - theirs).max() <= TOLERANCE


def test_generation_ends_behind_a_stop_token_and_reports_its_progress() -> None:
    mesh, _ = decoder(GQA, (4, 4), (4, 4), context=40)
    free = mesh.generate(PROMPT, 6)
    seen: list[tuple[str, int, int]] = []
    stopped = mesh.generate(PROMPT, 6, stop={free[2]}, progress=lambda *state: seen.append(state))
    assert stopped == free[: free.index(free[2]) + 1]
    assert seen[:2] == [("prefill, layer by layer", 0, 2), ("prefill, layer by layer", 1, 2)]
    assert seen[2:] == [("decode, token by token", done, 6) for done in range(len(stopped))]


def test_shifting_keeps_rows_even_and_tokens_in_order() -> None:
    mesh, _ = decoder(GQA, (4, 4), (5, 5), context=40)
    mesh.prefill(PROMPT)
    tokens = list(PROMPT)
    before = [mesh.cache_matrices(layer) for layer in range(2)]
    for token in range(20, 43):
        mesh.decode(token)
        tokens.append(token)
        assert mesh.occupancy.max() - mesh.occupancy.min() <= 1
        assert mesh.occupancy.sum() == len(tokens)
        for layer, (keys, values) in enumerate(before):
            new_keys, new_values = mesh.cache_matrices(layer)
            assert np.array_equal(new_keys[: len(keys)], keys)
            assert np.array_equal(new_values[: len(values)], values)
    again, _ = decoder(GQA, (4, 4), (3, 3), context=40)
    again.prefill(tokens)
    for layer in range(2):
        for one, other in zip(mesh.cache_matrices(layer), again.cache_matrices(layer), strict=True):
            assert np.abs(one - other).max() < 1e-4, "as if the whole sequence had been the prompt"


def test_concatenating_fills_the_last_row_and_ends_there() -> None:
    mesh, _ = decoder(GQA, (4, 4), (4, 4), context=28, policy="concat")
    mesh.prefill(PROMPT)
    assert mesh.occupancy.tolist() == [5, 4, 4, 4]
    for _ in range(3):
        mesh.decode(1)
    assert mesh.occupancy.tolist() == [5, 4, 4, 7]
    with pytest.raises(ValueError, match=r"full after 20 tokens \(policy concat, 7 a row\)"):
        mesh.decode(1)
    assert mesh.occupancy.tolist() == [5, 4, 4, 7], "a refused token changes nothing"
    shifting, _ = decoder(GQA, (4, 4), (4, 4), context=28)
    shifting.prefill(PROMPT)
    for _ in range(11):
        shifting.decode(1)
    with pytest.raises(ValueError, match="full after 28 tokens"):
        shifting.decode(1)


def test_the_way_to_the_decode_mesh_keeps_every_bit() -> None:
    caches = []
    for decode_mesh in ((6, 6), (4, 4), (2, 5)):
        mesh, _ = decoder(MHA, (6, 6), decode_mesh, context=32)
        mesh.prefill(PROMPT)
        caches.append([part.tobytes() for layer in range(2) for part in mesh.cache_matrices(layer)])
        sent = sum(int(traffic.sent.sum()) for traffic in mesh.relayout_traffic)
        assert sent == sum(int(traffic.received.sum()) for traffic in mesh.relayout_traffic) > 0
    assert caches[0] == caches[1] == caches[2]


def test_a_new_prompt_starts_anew() -> None:
    mesh, weights = decoder(GQA, (4, 4), (4, 4), context=32)
    mesh.generate(PROMPT, 5)
    assert np.abs(mesh.prefill([5, 6]) - dense_logits(GQA, weights, [5, 6])[-1]).max() <= TOLERANCE
    assert np.abs(mesh.decode(7) - dense_logits(GQA, weights, [5, 6, 7])[-1]).max() <= TOLERANCE
    assert mesh.tokens == 3


def test_half_precision_stays_near() -> None:
    weights = random_weights(GQA)
    half = DecoderWeights(
        weights.embedding.astype(np.float16),
        [
            LayerWeights(
                **{name: array.astype(np.float16) for name, array in vars(layer).items() if array is not None}
            )
            for layer in weights.layers
        ],
        weights.norm.astype(np.float16),
        weights.head.astype(np.float16),
        weights.rope_frequencies,
        weights.norm_eps,
    )
    mesh = MeshDecoder(GQA, half, Mesh(WSE2, 4, 4), Mesh(WSE2, 4, 4), context=24, accumulator=np.float16)
    logits = mesh.prefill(PROMPT)
    assert logits.dtype == np.float16
    expected = dense_logits(GQA, weights, PROMPT)[-1]
    assert np.abs(logits - expected).max() <= 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"o_bias": True}, "biases of its outputs"),
        ({"qkv_bias": True}, r"layer 0's query_bias must be \[64\], got nothing"),
        ({"qk_norm": True}, "norms of queries and keys"),
        ({"hidden_act": "gelu"}, "the activation gelu"),
        ({"final_softcap": 30.0}, "capped logits"),
        ({"num_layers": 3}, "has 3 layers, weights are of 2"),
        ({"intermediate_size": 97}, r"layer 0's gate must be \[97, 64\], got \[96, 64\]"),
    ],
)
def test_models_that_the_mesh_does_not_run(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MeshDecoder(
            replace(GQA, **change), random_weights(GQA), Mesh(ROOMY, 4, 4), Mesh(ROOMY, 4, 4), context=8
        )


def test_what_a_core_cannot_hold_is_refused() -> None:
    weights = random_weights(GQA)
    with pytest.raises(ValueError, match=r"decode layer on 2 x 2 cores needs \d+ bytes on core \(0, 0\)"):
        MeshDecoder(GQA, weights, Mesh(WSE2, 4, 4), Mesh(WSE2, 2, 2), context=8)
    mesh = MeshDecoder(GQA, weights, Mesh(WSE2, 4, 4), Mesh(WSE2, 6, 6), context=400)
    with pytest.raises(ValueError, match=r"prefill layer on 4 x 4 cores needs \d+ bytes on core"):
        mesh.prefill([1] * 400)


def test_wrong_calls() -> None:
    mesh, _ = decoder(GQA, (4, 4), (4, 4), context=20)
    with pytest.raises(ValueError, match="decode follows a prefill"):
        mesh.decode(1)
    with pytest.raises(ValueError, match="from 1 to 20 tokens here, got 0"):
        mesh.prefill([])
    with pytest.raises(ValueError, match="from 1 to 20 tokens here, got 21"):
        mesh.prefill([1] * 21)
    with pytest.raises(ValueError, match="token 101 is not in the vocabulary of 101"):
        mesh.prefill([101])
