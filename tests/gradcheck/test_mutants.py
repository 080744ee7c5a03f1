"""Every planted bug is caught, and the report says where it is and why."""

import re

import pytest
from mutants import functions, layers, network
from mutants.mutant import Mutant

import matbackprop as mb
from matbackprop.gradcheck import Verdict

MUTANTS = [*network.MUTANTS, *layers.MUTANTS, *functions.MUTANTS]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_is_caught_with_its_cause(mutant: Mutant) -> None:
    report = mutant.report(seed=1)
    assert report.verdict in (Verdict.FAIL, Verdict.PRECISION_LOSS), str(report)
    assert re.search(mutant.cause, report.cause), str(report)
    named = {f.parameter for f in report.findings if f.parameter}
    assert named >= mutant.where, str(report)
    if mutant.where:
        assert named == mutant.where, str(report)


def test_there_are_enough_of_them() -> None:
    assert len({m.name for m in MUTANTS}) == len(MUTANTS) >= 30


def test_the_same_network_without_a_bug_passes() -> None:
    clean = network.Network()
    mb.check_gradient(clean.fun, clean.grad, network.parameters(), rng=1).raise_for_verdict()


def test_the_same_layers_without_a_bug_pass() -> None:
    mb.check_layer(layers.Affine(4, 4), layers.batch(), rng=1).raise_for_verdict()
    mb.check_layer(layers.Elementwise(layers.relu, lambda x, y, d: x > 0), layers.batch(), rng=1).raise_for_verdict()
