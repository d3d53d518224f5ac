"""Selections: how a cell becomes one chain."""
