-- Time for which a job was put back in all, for a bundle that was away or asked for time, and the start of the present wait.
ALTER TABLE jobs ADD COLUMN snoozed_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN snoozed_at BIGINT;
-- Jobs that waited for a whole day were given up too.
DROP INDEX jobs_parked;
CREATE INDEX jobs_parked ON jobs (id)
    WHERE state = 'failed' AND (attempt >= max_attempts OR crashes > 3 OR snoozed_ms >= 86400000);

-- Number of jobs of an operation that run at once, as its bundle says now. Other operations go by the job's own limit.
CREATE TABLE share_limits (
    name   TEXT PRIMARY KEY,
    bundle TEXT NOT NULL,
    most   BIGINT NOT NULL
);
CREATE INDEX share_limits_by_bundle ON share_limits (bundle);
-- All jobs of a bundle behind a URL share, so that a limit which is set later holds for them.
UPDATE jobs SET shares = bundle || '.' || operation, share_limit = 1000
    WHERE shares IS NULL AND bundle IN (SELECT name FROM http_bundles);

-- Until when an accepted call may take, when its progress was told last, and when it is to be told next.
ALTER TABLE http_calls ADD COLUMN deadline BIGINT;
ALTER TABLE http_calls ADD COLUMN told_at BIGINT;
ALTER TABLE http_calls ADD COLUMN tell_at BIGINT;
CREATE INDEX http_calls_by_deadline ON http_calls (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX http_calls_to_tell ON http_calls (tell_at) WHERE tell_at IS NOT NULL;

-- Rule for a time at which the schedule's last job has not ended. Schedules of before make another job.
ALTER TABLE schedules ADD COLUMN overlap TEXT NOT NULL DEFAULT 'queue';
-- The last time that made no job for that reason.
ALTER TABLE schedules ADD COLUMN last_skipped_at BIGINT;
