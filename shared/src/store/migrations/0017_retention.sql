-- When the oldest entry was appended that retention may delete: NULL while the topic keeps its newest entry alone, 0 when
-- retention has to look. An append sets it to 0 when the topic kept one entry alone, and when the head reaches `look_at`.
-- Every topic of before is looked at once.
ALTER TABLE topics ADD COLUMN oldest_at BIGINT DEFAULT 0;
ALTER TABLE topics ADD COLUMN look_at BIGINT NOT NULL DEFAULT 0;
CREATE INDEX topics_due ON topics (oldest_at) WHERE oldest_at IS NOT NULL;
-- Topics of replicas, some of which are left by replicas that are gone.
CREATE INDEX topics_of_replicas ON topics (name) WHERE name LIKE 'replica/%';

-- Until when a periodic deletion is one process's, and what it has to know of the run before.
CREATE TABLE sweeps (
    name  TEXT PRIMARY KEY,
    until BIGINT NOT NULL,
    state TEXT
);

-- Projects that were deleted and whose data are being deleted: when ingress and proc have to look again, NULL when they have
-- looked for the last time.
CREATE TABLE project_deletions (
    project_id UUID PRIMARY KEY,
    deleted_at BIGINT NOT NULL,
    ingress_at BIGINT,
    proc_at    BIGINT
);

-- Projects that were deleted before have left these behind.
INSERT INTO project_deletions (project_id, deleted_at, ingress_at, proc_at)
SELECT DISTINCT s.project_id, 0, CAST(0 AS BIGINT), CAST(0 AS BIGINT) FROM schedules s
WHERE NOT EXISTS (SELECT 1 FROM projects p WHERE p.id = s.project_id);
INSERT INTO project_deletions (project_id, deleted_at, ingress_at, proc_at)
SELECT DISTINCT w.project_id, 0, CAST(0 AS BIGINT), CAST(0 AS BIGINT) FROM webhooks w
WHERE NOT EXISTS (SELECT 1 FROM projects p WHERE p.id = w.project_id)
AND NOT EXISTS (SELECT 1 FROM project_deletions d WHERE d.project_id = w.project_id);
INSERT INTO project_deletions (project_id, deleted_at, ingress_at, proc_at)
SELECT DISTINCT a.project_id, 0, CAST(0 AS BIGINT), CAST(0 AS BIGINT) FROM answers a
WHERE NOT EXISTS (SELECT 1 FROM projects p WHERE p.id = a.project_id)
AND NOT EXISTS (SELECT 1 FROM project_deletions d WHERE d.project_id = a.project_id);

-- Files of jobs go with their project.
ALTER TABLE artifacts ADD COLUMN project_id UUID;
UPDATE artifacts SET project_id = (SELECT j.project_id FROM jobs j WHERE j.id = artifacts.job_id);
CREATE INDEX artifacts_by_project ON artifacts (project_id, job_id);
INSERT INTO project_deletions (project_id, deleted_at, ingress_at, proc_at)
SELECT DISTINCT a.project_id, 0, CAST(0 AS BIGINT), CAST(0 AS BIGINT) FROM artifacts a WHERE a.project_id IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM projects p WHERE p.id = a.project_id)
AND NOT EXISTS (SELECT 1 FROM project_deletions d WHERE d.project_id = a.project_id);
CREATE INDEX answers_by_project ON answers (project_id, id);

-- Jobs of webhooks are kept for an hour, and are few among those that are kept for a month.
CREATE INDEX jobs_of_webhooks ON jobs (id) WHERE bundle = 'webhook';
