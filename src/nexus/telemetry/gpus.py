"""NVIDIA GPUs through NVML (https://docs.nvidia.com/deploy/nvml-api/). A missing value is None, never an error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final

_RETRY_SECONDS: Final = 60.0
_MEGA: Final = 1024 * 1024


class GPUState(StrEnum):
    """What is known about GPUs on this machine."""

    OK = "ok"
    NO_DRIVER = "no_driver"
    NO_DEVICE = "no_device"
    NO_PERMISSION = "no_permission"
    ERROR = "error"


@cache
def _nvml() -> Any:
    # A tenth of a second to import; the sampler's thread can wait for it, the start cannot.
    import pynvml

    return pynvml


_DRIVER: Final = ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version")
"""One of these is there where an NVIDIA driver is (the second under WSL)."""


def _has_driver() -> bool:
    """Tell whether it is worth loading the library, which takes memory that a machine without GPU has no use for."""
    return not sys.platform.startswith("linux") or any(Path(path).exists() for path in _DRIVER)


def _state_of(error: Any) -> GPUState:
    nvml = _nvml()
    states = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: GPUState.NO_DRIVER,
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: GPUState.NO_DRIVER,
        nvml.NVML_ERROR_NO_PERMISSION: GPUState.NO_PERMISSION,
    }
    return states.get(error.value, GPUState.ERROR)


class GPUs:
    """Reads all GPUs; without a driver it asks again once a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask nothing yet."""
        self._clock = clock
        self._ready = False
        self._state = GPUState.NO_DRIVER
        self._next_try = 0.0
        self._versions: dict[str, str | None] = {"driver": None, "cuda": None}
        self._constant: dict[int, dict[str, Any]] = {}

    def sample(self) -> dict[str, Any]:
        """Return `{"state", "driver", "cuda", "devices": [...]}`; bytes, percent, degrees C, watts, MHz.

        `utilization` is the share of time in which any kernel ran, not how full the GPU was.
        """
        devices: list[dict[str, Any]] = []
        if not self._ready and self._clock() >= self._next_try:
            self._open()
        if self._ready:
            try:
                devices = [self._device(index) for index in range(_nvml().nvmlDeviceGetCount())]
                self._state = GPUState.OK if devices else GPUState.NO_DEVICE
            except _nvml().NVMLError as error:
                self._lose(error)
        return {"state": self._state.value, **self._versions, "devices": devices}

    def close(self) -> None:
        """Let go of the driver."""
        if self._ready:
            self._ready = False
            _nvml().nvmlShutdown()

    def _open(self) -> None:
        self._next_try = self._clock() + _RETRY_SECONDS
        if not _has_driver():
            return
        try:
            _nvml().nvmlInit()
        except _nvml().NVMLError as error:
            self._state = _state_of(error)
            return
        self._ready = True
        self._versions["driver"] = _maybe(_nvml().nvmlSystemGetDriverVersion)
        cuda = _maybe(_nvml().nvmlSystemGetCudaDriverVersion_v2)
        self._versions["cuda"] = f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None

    def _lose(self, error: Any) -> None:
        """A GPU fell off the bus or the driver was exchanged: begin anew in a minute."""
        self._state = _state_of(error)
        self._constant.clear()
        self._next_try = self._clock() + _RETRY_SECONDS
        self.close()

    def _device(self, index: int) -> dict[str, Any]:
        handle = _nvml().nvmlDeviceGetHandleByIndex(index)
        if index not in self._constant:
            self._constant[index] = {
                "index": index,
                "uuid": _maybe(_nvml().nvmlDeviceGetUUID, handle),
                "name": _maybe(_nvml().nvmlDeviceGetName, handle),
            }
        memory = _maybe(_nvml().nvmlDeviceGetMemoryInfo, handle)
        rates = _maybe(_nvml().nvmlDeviceGetUtilizationRates, handle)
        power = _maybe(_nvml().nvmlDeviceGetPowerUsage, handle)
        limit = _maybe(_nvml().nvmlDeviceGetEnforcedPowerLimit, handle)
        processes = _maybe(_nvml().nvmlDeviceGetComputeRunningProcesses, handle)
        return self._constant[index] | {
            "utilization": rates.gpu if rates else None,
            "memory_utilization": rates.memory if rates else None,
            "memory_total": int(memory.total) if memory else None,
            "memory_used": int(memory.used) if memory else None,
            "temperature": _maybe(_nvml().nvmlDeviceGetTemperature, handle, _nvml().NVML_TEMPERATURE_GPU),
            "power": power / 1000 if power is not None else None,
            "power_limit": limit / 1000 if limit is not None else None,
            "sm_clock": _maybe(_nvml().nvmlDeviceGetClockInfo, handle, _nvml().NVML_CLOCK_SM),
            "throttle": _throttle(handle),
            "processes": [{"pid": p.pid, "memory": p.usedGpuMemory} for p in processes or []],
        }


_REASONS: Final = {
    "idle": 0x1,
    "applications_clocks": 0x2,
    "power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "hw_power_brake": 0x80,
    "display_clocks": 0x100,
}


def _throttle(handle: Any) -> list[str] | None:
    mask = _maybe(_nvml().nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return None if mask is None else [name for name, bit in _REASONS.items() if mask & bit]


def _maybe(query: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or None where this GPU or container does not tell (MIG has no utilisation, for one)."""
    try:
        return query(*arguments)
    except _nvml().NVMLError as error:
        if error.value == _nvml().NVML_ERROR_GPU_IS_LOST:
            raise
        return None
