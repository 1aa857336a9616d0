"""What a comparison of engines comes to: medians, and Lapidist's speed in units of each peer's."""

import statistics
from typing import Any

Rates = dict[str, dict[str, list[float]]]
"""Tokens per second by kind of measurement and engine, one number a round."""

Claims = dict[str, dict[str, float]]
"""By peer and kind: how many times as fast as the peer Lapidist is to be, at least."""


def summarize(rates: Rates, claims: Claims) -> dict[str, Any]:
    """Ratios are the medians of those within the rounds."""
    medians = {
        kind: {name: statistics.median(found) for name, found in by.items()} for kind, by in rates.items()
    }
    ratios = {
        kind: {
            peer: statistics.median(
                ours / theirs for ours, theirs in zip(by["lapidist"], by[peer], strict=True)
            )
            for peer in by
            if peer != "lapidist"
        }
        for kind, by in rates.items()
        if "lapidist" in by
    }
    met = {
        f"{kind} over {peer}": ratios[kind][peer] >= least
        for peer, by_kind in claims.items()
        for kind, least in by_kind.items()
        if peer in ratios.get(kind, {})
    }
    return {
        "tokens_per_second": rates,
        "tokens_per_second_median": medians,
        "lapidist_over_peer_median": ratios,
        "claims": claims,
        "met": met,
    }


def print_summary(result: dict[str, Any]) -> None:
    for kind, medians in result["tokens_per_second_median"].items():
        ratios = result["lapidist_over_peer_median"].get(kind, {})
        for engine, median in medians.items():
            ratio = f"   lapidist is {ratios[engine]:.2f}x" if engine in ratios else ""
            goal = result["claims"].get(engine, {}).get(kind)
            met = result["met"].get(f"{kind} over {engine}")
            claim = f", claim {goal:.2f}x {'met' if met else 'NOT met'}" if ratio and goal else ""
            print(f"{kind:16} {engine:13} {median:10.2f} tokens/s{ratio}{claim}")
