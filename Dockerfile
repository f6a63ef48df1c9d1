# tce in a container, on a CPU:   docker build -t tce .
# with CUDA:                      docker build -t tce --build-arg BASE=nvidia/cuda:12.6.3-runtime-ubuntu24.04 --build-arg TORCH_BACKEND=cu126 .
# run:  docker run --rm -v "$PWD:/data" -w /data tce explore videos --output page.html
#       (add --gpus all with the CUDA base)
ARG BASE=debian:trixie-slim
FROM ${BASE}
ARG TORCH_BACKEND=cpu

# uv chooses PyTorch's build for the backend by its own table of addresses.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/tce \
    && /opt/tce/bin/pip install --no-cache-dir uv
ENV PATH=/opt/tce/bin:$PATH VIRTUAL_ENV=/opt/tce PYTHONUNBUFFERED=1

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN uv pip install --no-cache --torch-backend ${TORCH_BACKEND} -c constraints.txt .

RUN useradd --create-home tce
USER tce
ENTRYPOINT ["tce"]
CMD ["--help"]
