-- When a session was last used, coarsely, and when it was ended: its id is refused from then on.
ALTER TABLE sessions ADD COLUMN seen_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN ended_at BIGINT;
UPDATE sessions SET seen_at = created_at;
DROP INDEX sessions_by_age;
CREATE INDEX sessions_by_age ON sessions (seen_at);
CREATE INDEX sessions_by_user ON sessions (user_id, id);

-- Tickets that are not spent yet, by the digest of their secret, with what the credential gave that they stand for. Rows
-- live for half a minute, so there are too few to index.
CREATE TABLE tickets (
    digest           BYTEA PRIMARY KEY,
    user_id          TEXT NOT NULL,
    name             TEXT NOT NULL,
    roles            TEXT NOT NULL,
    session          TEXT NOT NULL,
    project_id       UUID,
    token_expires_at BIGINT,
    expires_at       BIGINT NOT NULL
);
