"""What torch makes of a network of Linears and activations: every quantity of a worked example, by its name."""

from __future__ import annotations

import numpy as np

import matbackprop as mb

ACTIVATIONS = {mb.Tanh: "tanh", mb.ReLU: "relu", mb.Sigmoid: "sigmoid"}


def leaves(model):
    return [leaf for layer in model for leaf in (leaves(layer) if isinstance(layer, mb.Sequential) else [layer])]


def torch_loss(torch, loss, prediction, y, weight):
    f = {
        mb.MSE: torch.nn.functional.mse_loss,
        mb.BCE: torch.nn.functional.binary_cross_entropy,
        mb.BCEWithLogits: torch.nn.functional.binary_cross_entropy_with_logits,
    }[type(loss)]
    each = f(prediction, y, reduction="none")
    each = each if weight is None else each * weight
    return each.sum() if loss.reduction == "sum" else each.mean()


def quantities(torch, model, x, y, loss, weight=None, lr=None):
    """Return {name: array} as explain names them."""
    tensor = lambda a, grad=False: torch.tensor(np.asarray(a, model.dtype), requires_grad=grad)  # noqa: E731
    x = a = tensor(np.atleast_2d(x), grad=True)
    y = tensor(np.atleast_2d(y))
    weight = None if weight is None else tensor(np.broadcast_to(weight, y.shape))
    inside, parameters, derivatives = {}, {}, {}
    number, name = 0, "A0"
    for layer in leaves(model):
        if isinstance(layer, mb.Linear):
            number += 1
            W = parameters[f"W{number}"] = tensor(layer.weight, grad=True)
            b = None
            if layer.bias is not None:
                b = parameters[f"b{number}"] = tensor(layer.bias, grad=True)
            below, name = name, f"Z{number}"
            a = torch.nn.functional.linear(a, W, b)
        else:
            f = getattr(torch, ACTIVATIONS[type(layer)])
            z = a.detach().requires_grad_()
            below, name = name, f"A{number}"
            derivatives[f"∂{name}/∂{below}"] = torch.autograd.grad(f(z).sum(), z)[0]
            a = f(a)
        a.retain_grad()
        inside[name] = a
    value = torch_loss(torch, loss, a, y, weight)
    value.backward()

    result = {"A0": x, "Y": y, "L": value, **inside, **parameters, **derivatives, "∂L/∂X": x.grad}
    if weight is not None:
        result["w"] = weight
    result |= {name.replace("Z", "Δ") if name[0] == "Z" else f"∂L/∂{name}": z.grad for name, z in inside.items()}
    result |= {f"∂L/∂{name}": array.grad for name, array in parameters.items()}
    if lr is not None:
        new = {name: array.detach() - lr * array.grad for name, array in parameters.items()}
        a = x.detach()
        number = 0
        for layer in leaves(model):
            if isinstance(layer, mb.Linear):
                number += 1
                a = torch.nn.functional.linear(a, new[f"W{number}"], new.get(f"b{number}"))
            else:
                a = getattr(torch, ACTIVATIONS[type(layer)])(a)
        result |= {f"{name}⁺": array for name, array in new.items()}
        result |= {"Ŷ⁺": a, "L⁺": torch_loss(torch, loss, a, y, weight)}
    return {name: array.detach().numpy() for name, array in result.items()}
