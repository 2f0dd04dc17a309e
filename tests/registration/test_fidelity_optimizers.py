"""Optimizers with a line search follow real elastix row by row: every column of its tables, and the reason to stop."""

import numpy as np
import pytest

pytestmark = pytest.mark.itk

TRANSFORMS = {
    "TranslationTransform": {},
    "EulerTransform": {},
    "AffineTransform": {},
    "BSplineTransform": {"FinalGridSpacingInPhysicalUnits": 9},
}
BETAS = ["SteepestDescent", "FletcherReeves", "PolakRibiere", "DaiYuan", "HestenesStiefel", "DaiYuanHestenesStiefel"]
ROWS = {"GenerateLineSearchIterations": True, "MaximumNumberOfIterations": 5}
LBFGS = {"Optimizer": "QuasiNewtonLBFGS", "StepLength": 0.1, **ROWS}
CG = {"Optimizer": "ConjugateGradient", "StepLength": 0.001, "LineSearchGradientTolerance": 0.2, **ROWS}
ROUGH = {"LineSearchGradientTolerance": 0.9, "StopIfWolfeNotSatisfied": False}
DONE, FLAT, WOLFE, ZERO, FAILED, SAME = (
    "Maximum number of iterations has been reached",
    "The gradient magnitude has (nearly) vanished",
    "Wolfe conditions are not satisfied",
    "The last step size was (nearly) zero",
    "Error in LineSearch",
    "Almost no decrease in function value anymore",
)


def follow(runs, metric=1e-4):
    elastix, ours = runs
    assert ours.reasons == elastix.reasons
    for our_rows, their_rows in zip(ours.rows, elastix.rows, strict=True):
        assert len(our_rows) == len(their_rows)
        for number, (row, their_row) in enumerate(zip(our_rows, their_rows, strict=True)):
            assert set(row) == set(their_row)
            for column in [c for c in row if "Time" not in c]:
                rel = metric if column == "2:Metric" else 5e-3
                their = their_row[column]
                close = their if isinstance(their, str) else pytest.approx(their, rel=rel, abs=1e-5)
                assert row[column] == close, (number, column)
    largest = np.abs(elastix.parameters).max()
    np.testing.assert_allclose(ours.parameters, elastix.parameters, atol=1e-3 * largest)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_quasi_newton_follows_elastix(both, transform, dimension):
    follow(both(dimension, Transform=transform, **LBFGS, **TRANSFORMS[transform]))


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_conjugate_gradients_follow_elastix(both, transform, dimension):
    follow(both(dimension, Transform=transform, **CG, **TRANSFORMS[transform]))


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("transform", ["AffineTransform", "BSplineTransform"])
def test_every_beta_follows_elastix(both, transform, beta):
    follow(both(2, Transform=transform, ConjugateGradientType=beta, **CG, **TRANSFORMS[transform]))


@pytest.mark.parametrize("optimizer", [LBFGS, CG])
def test_masks_and_scales_and_resolutions_and_several_metrics_follow_elastix(both, optimizer):
    several = {
        "Registration": "MultiMetricMultiResolutionRegistration",
        "Metric": ["AdvancedMeanSquares", "AdvancedNormalizedCorrelation"],
        "Metric1Weight": 100,
        "NumberOfResolutions": 2,
        "AutomaticScalesEstimation": True,
    }
    follow(both(2, fixed_mask=True, Transform="AffineTransform", **optimizer, **several))


@pytest.mark.parametrize(
    ("optimizer", "changes", "reason"),
    [
        (LBFGS, {"MaximumNumberOfIterations": 3}, DONE),
        (CG, {"MaximumNumberOfIterations": 1}, DONE),
        (LBFGS, {"GradientMagnitudeTolerance": 5}, FLAT),
        (CG, {"GradientMagnitudeTolerance": 5}, FLAT),
        (LBFGS, {"StepLength": 40}, FAILED),
        (CG, {"StepLength": 40}, FAILED),
        (LBFGS, {"MaximumNumberOfLineSearchIterations": 2, "StepLength": 0.001}, WOLFE),
        (CG, {"MaximumNumberOfLineSearchIterations": 2, "StepLength": 0.0001}, WOLFE),
        (LBFGS, {"MaximumNumberOfLineSearchIterations": 1, "StepLength": 1, "StopIfWolfeNotSatisfied": False}, ZERO),
        (CG, {**ROUGH, "ValueTolerance": 2, "MaximumNumberOfIterations": 14, "Transform": "BSplineTransform"}, SAME),
    ],
)
def test_reasons_to_stop_are_those_of_elastix(both, optimizer, changes, reason):
    elastix, ours = both(2, **{"Transform": "AffineTransform", **optimizer, **changes})
    follow((elastix, ours))
    assert ours.reasons == [reason]


@pytest.mark.parametrize("memory", [0, 1, 20])
def test_every_memory_follows_elastix(both, memory):
    follow(both(2, Transform="BSplineTransform", LBFGSUpdateAccuracy=memory, **LBFGS, **TRANSFORMS["BSplineTransform"]))


@pytest.mark.parametrize("optimizer", [LBFGS, CG])
def test_without_line_search_iterations_a_row_is_a_direction(both, optimizer):
    changes = {**optimizer, "GenerateLineSearchIterations": False}
    elastix, ours = both(2, Transform="EulerTransform", **changes)
    assert {row["5:Phase"] for row in ours.rows[0]} == {"Main"}
    follow((elastix, ours))
