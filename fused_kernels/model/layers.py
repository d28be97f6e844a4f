"""A tower as a list of layers: traced by torch.export, with batch norms folded and weights in the bodies' layout.

The trace is a graph of ATen operators without side effects, whose shapes are those of the example input, so that every
layer has a problem (`problems.py`) if a body can do it. A convolution takes its batch norm, a residual sum and a ReLU
with it, an embedding the positions that are added to it. What no body does stays an operator of torch.

Images are kept channels-last, so that the NHWC arrays of the bodies and torch's tensors are the same memory.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nitro.errors import UsageError

from ..problems import Problem
from ..torch_calls import Call, call_of, functional, torch

# Values of a pass through a tower by name: inputs, constants, and what the layers have made so far.
Values = dict[str, Any]
_MOST_SKINNY_ROWS = 4
aten = torch.ops.aten

_VIEWS = frozenset(
    {"alias", "chunk", "detach", "expand", "flatten", "narrow", "permute", "reshape", "select", "slice", "split"}
    | {"split_with_sizes", "squeeze", "t", "transpose", "unbind", "unflatten", "unsqueeze", "view", "_unsafe_view"}
)
_FILLED = {
    aten.new_zeros.default: "zeros",
    aten.zeros_like.default: "zeros",
    aten.zeros.default: "zeros",
    aten.new_ones.default: "ones",
    aten.ones_like.default: "ones",
    aten.ones.default: "ones",
}


@dataclass(slots=True)
class Layer:
    """One layer: what it reads, what it makes, and the ways to run it.

    `libraries` run it with torch, by name; the first one can do so on every device. `call` gives the arguments of our
    operator; it is None for a layer that no body can do, and `why_not` says why. `arrays` are the values behind the
    arrays of the problem, by array; `reads_images` says that x is an image, channels-last. `finish` turns the
    operator's output into the layer's (None: it is that already), and `has_tail` says that this takes kernels of its
    own. Layers of one `signature` take equally long. A view costs nothing and is never fused.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    libraries: dict[str, Callable[[Values], Any]]
    call: Callable[[Values], Call] | None = None
    arrays: Mapping[str, str] = field(default_factory=dict)
    finish: Callable[[Any, Values], Any] | None = None
    why_not: str = ""
    is_view: bool = False
    problem: Problem | None = None
    kind: str = ""
    signature: str = ""
    reads_images: bool = False
    has_tail: bool = False

    def refuse(self, why_not: str) -> None:
        """Leave the layer to torch, for a reason."""
        self.call, self.finish, self.problem, self.why_not = None, None, None, why_not


@dataclass(slots=True)
class Tower:
    """A traced module: its layers in an order that respects their inputs, and its constants by name."""

    layers: list[Layer]
    input: str
    output: str
    constants: Values
    takes_token_ids: bool

    def prepared(self, value: Any) -> Any:
        """Return an input in the layout that the layers read: channels-last images, 32-bit token ids."""
        if self.takes_token_ids:
            return value.to(torch.int32)
        return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value

    def last_uses(self) -> dict[int, list[str]]:
        """Return, by the index of a layer, the values that nothing reads after it."""
        last = {name: at for at, layer in enumerate(self.layers) for name in (*layer.inputs, layer.output)}
        keep = {self.output, self.input, *self.constants}
        found: dict[int, list[str]] = {}
        for name, at in last.items():
            if name not in keep:
                found.setdefault(at, []).append(name)
        return found

    def run(self, value: Any, visit: Callable[[Layer, Values], None] | None = None) -> Any:
        """Return the tower's output, layer after layer with torch, noting which bodies could do them.

        A layer whose tensors a body cannot take is refused to the bodies.

        Args:
            value: the input.
            visit: is called with every layer before it runs, and with the values that are there then.
        """
        values = {**self.constants, self.input: self.prepared(value)}
        gone = self.last_uses()
        for at, layer in enumerate(self.layers):
            if layer.call is not None:
                try:
                    layer.problem = layer.call(values).problem
                except UsageError as error:
                    layer.refuse(str(error))
            held = [values[name] for name in layer.inputs]
            shapes = [f"{one.dtype}{tuple(one.shape)}" for one in held if isinstance(one, torch.Tensor)]
            layer.signature = f"{layer.kind} {layer.problem or ''} {' '.join(shapes)}"
            if visit is not None:
                visit(layer, values)
            values[layer.output] = next(iter(layer.libraries.values()))(values)
            for name in gone.get(at, ()):
                del values[name]
        return values[self.output]


