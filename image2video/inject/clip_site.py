"""A place inside of a network where a clip may begin."""

from __future__ import annotations

from dataclasses import dataclass

from image2video.trace.layout import Layout
from image2video.trace.token_grid import TokenGrid


@dataclass(frozen=True)
class ClipSite:
    """A place inside of a network where a clip may begin: the input of one module, which all later outputs depend on.

    Before it the network runs on B rows. There the map is replaced by its T frames, and everything behind runs on B·T
    rows, batch-major.

    Args:
        name: path of the module whose input it is; of the outermost one, where others inside have the same input.
        module: path of the module that is hooked: that one, or the first layer of it where it is an `nn.Sequential`.
        index: which of its positional inputs.
        layout: where the tensor's channels and positions are.
        channels: size of the tensor along `layout.channel_dim`.
        shape: the tensor's shape for one image.
        grid: rows and columns of the map, or of the tokens without prefix, and how they follow from the image's size.
        macs_before: multiply-accumulates per image of what runs once per image, at the planned size.
        macs_after: those of what runs once per frame.
        outputs_before: paths of the outputs that do not pass the site, and stay those of the image.
        aliases: further modules with the same input; each is another name of the site.
    """

    name: str
    module: str
    index: int
    layout: Layout
    channels: int
    shape: tuple[int, ...]
    grid: TokenGrid
    macs_before: int
    macs_after: int
    outputs_before: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def map_size(self) -> tuple[int, int]:
        """Rows and columns of the map, or of the grid of tokens, at the planned size."""
        return self.grid.grid

    def map_size_of(self, image: tuple[int, int]) -> tuple[int, int] | None:
        """Return rows and columns of the map for images of another size.

        Args:
            image: (height, width) of the images.

        Returns:
            The size; None where the trace does not tell, or leaves a choice.
        """
        if image == self.grid.image:
            return self.grid.grid
        if self.grid.rows is None or self.grid.columns is None:
            return None
        rows, columns = {*self.grid.rows.sizes(image[0])}, {*self.grid.columns.sizes(image[1])}
        return (rows.pop(), columns.pop()) if len(rows) == len(columns) == 1 else None

    @property
    def stride(self) -> tuple[float, float]:
        """Pixels of the image per row and per column of the map, at the planned size."""
        (height, width), (rows, columns) = self.grid.image, self.grid.grid
        return height / rows, width / columns

    @property
    def share_after(self) -> float:
        """The part of the multiply-accumulates that lies behind the site and runs once per frame."""
        total = self.macs_before + self.macs_after
        return self.macs_after / total if total else 1.0

    def cost(self, T: int) -> float:
        """Return the multiply-accumulates of T frames from here on as a multiple of those of the image alone.

        Args:
            T: how many frames.

        Returns:
            `(before + T · after) / (before + after)`: from 1 for a site behind all of them to T for the image.
        """
        return 1 + (T - 1) * self.share_after
