-- What a job is the only unfinished one of, among its owner's of the same operation.
ALTER TABLE jobs ADD COLUMN unique_key TEXT;
CREATE UNIQUE INDEX jobs_by_unique_key ON jobs (owner, bundle, operation, unique_key)
    WHERE unique_key IS NOT NULL AND state IN ('queued', 'running', 'interrupted');

-- Subscriptions of URLs to the events of a project, owned by proc. `log` is the project's, `cursor` what has been delivered
-- of it, of which `epoch` and `seq` are a part; `job_key` is the unique key of the jobs that deliver.
CREATE TABLE webhooks (
    id            UUID PRIMARY KEY,
    project_id    UUID NOT NULL,
    owner         TEXT NOT NULL,
    url           TEXT NOT NULL,
    secret        TEXT NOT NULL,
    old_secret    TEXT,
    old_until     BIGINT,
    events        TEXT NOT NULL,
    state         TEXT NOT NULL,
    reason        TEXT,
    revision      UUID NOT NULL,
    log           TEXT NOT NULL,
    cursor        TEXT NOT NULL,
    epoch         BIGINT NOT NULL,
    seq           BIGINT NOT NULL,
    job_key       TEXT NOT NULL,
    failures      BIGINT NOT NULL,
    failing_since BIGINT,
    next_at       BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL
);
CREATE INDEX webhooks_by_project ON webhooks (project_id, id);
CREATE INDEX webhooks_active ON webhooks (next_at) WHERE state = 'active';

-- What became of each event that was to be delivered. `previous` is the cursor before it.
CREATE TABLE webhook_deliveries (
    webhook_id  UUID NOT NULL,
    seq         BIGINT NOT NULL,
    message_id  TEXT NOT NULL,
    type        TEXT NOT NULL,
    previous    TEXT NOT NULL,
    status      TEXT NOT NULL,
    attempts    BIGINT NOT NULL,
    http_status BIGINT,
    error       TEXT,
    duration_ms BIGINT NOT NULL,
    at          BIGINT NOT NULL,
    PRIMARY KEY (webhook_id, seq)
);
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (at);
