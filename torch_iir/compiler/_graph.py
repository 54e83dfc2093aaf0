"""The graph of a compilation as the rewrites see it: values, what may be changed, and how it is changed.

It is Dynamo's: torch's functions on fake tensors, before autograd. A rewrite replaces one node, the last of what it
recognised, by new nodes in front of it; what is not used any more afterwards goes. It need not care whether that is
allowed: `replace` refuses where a tensor is written to in place, where a change of mode (autocast, gradients) lies
between, and where the shape, the strides, the dtype or the device would differ, and says so in the report.
"""

from __future__ import annotations

import itertools
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule, Node, map_arg
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, statically_known_true

from torch_iir.compiler._calls import Call, read, reads
from torch_iir.compiler._inductor import fake_mode, in_fake_mode
from torch_iir.compiler._report import Fired, Missed, Report, where

Mode = Callable[[], AbstractContextManager[Any]]


class Refused(Exception):
    """Raised by a rewrite that finds, while it builds, that it does not fit; the message says why."""


class Graph:
    """One graph and the report about it."""

    def __init__(self, module: GraphModule, report: Report) -> None:
        self.module = module
        self.report = report
        self._survey()

    # --- reading

    @property
    def nodes(self) -> Iterator[Node]:
        """All nodes in order, also while the graph changes; those that were erased meanwhile are left out."""
        return (node for node in list(self.module.graph.nodes) if not node._erased)

    def calls(self, *names: str) -> Iterator[Call]:
        """The calls of these forms, in order, also while the graph changes."""
        return reads(self.nodes, *names)

    def output(self, node: Any, index: int, *names: str) -> Call | None:
        """The call of one of these names whose output number `index` the node is."""
        item = read(node)
        if item is None or item.name != "getitem" or item["index"] != index:
            return None
        call = read(item["input"])
        return call if call is not None and call.name in names else None

    def outputs(self, call: Call) -> dict[int, list[Node]]:
        """The nodes that take the single outputs of a call of several; at −1 what else uses it."""
        found: dict[int, list[Node]] = {}
        for user in call.node.users:
            item = read(user)
            index = item["index"] if item is not None and item.name == "getitem" else None
            found.setdefault(index if isinstance(index, int) else -1, []).append(user)
        return found

    def same(self, one: Any, other: Any) -> bool:
        """Whether two arguments are provably one value: the same node, or the same pure call of the same values."""
        return self._same(one, other, set())

    def _same(self, one: Any, other: Any, equal: set[tuple[Node, Node]]) -> bool:
        """As `same`; `equal` are pairs that are known to be, so that what is used twice is not looked at twice."""
        if isinstance(one, Node) and isinstance(other, Node):
            if one is other or (one, other) in equal:
                return True
            a, b = read(one), read(other)
            if (
                a is None
                or b is None
                or a.name != b.name
                or self.why_not([one, other]) is not None
                or any(map(self._is_written, (*one.all_input_nodes, *other.all_input_nodes)))
                or not all(self._same(value, b[name], equal) for name, value in a.arguments.items())
            ):
                return False
            equal.add((one, other))
            return True
        if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
            return len(one) == len(other) and all(self._same(a, b, equal) for a, b in zip(one, other, strict=True))
        if isinstance(one, slice) and isinstance(other, slice):
            ends = ((one.start, other.start), (one.stop, other.stop), (one.step, other.step))
            return all(self._same(a, b, equal) for a, b in ends)
        return not isinstance(one, Node) and not isinstance(other, Node) and type(one) is type(other) and one == other

    # --- what may be changed

    def why_not(self, nodes: Iterable[Node]) -> str | None:
        """Why these nodes may not be merged or moved to the last of them, None if they may."""
        nodes = list(nodes)
        if len({self._region[node] for node in nodes}) > 1:
            return "a change of mode (autocast, gradients) lies between"
        for node in nodes:
            if self._is_written(node):
                return "a tensor is written to in place"
        return None

    def missed(self, rewrite: str, node: Node, why: str) -> None:
        """Tells that a rewrite nearly fits at the node."""
        miss = Missed(rewrite, where(node), why)
        if miss not in self.report.missed:
            self.report.missed.append(miss)

    # --- changing

    def replace(self, rewrite: str, old: Node, build: Callable[[Builder], Node]) -> Node | None:
        """Puts what `build` makes in the place of a node, if that is allowed; returns it, None if it was refused.

        `build` gets a `Builder`, makes new nodes with it, and returns the one that stands for `old`; it may raise
        `Refused`. Nodes that nothing uses afterwards are erased.
        """
        made = self.replace_all(rewrite, [old], lambda new: [build(new)])
        return made[0] if made else None

    def replace_all(
        self, rewrite: str, old: Sequence[Node], build: Callable[[Builder], Sequence[Node]]
    ) -> Sequence[Node] | None:
        """Likewise for several nodes, given in order: all of them, or none. What is made stands before the first."""
        fake = fake_mode(tensor(old[0]))
        if fake is None:
            self.missed(rewrite, old[0], "a transform of torch.func (vmap, grad, jvp) is at work")
            return None
        new = Builder(self, old[0], fake)
        try:
            nodes = build(new)
            for node, gone in zip(nodes, old, strict=True):
                self._check(node, gone)
            dead = self._dead_without(old, nodes)
            if (
                why := self.why_not([*dead, *old])
                or self._inputs_written(new.made)
                or self._shares(nodes, old, dead, new)
            ):
                raise Refused(why)
        except Refused as refused:
            for made in reversed(new.made):
                self.module.graph.erase_node(made)
            self.missed(rewrite, old[0], str(refused))
            return None
        for node, gone in zip(nodes, old, strict=True):
            gone.replace_all_uses_with(node)
        for gone in dead:
            self.module.graph.erase_node(gone)
        saved = self._bytes(dead, new.made) - self._bytes(new.made, dead)
        self.report.fired.append(Fired(rewrite, where(old[0]), 2 * saved))  # written once and read once
        return nodes

    def finish(self) -> None:
        """Checks the graph and makes it callable again."""
        self.module.graph.lint()
        self.module.recompile()

    # --- how

    def _survey(self) -> None:
        """Which storages are written to, and where the mode changes."""
        self._written: set[int] = set()
        self._region: dict[Node, int] = {}
        self._modes: list[tuple[Mode, ...]] = [()]  # of each region
        entered: dict[Any, Mode] = {}
        for node in self.module.graph.nodes:
            value = node.meta.get("example_value")
            self._region[node] = len(self._modes) - 1
            if _changes_mode(node):
                _follow(node, entered)
                self._modes.append(tuple(entered.values()))
            for computed in tensors(value):
                if computed._version:  # views share it with what they look at
                    self._written.update(_storages(computed))
            if _may_write(node):
                for argument in node.all_input_nodes:
                    for given in tensors(argument.meta.get("example_value")):
                        self._written.update(_storages(given))

    def modes(self, node: Node) -> tuple[Mode, ...]:
        """What was entered, of this graph, and not left where the node stands."""
        return self._modes[self._region[node]]

    def _is_written(self, node: Node) -> bool:
        storages = itertools.chain.from_iterable(map(_storages, tensors(node.meta.get("example_value"))))
        return not self._written.isdisjoint(storages)

    def _inputs_written(self, made: Sequence[Node]) -> str | None:
        inputs = {argument for node in made for argument in node.all_input_nodes}
        return "a tensor is written to in place" if any(map(self._is_written, inputs)) else None

    def _check(self, new: Node, old: Node) -> None:
        a, b = tensor(new), tensor(old)
        for what, ours, theirs in (
            ("dtype", a.dtype, b.dtype),
            ("device", a.device, b.device),
            ("requires_grad", a.requires_grad, b.requires_grad),
        ):
            if ours != theirs:
                raise Refused(f"the {what} would be {ours}, not {theirs}")
        if not same_shape(a.shape, b.shape):
            raise Refused(f"the shape would be {list(a.shape)}, not {list(b.shape)}")
        if not same_shape(a.stride(), b.stride()):
            raise Refused(f"the strides would be {list(a.stride())}, not {list(b.stride())}")

    def _shares(self, new: Sequence[Node], old: Sequence[Node], dead: Sequence[Node], builder: Builder) -> str | None:
        """Whether an output would become, or cease to be, a view of what is before it: it may be written to later."""
        apart = {*dead, *builder.made}
        others = {
            storage
            for node in itertools.takewhile(lambda node: node is not old[0], self.module.graph.nodes)
            if node not in apart
            for value in tensors(node.meta.get("example_value"))
            for storage in _storages(value)
        }
        for node, gone in zip(new, old, strict=True):
            if others.intersection(_storages(tensor(node))) != others.intersection(_storages(tensor(gone))):
                return "the result would share its memory with another tensor than before"
        return None

    def _dead_without(self, old: Sequence[Node], new: Sequence[Node]) -> list[Node]:
        """What nothing uses once the old nodes are replaced by the new ones, users first."""
        dead: dict[Node, None] = dict.fromkeys(old)
        queue = list(old)
        for node in queue:
            for argument in node.all_input_nodes:
                if argument in dead or argument in new or argument.op not in _ERASABLE:
                    continue
                if all(user in dead for user in argument.users):
                    dead[argument] = None
                    queue.append(argument)
        order = {node: index for index, node in enumerate(self.module.graph.nodes)}
        return sorted(dead, key=order.__getitem__, reverse=True)

    def _bytes(self, nodes: Iterable[Node], others: Iterable[Node]) -> int:
        """Of the storages that the nodes make; views make none."""
        known = {
            storage
            for node in others
            for argument in (node, *node.all_input_nodes)
            for value in tensors(argument.meta.get("example_value"))
            for storage in _storages(value)
        }
        sizes: dict[int, int] = {}
        for node in nodes:
            for value in tensors(node.meta.get("example_value")):
                for storage in _storages(value):
                    if storage not in known:
                        sizes[storage] = max(sizes.get(storage, 0), hint(value.numel()) * value.element_size())
        return sum(sizes.values())


