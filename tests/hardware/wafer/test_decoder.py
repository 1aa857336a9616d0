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
from lapidist.hardware.wafer.llm_memory import LLMMemory
from lapidist.hardware.wafer.mesh import Mesh
from lapidist.hardware.wafer.prefill_layer import PrefillPlan, prefill_layer
from lapidist.hardware.wafer.prefill_operations import prefill_operations
from lapidist.hardware.wafer.regions import Grid
from lapidist.hardware.wafer.rope import Rope
from lapidist.hardware.wafer.simulator import Simulator
from lapidist.kernels import reference
from lapidist.kernels.activation import ACTIVATIONS
from lapidist.models.load import load_decoder
from tests.checkpoints import write_random_llama
from tests.hardware.wafer.dense_decoder import SmallShape, dense_logits, frequencies, random_weights
from tests.paged_decoding import logits_in_steps

WSE2 = load_device("wse-2")
ROOMY = WSE2.with_values("test of numerics only", memory_bytes_per_core=1 << 22)
GQA = SmallShape(64, 96, num_heads=4, num_kv_heads=2, head_dim=16)
MHA = SmallShape(48, 80, num_heads=6, num_kv_heads=6, head_dim=8)
MQA = SmallShape(40, 72, num_heads=4, num_kv_heads=1, head_dim=10)
NARROW = SmallShape(32, 48, num_heads=4, num_kv_heads=2, head_dim=4)
PROMPT = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46, 26, 43, 38, 32, 79, 50]
TOLERANCE = 1e-4
FAMILIES: dict[str, dict] = {
    "Llama": {},
    "Llama with biases": {"qkv_bias": True, "o_bias": True, "mlp_bias": True},
    "Mistral": {"sliding_windows": (5,)},
    "Qwen2": {"qkv_bias": True},
    "Qwen3": {"qk_norm": True, "o_bias": True, "qkv_bias": True, "sliding_windows": (3,)},
    "Phi-3": {"rotary_dim": 2, "sliding_windows": (7,)},
    "Gemma-2": {
        "sandwich_norms": True,
        "hidden_act": "gelu_pytorch_tanh",
        "attention_softcap": 2.0,
        "final_softcap": 3.0,
        "embedding_scale": 1.7,
        "query_scalar": 5.0,
        "sliding_windows": (4,),
    },
    "all at once": {
        "hidden_act": "gelu",
        "qkv_bias": True,
        "o_bias": True,
        "mlp_bias": True,
        "qk_norm": True,
        "sandwich_norms": True,
        "rotary_dim": 2,
        "attention_softcap": 2.0,
        "final_softcap": 3.0,
        "embedding_scale": 1.7,
        "sliding_windows": (4,),
    },
}


def of_family(plain: SmallShape, family: str) -> SmallShape:
    """Its first layer has the family's window, if there is one, the others see everything."""
    changes = FAMILIES[family]
    windows = changes.get("sliding_windows", ())
    seen = (*windows, *[None] * (plain.num_layers - 1)) if windows else ()
    return replace(plain, **{**changes, "sliding_windows": seen})


