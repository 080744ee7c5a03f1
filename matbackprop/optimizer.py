"""What an optimiser is: the base of every update rule, the library's own and a user's."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from matbackprop import aligned
from matbackprop.settings import Configured, Setting, T, count, real
from matbackprop.validation import Array, check_vector, describe

__all__ = ["Optimizer", "Structural"]


class Structural(Setting[T]):
    """A setting on which it may depend which calls a step makes: they are prepared anew after it was set."""

    def __set__(self, owner: Configured, value: object) -> None:
        super().__set__(owner, value)
        vars(owner)["_gradients"] = None  # so that the next step binds its vectors again


class Optimizer(Configured, ABC):
    """A rule that changes a vector of parameters by a vector of gradients: the base class of every optimiser.

    An optimiser of your own writes `update`, which changes the parameters in place. What it needs to remember from
    step to step it names in `slots`: vectors like the parameters, zero before the first step, which `update` gets as
    arguments of those names and changes in place.

    Parameters
    ----------
    lr : float
        The learning rate, finite and not negative.

    Attributes
    ----------
    lr : float
        It may be set between steps.
    steps : int
        How many steps were taken; `update` counts its own.
    slots : tuple of str
        The names of the vectors that make up the state.
    squares : frozenset of str
        Those of them that are made of squares, and so never negative.

    Examples
    --------
    Lion (Chen et al., 2023, arXiv:2302.06675):

    >>> import matbackprop as mb
    >>> class Lion(mb.Optimizer):
    ...     slots = ("m",)
    ...
    ...     def update(self, parameters, gradients, m):
    ...         parameters -= self.lr * np.sign(0.9 * m + 0.1 * gradients)
    ...         m += 0.01 * (gradients - m)
    >>> optimizer = Lion(lr=0.1)
    >>> parameters = np.array([1.0, 2.0])
    >>> optimizer.step(parameters, np.array([3.0, -4.0]))
    >>> parameters
    array([0.9, 2.1])
    """

    lr = Setting(real())
    squares: ClassVar[frozenset[str]] = frozenset()

    _steps: int
    _state: dict[str, Array]
    _like: tuple[int, np.dtype[Any]] | None  # the size and type of the vectors that the state belongs to
    _parameters: Array | None  # the vectors of the last step
    _gradients: Array | None
    _given: Array | None  # the gradients again, read-only

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Start without a state, so that a subclass need not call ``super().__init__()``."""
        self = super().__new__(cls)
        self.reset()
        return self

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        slots: Any = vars(cls).get("slots", ())
        if not isinstance(slots, property):
            taken = {"kind", "steps", "parameters", "gradients", *cls._settings()}
            if not isinstance(slots, (tuple, list)) or not all(isinstance(n, str) and n.isidentifier() for n in slots):
                raise TypeError(f'{cls.__name__}: slots: expected names such as ("m", "v"), got {describe(slots)}')
            if taken & set(slots):
                raise TypeError(f"{cls.__name__}: slots: {sorted(taken & set(slots))} mean something else already")
        if "update" in vars(cls) and "_run" not in vars(cls):
            cls._run = Optimizer._run  # type: ignore[method-assign]  # not the calls of the parent's rule

    def __init__(self, lr: float) -> None:
        self.lr = lr

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the vectors that make up the state; one that a setting no longer asks for is dropped."""
        return ()

    @property
    def steps(self) -> int:
        """How many steps were taken, the one that is under way included."""
        return self._steps

    @abstractmethod
    def update(self, parameters: Array, gradients: Array, *args: Any, **state: Any) -> None:
        """Change the parameters, and the state's vectors, in place. `gradients` cannot be written to."""

    def step(self, parameters: Array, gradients: Array) -> None:
        """Change the parameters in place.

        The first step makes the state. From then on the library's own rules allocate no array, and cost least when
        the two vectors are the same objects each time, as ``model.parameters`` and ``model.gradients`` are.

        The state belongs to the optimiser, and goes with it to whatever vector of that size and type is given next: a
        loop may make new arrays as it likes, but for another model make another optimiser, or call `reset` (`fit`
        insists on it). The library's own rules finish a step whatever overflows in it, without a warning; what came of
        it is in the parameters, and `check_state` finds it in the state.

        Parameters
        ----------
        parameters, gradients : numpy.ndarray, shape (P,)
            Of one type, and contiguous. The gradients are not modified.

        Raises
        ------
        TypeError, ValueError
            If a vector does not fit the other, or the state. Nothing has changed then.

        Examples
        --------
        >>> import matbackprop as mb
        >>> model = mb.Sequential(mb.Linear(2, 3), mb.Tanh(), mb.Linear(3, 1), rng=0)
        >>> x, y = [[0.0, 1.0], [1.0, 1.0]], [[1.0], [0.0]]
        >>> optimizer = mb.Adam(lr=0.05)
        >>> for _ in range(100):
        ...     value = model.backprop(x, y, mb.MSE())
        ...     optimizer.step(model.parameters, model.gradients)
        >>> model.predict([0.0, 1.0]).round(1)
        array([1.])
        """
        if gradients is not self._gradients or parameters is not self._parameters or gradients is None:
            self._bind(parameters, gradients)
        self.__dict__["_steps"] += 1  # past __setattr__, which costs more than this
        self._run()

    def _run(self) -> None:
        """Make a step with the vectors that are bound."""
        assert self._parameters is not None
        assert self._given is not None
        result: object = self.update(self._parameters, self._given, **self._state)
        if result is not None:  # w = w - lr * g; return w
            raise TypeError(
                f"{type(self).__name__}: update returned {describe(result)}; it is to change the parameters in place, "
                "as `parameters -= ...` does, and return nothing"
            )

    def belongs_to(self, parameters: Array) -> bool:
        """Return whether the state, if there is one, is free for this vector.

        It is not if the last step changed another one. After `reset` and `load_state_dict` it is free for any, and so
        is a copy's.
        """
        return not self.slots or self._parameters is None or self._parameters is parameters

    def _bind(self, parameters: Array, gradients: Array) -> None:
        """Check the vectors, and make what state there is not yet."""
        self._check_vectors(parameters, gradients)
        old = self._state
        self._state = {
            name: aligned.zeros(parameters.shape, parameters.dtype) if old.get(name) is None else old[name]
            for name in self.slots
        }
        self._like = parameters.size, parameters.dtype
        self._given = gradients.view()
        self._given.flags.writeable = False
        self._parameters, self._gradients = parameters, gradients

    def _check_vectors(self, parameters: Array, gradients: Array) -> None:
        who = type(self).__name__
        for name, vector in (("parameters", parameters), ("gradients", gradients)):
            check_vector(f"{who}: {name}", vector, f"pass model.{name}, or array.reshape(-1)")
            if not vector.flags.c_contiguous:
                raise ValueError(
                    f"{who}: {name}: expected a contiguous vector, got one with strides {vector.strides}; "
                    "pass np.ascontiguousarray(...) of it"
                )
        if gradients.dtype != parameters.dtype:
            raise TypeError(
                f"{who}: gradients: expected the parameters' dtype, {parameters.dtype}, got {gradients.dtype}; "
                f"convert them with .astype(parameters.dtype)"
            )
        if gradients.shape != parameters.shape:
            raise ValueError(
                f"{who}: gradients: expected the parameters' shape, {parameters.shape}, got {gradients.shape}"
            )
        if not parameters.flags.writeable:
            raise ValueError(f"{who}: parameters: they are read-only, and a step changes them in place")
        if np.may_share_memory(parameters, gradients):
            raise ValueError(f"{who}: parameters and gradients share memory; pass a copy of the gradients")
        if self._like not in (None, (parameters.size, parameters.dtype)):
            size, dtype = self._like
            raise ValueError(
                f"{who}: its state is of {size} parameters of {dtype}, got {parameters.size} of {parameters.dtype}; "
                "make an optimiser for each model, or call reset() to start anew"
            )

    def reset(self) -> None:
        """Forget the state and the number of steps, as if no step had been taken. The settings stay."""
        self._steps, self._state, self._like = 0, {}, None
        self._parameters = self._gradients = self._given = None

    def check_state(self) -> None:
        """Raise a ValueError if the state holds a number that goes wrong in the next step, and say which.

        By default all numbers are to be finite, and those of the slots in `squares` not negative.
        """
        for name, array in self._state.items():
            bad, wanted = ~np.isfinite(array), "finite numbers"
            if name in self.squares:
                bad |= (array.real < 0) | (array.imag < 0)
                wanted = "finite numbers of at least 0"
            if bad.any():
                where = int(bad.argmax())
                raise ValueError(f"{type(self).__name__}: {name}: expected {wanted}, got {array[where]} at {where}")

    @classmethod
    def _settings(cls) -> list[str]:
        """Return the names of the settings, the base's first."""
        return [name for part in reversed(cls.__mro__) for name, it in vars(part).items() if isinstance(it, Setting)]

    def state_dict(self) -> dict[str, Any]:
        """Return the class's name as "kind", settings, the number of steps, and fresh arrays of shape (P,).

        Another optimiser of the class that loads it goes on as this one would, to the bit. Of the settings of an
        optimiser of your own it holds `lr` alone.
        """
        settings = {name: vars(self)[name] for name in self._settings() if name in vars(self)}
        arrays = {name: array.copy() for name, array in self._state.items()}
        return {"kind": type(self).__name__, "steps": self._steps, **settings, **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over settings, number of steps and state from what `state_dict` returned.

        Raises
        ------
        TypeError, ValueError
            If something is missing, left over or unsound. Nothing has changed then.
        """
        who = f"{type(self).__name__}.load_state_dict"
        if not isinstance(state, Mapping):
            raise TypeError(f"{who}: expected what state_dict() returned, got {describe(state)}")
        if state.get("kind") != type(self).__name__:
            raise ValueError(f"{who}: expected the state of one of its kind, got {describe(state.get('kind'))}")
        trial = type(self).__new__(type(self))
        settings = {name: getattr(type(self), name) for name in self._settings()}
        missing = sorted({"steps", *(name for name in settings if name in vars(self))} - set(state))
        if missing:
            raise ValueError(f"{who}: {missing} missing")
        vars(trial).update({name: value for name, value in vars(self).items() if name not in vars(trial)})
        for name in settings.keys() & set(state):
            vars(trial)[name] = settings[name].check(state[name], f"{who}: {name}")
        trial.check_settings()
        trial._steps = count(state["steps"], f"{who}: steps")
        names = set(state) - {"kind", "steps", *settings}
        if names and not trial._steps:
            raise ValueError(f"{who}: steps is 0, and there are vectors: {sorted(map(str, names))}")
        trial._state = {name: state[name] for name in names}  # of which the slots may depend
        if names != set(trial.slots) and (names or trial._steps):
            raise ValueError(f"{who}: expected the vectors {sorted(trial.slots)}, got {sorted(map(str, names))}")
        for name in trial.slots if names else ():
            trial._state[name] = _as_vector(state[name], f"{who}: {name}", trial._like)
            trial._like = trial._state[name].size, trial._state[name].dtype
        trial.check_state()
        vars(self).update(vars(trial))

    def __copy__(self) -> Self:
        return copy.deepcopy(self)  # two optimisers must not share their state

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_parameters": None, "_gradients": None, "_given": None}


def _as_vector(value: Any, name: str, like: tuple[int, np.dtype[Any]] | None) -> Array:
    """Return a copy of one vector of a state, of the size and type of those before it."""
    check_vector(name, value, "load what state_dict() returned")
    if like not in (None, (value.size, value.dtype)):
        raise ValueError(f"{name}: expected {like[0]} numbers of {like[1]}, as before, got {describe(value)}")
    return np.array(value, order="C")
