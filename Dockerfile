# docker build -t srdet .            docker run --rm -v "$PWD:/data" -w /data srdet demo
# With GPUs: docker run --gpus all ...  (the CUDA libraries come with the torch wheel)
FROM python:3.12-slim
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
# git: the commit in each run's tags; wget: KubeRay asks with it whether Ray lives; fonts come with
# matplotlib
RUN apt-get update && apt-get install -y --no-install-recommends git wget && rm -rf /var/lib/apt/lists/*
WORKDIR /srdet
# Dependencies first: a change of the code does not install them again.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN python -m venv /venv && /venv/bin/pip install --quiet --constraint constraints.txt uv \
    && /venv/bin/uv pip install --python /venv/bin/python --constraint constraints.txt --requirements pyproject.toml --extra cluster
COPY . .
RUN /venv/bin/uv pip install --python /venv/bin/python --no-deps .
ENV PATH=/venv/bin:$PATH
RUN useradd --create-home srdet
USER srdet
ENTRYPOINT ["srdet"]
CMD ["--help"]