def reference_logits(shape: SmallShape, weights: DecoderWeights, tokens: list[int]) -> np.ndarray:
    """The same decoder by the operators of ``kernels.reference``; ``[tokens, vocab_size]``."""

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).double()

    def linear(x: torch.Tensor, matrix: np.ndarray, bias: np.ndarray | None) -> torch.Tensor:
        return reference.linear(x, tensor(matrix), None if bias is None else tensor(bias))

    def norm(x: torch.Tensor, weight: np.ndarray | None) -> torch.Tensor:
        return x if weight is None else reference.rms_norm(x, tensor(weight), weights.norm_eps)

    def heads(x: torch.Tensor, matrix: np.ndarray, bias: np.ndarray | None) -> torch.Tensor:
        return linear(x, matrix, bias).view(len(tokens), -1, shape.head_dim)

    x = tensor(weights.embedding[tokens]) * shape.embedding_scale
    angles = tensor(np.arange(len(tokens))[:, None] * frequencies(shape))
    windows = shape.sliding_windows or (None,) * shape.num_layers
    for layer, window in zip(weights.layers, windows, strict=True):
        inner = norm(x, layer.norm1)
        query = norm(heads(inner, layer.query, layer.query_bias), layer.query_norm)
        key = norm(heads(inner, layer.key, layer.key_bias), layer.key_norm)
        value = heads(inner, layer.value, layer.value_bias)
        query, key = reference.rope(query, angles), reference.rope(key, angles)
        attended = reference.attention(
            query, key, value, shape.attention_scale, window, shape.attention_softcap
        )
        x = x + norm(linear(attended.flatten(1), layer.output, layer.output_bias), layer.post_norm1)
        inner = norm(x, layer.norm2)
        gate = ACTIVATIONS[shape.hidden_act](linear(inner, layer.gate, layer.gate_bias))
        wide = gate * linear(inner, layer.up, layer.up_bias)
        x = x + norm(linear(wide, layer.down, layer.down_bias), layer.post_norm2)
    logits = linear(norm(x, weights.norm), weights.head, None).numpy()
    cap = shape.final_softcap
    return logits if cap is None else cap * np.tanh(logits / cap)


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
    tokens, logits = list(PROMPT), [mesh.prefill([PROMPT])[0]]
    for token in (7, 77, 1, 50):
        tokens.append(token)
        logits.append(mesh.decode([token])[0])
    expected = dense_logits(shape, weights, tokens)[len(PROMPT) - 1 :]
    assert expected.std() > 0.5, "logits this flat would prove nothing"
    assert np.abs(np.array(logits) - expected).max() <= TOLERANCE
    by_kernels = reference_logits(shape, weights, tokens)[len(PROMPT) - 1 :]
    assert np.abs(np.array(logits) - by_kernels).max() <= TOLERANCE


def test_what_families_add_matters() -> None:
    """Each option changes logits, so leaving one out would not go unseen."""
    shape = of_family(GQA, "all at once")
    weights = random_weights(shape)
    expected = dense_logits(shape, weights, PROMPT)
    plain = {"rotary_dim": 0, "attention_softcap": None, "final_softcap": None, "embedding_scale": 1.0}
    for change in ({name: value} for name, value in plain.items()):
        changed = dense_logits(replace(shape, **change), weights, PROMPT)
        assert np.abs(changed - expected).max() > 100 * TOLERANCE, change
    for change in ({"hidden_act": "silu"}, {"sliding_windows": (None, None)}, {"query_scalar": 5.0}):
        changed = dense_logits(replace(shape, **change), weights, PROMPT)  # type: ignore[arg-type]
        assert np.abs(changed - expected).max() > 100 * TOLERANCE, change


SHAPES = st.builds(
    lambda groups, shared, half, hidden, wide: SmallShape(
        hidden, wide, groups * shared, groups, 2 * half, num_layers=1, vocab_size=17
    ),
    groups=st.integers(1, 4),
    shared=st.integers(1, 3),
    half=st.integers(1, 6),
    hidden=st.integers(5, 40),
    wide=st.integers(3, 50),
)
SIDES = st.tuples(st.integers(1, 6), st.integers(1, 6))


@pytest.mark.parametrize("family", FAMILIES)
@given(
    plain=SHAPES,
    prefill=SIDES,
    decode=SIDES,
    prompt=st.lists(st.integers(0, 16), min_size=1, max_size=20),
    phases=st.integers(1, 3),
)
@settings(max_examples=15, deadline=None)
def test_any_shape_of_any_family_on_any_meshes(
    family: str,
    plain: SmallShape,
    prefill: tuple[int, int],
    decode: tuple[int, int],
    prompt: list[int],
    phases: int,
) -> None:
    shape = of_family(plain, family)
    mesh, weights = decoder(shape, prefill, decode, len(prompt) + 2, phases=phases)
    logits = [mesh.prefill([prompt])[0], mesh.decode([3])[0], mesh.decode([16])[0]]
    expected = dense_logits(shape, weights, [*prompt, 3, 16])[-3:]
    assert np.abs(np.array(logits) - expected).max() <= TOLERANCE
    assert mesh.occupancy.max() - mesh.occupancy.min() <= 1


