"""Choices of training settings that recipes and flags name."""

UPDATES = ("simultaneous", "sequential")
AVERAGES = ("mean", "sum", "ensemble")
STRATEGIES = ("none", "mirrored", "multiworker")
