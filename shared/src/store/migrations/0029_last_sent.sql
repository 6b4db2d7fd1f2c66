-- Time of the last message that was sent to a project and not imported: the next one is later by its time too. It lies in a
-- row that each send writes anyway. It is null until the first send after the upgrade.
ALTER TABLE topics ADD COLUMN sent_at BIGINT;
DROP INDEX messages_sent;
