"""The published methods on a ``transformers`` Llama, written down plainly."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb


def gemfilter_scores(model: LlamaForCausalLM, token_ids: Sequence[int], layer: int) -> Tensor:
    """``[tokens]``: keys repeated for every query head, raw products with the last query, summed, pooled."""
    query, key = queries_and_keys(model, token_ids, layer)
    repeated = key.repeat_interleave(len(query) // len(key), 0)
    scores = (repeated @ query[:, -1, :, None])[..., 0].sum(0)
    padded = torch.nn.functional.pad(scores, (2, 2))
    return sum(padded[i : i + len(scores)] for i in range(5)) / 5


def queries_and_keys(model: LlamaForCausalLM, token_ids: Sequence[int], layer: int) -> tuple[Tensor, Tensor]:
    """Of 0-based ``layer``, rotated: ``[heads, tokens, head_dim]`` and ``[kv_heads, tokens, head_dim]``."""
    ids = torch.tensor([token_ids])
    hidden = model.model(ids, output_hidden_states=True).hidden_states[layer]
    own = model.model.layers[layer]
    cos, sin = model.model.rotary_emb(hidden, torch.arange(len(token_ids))[None])
    normed = own.input_layernorm(hidden)
    query, key = (
        projection(normed).view(1, len(token_ids), -1, own.self_attn.head_dim).transpose(1, 2)
        for projection in (own.self_attn.q_proj, own.self_attn.k_proj)
    )
    query, key = apply_rotary_pos_emb(query, key, cos, sin)
    return query[0], key[0]


def greedy(model: LlamaForCausalLM, token_ids: Sequence[int], count: int) -> list[int]:
    ids = list(token_ids)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(token_ids) :]


def attentions(model: LlamaForCausalLM, token_ids: Sequence[int]) -> list[Tensor]:
    """Of each layer ``[kv_heads, group, tokens, tokens]``; the model's attention must be eager."""
    kv_heads = model.config.num_key_value_heads
    found = model(torch.tensor([token_ids]), output_attentions=True).attentions
    return [layer[0].unflatten(0, (kv_heads, -1)) for layer in found]


def snapkv_choice(weights: Tensor, kept: int, window: int, pool: int) -> Tensor:
    """``[kv_heads, kept]`` from a layer's ``[kv_heads, group, tokens, tokens]``."""
    tokens = weights.shape[-1]
    votes = weights[:, :, tokens - window :, : tokens - window].sum((1, 2))
    return with_window(torch.nn.functional.avg_pool1d(votes[:, None], pool, 1, pool // 2)[:, 0], kept, window)


def h2o_choice(weights: Tensor, kept: int, recent: int) -> Tensor:
    return with_window(weights.sum((1, 2))[:, :-recent], kept, recent)


def with_window(votes: Tensor, kept: int, window: int) -> Tensor:
    best = votes.topk(kept - window).indices
    last = torch.arange(votes.shape[-1], votes.shape[-1] + window).expand(len(votes), -1)
    return torch.cat((best, last), -1).sort().values


def decode_with_choice(
    model: LlamaForCausalLM, token_ids: Sequence[int], choices: Sequence[Tensor], count: int
) -> list[int]:
    """Greedy tokens where each layer keeps ``[kv_heads, kept]`` places of the prompt; positions go on behind it."""
    full = DynamicCache()
    logits = model(torch.tensor([token_ids]), past_key_values=full).logits
    cache = DynamicCache()
    for layer, choice in enumerate(choices):
        rows = choice[None, :, :, None].expand(-1, -1, -1, full.layers[layer].keys.shape[-1])
        cache.update(
            full.layers[layer].keys.gather(2, rows), full.layers[layer].values.gather(2, rows), layer
        )
    generated = [int(logits[0, -1].argmax())]
    while len(generated) < count:
        position = torch.tensor([[len(token_ids) + len(generated) - 1]])
        logits = model(torch.tensor([generated[-1:]]), past_key_values=cache, position_ids=position).logits
        generated.append(int(logits[0, -1].argmax()))
    return generated


def fastkv_logits(
    model: LlamaForCausalLM, token_ids: Sequence[int], layer: int, going_on: int, window: int, pool: int
) -> Tensor:
    """Of the first token, where ``going_on`` tokens go deeper than ``layer``."""
    hidden = model.model.embed_tokens(torch.tensor([token_ids]))
    positions = torch.arange(len(token_ids))
    for index, own in enumerate(model.model.layers):
        cos, sin = model.model.rotary_emb(hidden, positions[None])
        count = len(positions)
        mask = torch.full((count, count), float("-inf")).triu(1)[None, None]
        before = own.input_layernorm(hidden)
        found = own(hidden, attention_mask=mask, position_embeddings=(cos, sin), position_ids=positions[None])
        hidden = found[0] if isinstance(found, tuple) else found
        if index == layer:
            query, key = (
                projection(before).view(1, count, -1, own.self_attn.head_dim).transpose(1, 2)
                for projection in (own.self_attn.q_proj, own.self_attn.k_proj)
            )
            query, key = apply_rotary_pos_emb(query, key, cos, sin)
            repeated = key[0].repeat_interleave(query.shape[1] // key.shape[1], 0)
            logits = query[0] @ repeated.transpose(1, 2) * own.self_attn.head_dim**-0.5 + mask[0]
            votes = logits.softmax(-1)[:, count - window :, : count - window].sum((0, 1))
            smooth = torch.nn.functional.avg_pool1d(votes[None, None], pool, 1, pool // 2)[0]
            [places] = with_window(smooth, going_on, window)
            hidden, positions = hidden[:, places], positions[places]
    logits: Tensor = model.lm_head(model.model.norm(hidden))[0, -1]
    return logits
