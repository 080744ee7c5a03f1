"""explain: run a model's own passes layer by layer on a copy, and record what each computed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from matbackprop.worked.example import Stage, WorkedExample
from matbackprop.worked.notation import Formula, Symbol, Term
from matbackprop.worked.steps import Step, as_matrix, freeze, is_small
from matbackprop.flat import named_parameters, width_after
from matbackprop.layer import Layer, as_result, read_only
from matbackprop.loss import Loss, check_loss
from matbackprop.sequential import Sequential
from matbackprop.validation import Array, as_array, as_tolerance, describe

__all__ = ["explain"]

LOSS, PREDICTION, TARGET, WEIGHT = Symbol("L"), Symbol("Ŷ"), Symbol("Y"), Symbol("w")
#: Letters that a parameter of a user's cannot have.
TAKEN = {"A", "Z", "L", "X", "Y", "Ŷ", "Δ", "w", "n", "η", "1"}


def explain(
    model: Sequential,
    x: Array,
    y: Array,
    loss: Loss,
    *,
    sample_weight: Array | float | None = None,
    lr: float | None = None,
) -> WorkedExample:
    """Return one forward and backward pass as a worked example: every quantity with its formula, shape and value.

    The numbers are those that the layers compute, on a copy of the model; the model, its gradients and the loss stay as
    they are.

    Parameters
    ----------
    model : Sequential
    x : array_like, shape (..., in)
        A batch, or one example alone, which is then written as a batch of one.
    y : array_like, shape (..., out)
        Targets.
    loss : Loss
    sample_weight : array_like, optional
        Multiplies each element's loss, as in `Sequential.backprop`.
    lr : float, optional
        A learning rate, which adds the update W⁺ = W - η ∂L/∂W of every parameter, and the prediction and loss after it.

    Returns
    -------
    WorkedExample

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Notes
    -----
    Z_l and A_l are what layer l gives before and after its activation, A0 = X, Δ_l = ∂L/∂Z_l. An activation is a layer
    without parameters; it shares the number of the layer before it. ∂A_l/∂Z_l is the derivative of each element.

    Examples
    --------
    >>> import matbackprop as mb
    >>> model = mb.Sequential(mb.Linear(1, 1), mb.ReLU())
    >>> model.parameters = [0.3, 0.4]
    >>> print(mb.explain(model, [0.5], [0.95], mb.MSE())["L"].formula)
    L = 1/n Σ (Ŷ - Y)²
    """
    if not isinstance(model, Sequential):
        hint = "; wrap it: Sequential(layer.copy())" if isinstance(model, Layer) else ""
        raise TypeError(f"explain: model: expected a Sequential, got {describe(model)}{hint}")
    check_loss(loss)
    rate = as_tolerance(lr, "explain: lr")
    model.copy().backprop(x, y, copy.copy(loss), sample_weight=sample_weight)  # every check there is
    return _Recorder(model.copy(), copy.copy(loss), x, y, sample_weight, rate).record()


class _Recorder:
    """One pass over a private copy of the model."""

    def __init__(
        self, model: Sequential, loss: Loss, x: object, y: object, sample_weight: object, rate: float | None
    ) -> None:
        self.model, self.loss, self.rate = model, loss, rate
        x = as_array(x, "explain: x", model.dtype)
        self.x = x.reshape(prod(x.shape[:-1]), x.shape[-1])
        y = np.asarray(y)
        # Targets may be of another width than x, or classes, one a row.
        self.y = y.reshape(len(self.x), *y.shape[x.ndim - 1 :])
        if self.y.dtype.kind not in "biu" or self.y.ndim == 2:
            self.y = as_array(self.y, "explain: y", model.dtype)
        self.weight: Array | None = None
        if sample_weight is not None:
            weight = as_array(sample_weight, "explain: sample_weight", model.dtype)
            self.weight = np.broadcast_to(weight, y.shape).reshape(self.y.shape)
        self.notes: list[str] = []
        if x.ndim == 1:
            self.notes.append("One example, written as a batch of one row.")
        elif x.ndim > 2:
            self.notes.append(f"The leading dimensions {x.shape[:-1]} of x are written as {len(self.x)} rows.")
        self.steps: dict[str, Step] = {}
        self.stages: list[Stage] = []
        self.symbols: dict[str, Symbol] = {}  # of each step

    def record(self) -> WorkedExample:
        """Run the passes."""
        self.add("given", Symbol("A", "0"), self.x, left=[Symbol("X")])
        self.add("given", TARGET, self.y)
        if self.weight is not None:
            self.add("given", WEIGHT, self.weight)
        self.lay_out()
        self.forward()
        self.backward()
        if self.rate is not None:
            self.update(self.rate)
        last = self.stages[-1]
        delta = str(self.slope(last.output))
        aliases = {"X": "A0", "∂L/∂A0": "∂L/∂X", "Ŷ": last.output, "∂L/∂Ŷ": delta}
        aliases |= {f"∂L/∂{stage.output}": str(self.slope(stage.output)) for stage in self.stages}
        rows = f"N = {len(self.x)}"
        title = f"{self.model!r}, {self.loss!r}, {rows}"
        return WorkedExample(
            title, tuple(self.steps.values()), tuple(self.stages), aliases, self.start, tuple(self.notes)
        )

    def add(
        self,
        phase: str,
        symbol: Symbol,
        value: Any,
        *,
        left: list[Symbol | Formula] | None = None,
        right: Formula | None = None,
        layer: str = "",
        note: str = "",
    ) -> None:
        """Record one step."""
        name = str(symbol)
        self.symbols[name] = symbol
        self.steps[name] = Step(name, phase, freeze(value), layer, note, (symbol, *(left or [])), right)

    def term(self, name: str) -> Term:
        """Return a recorded step as a term of a formula."""
        value = as_matrix(self.steps[name].value)
        return Term(self.symbols[name], value if is_small(value) else None)

    def slope(self, name: str) -> Symbol:
        """Return the symbol of ∂L/∂ a quantity: Δ for a pre-activation."""
        symbol = self.symbols[name]
        if name == "A0":
            return Symbol("X", over=LOSS)
        return Symbol("Δ", symbol.index) if symbol.letter == "Z" else Symbol(symbol.letter, symbol.index, over=LOSS)

    def lay_out(self) -> None:
        """Name what each layer takes and gives, and record its parameters."""
        number, before, name = 0, True, "A0"
        for layer in self.model.leaves():
            arrays = named_parameters(layer)
            activation = not arrays
            number += before or not activation
            before = activation
            output = Symbol("A" if activation else "Z", str(number))
            names: dict[str, str] = {}
            for parameter, array in arrays.items():
                symbol = Symbol(self.letter(layer, parameter, str(number)), str(number))
                names[parameter] = str(symbol)
                self.add("given", symbol, array, layer=repr(layer))
            self.symbols[str(output)] = output
            derivative = f"∂{output}/∂{name}" if layer.elementwise else ""
            self.stages.append(Stage(layer, repr(layer), name, str(output), names, derivative))
            name = str(output)

    def letter(self, layer: Layer, parameter: str, number: str) -> str:
        """Return the letter of a parameter, one that no other quantity has."""
        letter = layer.symbols.get(parameter, parameter)
        while letter in TAKEN or f"{letter}{number}" in self.steps:
            letter = parameter if letter != parameter and parameter not in TAKEN else f"{letter}_"
        return letter

    def formula(self, stage: Stage, key: str, default: str | None) -> Formula | None:
        """Return one of a layer's formulas, bound to the quantities of its stage."""
        template = _formulas(stage.layer, ("forward", "backward", "forward_steps", "backward_steps")).get(key, default)
        if template is None:
            return None
        terms = {"1": Term(Symbol("1"), _ones(len(self.x))), "x": self.term(stage.input)}
        for key_, name in (("y", stage.output), ("delta", str(self.slope(stage.output)))):
            terms[key_] = self.term(name) if name in self.steps else Term(Symbol(name))
        terms |= {parameter: self.term(name) for parameter, name in stage.parameters.items()}
        return Formula(template, terms, f"{stage.layer.label}: formulas[{key!r}]")

    def forward(self) -> None:
        """Run the layers forward."""
        rows = self.x
        for stage in self.stages:
            layer = stage.layer
            wanted = (len(rows), width_after(layer, rows.shape[1]))
            rows = as_result(layer, "forward", layer.forward(read_only(rows)), wanted, self.x.dtype)
            left: list[Symbol | Formula] = [PREDICTION] if stage is self.stages[-1] else []
            # The output may stand in its own formula's terms, though not in the formula.
            right = self.formula(stage, "forward", f"{type(layer).__name__}({{x}})")
            self.add("forward", self.symbols[stage.output], rows, left=left, right=right, layer=stage.label)

    def loss_formula(self, key: str, default: str, start: str) -> Formula:
        """Return one of the loss's formulas, over all elements."""
        template = _formulas(self.loss, ("elementwise", "steps")).get(key, default)
        prediction = self.steps[self.stages[-1].output].value
        terms = {
            "y_pred": Term(PREDICTION, prediction if is_small(prediction) else None),
            "y_true": self.term("Y") if self.y.shape == prediction.shape else Term(TARGET),
            "n": Term(Symbol("n"), np.asarray(self.y.size)),
        }
        who = f"{self.loss!r}: formulas[{key!r}]"
        if Formula(template, terms, who).has_sum and (start or self.weight is not None or self.mean):
            template = f"({template})"
        if self.weight is not None:
            terms["w"] = self.term("w")
            template = f"{{w}} ⊙ {template}"
        if self.mean:
            start = "1/{n} " + start
            template = f"· {template}" if template[0].isdigit() and start.endswith("} ") else template
        return Formula(start + template, terms, who)

    @property
    def mean(self) -> bool:
        """Whether the loss is a mean."""
        return self.loss.reduction == "mean"

    def backward(self) -> None:
        """Compute the loss, and run the layers backward from it."""
        last = self.stages[-1]
        prediction = self.steps[last.output].value
        fused = self.loss.through(last.layer) if len(self.stages) > 1 else None
        formula = self.loss_formula("loss", "ℓ({y_pred}, {y_true})", "Σ ")
        slope = self.loss_formula("derivative", "∂ℓ/∂{y_pred}", "")
        value = self.loss(prediction, self.y, self.weight)
        delta = self.loss.backward()
        if fused is None:
            self.add("loss", LOSS, np.asarray(value, self.x.dtype), right=formula, layer=repr(self.loss))
            self.add_slope(last.output, delta, slope, repr(self.loss), prediction=True)
        else:
            taken = self.steps[last.input].value
            value = fused(taken, self.y, self.weight)
            note = f"Computed from {last.input}, so that no logarithm of a rounded Ŷ is taken."
            self.add("loss", LOSS, np.asarray(value, self.x.dtype), right=formula, layer=repr(self.loss), note=note)
            self.add_slope(last.output, delta, slope, repr(self.loss), prediction=True)
            self.add_derivative(last)
            delta = self.add_fused(last, fused)
        begin = last.output if fused is None else last.input
        self.start = begin, str(self.slope(begin))
        for stage in reversed(self.stages if fused is None else self.stages[:-1]):
            delta = self.step_back(stage, delta)

    def add_slope(
        self, name: str, value: Array, right: Formula | None, layer: str, *, prediction: bool = False, note: str = ""
    ) -> None:
        """Record ∂L/∂ a quantity."""
        symbol, of = self.slope(name), self.symbols[name]
        left: list[Symbol | Formula] = []
        if symbol.letter == "Δ":
            left.append(Symbol(of.letter, of.index, over=LOSS))
        if prediction:
            left.append(Symbol("Ŷ", over=LOSS))
        self.add("backward", symbol, value, left=left, right=right, layer=layer, note=note)

    def add_derivative(self, stage: Stage) -> None:
        """Record ∂output/∂input of an elementwise layer: what its backward makes of ones."""
        if not stage.derivative:
            return
        shape = self.steps[stage.output].shape
        value = stage.layer.backward(read_only(np.ones(shape, self.x.dtype)))
        value = as_result(stage.layer, "backward", value, shape, self.x.dtype)
        output = self.symbols[stage.output]
        of = self.symbols[stage.input]
        symbol = Symbol(of.letter, of.index, over=output)
        right = self.formula(stage, "derivative", None)
        self.add("backward", symbol, value, right=right, layer=stage.label)

    def add_fused(self, last: Stage, fused: Loss) -> Array:
        """Record Δ of the last activation's input from loss and activation as one, and return it."""
        delta = fused.backward()
        outer, inner = self.steps[str(self.slope(last.output))], self.steps.get(last.derivative)
        left: list[Symbol | Formula] = []
        note = ""
        if inner is not None:
            with np.errstate(all="ignore"):
                product = outer.value * inner.value
            if not np.allclose(product, delta, rtol=np.finfo(delta.dtype).eps ** 0.5, atol=0):
                note = f"The product of the two factors has lost its digits here; this is computed from {last.input}."
        right = self.loss_formula("through", "∂ℓ/∂{y_pred}", "")
        symbol, of = self.slope(last.input), self.symbols[last.input]
        if symbol.letter == "Δ":
            left.append(Symbol(of.letter, of.index, over=LOSS))
        if inner is not None:
            names = outer.name, inner.name  # without their numbers where those are not equal to the result
            a, b = (Term(self.symbols[name]) if note else self.term(name) for name in names)
            terms = {"a": a, "b": b}
            left.append(Formula("{a} ⊙ {b}", terms))
        self.add("backward", symbol, delta, left=left, right=right, layer=f"{last.label}, {self.loss!r}", note=note)
        return delta

    def step_back(self, stage: Stage, delta: Array) -> Array:
        """Run one layer backward; record the gradients of its parameters and ∂L/∂ its input, which is returned."""
        self.add_derivative(stage)
        layer, shape = stage.layer, self.steps[stage.input].shape
        delta = as_result(layer, "backward", layer.backward(read_only(delta)), shape, self.x.dtype)
        gradients = {prefix + key: array for prefix, part in layer.walk() for key, array in part._gradients.items()}
        for parameter, name in stage.parameters.items():
            of = self.symbols[name]
            right = self.formula(stage, parameter, f"{{delta}} ∂{{y}}/∂{{{parameter}}}")
            self.add(
                "backward", Symbol(of.letter, of.index, over=LOSS), gradients[parameter], right=right, layer=stage.label
            )
        right = self.formula(stage, "backward", "{delta} ∂{y}/∂{x}")
        if stage.derivative:
            terms = {"delta": self.term(str(self.slope(stage.output))), "f": self.term(stage.derivative)}
            right = Formula("{delta} ⊙ {f}", terms)
        self.add_slope(stage.input, delta, right, stage.label)
        return delta

    def update(self, rate: float) -> None:
        """Record one step of gradient descent, and what it comes to."""
        eta = Term(Symbol("η"), np.asarray(rate))
        for stage in self.stages:
            for name in stage.parameters.values():
                symbol = self.symbols[name]
                slope = str(Symbol(symbol.letter, symbol.index, over=LOSS))
                right = Formula("{w} - {lr} {g}", {"w": self.term(name), "lr": eta, "g": self.term(slope)})
                value = self.steps[name].value - self.x.dtype.type(rate) * self.steps[slope].value
                self.add("update", Symbol(symbol.letter, symbol.index, "⁺"), value, right=right, layer=stage.label)
        after = self.model.copy()
        after.parameters = after.parameters - self.x.dtype.type(rate) * self.model.gradients
        note = "With the new parameters."
        self.add("update", Symbol("Ŷ", mark="⁺"), after.predict(self.x), note=note)
        value = after.backprop(self.x, self.y, self.loss, sample_weight=self.weight)
        self.add("update", Symbol("L", mark="⁺"), np.asarray(value, self.x.dtype), layer=repr(self.loss), note=note)


def _ones(rows: int) -> Array | None:
    ones = np.ones((rows, 1), int)
    return ones if is_small(ones) else None


def _formulas(owner: Layer | Loss, passes: tuple[str, ...]) -> Mapping[str, str]:
    """Return the formulas of a layer or loss, unless they are a parent's and the computation its own."""
    if "formulas" in vars(owner):
        return owner.formulas
    for cls in type(owner).__mro__:
        if "formulas" in vars(cls):
            break
        if any(name in vars(cls) for name in passes):
            return {}
    return owner.formulas
