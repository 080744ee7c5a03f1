"""The ledger of a worked example: which quantity has which name, and each layer's formulas bound to them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from matbackprop.flat import named_parameters
from matbackprop.layer import Layer
from matbackprop.loss import Loss
from matbackprop.sequential import Sequential
from matbackprop.validation import Array, as_array
from matbackprop.worked.example import Stage
from matbackprop.worked.notation import Formula, Symbol, Term
from matbackprop.worked.steps import Step, as_matrix, freeze, is_small

__all__ = ["LOSS", "PREDICTION", "Ledger", "stated"]

LOSS, PREDICTION, TARGET, WEIGHT = Symbol("L"), Symbol("Ŷ"), Symbol("Y"), Symbol("w")
#: Letters that a parameter of a user's cannot have.
TAKEN = {"A", "Z", "L", "X", "Y", "Ŷ", "Δ", "w", "n", "η", "1"}

#: The methods in which a layer or loss computes.
COMPUTING = ("forward", "backward", "forward_steps", "backward_steps", "elementwise", "steps")


class Ledger:
    """The steps so far, and the names of the layers' inputs, outputs and parameters.

    Parameters
    ----------
    model : Sequential
        A private copy.
    loss : Loss
        Another.
    x, y, sample_weight : array_like
        As `explain` got them, and checked.
    """

    def __init__(self, model: Sequential, loss: Loss, x: object, y: object, sample_weight: object) -> None:
        self.model, self.loss = model, loss
        x = as_array(x, "explain: x", model.dtype)
        self.x = x.reshape(prod(x.shape[:-1]), x.shape[-1])
        outputs = model.output_width(x.shape[-1])
        shape = (*x.shape[:-1], outputs)
        targets = loss.as_targets(y, shape, model.dtype, "explain: y")
        self.y = targets.reshape(len(self.x), *targets.shape[x.ndim - 1 :])
        self.losses = loss.loss_shape((len(self.x), outputs))  # their shape
        self.weight: Array | None = None
        if sample_weight is not None:
            self.weight = loss.as_weight(sample_weight, shape, model.dtype).reshape(self.losses)
        self.notes: list[str] = []
        if x.ndim == 1:
            self.notes.append("One example, written as a batch of one row.")
        elif x.ndim > 2:
            self.notes.append(f"The leading dimensions {x.shape[:-1]} of x are written as {len(self.x)} rows.")
        self.steps: dict[str, Step] = {}
        self.stages: list[Stage] = []
        self.symbols: dict[str, Symbol] = {}  # of each step

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
        """Record what is given, and name what each layer takes and gives."""
        self.add("given", Symbol("A", "0"), self.x, left=[Symbol("X")])
        self.add("given", TARGET, self.y)
        if self.weight is not None:
            self.add("given", WEIGHT, self.weight)
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
                self.add("given", symbol, array, layer=layer.label)
            self.symbols[str(output)] = output
            derivative = f"∂{output}/∂{name}" if layer.elementwise else ""
            self.stages.append(Stage(layer, layer.label, name, str(output), names, derivative))
            name = str(output)

    def check_mixes(self, stage: Stage, shape: tuple[int, int]) -> None:
        """Raise a ValueError if the parameter by which the layer says that it mixes its inputs is no (out, in)."""
        name = stage.layer.mixes
        if name is None:
            return
        got = self.steps[stage.parameters[name]].shape if name in stage.parameters else "no such parameter"
        if got != shape:
            raise ValueError(
                f"{stage.label}: mixes = {name!r}: expected the name of its weight of shape (out, in) = {shape}, "
                f"got {got}; leave mixes out where the layer does not compute x @ weight.T"
            )

    def letter(self, layer: Layer, parameter: str, number: str) -> str:
        """Return the letter of a parameter, one that no other quantity has."""
        letter = layer.symbols.get(parameter, parameter)
        while letter in TAKEN or f"{letter}{number}" in self.steps:
            letter = parameter if letter != parameter and parameter not in TAKEN else f"{letter}_"
        return letter

    def formula(self, stage: Stage, key: str, default: str | None) -> Formula | None:
        """Return one of a layer's formulas, bound to the quantities of its stage."""
        template = stated(stage.layer).get(key, default)
        if template is None:
            return None
        terms = {"1": Term(Symbol("1"), _ones(len(self.x))), "x": self.term(stage.input)}
        for part, symbol in (("y", self.symbols[stage.output]), ("delta", self.slope(stage.output))):
            terms[part] = self.term(str(symbol)) if str(symbol) in self.steps else Term(symbol)
        terms |= {parameter: self.term(name) for parameter, name in stage.parameters.items()}
        return Formula(template, terms, f"{stage.layer.label}: formulas[{key!r}]")

    def loss_formula(self, key: str, default: str, start: str) -> Formula:
        """Return one of the loss's formulas, over all elements."""
        template = stated(self.loss).get(key, default)
        prediction = self.steps[self.stages[-1].output].value
        terms = {
            "y_pred": Term(PREDICTION, prediction if is_small(prediction) else None),
            "y_true": self.term("Y") if self.y.shape == prediction.shape else Term(TARGET),
            "n": Term(Symbol("n"), np.asarray(self.loss.divisor(self.y, prod(self.losses)))),
        }
        letters = self.loss.letters(self.y, prediction)
        terms |= {name: Term(Symbol(name), value if is_small(value) else None) for name, value in letters.items()}
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


def _ones(rows: int) -> Array | None:
    ones = np.ones((rows, 1), int)
    return ones if is_small(ones) else None


def stated(owner: Layer | Loss) -> Mapping[str, str]:
    """Return the formulas of a layer or loss, unless they are a parent's and the computation its own.

    Raises
    ------
    TypeError
        If they are something else than strings by name.
    """
    formulas: Mapping[str, str] = owner.formulas
    given: Any = formulas  # a user's: anything may stand there
    if not (isinstance(given, Mapping) and all(isinstance(text, str) for text in given.values())):
        who = owner.label if isinstance(owner, Layer) else repr(owner)
        raise TypeError(f"{who}: formulas: expected a dict of strings, got {formulas!r}")
    for cls in () if "formulas" in vars(owner) else type(owner).__mro__:
        if "formulas" in vars(cls):
            break
        if any(name in vars(cls) for name in COMPUTING):
            return {}
    return formulas
