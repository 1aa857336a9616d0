"""LightGBM ensembles in a twenty-fifth of their text: what a fitted residual ships as.

A tree is written from the root down, left before right: one bit per node tells a split from a leaf, so that neither
children nor sizes of trees need be kept. A split is a feature and a row of that feature's threshold table, a leaf one
byte times a scale of its tree. Each kind of number stands together, the rows those of one feature after another, since
what compresses them (LZMA, without a context of earlier bytes) learns frequencies. What is unpacked is a LightGBM
model again.
"""

import lzma
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import lightgbm
import numpy as np
from numpy.typing import NDArray

_MAGIC = b"LPT2"
_HEADER = struct.Struct("<4sHHII")  # magic, features, trees, nodes of all trees, thresholds
# No context: what a byte follows says nothing about it here.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}]


def pack(booster: lightgbm.Booster) -> bytes:
    """The ensemble, leaves rounded to 1/127 of their tree's largest; thresholds to float32.

    Raises
    ------
    ValueError : more than 255 features or thresholds of one feature, or a split other than ``<=`` on a number.
    """
    trees = [_Tree.from_text(part) for part in booster.model_to_string().split("\nTree=")[1:]]
    count = booster.num_feature()
    features = np.concatenate([tree.features for tree in trees])
    thresholds = np.concatenate([tree.thresholds for tree in trees])
    tables = [np.unique(thresholds[features == feature]) for feature in range(count)]
    if count > 255 or any(len(table) > 255 for table in tables):
        raise ValueError("too many features or thresholds to pack; fit with max_bin of at most 255")
    rows = [
        np.searchsorted(table, thresholds[features == feature]).astype(np.uint8)
        for feature, table in enumerate(tables)
    ]
    scales = np.array([np.abs(tree.leaves).max() / 127 or 1.0 for tree in trees], dtype=np.float32)
    leaves = [np.rint(tree.leaves / scale).astype(np.int8) for tree, scale in zip(trees, scales, strict=True)]
    splits = np.concatenate([tree.is_split() for tree in trees])
    body = (
        np.array([len(table) for table in tables], dtype=np.uint8),
        _planes(np.concatenate(tables)),
        _planes(scales),
        np.packbits(splits),
        features.astype(np.uint8),
        *rows,
        *leaves,
    )
    header = _HEADER.pack(_MAGIC, count, len(trees), len(splits), sum(map(len, tables)))
    content = header + b"".join(part.tobytes() for part in body)
    return lzma.compress(content, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=_FILTERS)


def unpack(packed: bytes) -> lightgbm.Booster:
    """The ensemble that :func:`pack` wrote.

    Raises
    ------
    ValueError : the bytes are not such an ensemble.
    """
    try:
        reader = _Reader(lzma.decompress(packed))
        magic, count, trees, nodes, thresholds = _HEADER.unpack(reader.take(_HEADER.size))
    except (lzma.LZMAError, struct.error) as error:
        raise ValueError(f"not a packed ensemble of trees ({error})") from None
    if magic != _MAGIC:
        raise ValueError("not a packed ensemble of trees (wrong first bytes)")
    starts = np.cumsum([0, *reader.array(np.uint8, count)])
    table = reader.floats(thresholds)
    scales = reader.floats(trees)
    bits = np.frombuffer(reader.take((nodes + 7) // 8), dtype=np.uint8)
    splits = np.unpackbits(bits, count=nodes).astype(bool)
    features = reader.array(np.uint8, int(splits.sum())).astype(int)
    own_table = np.empty(len(features))
    for feature in range(count):
        of_feature = features == feature
        own_table[of_feature] = table[starts[feature] + reader.array(np.uint8, int(of_feature.sum()))]
    leaves = reader.array(np.int8, int((~splits).sum())).astype(float)
    texts, first_split, first_leaf = [], 0, 0
    nodes_left = iter(splits.tolist())
    for number, scale in enumerate(scales):
        left, right = _children(nodes_left)
        of_splits = slice(first_split, first_split + len(left))
        of_leaves = slice(first_leaf, first_leaf + len(left) + 1)
        tree = _Tree(features[of_splits], own_table[of_splits], leaves[of_leaves] * scale, left, right)
        texts.append(f"Tree={number}\n{tree.to_text()}")
        first_split, first_leaf = of_splits.stop, of_leaves.stop
    return lightgbm.Booster(model_str=_model_text(count, texts))


@dataclass(frozen=True)
class _Tree:
    """One tree from the root down, left before right: a negative child ``-1 - i`` is leaf ``i``, others are splits."""

    features: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    leaves: NDArray[np.float64]
    left: list[int]
    right: list[int]

    @staticmethod
    def from_text(text: str) -> "_Tree":
        """A tree as LightGBM writes it, in whatever order, sorted."""
        fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        if int(fields["num_cat"]) or set(fields.get("decision_type", "2").split()) - {"0", "2"}:
            raise ValueError("only splits of numbers without missing values can be packed")
        left, right, features = (
            [int(value) for value in fields.get(name, "").split()]
            for name in ("left_child", "right_child", "split_feature")
        )
        splits, ends, waiting = [], [], [0 if left else -1]
        while waiting:
            node = waiting.pop()
            if node < 0:
                ends.append(-1 - node)
            else:
                splits.append(node)
                waiting += [right[node], left[node]]
        names = {node: number for number, node in enumerate(splits)}
        names |= {-1 - leaf: -1 - number for number, leaf in enumerate(ends)}
        return _Tree(
            np.array(features, dtype=int)[splits],
            np.array(fields.get("threshold", "").split(), dtype=float)[splits],
            np.array(fields["leaf_value"].split(), dtype=float)[ends],
            [names[left[node]] for node in splits],
            [names[right[node]] for node in splits],
        )

    def is_split(self) -> NDArray[np.bool_]:
        """By node, from the root down: a split, or a leaf."""
        found, waiting = [], [0 if self.left else -1]
        while waiting:
            node = waiting.pop()
            found.append(node >= 0)
            if node >= 0:
                waiting += [self.right[node], self.left[node]]
        return np.array(found)

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


def _children(nodes: Iterator[bool]) -> tuple[list[int], list[int]]:
    """Left and right child of each split of the tree whose root comes next; of ``nodes`` its own are taken."""
    left: list[int] = []
    right: list[int] = []
    waiting: list[int] = []  # splits whose right side comes later
    side, parent, leaves = left, -1, 0
    for split in nodes:
        name = len(left) if split else -1 - leaves
        if parent >= 0:
            side[parent] = name
        if split:
            left.append(0)
            right.append(0)
            waiting.append(name)
            side, parent = left, name
        elif waiting:
            leaves += 1
            side, parent = right, waiting.pop()
        else:
            return left, right
    raise ValueError("the packed ensemble of trees is cut short")


def _planes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Numbers of 32 bits, all their first bytes before all their second ones: alike bytes stand together."""
    return np.ascontiguousarray(values.astype("<f4").view(np.uint8).reshape(-1, 4).T)


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

    def floats(self, count: int) -> NDArray[np.float64]:
        planes = self.array(np.uint8, 4 * count).reshape(4, count)
        return np.ascontiguousarray(planes.T).view("<f4")[:, 0].astype(float)
