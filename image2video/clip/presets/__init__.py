"""Genotypes found by our own searches, as JSON files with their provenance; `Genotype.preset(name)` reads them."""
