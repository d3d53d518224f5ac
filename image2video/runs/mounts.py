"""Which file systems keep locks to themselves: where two machines share a folder, each sees its own alone."""

from __future__ import annotations

import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_OWN_OPTIONS = frozenset({"nolock", "local_lock=flock", "local_lock=all", "localflock", "nobrl"})
"""Of NFS, Lustre and SMB, for locks that do not reach the server."""
_OWN_TYPES = frozenset({"fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.mount-s3"})
"""Network file systems that have no locks; the kernel then keeps them on its own machine."""


def unshared_locks(path: Path, mounts: str | None = None) -> str | None:
    """The mount of `path` and its type, where its locks are known to stay on this machine; else None.

    Linux lists its mounts; elsewhere nothing is known. `mounts` stands in for that list.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text(errors="surrogateescape")
        except OSError:
            return None
    best, found = -1, None
    for line in mounts.splitlines():
        place, _, described = line.partition(" - ")
        fields, kinds = place.split(), described.split()
        if len(fields) < 6 or len(kinds) < 3:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
        # The deepest mount holds the path, and of several at one place the last.
        if not path.is_relative_to(point) or len(point.parts) < best:
            continue
        options = {*fields[5].split(","), *kinds[2].split(",")}
        best = len(point.parts)
        found = f"{point} ({kinds[0]})" if kinds[0] in _OWN_TYPES or options & _OWN_OPTIONS else None
    return found
