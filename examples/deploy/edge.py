"""Complete a CSV file by an exported graph, with onnxruntime and numpy alone.

    python edge.py model.onnx incomplete.csv completed.csv
    python edge.py model.onnx                       # time it: a row, and a thousand

Neither torch nor scikit-learn nor admc_sklearn has to be installed. Empty cells of the
file are missing; levels are written as words, dates are refused: they are steps from a
start that the graph's metadata give.
"""

import csv
import json
import statistics
import sys
import time

import numpy as np
import onnxruntime


def open_graph(path):
    """Open a session on one core; also return what the columns' numbers mean."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    about = session.get_modelmeta().custom_metadata_map
    return session, json.loads(about["columns"])


def number_of(word, column):
    """Make a number of a cell: NaN if it is empty, the code of a level."""
    if word == "":
        return np.nan
    if column["kind"] == "levels":
        levels = column["levels"]
        return levels.index(word) if word in levels else float(len(levels))
    if column["kind"] == "time":
        raise SystemExit(f"{column['name']}: give dates as steps from their start")
    try:
        return float(word)
    except ValueError:
        raise SystemExit(f"{column['name']}: {word!r} is no number") from None


def word_of(number, column, given):
    """Make a word of a completed cell; a given one stays as it is."""
    if given != "":
        return given
    if column["kind"] == "levels":
        return column["levels"][int(number)]
    return f"{number:.7g}"


def complete(session, columns, source, target):
    """Complete a CSV file."""
    with open(source, newline="") as file:
        header, *rows = csv.reader(file)
    names = [column["name"] for column in columns]
    if header != names:
        raise SystemExit(f"the columns must be {names}; got {header}")
    numbers = [
        [number_of(*cell) for cell in zip(row, columns, strict=True)] for row in rows
    ]
    (completed,) = session.run(["X_completed"], {"X": np.array(numbers, np.float32)})
    with open(target, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for given, row in zip(rows, completed, strict=True):
            cells = zip(row, columns, given, strict=False)
            writer.writerow([word_of(*cell) for cell in cells])


def measure(session, columns):
    """Print the time of a row and of a thousand, with a third of the cells missing."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, len(columns))).astype(np.float32)
    for j, column in enumerate(columns):
        if column["kind"] == "levels":
            X[:, j] = rng.integers(len(column["levels"]), size=1000)
    X[rng.random(X.shape) < 1 / 3] = np.nan
    for rows, repeats in ((X[:1], 200), (X, 5)):
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            session.run(["X_completed"], {"X": rows})
            times.append(time.perf_counter() - started)
        middle = 1000 * statistics.median(times)
        print(f"{len(rows)} rows of {len(columns)} columns: {middle:.2f} ms")


def main(words):
    """Complete, or measure."""
    started = time.perf_counter()
    session, columns = open_graph(words[0])
    print(f"opened in {1000 * (time.perf_counter() - started):.0f} ms")
    if len(words) == 3:
        complete(session, columns, *words[1:])
    else:
        measure(session, columns)


if __name__ == "__main__":
    main(sys.argv[1:] or sys.exit(__doc__))