def trace(module: Any, example: Any) -> Tower:
    """Return a module's tower for inputs like the example: its shapes, its dtype, its device.

    Args:
        module: takes one tensor and returns one.
        example: images [batch, channels, height, width] or token ids [batch, tokens].

    Raises:
        UsageError: torch.export cannot trace the module, or it has several inputs or outputs.
    """
    try:
        with torch.no_grad():
            program = torch.export.export(module, (example,), strict=False)
            program = program.run_decompositions({})
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(
            f"{type(module).__name__} cannot be traced ({lines[0]}); see that torch.export takes it."
        ) from error
    return _Lowering(program, type(module).__name__, example).tower()


@dataclass(slots=True)
class _Lowering:
    program: Any
    module_name: str
    example: Any
    constants: Values = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    taken: set[Any] = field(default_factory=set)
    emitted: dict[Any, Layer] = field(default_factory=dict)
    casts_ids: bool = False

    def tower(self) -> Tower:
        signature = self.program.graph_signature
        inputs = list(signature.user_inputs)
        if len(inputs) != 1 or len(signature.user_outputs) != 1:
            raise UsageError(
                f"{self.module_name} has {len(inputs)} inputs and {len(signature.user_outputs)} outputs; an encoder "
                "takes one tensor and returns one, so wrap it in a module that does."
            )
        if signature.user_outputs[0] in inputs:
            raise UsageError(f"{self.module_name} returns what it is given; an encoder computes an embedding from it.")
        if signature.buffers_to_mutate:
            raise UsageError(f"{self.module_name} changes its buffers when it runs; call .eval() on it first.")
        self.read_constants(signature)
        nodes = list(self.program.graph.nodes)
        source = next(node for node in nodes if node.op == "placeholder" and node.name == inputs[0])
        self.casts_ids = not self.example.is_floating_point() and all(
            user.target is aten.embedding.default for user in source.users
        )
        for node in nodes:
            if node.op == "call_function" and node not in self.taken and not self.is_constant(node):
                self.lower(node)
        layers = [self.emitted[node] for node in nodes if node in self.emitted]
        return Tower(layers, source.name, signature.user_outputs[0], self.constants, self.casts_ids)

    def read_constants(self, signature: Any) -> None:
        named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        named |= signature.inputs_to_lifted_tensor_constants
        for name, path in named.items():
            held = self.program.state_dict if path in self.program.state_dict else self.program.constants
            self.constants[name] = held[path].detach()
            self.paths[name] = path

    def is_constant(self, node: Any) -> bool:
        """Tell whether a node depends on no input, and compute it once if so: attention masks, tables of positions."""
        sources = node.all_input_nodes
        filled = _FILLED.get(node.target)
        held = all(one.name in self.constants for one in sources)
        if not isinstance(node.meta.get("val"), torch.Tensor) or not (filled or (sources and held)):
            return False
        if filled:
            meta = node.meta["val"]
            like = torch.full(tuple(meta.shape), 1.0 if filled == "ones" else 0.0, dtype=meta.dtype, device=meta.device)
            self.constants[node.name] = like
            return True
        args = torch.fx.node.map_arg(node.args, lambda one: self.constants[one.name])
        kwargs = torch.fx.node.map_arg(dict(node.kwargs), lambda one: self.constants[one.name])
        with torch.no_grad():
            self.constants[node.name] = node.target(*args, **kwargs)
        return True

    # ---- helpers ----

    def sole_user(self, node: Any) -> Any:
        users = list(node.users)
        return users[0] if len(users) == 1 else None

    def title(self, node: Any, weight: Any) -> str:
        path = self.paths.get(getattr(weight, "name", ""), "")
        return path.rpartition(".")[0] or node.name

    def constant(self, node: Any) -> Any:
        return self.constants.get(node.name) if isinstance(node, torch.fx.Node) else None

    def emit(self, last: Any, layer: Layer) -> None:
        self.emitted[last] = layer

    def lower(self, node: Any) -> None:
        rules: dict[Any, Callable[[Any], bool]] = {
            aten.conv2d.default: self.convolution,
            aten.linear.default: self.linear,
            aten.layer_norm.default: self.layer_norm,
            aten.softmax.int: self.softmax,
            aten._softmax.default: self.softmax,
            aten.gelu.default: self.gelu,
            aten.embedding.default: self.embedding,
        }
        rule = rules.get(node.target)
        if rule is None or not rule(node):
            self.plain(node, "")

    def plain(self, node: Any, why_not: str) -> None:
        """Emit a node as the operator of torch that it is."""
        name = node.target.__name__.split(".")[0] if node.target is not operator.getitem else "getitem"
        is_view = node.target is operator.getitem or name in _VIEWS
        target, args, kwargs = node.target, node.args, dict(node.kwargs)
        if name == "clone" and _is_copy_of_same_layout(node):
            is_view, target, kwargs = True, _same_tensor, {}
        if name in ("view", "_unsafe_view"):
            # The strides at run time can be others than in the trace, since a body's output is contiguous.
            target = aten.reshape.default

        positional, named = [_reader(one) for one in args], {key: _reader(one) for key, one in kwargs.items()}

        def run(values: Values) -> Any:
            return target(*[read(values) for read in positional], **{key: read(values) for key, read in named.items()})

        inputs = tuple(one.name for one in node.all_input_nodes)
        reason = why_not or ("" if is_view else f"no body for {name}")
        layer = Layer(node.name, inputs, node.name, {"torch": run}, why_not=reason, is_view=is_view)
        layer.kind = f"{name} {[one for one in args if not isinstance(one, torch.fx.Node)]} {kwargs}"
        self.emit(node, layer)

    def take(self, *nodes: Any) -> None:
        self.taken.update(nodes)

    # ---- rules: each returns whether it emitted a layer ----

    def convolution(self, node: Any) -> bool:
        x, weight, bias, stride, padding, dilation, groups = _filled(
            node.args, (None, None, None, [1, 1], [0, 0], [1, 1], 1)
        )
        filters, shift = self.constant(weight), None if bias is None else self.constant(bias)
        if filters is None or (bias is not None and shift is None) or isinstance(padding, str):
            return False
        absorbed, last = [], node
        normalised = self.batch_norm_after(node)
        if normalised is not None:
            norm, last = normalised
            filters, shift = self.folded(filters, shift, norm)
            absorbed += [norm, last]
        residual, relu, tail = self.residual_and_relu(last)
        if tail:
            absorbed += tail
            last = tail[-1]
        title = self.title(node, weight)
        filters = filters.contiguous(memory_format=torch.channels_last)
        weights_name, bias_name = f"{node.name}.filters", f"{node.name}.shift"
        self.constants[weights_name] = filters
        if shift is not None:
            self.constants[bias_name] = shift
        geometry = (list(stride), list(padding), list(dilation), groups)
        block = _ConvolutionBlock(
            x.name, weights_name, bias_name if shift is not None else "", geometry, residual, relu
        )
        why_not = block.why_not(tuple(filters.shape))
        inputs = tuple(name for name in (x.name, weights_name, block.bias, residual) if name)
        layer = Layer(title, inputs, last.name, block.libraries(), why_not=why_not, kind=f"convolution {block.traits}")
        if not why_not:
            layer.call, layer.arrays = block.call, block.arrays
            layer.finish = block.finish
            layer.reads_images, layer.has_tail = True, bool(residual)
        self.take(*absorbed)
        self.emit(last, layer)
        return True

    def batch_norm_after(self, node: Any) -> tuple[Any, Any] | None:
        norm = self.sole_user(node)
        if norm is None or norm.target is not aten._native_batch_norm_legit_no_training.default:
            return None
        got = self.sole_user(norm)
        if got is None or got.target is not operator.getitem or got.args[1] != 0:
            return None
        return norm, got

    def folded(self, filters: Any, shift: Any, norm: Any) -> tuple[Any, Any]:
        """Return filters and bias that do what a convolution and its batch norm do, computed in double precision."""
        _, gamma, beta, mean, variance, _, epsilon = norm.args
        scale = torch.rsqrt(self.constant(variance).double() + epsilon)
        if gamma is not None:
            scale = scale * self.constant(gamma).double()
        offset = (0 if shift is None else shift.double()) - self.constant(mean).double()
        moved = offset * scale + (0 if beta is None else self.constant(beta).double())
        return (filters.double() * scale.reshape(-1, 1, 1, 1)).to(filters.dtype), moved.to(filters.dtype)

    def residual_and_relu(self, node: Any) -> tuple[str, bool, list[Any]]:
        """Return the residual that is added to a value, whether a ReLU follows, and the nodes that do both."""
        after = self.sole_user(node)
        if after is None:
            return "", False, []
        if after.target in (aten.relu.default, aten.relu_.default):
            return "", True, [after]
        if after.target is not aten.add.Tensor or after.kwargs.get("alpha", 1) != 1 or after in self.taken:
            return "", False, []
        other = next((one for one in after.args if one is not node), None)
        relu = self.sole_user(after)
        if other is None or not isinstance(other, torch.fx.Node) or other.meta["val"].shape != node.meta["val"].shape:
            return "", False, []
        if relu is None or relu.target not in (aten.relu.default, aten.relu_.default):
            return "", False, []
        return str(other.name), True, [after, relu]

    def linear(self, node: Any) -> bool:
        x, weight, bias = _filled(node.args, (None, None, None))
        if x is None or weight is None or self.constant(weight) is None:
            return False
        if bias is not None and self.constant(bias) is None:
            return False
        after = self.sole_user(node)
        relu = after is not None and after.target is aten.relu.default
        last = after if relu else node
        rows = x.meta["val"].numel() // x.meta["val"].shape[-1]
        skinny = rows <= _MOST_SKINNY_ROWS and not relu
        bias_name = bias.name if bias is not None else ""

        def library(values: Values) -> Any:
            y = functional.linear(values[x.name], values[weight.name], values[bias_name] if bias_name else None)
            return y.relu_() if relu else y

        def call(values: Values) -> Call:
            arguments = {
                "x": values[x.name],
                "weights": values[weight.name],
                "bias": values[bias_name] if bias_name else None,
            }
            if skinny:
                return call_of("skinny_linear", arguments)
            return call_of("linear", {**arguments, "relu": relu})

        inputs = tuple(name for name in (x.name, weight.name, bias_name) if name)
        self.take(*([after] if relu else []))
        arrays = {"x": x.name, "weights": weight.name, **({"bias": bias_name} if bias_name else {})}
        self.emit(
            last, Layer(self.title(node, weight), inputs, last.name, {"torch": library}, call, arrays, kind="linear")
        )
        return True

    def layer_norm(self, node: Any) -> bool:
        x, shape, gamma, beta, epsilon, *_ = _filled(node.args, (None, None, None, None, 1e-5, True))
        if len(shape) != 1 or self.constant(gamma) is None or self.constant(beta) is None:
            return False

        def call(values: Values) -> Call:
            scale, shift = values[gamma.name], values[beta.name]
            return call_of("layer_norm", {"x": values[x.name], "gamma": scale, "beta": shift, "epsilon": epsilon})

        def library(values: Values) -> Any:
            return functional.layer_norm(values[x.name], shape, values[gamma.name], values[beta.name], epsilon)

        inputs = (x.name, gamma.name, beta.name)
        arrays = {"x": x.name, "gamma": gamma.name, "beta": beta.name}
        self.emit(
            node, Layer(self.title(node, gamma), inputs, node.name, {"torch": library}, call, arrays, kind="layer_norm")
        )
        return True

    def softmax(self, node: Any) -> bool:
        x, dimension, dtype = _filled(node.args, (None, None, None))
        if dimension not in (-1, x.meta["val"].dim() - 1) or dtype not in (None, False, x.meta["val"].dtype):
            return False

        def call(values: Values) -> Call:
            return call_of("softmax", {"x": values[x.name], "scale": 1.0})

        def library(values: Values) -> Any:
            return torch.softmax(values[x.name], dim=-1)

        self.emit(node, Layer(node.name, (x.name,), node.name, {"torch": library}, call, {"x": x.name}, kind="softmax"))
        return True

    def gelu(self, node: Any) -> bool:
        x = node.args[0]
        if node.kwargs.get("approximate", "none") != "none":
            return False
        value = x.meta["val"]
        # The body adds a residual before; a plain GELU has one of zeros, which all layers of a shape share.
        zeros = f"zeros.{value.dtype}.{'x'.join(map(str, value.shape))}"
        self.constants.setdefault(zeros, torch.zeros(tuple(value.shape), dtype=value.dtype, device=self.example.device))

        def call(values: Values) -> Call:
            return call_of("residual_gelu", {"x": values[x.name], "residual": values[zeros]})

        def library(values: Values) -> Any:
            return functional.gelu(values[x.name])

        arrays = {"x": x.name, "residual": zeros}
        self.emit(node, Layer(node.name, (x.name, zeros), node.name, {"torch": library}, call, arrays, kind="gelu"))
        return True

    def embedding(self, node: Any) -> bool:
        table, ids = node.args[:2]
        if self.constant(table) is None:
            return False
        positions, last = self.positions_after(node)
        name = f"{node.name}.positions"
        if positions is None:
            like = self.constant(table)
            positions = torch.zeros(1, like.shape[1], dtype=like.dtype, device=like.device)
        self.constants[name] = positions
        added = last is not node

        def library(values: Values) -> Any:
            rows = functional.embedding(values[ids.name], values[table.name])
            return rows + values[name] if added else rows

        def call(values: Values) -> Call:
            return call_of(
                "embedding", {"ids": values[ids.name], "table": values[table.name], "positions": values[name]}
            )

        layer = Layer(
            self.title(node, table), (ids.name, table.name, name), last.name, {"torch": library}, kind="embedding"
        )
        if self.casts_ids:
            layer.call, layer.arrays = call, {"ids": ids.name, "table": table.name, "positions": name}
        else:
            layer.why_not = "the token ids are read by other layers too, as 64-bit numbers"
        self.take(*([last] if added else []))
        self.emit(last, layer)
        return True

    def positions_after(self, node: Any) -> tuple[Any, Any]:
        """Return the constant rows that are added to an embedding, one a position, and the last node of the layer."""
        added = self.sole_user(node)
        if added is None or added.target is not aten.add.Tensor or added.kwargs.get("alpha", 1) != 1:
            return None, node
        other = next((one for one in added.args if one is not node), None)
        rows, shape = self.constant(other), tuple(node.meta["val"].shape)
        if (
            rows is None
            or rows.dtype != node.meta["val"].dtype
            or tuple(rows.shape) not in (shape[1:], (1, *shape[1:]))
        ):
            return None, node
        return rows.reshape(shape[1:]).contiguous(), added


