"""A rectangle of a device's cores, and whether an algorithm fits on it: memory (M) and routes (R) of every core."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lapidist.hardware.wafer.description import Description, Summary
from lapidist.hardware.wafer.device import Device


@dataclass(frozen=True)
class Mesh:
    """``rows`` x ``cols`` cores of ``device``.

    Raises
    ------
    ValueError : the device has no such rectangle.
    """

    device: Device
    rows: int
    cols: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise ValueError(f"a mesh has at least one row and one column, got {self.rows} x {self.cols}")
        if self.rows > self.device.rows or self.cols > self.device.cols:
            raise ValueError(
                f"a mesh of {self.rows} x {self.cols} cores does not fit on {self.device.title}, "
                f"which has {self.device.rows} x {self.device.cols}"
            )

    def admit(self, description: Description, *, memory: bool = True, routes: bool = True) -> Summary:
        """Check that every core can hold the algorithm's tiles and routes.

        Raises
        ------
        ValueError : a core cannot, or the description is for another mesh; names core, amount and limit.
        """
        if (description.rows, description.cols) != (self.rows, self.cols):
            raise ValueError(
                f"{description.name} is described for {description.rows} x {description.cols} cores, "
                f"the mesh has {self.rows} x {self.cols}"
            )
        summary = description.summary()
        if memory:
            self.require_memory(summary.peak_bytes, description.name)
        if routes:
            self._require_colours(self.colour_map(description), description.name)
        return summary

    def require_memory(self, held_bytes: int | NDArray[np.int64], what: str) -> None:
        """Check bytes that cores hold, alike or ``[rows, cols]``; raises ValueError for the fullest core."""
        everywhere = np.broadcast_to(np.asarray(held_bytes), (self.rows, self.cols))
        row, col = np.unravel_index(int(everywhere.argmax()), everywhere.shape)
        needed, limit = int(everywhere[row, col]), self.device.usable_bytes_per_core
        if needed > limit:
            raise ValueError(
                f"{what} on {self.rows} x {self.cols} cores needs {needed} bytes on core ({row}, {col}), where "
                f"{self.device.title} has {limit} for data; use more cores or a smaller problem"
            )

    def _require_colours(self, colours: NDArray[np.int64], what: str) -> None:
        limit = self.device.colours
        row, col = np.unravel_index(int(colours.argmax()), colours.shape)
        needed = int(colours[row, col])
        if limit is not None and needed > limit:
            raise ValueError(
                f"{what} on {self.rows} x {self.cols} cores needs {needed} routes on core ({row}, {col}), where "
                f"{self.device.title} holds {limit}; use an algorithm with fewer or allow re-programmed routes"
            )

    def colour_map(self, description: Description) -> NDArray[np.int64]:
        """Routes that each core's router holds, in its fullest configuration; ``[rows, cols]``."""
        maps = [down[:, None] + across[None, :] for down, across in description.path_profiles]
        return np.maximum.reduce(maps)

    def memory_map(self, description: Description) -> NDArray[np.int64]:
        """Bytes that each core holds at the peak; ``[rows, cols]``. Tiles are padded, so all cores hold the same."""
        return np.full((self.rows, self.cols), description.summary().peak_bytes)

    def router_map(self, description: Description) -> NDArray[np.int64]:
        """Bytes that each core's router handles in the whole run: sent, received and passed on; ``[rows, cols]``."""
        load = np.zeros((self.rows, self.cols), np.int64)
        for step, times in description.communications():
            along = np.tile(step.router_elements, step.line.groups) * times
            load += along[:, None] if step.axis == "y" else along[None, :]
        return load * description.element_bytes
