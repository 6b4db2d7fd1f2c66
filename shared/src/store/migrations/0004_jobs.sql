-- Jobs, owned by proc.
CREATE TABLE jobs (
    id            UUID PRIMARY KEY,
    owner         TEXT NOT NULL,
    project_id    UUID NOT NULL,
    bundle        TEXT NOT NULL,
    operation     TEXT NOT NULL,
    input         TEXT NOT NULL,
    state         TEXT NOT NULL,
    attempt       BIGINT NOT NULL,
    max_attempts  BIGINT NOT NULL,
    crashes       BIGINT NOT NULL,
    fence         BIGINT NOT NULL,
    worker        UUID,
    lease_until   BIGINT,
    run_after     BIGINT NOT NULL,
    progress      TEXT NOT NULL,
    checkpoint    TEXT,
    result        TEXT,
    error         TEXT,
    trace_id      TEXT NOT NULL,
    idempotency   TEXT,
    request       BYTEA,
    created_at    BIGINT NOT NULL,
    started_at    BIGINT,
    finished_at   BIGINT
);
CREATE INDEX jobs_to_run ON jobs (run_after, id) WHERE state IN ('queued', 'interrupted');
CREATE INDEX jobs_running ON jobs (owner) WHERE state = 'running';
CREATE INDEX jobs_by_owner ON jobs (owner, id);
CREATE INDEX jobs_unfinished ON jobs (owner, id) WHERE state IN ('queued', 'running', 'interrupted');
CREATE UNIQUE INDEX jobs_by_key ON jobs (owner, bundle, operation, idempotency) WHERE idempotency IS NOT NULL;

CREATE TABLE job_logs (
    job_id  UUID NOT NULL,
    line    BIGINT NOT NULL,
    at      BIGINT NOT NULL,
    level   TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (job_id, line)
);

CREATE TABLE artifacts (
    job_id     UUID NOT NULL,
    name       TEXT NOT NULL,
    blob       TEXT NOT NULL,
    media_type TEXT NOT NULL,
    bytes      BIGINT NOT NULL,
    sha256     TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (job_id, name)
);

CREATE TABLE uploads (
    id         UUID PRIMARY KEY,
    owner      TEXT NOT NULL,
    bytes      BIGINT NOT NULL,
    sha256     TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX uploads_by_age ON uploads (created_at);
