"""The GPU's own view of a run: NVML through nvidia-ml-py."""

from __future__ import annotations

import torch


class Gpu:
    """Utilisation, power and clock of the device; says nothing where there is no GPU or no NVML."""

    def __init__(self, device: torch.device):
        self._handle = None
        if device.type != "cuda":
            return
        try:
            import pynvml
        except ImportError:
            return
        try:
            pynvml.nvmlInit()
            uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            self._nvml, self._handle = pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except (AttributeError, pynvml.NVMLError):
            self._handle = None

    def joules(self) -> float | None:
        """The energy that the device has taken since its driver was loaded; None where it does not tell."""
        if self._handle is None:
            return None
        try:
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1000
        except self._nvml.NVMLError:
            return None

    def read(self) -> dict[str, float]:
        """gpu_pct, gpu_watt, gpu_mhz; what the device does not tell is left out."""
        if self._handle is None:
            return {}
        nvml, handle = self._nvml, self._handle
        asked = {
            "gpu_pct": lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            "gpu_watt": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "gpu_mhz": lambda: float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        }
        told = {}
        for name, ask in asked.items():
            try:
                told[name] = ask()
            except nvml.NVMLError:
                continue
        return told
