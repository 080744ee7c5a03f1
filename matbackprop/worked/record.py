"""explain: run a model's own passes layer by layer on a copy, and record what each computed."""

from __future__ import annotations

import copy

import numpy as np

from matbackprop.flat import named_gradients, width_after
from matbackprop.layer import as_result, read_only
from matbackprop.loss import Loss, Objective, check_loss
from matbackprop.sequential import Sequential
from matbackprop.validation import Array, as_tolerance, describe
from matbackprop.worked.example import Stage, WorkedExample
from matbackprop.worked.ledger import LOSS, PREDICTION, Ledger, stated
from matbackprop.worked.notation import Formula, Symbol, Term

__all__ = ["explain"]


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
        Targets, as the loss takes them; for `CrossEntropy` classes too, shape (...).
    loss : Loss
    sample_weight : array_like, optional
        Multiplies each element's loss, as in `Sequential.backprop`.
    lr : float, optional
        A learning rate, which adds the update W⁺ = W - η ∂L/∂W of each parameter, and prediction and loss after it.

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

    A layer of your own says its formulas in a line, as every layer does (see `Layer`):

    >>> class Double(mb.Layer):
    ...     elementwise = True
    ...     formulas = {"forward": "2 {x}", "derivative": "2"}
    ...
    ...     def forward(self, x, out=None):
    ...         return np.multiply(x, 2, out=out)
    ...
    ...     def backward(self, delta, out=None):
    ...         return np.multiply(delta, 2, out=out)
    >>> ex = mb.explain(mb.Sequential(mb.Linear(1, 1), Double(), rng=0), [0.5], [0.95], mb.MSE())
    >>> print(ex["A1"].formula)
    A1 = Ŷ = 2 Z1
    """
    if not isinstance(model, Sequential):
        raise TypeError(
            f"explain: model: expected a Sequential, got {describe(model)}; wrap a layer: Sequential(layer.copy())"
        )
    check_loss(loss)
    rate = as_tolerance(lr, "explain: lr")
    model.copy().backprop(x, y, copy.copy(loss), sample_weight=sample_weight)  # every check there is
    return _Recorder(model.copy(), copy.copy(loss), x, y, sample_weight).record(rate)


class _Recorder(Ledger):
    """One pass over a private copy of the model."""

    start: tuple[str, str]  # where the backward pass begins

    def record(self, rate: float | None) -> WorkedExample:
        """Run the passes, and with a learning rate the update."""
        self.lay_out()
        self.forward()
        self.backward()
        if rate is not None:
            self.update(rate)
        last = self.stages[-1]
        delta = str(self.slope(last.output))
        aliases = {"X": "A0", "∂L/∂A0": "∂L/∂X", "Ŷ": last.output, "∂L/∂Ŷ": delta}
        aliases |= {f"∂L/∂{stage.output}": str(self.slope(stage.output)) for stage in self.stages}
        title = f"{self.model!r}, {self.loss!r}, N = {len(self.x)}"
        return WorkedExample(
            title, tuple(self.steps.values()), tuple(self.stages), aliases, self.start, tuple(self.notes)
        )

    def forward(self) -> None:
        """Run the layers forward."""
        rows = self.x
        for stage in self.stages:
            layer = stage.layer
            wanted = (len(rows), width_after(layer, rows.shape[1]))
            self.check_mixes(stage, (wanted[1], rows.shape[1]))
            rows = as_result(layer, "forward", layer.forward(read_only(rows)), wanted, self.x.dtype)
            left: list[Symbol | Formula] = [PREDICTION] if stage is self.stages[-1] else []
            right = self.formula(stage, "forward", f"{type(layer).__name__}({{x}})")
            note = stated(layer).get("note", "")
            self.add("forward", self.symbols[stage.output], rows, left=left, right=right, layer=stage.label, note=note)

    def backward(self) -> None:
        """Compute the loss, and run the layers backward from it."""
        last = self.stages[-1]
        prediction = self.steps[last.output].value
        fused = self.loss.through(last.layer) if len(self.stages) > 1 else None
        formula = self.loss_formula("loss", "ℓ({y_pred}, {y_true})", "Σ ")
        slope = self.loss_formula("derivative", "∂ℓ/∂{y_pred}", "")
        # Where backprop computes the loss from Z, it lets a NaN in Ŷ pass: what is then wrong is to be seen here.
        stated_by = self.loss if fused is None else copy.copy(self.loss)
        delta = np.empty(prediction.shape, prediction.dtype)
        value = Objective(self.loss, prediction, self.y, self.weight, delta, np.empty, stated_by).run()
        note = stated(self.loss).get("note", "")
        if fused is None:
            self.add("loss", LOSS, np.asarray(value, self.x.dtype), right=formula, layer=repr(self.loss), note=note)
            self.add_slope(last.output, delta, slope, repr(self.loss), prediction=True)
        else:
            taken = self.steps[last.input].value
            value = fused(taken, self.y, self.weight)
            note = f"{note} Computed from {last.input}, so that no logarithm of a rounded Ŷ is taken.".strip()
            self.add("loss", LOSS, np.asarray(value, self.x.dtype), right=formula, layer=repr(self.loss), note=note)
            self.add_slope(last.output, delta, slope, repr(self.loss), prediction=True)
            self.add_derivative(last)
            delta = self.add_fused(last, fused)
        begin = last.output if fused is None else last.input
        self.start = begin, str(self.slope(begin))
        for stage in reversed(self.stages if fused is None else self.stages[:-1]):
            delta = self.step_back(stage, delta)

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
            if not np.allclose(product, delta, rtol=np.finfo(delta.dtype).eps ** 0.5, atol=0, equal_nan=True):
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
        gradients = named_gradients(layer)
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
