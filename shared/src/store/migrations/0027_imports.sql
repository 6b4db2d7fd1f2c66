-- Channels that imports brought, by the id that each has where it comes from: a later import finds the channel by it, whatever its
-- name there is by then.
CREATE TABLE imported_channels (
    project_id  UUID NOT NULL,
    source      TEXT NOT NULL,
    external_id TEXT NOT NULL,
    name        TEXT NOT NULL,
    PRIMARY KEY (project_id, source, external_id)
);
CREATE INDEX imported_channels_by_name ON imported_channels (project_id, source, name);

-- The name that an imported message shows for its author, where it is another than the author has: several people may write
-- through one bot.
ALTER TABLE messages ADD COLUMN author_name TEXT;
