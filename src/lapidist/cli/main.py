"""The ``lapidist`` command: registers one file per command and turns expected errors into one line."""

import sys

import typer

from lapidist.cli.bench import bench
from lapidist.cli.calibrate_attention import calibrate_attention
from lapidist.cli.calibrate_filter import calibrate_filter
from lapidist.cli.chat import chat
from lapidist.cli.cpu import cpu
from lapidist.cli.demo import demo
from lapidist.cli.eval import evaluate
from lapidist.cli.export import export
from lapidist.cli.generate import generate
from lapidist.cli.gpu import gpu
from lapidist.cli.import_qserve import import_qserve
from lapidist.cli.inspect import inspect
from lapidist.cli.make_checkpoint import make_checkpoint
from lapidist.cli.plan import plan
from lapidist.cli.quantize import quantize
from lapidist.cli.serve import serve
from lapidist.cli.tune import tune
from lapidist.cli.wafer import wafer

app = typer.Typer(
    help="Lapidist cuts large language models to fit the hardware that serves them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo)
app.command("serve")(serve)
app.command("generate")(generate)
app.command("chat")(chat)
app.command("make-checkpoint")(make_checkpoint)
app.command("quantize")(quantize)
app.command("inspect")(inspect)
app.command("export")(export)
app.command("import-qserve")(import_qserve)
app.command("plan")(plan)
app.command("tune")(tune)
app.command("calibrate-attention")(calibrate_attention)
app.command("calibrate-filter")(calibrate_filter)
app.add_typer(bench, name="bench")
app.add_typer(cpu, name="cpu")
app.add_typer(evaluate, name="eval")
app.add_typer(gpu, name="gpu")
app.add_typer(wafer, name="wafer")


def main() -> None:
    """Run the command. What the user can put right ends with one sentence on stderr and exit status 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        # Lapidist's own errors are ValueErrors that say what was wrong, where, and what to do.
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
