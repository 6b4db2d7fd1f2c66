-- Open streams, counted over all replicas: one row for each limit that a stream counts against. There is no index beside
-- the key: `scope` starts with the user where a user's streams are asked for, and only an admin looks for a connection.
CREATE TABLE slots (
    scope      TEXT NOT NULL,
    n          BIGINT NOT NULL,
    connection UUID NOT NULL,
    replica    UUID NOT NULL,
    user_id    TEXT NOT NULL,
    stream     TEXT NOT NULL,
    about      TEXT NOT NULL,
    PRIMARY KEY (scope, n)
);

-- Processes that serve streams, each renewing its row while it lives.
CREATE TABLE replicas (
    id         UUID PRIMARY KEY,
    started_at BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL,
    stats      TEXT NOT NULL
);
