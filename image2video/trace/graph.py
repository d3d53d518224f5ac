"""The dataflow of a trace: ancestors, regions, and the residual sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from image2video.trace.recorder import Call, Trace, Value

_BROADCASTS = frozenset({"mul", "div", "add", "sub"})
_TO_SOFTMAX = frozenset(
    {"add", "mul", "div", "sub", "clamp", "masked_fill", "where", "written"}
    | {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "permute", "transpose"}
    | {"contiguous", "clone", "alias", "detach", "to", "_to_copy"}
)
_SOFTMAX = frozenset({"softmax", "_softmax", "_safe_softmax", "log_softmax"})
_MASK_OPERAND = 3


@dataclass(frozen=True)
class Residual:
    """A sum of a shortcut and a branch, both from one fork.

    Args:
        fork: the latest value that both depend on.
        add: the sum.
        region: what lies between fork and sum on the branch, as a bit set of value indices.
        weights: the weighted operations of the branch, in the order of execution.
        owner: the call that adds; -1 outside of every module.
    """

    fork: int
    add: int
    region: int
    weights: tuple[int, ...]
    owner: int


def bits(mask: int) -> Iterator[int]:
    """Yield the indices of the set bits, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


class Graph:
    """Ancestors and consumers of every value that depends on the images.

    `ancestors` follows all edges. `main` leaves out an operand that is broadcast onto a larger one: squeeze-and-excite
    gates, spatial gates and global context join their map so, and are no part of a branch's own path.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.values: list[Value] = trace.values
        self.calls: list[Call] = trace.calls
        self.ancestors: list[int] = []
        self.main: list[int] = []
        self.consumers: list[list[int]] = [[] for _ in trace.values]
        for value in self.values:
            own = 1 << value.index if value.depends else 0
            every, main = own, own
            for parent in value.parents:
                if self.values[parent].depends:
                    every |= self.ancestors[parent]
                    self.consumers[parent].append(value.index)
            for parent in self.main_parents(value):
                main |= self.main[parent]
            self.ancestors.append(every)
            self.main.append(main)
        self._descendants: dict[int, int] = {}

    def main_parents(self, value: Value) -> list[int]:
        """The parents that carry the map, without what is broadcast onto it."""
        parents = [p for p in value.parents if self.values[p].depends]
        if value.op not in _BROADCASTS or len(parents) < 2:
            return parents
        full = [p for p in parents if prod(self.values[p].shape) == prod(value.shape)]
        return full or parents

    def descendants(self, index: int) -> int:
        """Return the bit set of what depends on a value, the value included."""
        if index not in self._descendants:
            bit = 1 << index
            self._descendants[index] = sum(1 << v for v in range(index, len(self.values)) if self.ancestors[v] & bit)
        return self._descendants[index]

    def weights_in(self, region: int) -> tuple[int, ...]:
        """Return the weighted operations of a region."""
        return tuple(v for v in bits(region) if self.values[v].weighted)

    def contains(self, call: int, value: int) -> bool:
        """Whether a value was computed during a call."""
        return call < 0 or self.calls[call].start <= value < self.calls[call].stop

    def enclosing(self, call: int) -> Iterator[Call]:
        """Yield a call and those around it, from the inside out, without the root's."""
        while call >= 0 and self.calls[call].parent >= 0:
            yield self.calls[call]
            call = self.calls[call].parent

    def residuals(self) -> list[Residual]:
        """Find every residual sum, in the order of execution; nested ones are all there."""
        found = []
        for value in self.values:
            terms = self._terms(value)
            if terms and not self._is_inner_sum(value) and not self._feeds_softmax(value.index):
                residual = self._residual(value, terms)
                if residual is not None:
                    found.append(residual)
        return found

    def _terms(self, value: Value) -> list[int]:
        """Return the summands of a sum of equal shapes, sums of sums opened; nothing for another operation."""
        if not value.depends or value.op not in ("add", "addcmul") or len(value.shape) < 3:
            return []
        operands = [o for o in value.operands if self.values[o].depends]
        if value.op == "add" and (len(operands) != 2 or operands[0] == operands[1]):
            return []
        if len(operands) < 2 or any(self.values[o].shape != value.shape for o in operands):
            return []
        terms: list[int] = []
        for operand in operands:
            inner = self._terms(self.values[operand]) if len(self.consumers[operand]) == 1 else []
            same_owner = self.values[operand].call == value.call
            terms += inner if inner and same_owner else [operand]
        return terms

    def _is_inner_sum(self, value: Value) -> bool:
        """Whether a sum is only a step of a longer one."""
        users = self.consumers[value.index]
        if len(users) != 1:
            return False
        user = self.values[users[0]]
        return user.call == value.call and bool(self._terms(user))

    def _residual(self, value: Value, terms: list[int]) -> Residual | None:
        terms = self._joined_by_identity(terms)
        common = self.ancestors[terms[0]]
        for term in terms[1:]:
            common &= self.ancestors[term]
        fork = common.bit_length() - 1
        if fork < 0 or self.values[fork].shape[:1] != value.shape[:1]:
            return None
        below = self.descendants(fork)
        regions = [self.main[term] & below & ~(1 << fork) for term in terms]
        counts = [len(self.weights_in(region)) for region in regions]
        shortcut = counts.index(min(counts))
        rest = [i for i in range(len(terms)) if i != shortcut and counts[i]]
        if counts[shortcut] > 1 or not rest or max(counts) <= counts[shortcut]:
            return None
        region = 0
        for i in rest:
            region |= regions[i]
        if counts[shortcut]:
            region &= ~regions[shortcut]
        return Residual(fork, value.index, region, self.weights_in(region), value.call)

    def _joined_by_identity(self, terms: list[int]) -> list[int]:
        """Keep the latest summand that others come from, and those; what other streams add is no part of the branch."""
        for shortcut in sorted(terms, reverse=True):
            branches = [t for t in terms if t != shortcut and self.ancestors[t] >> shortcut & 1]
            if branches:
                return [shortcut, *branches]
        return terms

    def _feeds_softmax(self, index: int) -> bool:
        """Whether a sum goes into a softmax before any weight, as the biases of an attention do."""
        seen, queue = {index}, [index]
        while queue:
            current = queue.pop()
            for user in self.consumers[current]:
                value = self.values[user]
                if value.op in _SOFTMAX:
                    return True
                if value.op == "scaled_dot_product_attention" and current in value.operands[_MASK_OPERAND:]:
                    return True
                if value.op in _TO_SOFTMAX and user not in seen:
                    seen.add(user)
                    queue.append(user)
        return False
