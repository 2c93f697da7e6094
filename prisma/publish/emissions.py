"""What training cost: energy and CO2, measured, or estimated from time and a stated power. Unknown stays unknown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prisma.publish.facts import Fact

WATTS: Mapping[str, float] = {
    "NVIDIA A100-SXM4-40GB": 400,
    "NVIDIA A100-SXM4-80GB": 400,
    "NVIDIA A100-PCIE-40GB": 250,
    "NVIDIA A100 80GB PCIe": 300,
    "NVIDIA H100 80GB HBM3": 700,
    "NVIDIA H100 PCIe": 350,
    "NVIDIA H100 NVL": 400,
    "NVIDIA H200": 700,
    "NVIDIA H200 NVL": 600,
    "NVIDIA L4": 72,
    "NVIDIA L40S": 350,
    "NVIDIA GeForce RTX 3090": 350,
    "NVIDIA GeForce RTX 4090": 450,
    "Tesla T4": 70,
    "Tesla V100-SXM2-16GB": 300,
    "Tesla V100-SXM2-32GB": 300,
}
"""The name of a device as torch states it -> its largest power in W, as the vendor specifies it.

Read in November 2026: A100 in NVIDIA's data sheet and in the product briefs PB-10137 and PB-10577, H100 PCIe in the
product brief PB-11133; the others in tables of specifications that quote NVIDIA's (Green Algorithms, TDP_gpu.csv, for
T4 and V100; techpowerup.com for the SXM forms, L4 and GeForce; One Stop Systems for NVL).
"""
GPU_SOURCE = "the largest power that NVIDIA specifies for it"
CORE_WATTS = 12.0
"""W of a core: the row "Any" of TDP_cpu.csv, the table of processors of Green Algorithms (read in November 2026)."""
CORE_SOURCE = "a core of any CPU, by Green Algorithms, Lannelongue et al. 2021, doi 10.1002/advs.202100707"
GRAMS = 473.0
"""g of CO2 equivalents per kWh: 472.94 for the world in 2024, by Ember's Yearly Electricity Data of 2025.

Read in November 2026 in the copy that comes with @tgwf/co2 0.19 (average-intensities.json). It is of the whole life
cycle. For comparison: the IEA's "Electricity 2025" states 445 g for 2024, of CO2 alone and without the life cycle, and
Green Algorithms uses the IEA's 475 g of 2019.
"""
GRAMS_SOURCE = "world average of 2024 over the life cycle, Ember, Yearly Electricity Data 2025"
LEFT_OUT = "memory, cooling and idle parts of the machine are left out"


@dataclass(frozen=True)
class Cost:
    """The energy of a run, and the CO2 of so much electricity."""

    kwh: float
    grams: float  # of CO2 equivalents
    words: str  # how the two were found
    hardware: str  # "1 core of a CPU"


def cost(places: Sequence[Fact], results: Fact) -> Cost | None:
    """The cost of a run by its `results.json`; None if its time or its device's power is unknown.

    Energy is `energy_kwh` of the results if a meter measured it; else the time in `seconds`, times the power of the
    device. A run that was resumed on another device has no single power.

    Args:
        places: the environments that it was trained in.
    """
    hardware = _hardware(places)
    grid = f"{GRAMS:g} g of CO2 equivalents per kWh ({GRAMS_SOURCE})"
    if measured := results.get("energy_kwh"):
        kwh = measured.number(0)
        return Cost(kwh, kwh * GRAMS, f"measured energy, times {grid}", hardware[0] if hardware else "unknown")
    seconds = results.get("seconds")
    if seconds is None or hardware is None:
        return None
    name, watts, source = hardware
    kwh = seconds.number(0) * watts / 3.6e6
    words = f"estimate: {duration(seconds.number(0))} x {watts:g} W ({source}) x {grid}; {LEFT_OUT}"
    return Cost(kwh, kwh * GRAMS, words, name)


def _hardware(places: Sequence[Fact]) -> tuple[str, float, str] | None:
    """(the device in words, its power in W, where that is stated) if all places have the same one, and it is known."""
    pairs = [(place.get("device"), place.get("threads")) for place in places]
    stated = {(device.text(), threads.whole(1)) for device, threads in pairs if device and threads}
    if len(stated) != 1 or any(None in pair for pair in pairs):
        return None
    ((device, cores),) = stated
    if device == "cpu":
        return f"{cores} {'core' if cores == 1 else 'cores'} of a CPU", cores * CORE_WATTS, CORE_SOURCE
    return (f"1 {device}", WATTS[device], GPU_SOURCE) if device in WATTS else None


def duration(seconds: float) -> str:
    """ "25 s", "3 min 10 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"
