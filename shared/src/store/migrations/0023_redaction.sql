-- The message whose text an entry has, until the text is redacted: so the entries of a message are found by an index when it
-- is edited or deleted.
ALTER TABLE entries ADD COLUMN message_id UUID;
CREATE INDEX entries_by_message ON entries (message_id, seq) WHERE message_id IS NOT NULL;
-- Entries up to this number were written without it, and are looked through.
ALTER TABLE topics ADD COLUMN unmarked BIGINT NOT NULL DEFAULT 0;
UPDATE topics SET unmarked = head WHERE name LIKE 'project/%';
