"""``lapidist gpu measure``: the operators of the GPU in this machine, for ``lapidist gpu fit``."""

from pathlib import Path
from typing import Annotated

import typer

from lapidist.cli.progress import progress_bar


def measure(
    out: Annotated[
        Path, typer.Argument(help="Folder for gemm, attention and element_wise.parquet; continued if there.")
    ],
    device: Annotated[int, typer.Option(help="Number of the GPU.", min=0)] = 0,
    system: Annotated[
        str | None, typer.Option(help="Data sheet it is. (default: found by the driver's name of it)")
    ] = None,
    budget: Annotated[float, typer.Option(help="Seconds to spend at most.", min=1)] = 540.0,
    cold: Annotated[
        bool, typer.Option("--cold", help="Let data come from memory instead of the second-level cache.")
    ] = False,
    power: Annotated[bool, typer.Option(help="Read power and contention from NVML.")] = True,
) -> None:
    """Time GEMM, attention and element-wise kernels of the GPU in this machine and read their power.

    Takes up to 9 minutes and can be stopped and continued. Keep the GPU to yourself: rows measured while others used it
    go to files of their own. Not yet run on a GPU.

    Example: lapidist gpu measure ./my-gpu
    """
    import torch

    if not torch.cuda.is_available():
        raise ValueError(
            "this machine has no NVIDIA GPU that PyTorch can use: run lapidist gpu measure where there is one"
        )
    if device >= torch.cuda.device_count():
        raise ValueError(f"--device {device}: PyTorch sees {torch.cuda.device_count()} GPUs, numbered from 0")
    from lapidist.hardware.gpu.data_sheet import load_data_sheet
    from lapidist.planner.gpu_measurement.cases import all_cases
    from lapidist.planner.gpu_measurement.device_timer import CudaGraphTimer
    from lapidist.planner.gpu_measurement.power_meter import NvmlMeter, Unmetered
    from lapidist.planner.gpu_measurement.session import Device, Session

    torch.cuda.set_device(device)
    properties = torch.cuda.get_device_properties(device)
    sheet = load_data_sheet(system or properties.name)
    dtypes = ["bf16", "fp16", "sq", *(["fp8"] if (properties.major, properties.minor) >= (8, 9) else [])]
    out.mkdir(parents=True, exist_ok=True)
    with progress_bar() as progress:
        session = Session(
            out,
            Device(
                torch.device("cuda", device), sheet.name, torch.__version__, l2_bytes=properties.L2_cache_size
            ),
            CudaGraphTimer(),
            NvmlMeter(device) if power else Unmetered(),
            budget,
            cold,
            progress=progress,
        )
        counts = session.run(all_cases(dtypes))
    for name, count in counts.items():
        typer.echo(f"{out / name}.parquet: {count} rows")
