"""Our side of a bench: a TypeScript file on one backend, asked over its standard input."""

import json
import pathlib
import shlex
import statistics
import subprocess

HERE = pathlib.Path(__file__).resolve().parent


class Worker:
    """A script of this folder on one backend."""

    def __init__(self, script, runner, device, model):
        command = [*shlex.split(runner), str(HERE / script), device, str(model)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE.parent
        )

    def ask(self, **request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.stderr.read().strip())
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measure(runners, request, rounds):
    """Medians in ms: every runner once each round, in an order that reverses every round; the first round does not count."""
    times = {name: [] for name in runners}
    for i in range(-1, rounds):
        for runner in list(runners)[:: 1 if i % 2 else -1]:
            ms = runners[runner](request)
            if i >= 0:
                times[runner].append(ms)
    return {runner: statistics.median(values) for runner, values in times.items()}


def row(name, middle):
    """A line of the table; ratios are to PyTorch."""
    cells = [f"{middle[r]:.1f} ms" + ("" if r == "PyTorch" else f" ({middle[r] / middle['PyTorch']:.2f}×)") for r in middle]
    return f"{name:34}" + "".join(f"{cell:>22}" for cell in cells)


def prepared(script, runner, devices, model, file):
    """Workers that have prepared the inputs of a file, one a backend, with what they answered; the others are told of."""
    for device in devices:
        worker = Worker(script, runner, device, model)
        try:
            yield device, worker, worker.ask(do="prepare", file=str(file))
        except RuntimeError as error:
            worker.close()
            print(f"{device}: not measured. {str(error)[-400:]}\n")
