-- The journal: ordered logs. `floor` is the lowest seq still kept; the entry at `head` always is.
CREATE TABLE topics (
    name  TEXT PRIMARY KEY,
    epoch BIGINT NOT NULL,
    head  BIGINT NOT NULL,
    floor BIGINT NOT NULL
);

CREATE TABLE entries (
    topic TEXT NOT NULL,
    seq   BIGINT NOT NULL,
    type  TEXT NOT NULL,
    data  TEXT NOT NULL,
    at    BIGINT NOT NULL,
    PRIMARY KEY (topic, seq)
);
