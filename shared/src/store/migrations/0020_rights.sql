-- A delivery that still runs for the owner before counts too.
CREATE INDEX jobs_by_work ON jobs (unique_key)
    WHERE unique_key IS NOT NULL AND state IN ('queued', 'running', 'interrupted');

-- What a user stores is added up when more comes.
CREATE INDEX uploads_by_owner ON uploads (owner, bytes);
ALTER TABLE artifacts ADD COLUMN owner TEXT;
UPDATE artifacts SET owner = (SELECT j.owner FROM jobs j WHERE j.id = artifacts.job_id);
CREATE INDEX artifacts_by_owner ON artifacts (owner, bytes);
-- Files of exports go by their age.
CREATE INDEX artifacts_by_age ON artifacts (created_at);
