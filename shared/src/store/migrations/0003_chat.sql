-- Chat, owned by ingress.
CREATE TABLE projects (
    id         UUID PRIMARY KEY,
    name       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE members (
    project_id UUID NOT NULL,
    user_id    TEXT NOT NULL,
    role       TEXT NOT NULL,
    added_at   BIGINT NOT NULL,
    PRIMARY KEY (project_id, user_id)
);
CREATE INDEX members_by_user ON members (user_id, project_id);

-- Everybody who is or was a member or is an imported author, with the name to show.
CREATE TABLE people (
    project_id UUID NOT NULL,
    id         TEXT NOT NULL,
    name       TEXT NOT NULL,
    is_bot     BIGINT NOT NULL,
    import_id  UUID,
    PRIMARY KEY (project_id, id)
);

CREATE TABLE channels (
    project_id UUID NOT NULL,
    name       TEXT NOT NULL,
    id         UUID NOT NULL,
    topic      TEXT,
    import_id  UUID,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (project_id, name)
);

-- `request` is the digest of the body that was sent, to tell a retry from another message with the same key.
CREATE TABLE messages (
    id         UUID PRIMARY KEY,
    project_id UUID NOT NULL,
    channel    TEXT NOT NULL,
    author     TEXT NOT NULL,
    text       TEXT NOT NULL,
    reply_to   UUID,
    metadata   TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    deleted_at BIGINT,
    client_key TEXT,
    request    BYTEA,
    import_id  UUID
);
CREATE INDEX messages_by_time ON messages (project_id, created_at, id);
CREATE INDEX messages_by_channel ON messages (project_id, channel, created_at, id);
CREATE UNIQUE INDEX messages_by_key ON messages (project_id, author, client_key) WHERE client_key IS NOT NULL;

CREATE TABLE reactions (
    message_id UUID NOT NULL,
    emoji      TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    at         BIGINT NOT NULL,
    PRIMARY KEY (message_id, emoji, user_id)
);

CREATE TABLE read_marks (
    project_id UUID NOT NULL,
    channel    TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    message_id UUID NOT NULL,
    at         BIGINT NOT NULL,
    PRIMARY KEY (project_id, channel, user_id)
);
