"""Mixtures of experts: how tokens find their experts; one file per method."""
