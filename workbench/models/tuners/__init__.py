"""Tuners of our own, known to peft as soon as this package is imported."""

from workbench.models.tuners.growing import GrowingConfig, GrowingLayer
from workbench.models.tuners.mola import MolaConfig, MolaLayer

__all__ = ["GrowingConfig", "GrowingLayer", "MolaConfig", "MolaLayer"]
