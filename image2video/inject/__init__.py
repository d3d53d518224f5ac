"""Where fusions go in a backbone (`plan`), and how they get in and out (`inject_`)."""

from image2video.inject.api import Injection, inject_
from image2video.inject.plan import Plan, Site
from image2video.inject.planning import plan

__all__ = ["Injection", "Plan", "Site", "inject_", "plan"]
