-- Deliveries to webhooks have workers of their own, which would go through all jobs that wait to find theirs.
CREATE INDEX deliveries_to_run ON jobs (owner, rank, id) WHERE state IN ('queued', 'interrupted') AND bundle = 'webhook';