class Builder:
    """Makes nodes in front of one that is to be replaced: ``new(torch.stack, [a, b], 0)``."""

    def __init__(self, graph: Graph, old: Node, fake: FakeTensorMode) -> None:
        self.graph = graph
        self.old = old
        self.fake = fake
        self.made: list[Node] = []

    def __call__(self, target: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Node:
        """A new node that calls the function, or the method of this name; nodes among the arguments are values."""
        value = self._computed(target, args, kwargs)
        graph = self.graph.module.graph
        with graph.inserting_before(self.old):
            node = graph.create_node(
                "call_method" if isinstance(target, str) else "call_function", target, args, kwargs
            )
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack"):
            if key in self.old.meta:
                node.meta[key] = self.old.meta[key]
        node.meta["example_value"] = value
        self.graph._region[node] = self.graph._region[self.old]
        self.made.append(node)
        return node

    def _computed(self, target: Callable[..., Any] | str, args: Any, kwargs: Any) -> Any:
        """The fake value, in the modes that hold where the node will stand."""
        args, kwargs = map_arg(args, _value), map_arg(kwargs, _value)
        function = getattr(args[0], target) if isinstance(target, str) else target
        args = args[1:] if isinstance(target, str) else args
        with ExitStack() as modes:
            for enter in self.graph.modes(self.old):
                modes.enter_context(enter())
            try:
                return in_fake_mode(self.fake, function, *args, **kwargs)
            except GuardOnDataDependentSymNode as error:
                raise Refused(f"a size is known only when the graph runs: {error.cond}") from None

    def again(self, node: Node, given: Mapping[Node, Node]) -> Node:
        """The same call as the node's, of other values where they are given."""
        args, kwargs = map_arg((node.args, node.kwargs), lambda argument: given.get(argument, argument))
        return self(node.target, *args, **kwargs)

    def item(self, node: Node, index: Any) -> Node:
        """``node[index]``."""
        return self(operator.getitem, node, index)


def rewrite_all(module: GraphModule, report: Report, rewrites: Iterable[Callable[[Graph], None]]) -> None:
    """Applies the rewrites in order, changing the module."""
    graph = Graph(module, report)
    report.before = operations(module)
    for rewrite in rewrites:
        rewrite(graph)
    report.after = operations(module)
    if report.fired:
        graph.finish()


def operations(module: GraphModule) -> Counter[str]:
    """How often the graph calls what."""
    return Counter(title(node) for node in module.graph.nodes if node.op in ("call_function", "call_method"))


# --- values


def tensor(node: Any) -> Tensor:
    """The fake tensor that a node computes."""
    value = node.meta.get("example_value")
    if not isinstance(value, Tensor):
        raise Refused(f"{node} is not a tensor")
    return value


def is_tensor(argument: Any) -> TypeGuard[Node]:
    """Whether an argument is a node that computes one tensor."""
    return isinstance(argument, Node) and isinstance(argument.meta.get("example_value"), Tensor)


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in what a node computes: one, or a sequence of them."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)


def known(condition: Any) -> bool:
    """Whether a condition on sizes holds for sure, whatever symbols stand in it; no guard is added."""
    return bool(statically_known_true(condition))


def same_shape(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether all sizes are equal for sure."""
    return len(one) == len(other) and all(known(a == b) for a, b in zip(one, other, strict=True))


def hint(size: Any) -> int:
    """The size that was seen when it was traced; a guess where there was none. For estimates only."""
    if isinstance(size, int):
        return size
    value = size.node.maybe_as_int()
    if value is None:
        value = size.node.hint if size.node.has_hint() else None
    return 8192 if value is None else int(value)


def _value(node: Node) -> Any:
    return node.meta["example_value"]


def _storages(value: Tensor) -> tuple[int, ...]:
    try:
        return (value.untyped_storage()._cdata,)
    except (NotImplementedError, RuntimeError):  # a sparse tensor, a subclass
        return (id(value),)


def _changes_mode(node: Node) -> bool:
    """Whether a node is there for what it does and not for what it computes, unless it only writes or checks."""
    name = getattr(node.target, "__name__", "")
    if node.op != "call_function" or isinstance(node.target, torch._ops.OpOverload):
        return False
    if name.startswith(("_enter", "_exit", "_set_", "_vmap", "_saved")):
        return True
    idle = node.meta.get("example_value") is None and not node.users
    return idle and node.target is not operator.setitem and not name.startswith("_assert")


def _follow(node: Node, entered: dict[Any, Mode]) -> None:
    """Enters or leaves what a node enters or leaves, as far as it tells on values."""
    name = getattr(node.target, "__name__", "")
    if name == "_set_grad_enabled":
        entered[name] = partial(torch.set_grad_enabled, bool(node.args[0]))
    elif name == "_enter_autocast":
        entered[node] = partial(torch.autocast, *cast(Any, node.args))
    elif name == "_enter_inference_mode" and node.args[0]:
        entered[node] = torch.no_grad
    elif name in ("_exit_autocast", "_exit_inference_mode"):
        entered.pop(node.args[0], None)


# Their bodies were traced: what they write to has a version.
_TRACED = (
    "cond",
    "while_loop",
    "scan",
    "associative_scan",
    "wrap_activation_checkpoint",
    "tag_activation_checkpoint",
    "autograd_function_apply",
)

# What goes when nothing uses it; placeholders stay.
_ERASABLE = ("call_function", "call_method", "get_attr")


def _may_write(node: Node) -> bool:
    """Whether an operator says so itself, or cannot say; what torch's own functions write to has a version."""
    target = node.target
    if isinstance(target, torch._ops.HigherOrderOperator):
        return target.name() not in _TRACED  # type: ignore[no-untyped-call]
    if isinstance(target, torch._ops.OpOverloadPacket):
        names = target.overloads()  # type: ignore[no-untyped-call]
        return any(getattr(target, name)._schema.is_mutable for name in names)
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def title(node: Node) -> str:
    """What a node calls, in a word for reports."""
    if call := read(node):
        return call.name
    if isinstance(node.target, (torch._ops.OpOverload, torch._ops.HigherOrderOperator)):
        return str(node.target)
    return str(getattr(node.target, "__name__", node.target))