def _filled(given: tuple[Any, ...], defaults: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*given, *defaults[len(given) :])


def _reader(argument: Any) -> Callable[[Values], Any]:
    """Return what gives an argument of a node when it runs: a value, values in a list, or the argument as it is."""
    if isinstance(argument, torch.fx.Node):
        return operator.itemgetter(argument.name)
    if isinstance(argument, list | tuple) and any(isinstance(one, torch.fx.Node) for one in argument):
        readers = [_reader(one) for one in argument]
        return lambda values: [read(values) for read in readers]
    return lambda _: argument


def _same_tensor(x: Any) -> Any:
    return x


def _is_copy_of_same_layout(node: Any) -> bool:
    """Tell whether a clone only protects its source from being changed, which nothing in the graph does."""
    value, wanted = node.args[0].meta["val"], node.kwargs.get("memory_format")
    if wanted in (None, torch.preserve_format):
        last = value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last)
        return bool(value.is_contiguous() or last)
    return bool(wanted == torch.contiguous_format and value.is_contiguous())


@dataclass(frozen=True, slots=True)
class _ConvolutionBlock:
    """A convolution with bias, residual and ReLU: names of its values ("" for none), and the ways to run it."""

    x: str
    filters: str
    bias: str
    geometry: tuple[list[int], list[int], list[int], int]
    residual: str
    relu: bool

    @property
    def traits(self) -> str:
        return f"{self.geometry} {'residual ' if self.residual else ''}{'relu' if self.relu else ''}"

    @property
    def arrays(self) -> dict[str, str]:
        return {"x": self.x, "weights": self.filters, **({"bias": self.bias} if self.bias else {})}

    def why_not(self, shape: tuple[int, ...]) -> str:
        stride, padding, dilation, groups = self.geometry
        side = shape[2]
        if shape[2:] not in ((1, 1), (3, 3)):
            return f"no body for a filter of {shape[2]}x{shape[3]}"
        if groups != 1:
            return f"no body for {groups} groups of channels"
        if dilation != [1, 1]:
            return "no body for a dilated filter"
        if stride[0] != stride[1] or padding[0] != padding[1] or padding[0] > (1 if side == 3 else 0):
            return f"no body for stride {stride} and padding {padding}"
        return ""

    def libraries(self) -> dict[str, Callable[[Values], Any]]:
        ways: dict[str, Callable[[Values], Any]] = {"torch": self.with_torch}
        if self.bias and self.relu:
            ways["cudnn"] = self.with_cudnn
        return ways

    def with_torch(self, values: Values) -> Any:
        stride, padding, dilation, groups = self.geometry
        bias = values[self.bias] if self.bias else None
        y = functional.conv2d(values[self.x], values[self.filters], bias, stride, padding, dilation, groups)
        return self.ended(y, values)

    def with_cudnn(self, values: Values) -> Any:
        """Run the convolution with its epilogue in one call, where cuDNN can do that."""
        stride, padding, dilation, groups = self.geometry
        x, filters, bias = values[self.x], values[self.filters], values[self.bias]
        if self.residual:
            other = values[self.residual]
            return torch.cudnn_convolution_add_relu(x, filters, other, 1.0, bias, stride, padding, dilation, groups)
        return torch.cudnn_convolution_relu(x, filters, bias, stride, padding, dilation, groups)

    def ended(self, y: Any, values: Values) -> Any:
        if self.residual:
            y = y.add_(values[self.residual])
        return y.relu_() if self.relu else y

    def call(self, values: Values) -> Call:
        """Return the arguments of our operator; a residual is added after it."""
        stride, padding, _, _ = self.geometry
        return call_of(
            "convolution",
            {
                "x": values[self.x].permute(0, 2, 3, 1),
                "weights": values[self.filters].permute(0, 2, 3, 1),
                "bias": values[self.bias] if self.bias else None,
                "stride": stride[0],
                "padding": padding[0],
                "relu": self.relu and not self.residual,
            },
        )

    def finish(self, y: Any, values: Values) -> Any:
        y = y.permute(0, 3, 1, 2)
        return self.ended(y, values) if self.residual else y
