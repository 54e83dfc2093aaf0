r"""scan with a body that is linear in the carry → a recursive filter, and everything else for all times at once.

    h_t, y_t = body(h_{t−1}, x_t)     →     h = lfilter_tv(β; α) from h_{−1},   y = body for all t, where h is known

The proof. What does not depend on the carry is computed for all times at once, by functions of which it is known that
they do to a sequence what they do to each of its slices. What depends on the carry is followed as an affine form,

    value = Σ_j α_j h_j + β     α_j and β free of the carries,

through mul, div, add, sub, neg, lerp, addcmul, where and masked_fill: they make such forms of such forms as long as no
two factors, no divisor and no condition depend on the carry. The form of the new carry is the recurrence itself, of
order 1 for a carry on its own. A carry that depends on others but not on itself is known once they are, and so is what
a carry gets from others before it: cascades and delays of the input.

Carries that depend on each other in a circle are one filter of a higher order if without one of them, m, there is no
circle. All others then lead back to it, by

    h_j[t−d] = Σ_l α_jl[t−d] h_l[t−d−1] + β_j[t−d],

and there remains h_m[t] = Σ_k a_k[t] h_m[t−k] + b[t]. Direct forms of filters are written like this, transposed or not.
The body sees nothing that is older than the given state, so that before it h_m may be anything that makes the formula
above right for d = t + 1: zero, where β_j[−1] is the state of h_j. Where all others are plain delays of h_m, their
states are its past.

The filter is lfilter if all α are constant in time, lfilter_tv if not. An infinite or NaN carry that the body stops by
a factor of zero or by where is not stopped: 0 · ∞ is NaN.

It does not fire where the new carry is not linear, the carries are coupled in more than one circle, a carry is an
integer or is rounded to half precision at every step, something is computed by a function that is not listed, or is
written to in place.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from torch_iir.compiler._calls import read
from torch_iir.compiler._graph import Builder, Graph, Refused, hint, is_tensor, same_shape, tensor, title
from torch_iir.compiler._report import Report
from torch_iir.compiler.rewrites._slices import Slices, Value, lenders

NAME = "scan"

Coefficient = Value | complex  # a number, where it is one


def rewrite(graph: Graph) -> None:
    """Scans that are linear in the carry become filters."""
    for node in graph.nodes:
        if node.op == "call_function" and node.target is torch.ops.higher_order.scan:
            _unroll(graph, node)


def _unroll(graph: Graph, node: Node) -> None:
    calls = [read(user) for user in node.users]
    indices = {call.node: call["index"] for call in calls if call is not None and call.name == "getitem"}
    outputs = [item for item in graph.nodes if item in indices]
    if outputs and len(outputs) == len(calls):
        wanted = [indices[item] for item in outputs]
        graph.replace_all(NAME, outputs, lambda new: _Scan(graph, node, new).outputs(wanted, outputs))


class _Scan:
    """One scan. `sequences` are its carries after every step, as far as they are known."""

    def __init__(self, graph: Graph, node: Node, new: Builder) -> None:
        self.new = new
        arguments: Any = node.args
        function, init, xs, more = arguments
        body: Any = graph.module.get_submodule(function.target)
        nodes = [node for node in body.graph.nodes if node.op != "output"]
        if why := Graph(body, Report()).why_not(nodes):
            raise Refused(f"in the body, {why}")
        given = [node for node in nodes if node.op == "placeholder"]
        self.results: Sequence[Node] = body.graph.output_node().args[0]
        self.init: Sequence[Node] = init
        self.carries = dict(zip(given, range(len(init)), strict=False))
        self.inputs = [node for node in (*init, *xs, *more) if is_tensor(node)]
        sources = [*(Value(x, True) for x in xs), *map(Value, more)]
        self.values: dict[Node, Value] = dict(zip(given[len(init) :], sources, strict=True))
        self.sequences: dict[int, Value] = {}
        self.slices = Slices(new, xs[0])
        self.place = {node: index for index, node in enumerate(nodes)}
        self.uses: dict[Node, frozenset[int]] = {}  # the carries, before the step, that a node depends on
        for node in nodes:
            own = {self.carries[node]} if node in self.carries else ()
            self.uses[node] = frozenset(own).union(*(self.uses[argument] for argument in self.arguments(node)))

    def outputs(self, indices: Sequence[int], old: Sequence[Node]) -> list[Node]:
        """What stands for what the scan returned under these indices: the last of each carry, then the sequences."""
        carries = len(self.init)
        used = {index for index in indices if index < carries}
        self.solve(used.union(*(self.uses[self.results[index]] for index in indices if index >= carries)))
        made: list[Node] = []
        for index, gone in zip(indices, old, strict=True):
            if index < carries:
                node = self.new(torch.select, self.sequences[index].node, 0, -1)
            else:
                node = self.slices.whole(self.value(self.results[index])).node
            if tensor(gone).requires_grad and not tensor(node).requires_grad:
                node = self.tied(node)
            shared = {tensor(other).untyped_storage()._cdata for other in (*self.inputs, *made)}
            own = index >= carries and tensor(node).untyped_storage()._cdata not in shared
            if not own or not same_shape(tensor(node).stride(), tensor(gone).stride()):
                node = self.new(torch.clone, node, memory_format=torch.contiguous_format)
            made.append(node)
        return made

    def tied(self, node: Node) -> Node:
        """With a gradient, of zero, as all that a scan returns has if anything that it gets has one."""
        usable = [of for of in self.inputs if tensor(of).requires_grad and not tensor(of).is_complex()]
        if not usable:
            return node
        smallest = min(usable, key=lambda of: hint(tensor(of).numel()))
        nothing = self.new(torch.sum, self.new.item(self.new("reshape", smallest, -1), slice(0, 0)))
        return self.new(operator.add, node, self.new("to", nothing, tensor(node).dtype))

    # --- the carries

    def solve(self, wanted: Iterable[int]) -> None:
        """Computes the sequences of these carries and of those that they depend on."""
        reach = [set(self.uses[result]) for result in self.results[: len(self.init)]]
        for through in range(len(reach)):  # Warshall: what they depend on through others
            for one in reach:
                if through in one:
                    one |= reach[through]
        needed = set(wanted).union(*(reach[index] for index in wanted))
        for index in sorted(needed, key=lambda index: len(reach[index] | {index})):  # what it needs has fewer
            if index not in self.sequences:
                circle = [other for other in reach[index] if index in reach[other]]
                self.recur(sorted(circle)) if circle else self.follow(index)

    def follow(self, index: int) -> None:
        """A carry whose new value depends on known ones only."""
        self.sequences[index] = self.slices.whole(self.value(self.results[index]), self.init[index])

    def recur(self, circle: Sequence[int]) -> None:
        """Carries that depend on themselves or on each other."""
        main, rest = self.opened(circle)
        like = tensor(self.init[main])
        for index in circle:
            if (dtype := tensor(self.init[index]).dtype) != like.dtype:
                raise Refused(f"carries of {like.dtype} and of {dtype} depend on each other")
        if not like.is_floating_point() and not like.is_complex():
            raise Refused(f"the carry is of {like.dtype}, not of a floating dtype")
        if torch.finfo(like.dtype).bits < 32:
            raise Refused(f"the carry is rounded to {like.dtype} at every step: keep it in torch.float32")
        forms = _Forms(self, circle, like)
        of = {index: forms.of(self.results[index]) for index in circle}
        delays = _delays(main, rest, of)
        if delays is None:
            taps, drive = forms.eliminated(main, of)
            past = [self.initially(main), *[0] * (max(taps) - 1)]
        else:
            taps, drive = {delays[index]: by for index, by in of[main].of.items()}, of[main].plus
            past = [self.initially(index) for index in sorted(delays, key=delays.__getitem__)][: max(taps)]
        self.sequences[main] = forms.filtered(taps, drive, past, self.init[main])
        self.values[self.results[main]] = self.sequences[main]
        for index in rest:
            self.follow(index)

    def opened(self, circle: Sequence[int]) -> tuple[int, list[int]]:
        """One without which there is no circle, and the others in an order in which each needs only those before it."""
        for main in circle:
            left, order = set(circle) - {main}, list[int]()
            while free := [index for index in left if self.uses[self.results[index]].isdisjoint(left)]:
                order += free
                left -= set(free)
            if not left:
                return main, order
        raise Refused("the carries depend on each other, as if a matrix multiplied them")

    def initially(self, index: int) -> Coefficient:
        """The state of a carry that is given, 0 where that is how it was made."""
        node = self.init[index]
        zeros = node.target in (torch.zeros, torch.zeros_like, "new_zeros") and self.new.graph.why_not([node]) is None
        return 0 if zeros else Value(node)

    # --- values for all times

    def value(self, node: Node) -> Value:
        """What a node of the body computes, if the carries that it depends on are known."""
        for needed in self.needed([node], lambda node: node not in self.values):
            if needed in self.carries:
                self.values[needed] = self.before(self.carries[needed])
            else:
                lent = lenders(needed)
                given = {arg: self.lent(arg) if arg in lent else self.values[arg] for arg in needed.all_input_nodes}
                self.values[needed] = self.slices.compute(needed, given)
        return self.values[node]

    def lent(self, node: Node) -> Value:
        """A slice, for its shape."""
        return Value(self.init[self.carries[node]] if node in self.carries else self.slices.slice(self.values[node]))

    def before(self, index: int) -> Value:
        """A carry before every step."""
        return delayed(self.new, self.sequences[index], self.init[index])

    def arguments(self, node: Node) -> list[Node]:
        """What must be known for a node; of a carry that it takes the shape from nothing must."""
        lent = lenders(node) & self.carries.keys()
        return [argument for argument in node.all_input_nodes if argument not in lent]

    def needed(self, nodes: Iterable[Node], holds: Callable[[Node], bool]) -> list[Node]:
        """The nodes and what they need, as far as a condition holds, in order."""
        found = {node: None for node in nodes if holds(node)}
        queue = list(found)
        for node in queue:
            more = [argument for argument in self.arguments(node) if argument not in found and holds(argument)]
            found.update(dict.fromkeys(more))
            queue += more
        return sorted(found, key=self.place.__getitem__)


def delayed(new: Builder, sequence: Value, first: Node | None = None) -> Value:
    """One step later; at first it is `first`, or whatever."""
    head = new.item(sequence.node, slice(None, 1)) if first is None else new(torch.unsqueeze, first, 0)
    return Value(new(torch.cat, [head, new.item(sequence.node, slice(None, -1))], 0), True)


@dataclass(frozen=True)
class _Form:
    """Σ_j of[j] h_j + plus, with carries h_j before the step."""

    of: dict[int, Coefficient]
    plus: Coefficient


def _delays(main: int, rest: Sequence[int], forms: dict[int, _Form]) -> dict[int, int] | None:
    """The lag of each carry, if all others are delays of the main one, which has lag 1, in one chain; None if not."""
    lags = {main: 1}
    for index in rest:
        ((of, by), *more) = forms[index].of.items()
        if more or not _is(by, 1) or not _is(forms[index].plus, 0):
            return None
        lags[index] = lags[of] + 1
    return lags if sorted(lags.values()) == list(range(1, len(lags) + 1)) else None


def _is(coefficient: Coefficient, number: complex) -> bool:
    return not isinstance(coefficient, Value) and coefficient == number


class _Forms:
    """What the nodes of a body are as functions of some carries, and the filter that this makes of a carry."""

    def __init__(self, scan: _Scan, carries: Sequence[int], like: Tensor) -> None:
        self.scan, self.new, self.slices = scan, scan.new, scan.slices
        self.carries = frozenset(carries)
        self.like = like
        self.found = {node: _Form({index: 1}, 0) for node, index in scan.carries.items() if index in self.carries}

    def of(self, argument: Any) -> _Form:
        """The form of a node, or of a number."""
        if not self.depends(argument):
            return _Form({}, self.coefficient(argument))
        for node in self.scan.needed([argument], lambda node: node not in self.found and self.depends(node)):
            self.found[node] = self.next(node)
            if (dtype := tensor(node).dtype) != self.like.dtype:
                raise Refused(f"the carry, of {self.like.dtype}, becomes {dtype} in the body")
        return self.found[argument]

    def depends(self, argument: Any) -> bool:
        return isinstance(argument, Node) and not self.carries.isdisjoint(self.scan.uses[argument])

    def next(self, node: Node) -> _Form:
        """The form of a node whose arguments have theirs."""
        call, name = read(node), title(node)
        if node.op == "call_method" and name in ("to", "type_as", "float", "double"):
            return self.of(node.args[0])  # of the same dtype
        if call is not None:
            if name in ("clone", "contiguous"):
                return self.of(call["input"])
            if name == "neg":
                return self.times(self.of(call["input"]), -1)
            if name in ("add", "sub"):
                other = self.times(self.of(call["other"]), self.coefficient(call["alpha"]))
                return self.plus(self.of(call["input"]), self.times(other, -1) if name == "sub" else other)
            if name == "mul":
                return self.product(node, call["input"], call["other"])
            if name == "addcmul":
                product = self.product(node, call["tensor1"], call["tensor2"])
                return self.plus(self.of(call["input"]), self.times(product, self.coefficient(call["value"])))
            if name == "div" and call["rounding_mode"] is None and not self.depends(call["other"]):
                return self.over(self.of(call["input"]), self.coefficient(call["other"]))
            if name == "lerp" and not self.depends(call["weight"]):
                start, end = self.of(call["input"]), self.of(call["end"])
                way = self.plus(end, self.times(start, -1))
                return self.plus(start, self.times(way, self.coefficient(call["weight"])))
            if name == "where" and not self.depends(call["condition"]):
                return self.choice(call["condition"], call["input"], call["other"])
            if name == "masked_fill" and not self.depends(call["mask"]):
                return self.choice(call["mask"], call["value"], call["input"])
        raise Refused(f"the new carry is not linear in the carry: {name}")

    def product(self, node: Node, one: Any, other: Any) -> _Form:
        if self.depends(one) and self.depends(other):
            raise Refused(f"the new carry is not linear in the carry: {title(node)} of it with itself")
        if self.depends(one):
            one, other = other, one
        return self.times(self.of(other), self.coefficient(one))

    def choice(self, condition: Node, one: Any, other: Any) -> _Form:
        where, a, b = self.scan.value(condition), self.of(one), self.of(other)

        def choose(one: Coefficient, other: Coefficient) -> Coefficient:
            if one is other or (not isinstance(other, Value) and _is(one, other)):
                return one
            return self.slices.apply(torch.where, where, self.tensor(one), self.tensor(other))

        of = {index: choose(a.of.get(index, 0), b.of.get(index, 0)) for index in sorted(a.of.keys() | b.of.keys())}
        return _Form(of, choose(a.plus, b.plus))

    def plus(self, one: _Form, other: _Form) -> _Form:
        of = dict(one.of)
        for index, by in other.of.items():
            of[index] = self.add(of.get(index, 0), by)
        return _Form(of, self.add(one.plus, other.plus))

    def times(self, form: _Form, by: Coefficient) -> _Form:
        return _Form({index: self.mul(one, by) for index, one in form.of.items()}, self.mul(form.plus, by))

    def over(self, form: _Form, by: Coefficient) -> _Form:
        return _Form({index: self.div(one, by) for index, one in form.of.items()}, self.div(form.plus, by))

    # --- coefficients

    def coefficient(self, argument: Any) -> Coefficient:
        """What does not depend on the carries, in their dtype, in which the body computes with it."""
        if not isinstance(argument, Node):
            number: complex = argument
            return number
        value = self.scan.value(argument)
        if not is_tensor(value.node):
            return Value(self.full(value.node))
        if tensor(value.node).dtype != self.like.dtype:
            return Value(self.new("to", value.node, self.like.dtype), value.timed)
        return value

    def tensor(self, coefficient: Coefficient) -> Value:
        return coefficient if isinstance(coefficient, Value) else Value(self.full(coefficient))

    def full(self, number: complex | Node) -> Node:
        return self.new(torch.full, (), number, dtype=self.like.dtype, device=self.like.device)

    def add(self, one: Coefficient, other: Coefficient) -> Coefficient:
        if isinstance(one, Value) and isinstance(other, Value):
            return self.slices.apply(operator.add, one, other)
        if not isinstance(one, Value) and not isinstance(other, Value):
            return one + other
        number, value = (other, one) if isinstance(one, Value) else (one, other)
        return value if number == 0 else self.slices.apply(operator.add, value, number)

    def mul(self, one: Coefficient, other: Coefficient) -> Coefficient:
        if isinstance(one, Value) and isinstance(other, Value):
            return self.slices.apply(operator.mul, one, other)
        if not isinstance(one, Value) and not isinstance(other, Value):
            return one * other
        number, value = (other, one) if isinstance(one, Value) else (one, other)
        if number == 0 or number == 1:
            return value if number else 0
        return (
            self.slices.apply(operator.neg, value) if number == -1 else self.slices.apply(operator.mul, value, number)
        )

    def div(self, one: Coefficient, other: Coefficient) -> Coefficient:
        if isinstance(one, Value) or isinstance(other, Value):
            return 0 if _is(one, 0) else self.slices.apply(operator.truediv, one, other)
        return one / other if other else one * math.inf

    # --- filters

    def eliminated(self, main: int, forms: dict[int, _Form]) -> tuple[dict[int, Coefficient], Coefficient]:
        """The equation of the main carry in itself: coefficients by lag, and what is added."""
        found: dict[tuple[int, int], tuple[dict[int, Coefficient], Coefficient]] = {}

        def equation(of: int, ago: int) -> tuple[dict[int, Coefficient], Coefficient]:
            if of == main and ago:
                return {ago: 1}, 0
            if (of, ago) not in found:
                taps: dict[int, Coefficient] = {}
                drive = self.ago(forms[of].plus, ago, of)
                for index, by in forms[of].of.items():
                    factor = self.ago(by, ago)
                    inner, more = equation(index, ago + 1)
                    drive = self.add(drive, self.mul(factor, more))
                    for lag, tap in inner.items():
                        taps[lag] = self.add(taps.get(lag, 0), self.mul(factor, tap))
                found[of, ago] = taps, drive
            return found[of, ago]

        return equation(main, 0)

    def ago(self, coefficient: Coefficient, steps: int, carry: int | None = None) -> Coefficient:
        """Some steps later; just before its own first it is the state of a carry, and zero before that, or whatever."""
        first = None if carry is None else self.scan.init[carry]
        if carry is not None and first is not None and steps:
            if _is(coefficient, 0) and _is(self.scan.initially(carry), 0):
                return 0
            coefficient = self.slices.whole(self.tensor(coefficient), first)
        for _ in range(steps):
            if isinstance(coefficient, Value) and coefficient.timed:
                coefficient = delayed(self.new, coefficient, first)
                first = None if first is None else self.new(torch.zeros_like, first)
        return coefficient

    def filtered(
        self, taps: dict[int, Coefficient], drive: Coefficient, past: Sequence[Coefficient], init: Node
    ) -> Value:
        """h[t] = Σ_k taps[k] h[t−k] + drive[t], where past[k−1] is h[−k]."""
        rank = tensor(init).dim()
        signal = self.slices.time_last(self.slices.whole(self.tensor(drive), init), rank)
        minus = [self.tensor(self.mul(taps.get(lag, 0), -1)) for lag in range(1, max(taps) + 1)]
        if any(by.timed for by in minus):
            a = self.stacked([self.slices.time_last(by, rank) for by in minus])
            op, state = torch.ops.torch_iir.lfilter_tv.default, self.state(past, init)
            result = self.new(op, signal, None, a, None, state, 0, 1, 1)
        else:
            a = self.stacked([by.node for by in (self.tensor(1), *minus)])
            b = self.new(torch.ones, (1,), dtype=self.like.dtype, device=self.like.device)
            state = self.state([self.transposed(taps, past, lag) for lag in range(len(minus))], init)
            result = self.new(torch.ops.torch_iir.lfilter.default, signal, b, a, state)
        return Value(self.new(torch.movedim, self.new.item(result, 0), -1, 0), True)

    def transposed(self, taps: dict[int, Coefficient], past: Sequence[Coefficient], place: int) -> Coefficient:
        """A place in the state of the transposed direct form: what the past adds to the output after so many steps."""
        state: Coefficient = 0
        for before, value in enumerate(past[: len(past) - place]):
            state = self.add(state, self.mul(value, taps.get(place + before + 1, 0)))
        return state

    def state(self, state: Sequence[Coefficient], init: Node) -> Node | None:
        """(…, order); None if all of it is zero."""
        if all(_is(value, 0) for value in state):
            return None
        values = [value.node if isinstance(value, Value) else self.new(torch.zeros_like, init) for value in state]
        return self.stacked(values)

    def stacked(self, nodes: Sequence[Node]) -> Node:
        """Along a new last dimension."""
        if len(nodes) == 1:
            return self.new(torch.unsqueeze, nodes[0], -1)
        if not all(same_shape(tensor(node).shape, tensor(nodes[0]).shape) for node in nodes):
            spread = self.new(torch.broadcast_tensors, *nodes)
            nodes = [self.new.item(spread, index) for index in range(len(nodes))]
        return self.new(torch.stack, nodes, -1)
