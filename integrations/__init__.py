"""Adapters to other libraries; the only place where they are imported."""
