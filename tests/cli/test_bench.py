import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import PIPE

import pytest
import typer
from typer.testing import CliRunner

from lapidist.cli.bench import bench

app = typer.Typer()
app.add_typer(bench, name="bench")
SMALL = ["--trace", "poisson:500", "--requests", "5", "--prompt-length", "4", "--output-length", "3"]


class _Handler(BaseHTTPRequestHandler):
    """Just enough of a server to be measured; ``tests/evaluation/serving`` has one with manners."""

    def do_GET(self) -> None:
        self._send(json.dumps({"data": [{"id": "small"}]}), "application/json")

    answered = threading.Semaphore(0)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body["model"] == "sad" and body["max_tokens"] > 1:
            self.send_error(503)
            return
        chunk = 'data: {"choices": [{"text": "a", "finish_reason": null}]}\n\n'
        self._send(chunk * body["max_tokens"] + "data: [DONE]\n\n", "text/event-stream")
        self.answered.release()

    def _send(self, text: str, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(*arguments: str) -> tuple[int, str, BaseException | None]:
    result = CliRunner().invoke(app, ["bench", "serve", *arguments])
    return result.exit_code, result.stdout, result.exception


def test_table_plot_and_json(url: str, tmp_path: Path) -> None:
    plot, out = tmp_path / "latency.svg", tmp_path / "out.json"
    code, text, _ = run(
        "--url", url, *SMALL, "--slo-ttft-ms", "60000", "--plot", str(plot), "--json", str(out)
    )
    assert code == 0
    for word in ("TTFT", "TPOT", "ITL", "end to end", "P99", "5 completed", "goodput", "100.0%"):
        assert word in text
    assert plot.read_text().lstrip().startswith("<?xml")
    assert json.loads(out.read_text())["metrics"]["output_tokens"] == 15


def test_json_on_standard_output_stands_alone(url: str) -> None:
    code, text, _ = run("--url", url, *SMALL, "--json", "-")
    assert code == 0
    report = json.loads(text)
    assert report["metrics"]["completed"] == 5
    assert len(report["requests"]) == 5


def test_nothing_measured_is_exit_status_1(url: str) -> None:
    code, text, _ = run("--url", url, "--model", "sad", *SMALL)
    assert code == 1
    assert "5 x 503" in text


@pytest.mark.parametrize("arguments", [[], ["tiny", "--url", "http://x"]])
def test_a_model_or_a_server_not_both(arguments: list[str]) -> None:
    code, _, _ = run(*arguments)
    assert code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "latency.gif"], "written as"),
        (["--trace", "none.csv"], "cannot be read"),
        (["--trace", "poisson:x"], "poisson:RATE"),
    ],
)
def test_bad_input_is_one_sentence(url: str, arguments: list[str], message: str) -> None:
    _, _, error = run("--url", url, *arguments)
    assert isinstance(error, ValueError)
    assert message in str(error)
    assert "\n" not in str(error)


def test_an_absent_server_is_one_sentence() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _, _, error = run("--url", f"http://127.0.0.1:{port}", *SMALL)
    assert isinstance(error, ValueError)
    assert f"127.0.0.1:{port}" in str(error)


def test_ctrl_c_reports_what_has_been_measured(url: str) -> None:
    # A job in the background of a shell is born deaf to Ctrl-C.
    command = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from lapidist.cli.bench import bench; bench()"
    )
    slow = ["--trace", "poisson:5", "--requests", "10000", "--prompt-length", "4", "--output-length", "3"]
    while _Handler.answered.acquire(blocking=False):
        pass
    with subprocess.Popen(
        [sys.executable, "-c", command, "serve", "--url", url, *slow], stdout=PIPE, stderr=PIPE, text=True
    ) as process:
        for _ in range(4):
            _Handler.answered.acquire()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "stopped early" in errors
    assert "TTFT" in out
    assert "Traceback" not in errors
