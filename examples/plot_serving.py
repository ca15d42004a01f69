"""
Serving a saved imputer
=======================

An imputer is fitted once, saved to a file that runs no code, and served by worker
processes: rows come in as JSON over HTTP, and go back completed. The server is the
standard library's; four workers are forked after the file was loaded, so that they
share its memory. Malformed rows are answered with 422 and the name of the column.
"""

# %%
import json
import multiprocessing
import socket
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import matplotlib

if __name__ == "__main__":
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_wine

from admc_sklearn import ADMCImputer
from admc_sklearn.missingness import ampute

# %%
# Fit, save, load. Loading takes a fraction of a second, and nothing in the file is run.
wine = load_wine(as_frame=True)
table = wine.data.iloc[:, :6].assign(cultivar=wine.target_names[wine.target])
incomplete = ampute(table, rate=0.3, random_state=0)
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "wine.safetensors"
fitted = ADMCImputer(random_state=0).fit(incomplete)
print(fitted.save(path, include_rows=False).to_string())
imputer = ADMCImputer.load(path).set_output(transform="pandas")


# %%
# A row is an object of its columns' values; those that are absent or null are missing.
def frame_of(rows):
    """Frame of JSON rows; ValueError with a column's name where they are malformed."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("rows: give a list of objects")
    names = list(imputer.feature_names_in_)
    for row in rows:
        for name, value in row.items():
            if name not in names:
                raise ValueError(f"{name}: there is no such column")
            levels = imputer.categories_[names.index(name)]
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and is_number == (levels is not None):
                kind = "a number" if levels is None else f"one of {list(levels)}"
                raise ValueError(f"{name}: {value!r} is not {kind}")
    frame = pd.DataFrame(rows, columns=names)
    kinds = {
        n: float for n, c in zip(names, imputer.categories_, strict=True) if c is None
    }
    return frame.astype(kinds)


class Handler(BaseHTTPRequestHandler):
    """Answers POST requests of JSON rows by the completed rows."""

    def do_POST(self):
        """Complete the rows of a request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            completed = imputer.transform(frame_of(json.loads(body)))
            status, answer = 200, completed.to_dict("records")
        except ValueError as error:
            status, answer = 422, {"error": str(error)}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *words):
        """Keep quiet."""


def serve(listening):
    """Serve requests that come in at a socket, until the process ends."""
    server = ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    server.server_name, server.server_port = "localhost", listening.getsockname()[1]
    server.serve_forever()


# %%
# The workers are forked now: all wait for connections at one socket.
listening = socket.create_server(("127.0.0.1", 0), backlog=256)
address = f"http://127.0.0.1:{listening.getsockname()[1]}"
fork = multiprocessing.get_context("fork")
workers = [fork.Process(target=serve, args=(listening,), daemon=True) for _ in range(4)]
for worker in workers:
    worker.start()


def ask(rows):
    """Send rows; return the status, the answer and the seconds that it took."""
    request = urllib.request.Request(address, json.dumps(rows).encode())
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            status, answer = response.status, json.load(response)
    except urllib.error.HTTPError as error:
        status, answer = error.code, json.load(error)
    return status, answer, time.perf_counter() - started


# %%
# Two hundred requests from twenty clients at a time, one row each. Every answer is what
# `transform` gives for the row, to the last digit.
sent = incomplete.sample(200, replace=True, random_state=1).reset_index(drop=True)
rows = [
    {k: None if pd.isna(v) else v for k, v in row.items()}
    for row in sent.to_dict("records")
]
ask(rows[:1])  # a first call of every thread and worker takes longer
with ThreadPoolExecutor(20) as clients:
    answers = list(clients.map(lambda row: ask([row]), rows))
for row, (status, answer, _) in zip(rows, answers, strict=True):
    expected = imputer.transform(frame_of([row]))
    assert status == 200
    assert answer == expected.to_dict("records")
seconds = np.array([answer[2] for answer in answers])
print(f"median {1000 * np.median(seconds):.0f} ms", end=", ")
print(f"99th percentile {1000 * np.quantile(seconds, 0.99):.0f} ms")

# %%
# Malformed rows are refused by name, and the workers go on.
for row in ({"alcohol": "strong"}, {"colour": 3}, {"cultivar": 2}, [1, 2]):
    status, answer, _ = ask([row])
    print(status, answer["error"])
    assert status == 422
for worker in workers:
    worker.terminate()
    worker.join()
listening.close()
folder.cleanup()

# %%
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
axis.hist(1000 * seconds, bins=30, color="tab:blue")
axis.axvline(1000 * np.quantile(seconds, 0.99), color="black", linestyle="--")
axis.set(xlabel="milliseconds of a request, 20 at a time", ylabel="requests")
axis.set_title("Four workers, 200 requests; dashed: the 99th percentile", fontsize=10)
if __name__ == "__main__":
    path = Path("results") / "serving.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"\nPicture: {path.resolve()}")
