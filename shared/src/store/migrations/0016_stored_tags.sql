-- Tags are random and stored, so that an entry can be redacted and keeps its position. `tags` has four bytes for each entry of
-- the row, in order; in a row without it, written before, a tag is the CRC-32 of the entry's data. `topics.tag` is the tag of
-- the entry at `head`; without it that entry's row is read. `topics.previous` is the tag of the entry before, which each new
-- entry names: so whoever follows the topic sees that a tail was lost.
ALTER TABLE entries ADD COLUMN tags BYTEA;
ALTER TABLE topics ADD COLUMN tag BIGINT;
ALTER TABLE topics ADD COLUMN previous BIGINT;
