# One Dockerfile for all four services: docker build --build-arg SERVICE=checkout .
# The image holds the plumbing and that one service.
FROM python:3.13-slim

ARG SERVICE
RUN useradd --create-home --uid 10001 duet
WORKDIR /srv/duet
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY servicekit ./servicekit
COPY ${SERVICE} ./${SERVICE}

ENV SERVICE=${SERVICE} PYTHONPATH=/srv/duet PYTHONUNBUFFERED=1
USER duet
STOPSIGNAL SIGTERM
CMD ["sh", "-c", "exec python -m \"$SERVICE\""]
