-- Bundles behind a URL and the calls of them, owned by proc.
CREATE TABLE http_bundles (
    name       TEXT PRIMARY KEY,
    revision   UUID NOT NULL,
    url        TEXT NOT NULL,
    secret     TEXT NOT NULL,
    manifest   TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE http_calls (
    job_id     UUID NOT NULL,
    fence      BIGINT NOT NULL,
    bundle     TEXT NOT NULL,
    operation  TEXT NOT NULL,
    attempt    BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    called_at  BIGINT NOT NULL,
    state      TEXT NOT NULL,
    cancels    BIGINT NOT NULL,
    PRIMARY KEY (job_id, fence)
);
CREATE INDEX http_calls_by_operation ON http_calls (bundle, operation);

CREATE TABLE http_callbacks (
    job_id     UUID NOT NULL,
    fence      BIGINT NOT NULL,
    number     BIGINT NOT NULL,
    webhook_id TEXT NOT NULL,
    line       TEXT NOT NULL,
    PRIMARY KEY (job_id, fence, number)
);
CREATE UNIQUE INDEX http_callbacks_by_id ON http_callbacks (job_id, fence, webhook_id);
