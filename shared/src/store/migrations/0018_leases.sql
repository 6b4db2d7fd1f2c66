-- The lease of a writer is the writer's, not each answer's: renewed in one row, which no write of an answer waits for.
CREATE TABLE answer_writers (
    id          UUID PRIMARY KEY,
    lease_until BIGINT NOT NULL
);
DROP INDEX answers_unfinished;
ALTER TABLE answers DROP COLUMN seen_at;
CREATE INDEX answers_unfinished ON answers (writer) WHERE ended_at IS NULL;

-- Finds the last message of a project that was sent and not imported: the next one is later by its time too.
CREATE INDEX messages_sent ON messages (project_id, created_at) WHERE import_id IS NULL;

-- The time at which the process that had the database was last seen. A clock that was set back while no process ran
-- continues from here.
CREATE TABLE clock (
    id   BIGINT PRIMARY KEY,
    time BIGINT NOT NULL
);