@pytest.mark.parametrize("policy", ["shift", "concat"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_against_dense_and_reference_kernels(family: str, policy: str) -> None:
    shape = of_family(GQA, family)
    mesh, weights = decoder(shape, (6, 6), (4, 4), context=48, policy=policy)
    tokens, logits = list(PROMPT), [mesh.prefill([PROMPT])[0]]
    for token in (7, 77, 1, 50, 3, 99):
        tokens.append(token)
        logits.append(mesh.decode([token])[0])
    expected = dense_logits(shape, weights, tokens)[len(PROMPT) - 1 :]
    assert np.abs(np.array(logits) - expected).max() <= TOLERANCE
    by_kernels = reference_logits(shape, weights, tokens)[len(PROMPT) - 1 :]
    assert np.abs(np.array(logits) - by_kernels).max() <= TOLERANCE


@given(
    lengths=st.lists(st.integers(1, 12), min_size=2, max_size=4),
    family=st.sampled_from(list(FAMILIES)),
    meshes=st.tuples(SIDES, SIDES),
    policy=st.sampled_from(["shift", "concat"]),
    ended=st.integers(0, 3),
)
@settings(max_examples=20, deadline=None)
def test_a_batch_of_sequences_of_different_lengths(
    lengths: list[int], family: str, meshes: tuple[tuple[int, int], tuple[int, int]], policy: str, ended: int
) -> None:
    """Each as if it were alone; one ends before the others and its cache stays as it is."""
    shape = of_family(replace(NARROW, num_layers=1), family)
    rng = np.random.default_rng(sum(lengths))
    sequences = [rng.integers(0, 101, length).tolist() for length in lengths]
    context = meshes[1][0] * (max(lengths) + 4)
    mesh, weights = decoder(shape, *meshes, context, policy=policy, batch=len(lengths))  # type: ignore[arg-type]
    found = [mesh.prefill(sequences)]
    for step in range(3):
        new = [
            None if step and index == ended else int(rng.integers(0, 101)) for index in range(len(lengths))
        ]
        for sequence, token in zip(sequences, new, strict=True):
            sequence += [] if token is None else [token]
        found.append(mesh.decode(new))
    assert mesh.tokens.tolist() == mesh.occupancy.sum(axis=1).tolist() == list(map(len, sequences))
    for index, sequence in enumerate(sequences):
        ours = np.array([logits[index] for logits in found if np.isfinite(logits[index]).all()])
        assert len(ours) == len(sequence) - lengths[index] + 1
        expected = dense_logits(shape, weights, sequence)[lengths[index] - 1 :]
        assert np.abs(ours - expected).max() <= TOLERANCE
        if policy == "shift":
            assert mesh.occupancy[index].max() - mesh.occupancy[index].min() <= 1


def test_a_batch_generates_what_its_sequences_generate_alone() -> None:
    prompts = [PROMPT, PROMPT[:3], [50]]
    mesh, _ = decoder(GQA, (4, 4), (5, 3), context=40, batch=3)
    together = mesh.generate(prompts, 8)
    alone, _ = decoder(GQA, (4, 4), (5, 3), context=40)
    each = [alone.generate([prompt], 8)[0] for prompt in prompts]
    assert together == each
    stop = each[1][2]
    stopped = mesh.generate(prompts, 8, stop={stop})
    assert stopped == [own[: own.index(stop) + 1] if stop in own else own for own in each]


@pytest.mark.parametrize(
    "shape",
    [GQA, MQA, NARROW, of_family(GQA, "all at once")],
    ids=["GQA", "MQA", "narrow heads", "all options"],
)
@pytest.mark.parametrize("mesh", [(4, 4), (8, 8), (2, 4), (6, 4)], ids=str)
def test_memory_is_described_as_it_is_used(shape: SmallShape, mesh: tuple[int, int]) -> None:
    """Every tile of the running layer has the elements that the description counts for a core."""
    weights = random_weights(shape)
    running = MeshDecoder(shape, weights, Mesh(ROOMY, *mesh), Mesh(ROOMY, *mesh), context=24)
    plan = PrefillPlan(shape, *mesh, len(PROMPT), running.plan.variant)
    operations = prefill_operations(plan, running._numbers)
    prefill = Simulator(*mesh, {}, operations)
    prefill.tiles["x"] = prefill_hidden(plan).place(weights.embedding[PROMPT])
    for parameter in parameters(plan, running.plan):
        matrix = matrices(weights.layers[0])[parameter.prefill_name]
        prefill.tiles[parameter.prefill_name] = parameter.prefill.place(matrix)
    described = prefill_layer(plan)
    prefill.run(described)
    reused = {"a", "sums", "maxima"}
    unused = {"caches of other layers", *(() if shape.qk_norm else ("head sums",))}
    cores = mesh[0] * mesh[1]
    assert set(prefill.tiles) == set(described.tiles) - unused
    for name, tile in prefill.tiles.items():
        if name in reused:
            assert tile.size <= cores * described.tiles[name].elements, name
        else:
            assert tile.size == cores * described.tiles[name].elements, name
    running.prefill([PROMPT])
    running.decode([1])
    described = decode_layer(running.plan)
    for name, tile in running._decode_tiles[0].items():
        assert tile.size == cores * described.tiles[name].elements, name


@pytest.mark.parametrize("shape", [GQA, MHA], ids=["GQA", "MHA"])
@pytest.mark.parametrize("policy", ["shift", "concat"])
def test_sixty_four_greedy_tokens(shape: SmallShape, policy: str) -> None:
    context = 4 * 80 if policy == "concat" else 82
    mesh, weights = decoder(shape, (6, 6), (4, 4), context, policy=policy)
    generated = mesh.generate([PROMPT], 64)[0]
    expected = dense_logits(shape, weights, PROMPT + generated[:-1])[len(PROMPT) - 1 :]
    assert generated == expected.argmax(axis=-1).tolist()
    assert len(set(generated)) > 4, "a sequence that only repeats would prove little"
    assert mesh.tokens.tolist() == [len(PROMPT) + 63]


def test_a_llama_checkpoint_as_our_own_models_run_it(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    directory = write_random_llama(tmp_path / "llama")
    model = load_decoder(directory)
    tensors = load_file(directory / "model.safetensors")
    rope = Rope.plain(model.config.rope.theta ** (-np.arange(8) / 8))
    weights = checkpoint_weights(model.config, lambda name, _: tensors[name], rope, model.config.norm_eps)
    mesh = MeshDecoder(model.config, weights, Mesh(ROOMY, 4, 4), Mesh(ROOMY, 3, 3), context=90)
    logits = [mesh.prefill([PROMPT])[0]]
    generated = [int(logits[0].argmax())]
    while len(generated) < 64:
        logits.append(mesh.decode(generated[-1:])[0])
        generated.append(int(logits[-1].argmax()))
    tokens = PROMPT + generated[:-1]
    theirs = logits_in_steps(model, tokens, len(PROMPT), [len(tokens)], scattered=False)
    theirs = theirs[len(PROMPT) - 1 :].numpy()
    assert generated == theirs.argmax(axis=-1).tolist()
    assert theirs.std() > 0.5
    assert np.abs(np.array(logits) - theirs).max() <= TOLERANCE


def test_generation_ends_behind_a_stop_token_and_reports_its_progress() -> None:
    mesh, _ = decoder(GQA, (4, 4), (4, 4), context=40)
    [free] = mesh.generate([PROMPT], 6)
    seen: list[tuple[str, int, int]] = []
    [stopped] = mesh.generate([PROMPT], 6, stop={free[2]}, progress=lambda *state: seen.append(state))
    assert stopped == free[: free.index(free[2]) + 1]
    assert seen[:2] == [("prefill, layer by layer", 0, 2), ("prefill, layer by layer", 1, 2)]
    assert seen[2:] == [("decode, token by token", done, 6) for done in range(len(stopped))]


def test_shifting_keeps_rows_even_and_tokens_in_order() -> None:
    mesh, _ = decoder(GQA, (4, 4), (5, 5), context=40)
    mesh.prefill([PROMPT])
    tokens = list(PROMPT)
    before = [mesh.cache_matrices(layer) for layer in range(2)]
    for token in range(20, 43):
        mesh.decode([token])
        tokens.append(token)
        assert mesh.occupancy.max() - mesh.occupancy.min() <= 1
        assert mesh.occupancy.sum() == len(tokens)
        for layer, (keys, values) in enumerate(before):
            new_keys, new_values = mesh.cache_matrices(layer)
            assert np.array_equal(new_keys[: len(keys)], keys)
            assert np.array_equal(new_values[: len(values)], values)
    again, _ = decoder(GQA, (4, 4), (3, 3), context=40)
    again.prefill([tokens])
    for layer in range(2):
        for one, other in zip(mesh.cache_matrices(layer), again.cache_matrices(layer), strict=True):
            assert np.abs(one - other).max() < 1e-4, "as if the whole sequence had been the prompt"


def test_concatenating_fills_the_last_row_and_ends_there() -> None:
    mesh, _ = decoder(GQA, (4, 4), (4, 4), context=28, policy="concat")
    mesh.prefill([PROMPT])
    assert mesh.occupancy[0].tolist() == [5, 4, 4, 4]
    for _ in range(3):
        mesh.decode([1])
    assert mesh.occupancy[0].tolist() == [5, 4, 4, 7]
    with pytest.raises(ValueError, match=r"full after 20 tokens \(policy concat, 7 a row\)"):
        mesh.decode([1])
    assert mesh.occupancy[0].tolist() == [5, 4, 4, 7], "a refused token changes nothing"
    shifting, _ = decoder(GQA, (4, 4), (4, 4), context=28)
    shifting.prefill([PROMPT])
    for _ in range(11):
        shifting.decode([1])
    with pytest.raises(ValueError, match="full after 28 tokens"):
        shifting.decode([1])


def test_the_way_to_the_decode_mesh_keeps_every_bit() -> None:
    caches = []
    for decode_mesh in ((6, 6), (4, 4), (2, 5)):
        mesh, _ = decoder(MHA, (6, 6), decode_mesh, context=32)
        mesh.prefill([PROMPT])
        caches.append([part.tobytes() for layer in range(2) for part in mesh.cache_matrices(layer)])
        sent = sum(int(traffic.sent.sum()) for traffic in mesh.relayout_traffic)
        assert sent == sum(int(traffic.received.sum()) for traffic in mesh.relayout_traffic) > 0
    assert caches[0] == caches[1] == caches[2]


def test_a_new_prompt_starts_anew() -> None:
    mesh, weights = decoder(GQA, (4, 4), (4, 4), context=32)
    mesh.generate([PROMPT], 5)
    assert np.abs(mesh.prefill([[5, 6]])[0] - dense_logits(GQA, weights, [5, 6])[-1]).max() <= TOLERANCE
    assert np.abs(mesh.decode([7])[0] - dense_logits(GQA, weights, [5, 6, 7])[-1]).max() <= TOLERANCE
    assert mesh.tokens.tolist() == [3]


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
        weights.rope,
        weights.norm_eps,
    )
    mesh = MeshDecoder(GQA, half, Mesh(WSE2, 4, 4), Mesh(WSE2, 4, 4), context=24, accumulator=np.float16)
    logits = mesh.prefill([PROMPT])[0]
    assert logits.dtype == np.float16
    expected = dense_logits(GQA, weights, PROMPT)[-1]
    assert np.abs(logits - expected).max() <= 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"o_bias": True}, r"layer 0's output_bias must be \[64\], got nothing"),
        ({"qkv_bias": True}, r"layer 0's query_bias must be \[64\], got nothing"),
        ({"qk_norm": True}, r"layer 0's query_norm must be \[16\], got nothing"),
        ({"sandwich_norms": True}, r"layer 0's post_norm1 must be \[64\], got nothing"),
        ({"hidden_act": "relu"}, "does not know the activation 'relu'; known are silu, gelu, gelu_pytorch"),
        ({"num_layers": 3}, "has 3 layers, weights are of 2"),
        ({"intermediate_size": 97}, r"layer 0's gate must be \[97, 64\], got \[96, 64\]"),
    ],
)
def test_models_that_the_mesh_does_not_run(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MeshDecoder(
            replace(GQA, **change), random_weights(GQA), Mesh(ROOMY, 4, 4), Mesh(ROOMY, 4, 4), context=8
        )


def test_layers_that_do_not_fit_into_one_region_lie_in_several() -> None:
    """As many as fit in each region; hidden states are handed over as they are, so logits are the same bit by bit."""
    shape = replace(GQA, num_layers=5)
    weights = random_weights(shape)
    roomy, tight = (
        MeshDecoder(shape, weights, Mesh(device, 3, 3), Mesh(device, 2, 3), context=20)
        for device in (ROOMY, WSE2)
    )
    one, several = ([m.prefill([PROMPT]), m.decode([5]), m.decode([6])] for m in (roomy, tight))
    assert all(np.array_equal(a, b) for a, b in zip(one, several, strict=True))
    assert (roomy.prefill_regions, roomy.decode_regions, roomy.hand_over_bytes) == (1, 1, 0)
    assert tight.prefill_regions > 1
    assert tight.decode_regions > 1
    prompt_bytes, token_bytes = 4 * 18 * 66, 4 * 64  # 17 tokens and 64 channels are padded to thirds
    assert tight.hand_over_bytes == (
        (tight.prefill_regions - 1) * prompt_bytes + 2 * (tight.decode_regions - 1) * token_bytes
    )
    fill = LLMMemory(shape, WSE2, element_bytes=4).fill("decode", Grid(2, 3), 20)
    assert tight.decode_regions == fill.regions


def test_what_a_core_cannot_hold_is_refused() -> None:
    weights = random_weights(GQA)
    with pytest.raises(ValueError, match=r"decode layer on 1 x 1 cores needs \d+ bytes on core \(0, 0\)"):
        MeshDecoder(GQA, weights, Mesh(WSE2, 4, 4), Mesh(WSE2, 1, 1), context=8)
    small = WSE2.with_values("two meshes of 2 x 2 do not fit", rows=3, cols=2)
    with pytest.raises(ValueError, match=r"2 layers need 2 regions of 2 x 2 cores, where .* has room for 1"):
        MeshDecoder(GQA, weights, Mesh(WSE2, 4, 4), Mesh(small, 2, 2), context=8)
    mesh = MeshDecoder(GQA, weights, Mesh(WSE2, 4, 4), Mesh(WSE2, 6, 6), context=400)
    with pytest.raises(ValueError, match=r"prefill layer on 4 x 4 cores needs \d+ bytes on core"):
        mesh.prefill([[1] * 400])


def test_wrong_calls() -> None:
    mesh, _ = decoder(GQA, (4, 4), (4, 4), context=20)
    with pytest.raises(ValueError, match="decode follows a prefill"):
        mesh.decode([1])
    with pytest.raises(ValueError, match="from 1 to 20 tokens here, got 0"):
        mesh.prefill([[]])
    with pytest.raises(ValueError, match="from 1 to 20 tokens here, got 21"):
        mesh.prefill([[1] * 21])
    with pytest.raises(ValueError, match="1 sequences need as many prompts, got 2"):
        mesh.prefill([[1], [2]])
    with pytest.raises(ValueError, match="token 101 is not in the vocabulary of 101"):
        mesh.prefill([[101]])
