# One image for every daemon:  podman run -v ./cluster:/cluster:ro byzsgd server --id s0
#
# torch is the CPU's; for NVIDIA GPUs build with  --build-arg TORCH_FROM=

FROM python:3.11-slim AS build
ARG TORCH_FROM="--extra-index-url https://download.pytorch.org/whl/cpu"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /opt/byzsgd
WORKDIR /src
COPY requirements.lock torch.lock ./
# Tools of development stay out; one that is forgotten here only makes the image larger.
RUN sed -E ':join; /\\$/ { N; b join }; /^(ast-serialize|grimp|hypothesis|import-linter|iniconfig|librt|mypy|mypy-extensions|pathspec|pluggy|pytest|ruff|sortedcontainers)==/ d' \
        requirements.lock > image.lock \
    && /opt/byzsgd/bin/pip install --require-hashes -r image.lock
RUN /opt/byzsgd/bin/pip install ${TORCH_FROM} -r torch.lock
COPY pyproject.toml README.md LICENSE ./
COPY common common
COPY daemons daemons
RUN /opt/byzsgd/bin/pip install --no-deps .

FROM python:3.11-slim
COPY --from=build /opt/byzsgd /opt/byzsgd
ENV PATH=/opt/byzsgd/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# cluster.toml and the node's own key are mounted here, read by this user: chown 10001 keys/s0.key
USER 10001:10001
WORKDIR /cluster
ENTRYPOINT ["byzsgd"]
CMD ["--help"]
