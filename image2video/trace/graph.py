"""The dataflow of a trace: ancestors, regions, and the residual sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from image2video.trace.adapters import adapters_in, sums_of_products
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


def has(mask: int, index: int) -> bool:
    """Whether a bit is set."""
    return bool(mask >> index & 1)


class Graph:
    """Ancestors and consumers of every value that depends on the images.

    Sets of values are whole numbers, bit i for value i: a network has thousands of values, and their unions and
    intersections are taken for every sum. `ancestors` follows all edges. `main` leaves out an operand that is broadcast
    onto a larger one: squeeze-and-excite gates, spatial gates and global context join their map so, and are no part of
    a branch's own path. `adapters` are the calls that stand around one layer (LoRA and its like), with its weight.
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
        self.adapters = adapters_in(trace)

    def main_parents(self, value: Value) -> list[int]:
        """Return the parents that carry the map, without what is broadcast onto it."""
        parents = [parent for parent in value.parents if self.values[parent].depends]
        if value.op not in _BROADCASTS or len(parents) < 2:
            return parents
        size = prod(value.shape)
        of_full_size = [parent for parent in parents if prod(self.values[parent].shape) == size]
        return of_full_size or parents

    def descendants(self, index: int) -> int:
        """Return the bit set of what depends on a value, the value included."""
        if index not in self._descendants:
            later = range(index, len(self.values))
            self._descendants[index] = sum(1 << value for value in later if has(self.ancestors[value], index))
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

    def adapter_around(self, call: int, value: int | None = None) -> Call | None:
        """Return the outermost adapter around a call; with a value, the outermost that does not hold it."""
        found = None
        for outer in self.enclosing(call):
            if outer.index in self.adapters and (value is None or not self.contains(outer.index, value)):
                found = outer
        return found

    def residuals(self) -> list[Residual]:
        """Find every residual sum, in the order of execution; nested ones are all there."""
        found: list[Residual] = []
        for value in self.values:
            terms = self._terms(value)
            if not terms or self._is_inner_sum(value) or self._feeds_softmax(value.index):
                continue
            residual = self._residual(value, self._joined_by_identity(terms))
            if residual is not None:
                found.append(residual)
        return found

    def _terms(self, value: Value) -> list[int]:
        """Return the summands of a sum of equal shapes, sums of sums opened; nothing for another operation."""
        if not value.depends or value.op not in ("add", "addcmul") or len(value.shape) < 3:
            return []
        operands = [operand for operand in value.operands if self.values[operand].depends]
        if value.op == "add" and (len(operands) != 2 or operands[0] == operands[1]):
            return []
        if len(operands) < 2 or any(self.values[operand].shape != value.shape for operand in operands):
            return []
        terms: list[int] = []
        for operand in operands:
            # a + b + c is two sums; a sum that something else uses too, or that another module made, stays whole.
            only_here = len(self.consumers[operand]) == 1 and self.values[operand].call == value.call
            inner = self._terms(self.values[operand]) if only_here else []
            terms += inner or [operand]
        return terms

    def _is_inner_sum(self, value: Value) -> bool:
        """Whether a sum is only a step of a longer one."""
        users = self.consumers[value.index]
        if len(users) != 1:
            return False
        user = self.values[users[0]]
        return user.call == value.call and bool(self._terms(user))

    def _residual(self, value: Value, terms: list[int]) -> Residual | None:
        """Read a sum as a shortcut and the branches beside it; None where it is none."""
        fork = self._fork(terms)
        if fork is None or self.values[fork].shape[:1] != value.shape[:1]:
            return None
        below = self.descendants(fork) & ~(1 << fork)
        paths = [self.main[term] & below for term in terms]
        counts = [len(self.weights_in(path)) for path in paths]
        # The shortcut is the summand with the fewest weights: an identity, or one convolution that changes the size.
        shortcut = counts.index(min(counts))
        branches = [path for place, path in enumerate(paths) if place != shortcut and counts[place]]
        if counts[shortcut] > 1 or not branches or max(counts) == counts[shortcut]:
            return None
        if sums_of_products(self.values, terms, fork):
            return None  # An adapter beside its layer.
        region = 0
        for branch in branches:
            region |= branch
        if counts[shortcut]:
            region &= ~paths[shortcut]  # A branch may use what the shortcut has computed.
        return Residual(fork, value.index, region, self.weights_in(region), value.call)

    def _fork(self, terms: list[int]) -> int | None:
        """Find the latest value that all summands depend on."""
        common = self.ancestors[terms[0]]
        for term in terms[1:]:
            common &= self.ancestors[term]
        return common.bit_length() - 1 if common else None

    def _joined_by_identity(self, terms: list[int]) -> list[int]:
        """Return [shortcut, *branches] where one summand leads to others, else all summands.

        The latest such summand is the shortcut. What comes from neither is added by other streams of the network, and
        is no part of the branch.
        """
        for shortcut in sorted(terms, reverse=True):
            branches = [term for term in terms if term != shortcut and has(self.ancestors[term], shortcut)]
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
