# The image of a node: NXS, its dependencies as pinned in constraints.txt, Flower and the example.
# To run your own tasks, start from this image and add the module of your Celery app.

FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/nxs

# The dependencies first, so that a change of the code does not install them again.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['postgres'], 'flower', sep='\n')" \
        > requirements.txt \
    && /opt/nxs/bin/pip install -r requirements.txt -c constraints.txt

COPY README.md LICENSE beat_schedule.py ./
COPY nxs_tasks nxs_tasks
RUN /opt/nxs/bin/pip install --no-deps . \
    && /opt/nxs/bin/pip check


FROM python:3.11-slim
RUN groupadd --gid 10001 nxs \
    && useradd --uid 10001 --gid nxs --no-create-home --home-dir /var/lib/nxs \
        --shell /usr/sbin/nologin nxs \
    && install -d -o nxs -g nxs -m 0750 /var/lib/nxs /app/census-report
COPY --from=build /opt/nxs /opt/nxs
COPY examples /app/examples

ENV PATH=/opt/nxs/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
CMD ["nxs", "--help"]
