-- Jobs that were given up, which is what operators look for.
CREATE INDEX jobs_parked ON jobs (id) WHERE state = 'failed' AND (attempt >= max_attempts OR crashes > 3);

-- Operations that are called again and again.
CREATE TABLE schedules (
    id           UUID PRIMARY KEY,
    project_id   UUID NOT NULL,
    -- Which one it is of its project, so that no two transactions can both make the last one.
    n            BIGINT NOT NULL,
    owner        TEXT NOT NULL,
    bundle       TEXT NOT NULL,
    operation    TEXT NOT NULL,
    data         TEXT NOT NULL,
    cron         TEXT NOT NULL,
    time_zone    TEXT NOT NULL,
    missed       TEXT NOT NULL,
    state        TEXT NOT NULL,
    reason       TEXT,
    next_fire_at BIGINT,
    last_fire_at BIGINT,
    last_job_id  UUID,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL
);
CREATE UNIQUE INDEX schedules_by_project ON schedules (project_id, n);
CREATE INDEX schedules_due ON schedules (next_fire_at) WHERE state = 'active';
