"""What a GPU draws and whether somebody else uses it, from NVIDIA's management library."""

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class DeviceState:
    """A look at a device.

    Attributes
    ----------
    utilization : share of the last sampling period (up to a second) in which a kernel ran.
    """

    utilization: float
    sm_megahertz: float
    temperature_celsius: float
    power_limit_watts: float


class PowerMeter(Protocol):
    """Looks at one device."""

    def state(self) -> DeviceState | None:
        """None where the device does not tell."""

    def joules(self) -> float | None:
        """Energy drawn since the driver was loaded; None where the device does not count it."""


class NvmlMeter:
    """One GPU through ``nvidia-ml-py``, which is in Lapidist's ``gpu`` extra.

    The total-energy counter is there from Volta on; the difference of two readings a second apart is exact to the
    millijoule, where samples of power are averages over an unknown window.

    Raises
    ------
    ValueError : the package is not installed, or the library does not answer.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            import pynvml
        except ImportError:
            raise ValueError(
                "power is read through nvidia-ml-py, which is not installed: pip install 'lapidist[gpu]', "
                "or measure times only with --no-power"
            ) from None
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            self._device = pynvml.nvmlDeviceGetHandleByIndex(index)
        except pynvml.NVMLError as error:
            raise ValueError(f"NVML does not answer ({error}): check the driver, or use --no-power") from None

    def state(self) -> DeviceState | None:
        nvml, device = self._nvml, self._device
        try:
            return DeviceState(
                nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100,
                float(nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM)),
                float(nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)),
                nvml.nvmlDeviceGetEnforcedPowerLimit(device) / 1e3,
            )
        except nvml.NVMLError:
            return None

    def joules(self) -> float | None:
        try:
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._device) / 1e3
        except self._nvml.NVMLError:
            return None


class Unmetered:
    """No meter: times only."""

    def state(self) -> DeviceState | None:
        return None

    def joules(self) -> float | None:
        return None
