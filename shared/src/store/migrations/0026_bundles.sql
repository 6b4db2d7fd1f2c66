-- Lines over the limit of a job's log are counted in one line behind the last.
ALTER TABLE job_logs ADD COLUMN dropped BIGINT;

-- The secret that a bundle had before is good until `old_until`. A deleted bundle is kept for as long.
ALTER TABLE http_bundles ADD COLUMN old_secret TEXT;
ALTER TABLE http_bundles ADD COLUMN old_until BIGINT;
ALTER TABLE http_bundles ADD COLUMN deleted_at BIGINT;

-- When a call was found to have no job that waits for it, and when its bundle is told so next.
ALTER TABLE http_calls ADD COLUMN dead_since BIGINT;
ALTER TABLE http_calls ADD COLUMN next_cancel_at BIGINT;
