"""modal deploy examples/serverless/modal_app.py   (from the project's folder)"""
import subprocess

import modal

app = modal.App("sau")
image = modal.Image.from_dockerfile("examples/serverless/Dockerfile.deno", context_dir=".", add_python="3.12")
models = modal.Volume.from_name("sau-models", create_if_missing=True)
data = modal.Volume.from_name("sau-data", create_if_missing=True)


@app.function(
    image=image,
    gpu="L4",
    volumes={"/models": models, "/data": data},
    # SAU_TOKENS=…: the server's own bearer tokens.
    secrets=[modal.Secret.from_name("sau-tokens")],
    scaledown_window=120,
    timeout=3600,
    # One card, one process: its own queue takes turns.
    max_containers=1,
)
@modal.concurrent(max_inputs=100)
@modal.web_server(8080, startup_timeout=60)
def serve():
    command = "exec deno serve -A --no-check --host 0.0.0.0 --port 8080 examples/serverless/server.ts"
    subprocess.Popen(["sh", "-c", command], cwd="/app")
