"""LightGBM ensembles in a twentieth of their text: what a fitted residual ships as.

A leaf-wise grown tree is a list of splits, each of which divides one existing leaf: the left part keeps the leaf's
number and the right part gets the next one. So a split is three bytes (leaf, feature, row of the feature's threshold
table), and a leaf one byte times a scale of its tree. What is unpacked is a LightGBM model again.
"""

import lzma
import struct
from dataclasses import dataclass

import lightgbm
import numpy as np
from numpy.typing import NDArray

_MAGIC = b"LPT1"
_HEADER = struct.Struct("<4sHHHI")  # magic, features, trees, reserved, thresholds


def pack(booster: lightgbm.Booster) -> bytes:
    """The ensemble, leaves rounded to 1/127 of their tree's largest; thresholds to float32.

    Raises
    ------
    ValueError : more than 255 leaves, features, or thresholds of one feature, or a split other than ``<=`` on a number.
    """
    trees = [_Tree.from_text(part) for part in booster.model_to_string().split("\nTree=")[1:]]
    features = booster.num_feature()
    tables = [
        np.unique(np.concatenate([t.thresholds[t.features == f] for t in trees])) for f in range(features)
    ]
    if features > 255 or any(len(table) > 255 for table in tables):
        raise ValueError("too many features or thresholds to pack; fit with max_bin of at most 255")
    rows = [
        np.searchsorted(tables[f], x) for t in trees for f, x in zip(t.features, t.thresholds, strict=True)
    ]
    scales = np.array([np.abs(t.leaves).max() / 127 or 1.0 for t in trees], dtype=np.float32)
    leaves = [np.rint(t.leaves / scale).astype(np.int8) for t, scale in zip(trees, scales, strict=True)]
    body = (
        np.array([len(table) for table in tables], dtype=np.uint8).tobytes(),
        np.concatenate(tables).astype(np.float32).tobytes(),
        np.array([len(t.leaves) for t in trees], dtype=np.uint8).tobytes(),
        scales.tobytes(),
        np.concatenate([t.split_leaves() for t in trees]).astype(np.uint8).tobytes(),
        np.concatenate([t.features for t in trees]).astype(np.uint8).tobytes(),
        np.array(rows, dtype=np.uint8).tobytes(),
        np.concatenate(leaves).tobytes(),
    )
    header = _HEADER.pack(_MAGIC, features, len(trees), 0, sum(map(len, tables)))
    return lzma.compress(header + b"".join(body), preset=9 | lzma.PRESET_EXTREME)


def unpack(packed: bytes) -> lightgbm.Booster:
    """The ensemble that :func:`pack` wrote.

    Raises
    ------
    ValueError : the bytes are not such an ensemble.
    """
    try:
        reader = _Reader(lzma.decompress(packed))
        magic, features, count, _, thresholds = _HEADER.unpack(reader.take(_HEADER.size))
    except (lzma.LZMAError, struct.error) as error:
        raise ValueError(f"not a packed ensemble of trees ({error})") from None
    if magic != _MAGIC:
        raise ValueError("not a packed ensemble of trees (wrong first bytes)")
    table_sizes = reader.array(np.uint8, features).astype(int)
    table = reader.array(np.float32, thresholds).astype(float)
    table_starts = np.concatenate([[0], np.cumsum(table_sizes)])
    sizes = reader.array(np.uint8, count).astype(int)
    scales = reader.array(np.float32, count).astype(float)
    splits = int(sizes.sum()) - count
    split_leaves = reader.array(np.uint8, splits).astype(int)
    split_features = reader.array(np.uint8, splits).astype(int)
    split_thresholds = table[table_starts[split_features] + reader.array(np.uint8, splits)]
    leaves = reader.array(np.int8, int(sizes.sum())).astype(float)
    texts, first_split, first_leaf = [], 0, 0
    for number, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        own = slice(first_split, first_split + size - 1)
        tree = _Tree(
            split_features[own],
            split_thresholds[own],
            leaves[first_leaf : first_leaf + size] * scale,
            *_children(split_leaves[own]),
        )
        texts.append(f"Tree={number}\n{tree.to_text()}")
        first_split, first_leaf = first_split + size - 1, first_leaf + size
    return lightgbm.Booster(model_str=_model_text(features, texts))


@dataclass(frozen=True)
class _Tree:
    """One tree as LightGBM writes it: a negative child ``-1 - i`` is leaf ``i``."""

    features: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    leaves: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]

    @staticmethod
    def from_text(text: str) -> "_Tree":
        fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        leaves = np.array(fields["leaf_value"].split(), dtype=float)
        if len(leaves) > 255:
            raise ValueError(f"a tree of {len(leaves)} leaves cannot be packed; at most 255")
        if int(fields["num_cat"]) or set(fields.get("decision_type", "2").split()) - {"0", "2"}:
            raise ValueError("only splits of numbers without missing values can be packed")
        integers = (
            np.array(fields.get(k, "").split(), dtype=int)
            for k in ("split_feature", "left_child", "right_child")
        )
        features, left, right = integers
        return _Tree(
            features, np.array(fields.get("threshold", "").split(), dtype=float), leaves, left, right
        )

    def split_leaves(self) -> NDArray[np.int64]:
        """The leaf that each split divided: the leftmost leaf below it."""
        found = np.empty(len(self.features), dtype=int)
        for node in reversed(range(len(self.features))):  # children come after their parent
            child = self.left[node]
            found[node] = -1 - child if child < 0 else found[child]
        if any((a != b).any() for a, b in zip(_children(found), (self.left, self.right), strict=True)):
            raise ValueError("the tree was not grown leaf by leaf")
        return found

    def to_text(self) -> str:
        columns = {
            "split_feature": map(str, self.features),
            "threshold": map(repr, map(float, self.thresholds)),
            "decision_type": ("2" for _ in self.features),
            "left_child": map(str, self.left),
            "right_child": map(str, self.right),
            "leaf_value": map(repr, map(float, self.leaves)),
        }
        lines = [f"{name}={' '.join(values)}" for name, values in columns.items()]
        return "\n".join(
            [f"num_leaves={len(self.leaves)}", "num_cat=0", *lines, "is_linear=0", "shrinkage=1", "", ""]
        )


def _children(split_leaves: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Left and right children, by playing the splits: where a leaf hangs is where its next split goes."""
    left, right = np.empty_like(split_leaves), np.empty_like(split_leaves)
    hangs: dict[int, tuple[NDArray[np.int64], int]] = {}
    for node, leaf in enumerate(split_leaves):
        if leaf in hangs:
            side, parent = hangs[leaf]
            side[parent] = node
        left[node], right[node] = -1 - leaf, -2 - node
        hangs[int(leaf)], hangs[node + 1] = (left, node), (right, node)
    return left, right


def _model_text(features: int, trees: list[str]) -> str:
    names = [f"f{number}" for number in range(features)]
    head = (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
        f"max_feature_idx={features - 1}\nobjective=regression\nfeature_names={' '.join(names)}\n"
        f"feature_infos={' '.join('[-inf:inf]' for _ in names)}\n"
    )
    sizes = " ".join(str(len(tree.encode())) for tree in trees)
    tail = "end of trees\n\nfeature_importances:\n\nparameters:\nend of parameters\n"
    return f"{head}tree_sizes={sizes}\n\n{''.join(trees)}{tail}"


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._content):
            raise ValueError("the packed ensemble of trees is cut short")
        self._at += size
        return self._content[self._at - size : self._at]

    def array(self, dtype: type[np.generic], count: int) -> NDArray[np.generic]:
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype=dtype)
