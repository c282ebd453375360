"""fal deploy examples/serverless/fal_app.py   (from the project's folder; fal reads /openapi.json for its console)"""
import subprocess

import fal
from fal.container import ContainerImage


@fal.function(
    image=ContainerImage.from_dockerfile("examples/serverless/Dockerfile.deno"),
    machine_type="GPU-A100",
    exposed_port=8080,
    keep_alive=120,
    max_concurrency=1,
)
def sau():
    # /data is fal's volume that stays; who may ask is fal's matter (its key), not a token of the server's own.
    environment = "SAU_ROOTS=/data/models SAU_DATA=/data/sau SAU_ANONYMOUS=anyone"
    serve = "deno serve -A --no-check --host 0.0.0.0 --port 8080 examples/serverless/server.ts"
    subprocess.run(["sh", "-c", f"cd /app && {environment} exec {serve}"], check=True)
