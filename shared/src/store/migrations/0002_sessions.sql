-- Which user a session belongs to: the first who showed it.
CREATE TABLE sessions (
    id         TEXT PRIMARY KEY,
    user_id    TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX sessions_by_age ON sessions (created_at);
