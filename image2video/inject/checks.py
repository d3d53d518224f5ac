"""What is refused before a backbone is touched."""

from __future__ import annotations

from torch import jit, nn

from image2video.errors import InputError, InputTypeError, StateError, UnsupportedError
from image2video.inject.clip_hook import ClipHook
from image2video.inject.exit import ExitHook
from image2video.inject.hooks import EnterHook, LeaveHook, SiteHook
from image2video.inject.plan import Plan, Site

OUR_HOOKS = (SiteHook, ClipHook, EnterHook, ExitHook, LeaveHook)


def check_backbone(backbone: nn.Module) -> None:
    """Raise unless fusions can be injected into this module as it is now.

    A backbone that was copied or saved without its wrapper has hooks that can only refuse its calls; where nothing else
    is in the way, they are taken out.

    Raises:
        InputTypeError: no module.
        StateError: compiled, or injected already.
        UnsupportedError: scripted, or wrapped for several devices.
    """
    if not isinstance(backbone, nn.Module):
        raise InputTypeError(f"the backbone must be an nn.Module, got a {type(backbone).__name__}")
    if isinstance(backbone, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise UnsupportedError(
            f"the backbone is wrapped in {type(backbone).__name__}; wrap the plain backbone first, and put the result "
            "into DistributedDataParallel (nn.DataParallel is not supported: its copies would use the fusions of the "
            "first device)"
        )
    for name, module in backbone.named_modules():
        at = f"module {name!r} of the backbone" if name else "the backbone"
        # OptimizedModule by its name: importing torch._dynamo for a check would cost a second.
        compiled_call = type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None
        if compiled_call or _compiled_forward(module):
            raise StateError(f"{at} is compiled already, and would ignore hooks; wrap first, then compile the wrapper")
        if isinstance(module, jit.ScriptModule):
            raise UnsupportedError(f"{at} is scripted, and scripted modules take no forward hooks; use the eager model")
        if any(isinstance(hook, SiteHook | EnterHook) and hook.context.is_owned for hook in _hooks(module)):
            raise StateError(
                f"{at} holds injected fusions already; take them out with wrapper.unwrap() or injection.remove_(), "
                "or make a new backbone"
            )
    _take_out_unowned(backbone)


def _hooks(module: nn.Module) -> list[object]:
    """List the forward hooks of a module."""
    return [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]


def _take_out_unowned(backbone: nn.Module) -> None:
    """Take out what is left of injections that are not there."""
    for module in backbone.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, OUR_HOOKS)]:
                del hooks[key]
                for options in (
                    module._forward_hooks_with_kwargs,
                    module._forward_hooks_always_called,
                    module._forward_pre_hooks_with_kwargs,
                ):
                    options.pop(key, None)


def _compiled_forward(module: nn.Module) -> bool:
    """Whether `module.forward` itself was given to torch.compile: torch notes on it what it was made from."""
    forward = module.forward
    made = getattr(forward, "_torchdynamo_orig_callable", None) is not None
    return made and not getattr(forward, "_torchdynamo_disable", False)


def check_plan(backbone: nn.Module, plan: Plan) -> None:
    """Raise unless every site of the plan is there in the backbone, with its channels, and the names do not clash.

    Raises:
        InputTypeError: no plan.
        InputError: a plan that does not fit; the message lists what was planned beside what is there.
    """
    if not isinstance(plan, Plan):
        raise InputTypeError(
            f"the plan must be a Plan, got a {type(plan).__name__}; make one: plan(backbone, fusion=…)"
        )
    if not plan.sites and plan.fusion.active:
        raise InputError(f"the plan has no site for fusion {plan.fusion.name!r}; nothing would be fused")
    misplaced = sorted({site.placement for site in plan.sites if site.placement != plan.fusion.placement})
    if misplaced:
        raise InputError(
            f"the plan has sites placed {', '.join(map(repr, misplaced))}; fusion {plan.fusion.name!r} acts "
            f"{plan.fusion.placement!r}; make the plan for this fusion"
        )
    _check_names(plan)
    modules = dict(backbone.named_modules(remove_duplicate=False))
    for place in plan.clip_sites:
        if place.module not in modules:
            what = "lets the clip begin" if place is plan.clip_site else "moves maps"
            raise InputError(
                f"the plan (for {plan.model or 'an unnamed model'}) {what} at {place.module!r}, which is not there in "
                f"this {type(backbone).__name__}; make the plan from this backbone"
            )
    mismatches = [_mismatch(modules, site) for site in plan.sites]
    wrong = [line for line in mismatches if line is not None]
    if wrong:
        size = "×".join(map(str, plan.input_size))
        raise InputError(
            f"the plan (for {plan.model or 'an unnamed model'} at {size}) does not match this "
            f"{type(backbone).__name__}; {len(wrong)} of {len(plan.sites)} sites differ:\n"
            + "\n".join(wrong)
            + "\nmake the plan from this backbone, or build the backbone as it was when the plan was made"
        )


def _mismatch(modules: dict[str, nn.Module], site: Site) -> str | None:
    """Say what is there in place of a planned site; None where it fits."""
    module = modules.get(site.name)
    planned = f"- {site.name}: planned with {site.channels} channels ({site.placement})"
    if module is None:
        known = next((p for p in _parents(site.name) if p in modules), "")
        children = ", ".join(name for name, _ in modules[known].named_children()) or "no modules"
        return f"{planned}; not there ({known or 'the backbone'} has {children})"
    channels = declared_channels(module, site)
    if channels is not None and channels != site.channels:
        return f"{planned}; {type(module).__name__} there has {channels}"
    return None


def _parents(path: str) -> list[str]:
    """List the paths above a path, from the inside out."""
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(len(parts) - 1, 0, -1)]


def declared_channels(module: nn.Module, site: Site) -> int | None:
    """Return the channels at a site that the module itself declares; None where it declares none."""
    before = site.placement != "after"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return module.in_channels if before else module.out_channels
    if isinstance(module, nn.Linear) and site.layout.channel_dim == -1:
        return module.in_features if before else module.out_features
    return None


def _check_names(plan: Plan) -> None:
    """Raise where sites share a name, or where a fusion would take the path of another site's module."""
    names = [site.name for site in plan.sites]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"the plan names sites twice: {', '.join(twice)}; a module can be one site only")
    fusion = plan.fusion.name
    levels = {level for name in names for level in (name, *_parents(name))}
    if "" in names:
        raise InputError("the plan names the backbone itself as a site (''); a site must be a module inside of it")
    clash = sorted(name for name in names if f"{name}.{fusion}" in levels)
    if clash:
        raise InputError(
            f"fusion {fusion!r} at site {clash[0]!r} would have the path of another site's module, "
            f"{clash[0]}.{fusion}; register the fusion under another name, or leave one of the sites out"
        )
