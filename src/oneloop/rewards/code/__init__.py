"""Grades programs by unit tests, each in a sandbox; what they are paid for is only what they compute."""

from oneloop.rewards.code.grader import UnitTests, unit_tests, unit_tests_share

__all__ = ["UnitTests", "unit_tests", "unit_tests_share"]
