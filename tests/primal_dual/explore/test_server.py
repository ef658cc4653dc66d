"""The server: on this machine alone, for its own pages alone, and one line for what it cannot do."""

import asyncio
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from tests.primal_dual.explore.browser import serving


def explore(*options, setup=""):
    """Run the command in a process that ends by itself -> (status, stdout, stderr)."""
    code = f"{setup}from primal_dual.cli import main; main()"
    command = [sys.executable, "-c", code, "explore", "--no-browser", *map(str, options)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


def expect_one_line(ended, *words):
    status, out, err = ended
    assert status == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1, ended
    assert [word for word in words if word not in err] == []


def connect(address, origin):
    async def open_and_close():
        request = HTTPRequest(address.replace("http", "ws") + "ws", headers={"Origin": origin})
        (await websocket_connect(request, subprotocols=["bokeh", "token"])).close()

    asyncio.run(open_and_close())


def test_it_listens_here_alone_refuses_other_origins_and_ends_with_ctrl_c():
    with serving() as (address, process):
        port = int(address.rstrip("/").rpartition(":")[2])
        page = urllib.request.urlopen(address).read().decode()
        assert "static/js/bokeh" in page and "https://" not in page.split("<script>")[0]
        listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        ours = [line.split()[1] for line in listening.splitlines() if f":{port:04X} " in line and " 0A " in line]
        assert ours == [f"0100007F:{port:04X}"]
        for origin in ("http://example.org", f"http://example.org:{port}", f"http://127.0.0.1:{port + 1}", "null"):
            with pytest.raises(HTTPClientError, match="403"):
                connect(address, origin)
        expect_one_line(explore("--port", port), "--port: expected a free port", str(port))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0 and "Traceback" not in process.stderr.read()


def test_bad_ports_and_a_missing_extra_end_in_one_line():
    expect_one_line(explore("--port", 70000), "70000")
    expect_one_line(explore("--port", -1), "-1")
    hidden = "import sys; sys.modules['bokeh'] = None; "
    expect_one_line(explore(setup=hidden), 'pip install ".[explore]" in the checkout')


def test_without_a_browser_it_serves_and_prints_its_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "primal_dual.cli", "explore", "--port", str(port)]
    environment = {"PATH": "", "PYTHONPATH": str(Path(__file__).parents[3])}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a shell that starts a program behind
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, before)
        try:
            assert f"http://127.0.0.1:{port}/ " in process.stdout.readline()
            assert urllib.request.urlopen(f"http://127.0.0.1:{port}/").status == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
