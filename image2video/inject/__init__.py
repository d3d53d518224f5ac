"""Where fusions go in a backbone (`plan`), and how they get in and out (`inject_`)."""

from image2video.inject.api import Injection, inject_
from image2video.inject.clip_site import ClipSite
from image2video.inject.clip_sites import clip_sites
from image2video.inject.plan import Plan, Site
from image2video.inject.planning import plan

__all__ = ["ClipSite", "Injection", "Plan", "Site", "clip_sites", "inject_", "plan"]
