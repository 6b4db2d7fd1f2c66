-- A user's streams of one name take one slot of a limit, whichever replicas open them at once. Of rows that had the same
-- name the first stays: the others' streams end as all do, and free no slot.
DELETE FROM slots WHERE EXISTS (
    SELECT 1 FROM slots earlier
    WHERE earlier.scope = slots.scope AND earlier.user_id = slots.user_id
    AND earlier.stream = slots.stream AND earlier.n < slots.n
);
CREATE UNIQUE INDEX slots_by_stream ON slots (scope, user_id, stream);

-- The channels that the stream carries, as JSON; NULL is every channel.
ALTER TABLE slots ADD COLUMN channels TEXT;
