-- A worker's lease is the worker's, not each job's: renewed in one row, which no write of a job waits for.
CREATE TABLE workers (
    id          UUID PRIMARY KEY,
    lease_until BIGINT NOT NULL
);
ALTER TABLE jobs DROP COLUMN lease_until;

-- Earlier goes first: when it became due, and for each step of priority as if that were a minute earlier. So nothing waits
-- for ever, and nothing has to be written again as it ages.
ALTER TABLE jobs ADD COLUMN priority BIGINT NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN rank BIGINT NOT NULL DEFAULT 0;
-- What it shares with other jobs of which only some may run at once, and how many.
ALTER TABLE jobs ADD COLUMN shares TEXT;
ALTER TABLE jobs ADD COLUMN share_limit BIGINT;
UPDATE jobs SET rank = run_after;

DROP INDEX jobs_to_run;
DROP INDEX jobs_running;
CREATE INDEX jobs_to_run ON jobs (owner, rank, id) WHERE state IN ('queued', 'interrupted');
CREATE INDEX jobs_running ON jobs (owner, worker) WHERE state = 'running';
CREATE INDEX jobs_of_worker ON jobs (worker) WHERE state = 'running';
CREATE INDEX jobs_ended ON jobs (finished_at) WHERE state IN ('succeeded', 'failed', 'cancelled');

-- Running jobs that share: a row is taken with the job and given back with it, so no two transactions can both have the
-- last one.
CREATE TABLE job_shares (
    name   TEXT NOT NULL,
    n      BIGINT NOT NULL,
    job_id UUID NOT NULL,
    PRIMARY KEY (name, n)
);
CREATE INDEX job_shares_by_job ON job_shares (job_id);
