-- What was appended together is one row: its last entry as ever, and those before it compressed. `seq` is the last one's.
ALTER TABLE entries ADD COLUMN packed BYTEA;

-- Each job is an entry of every index that has it, and its end another one. Those who wait, those who run, and whose job it is
-- have indexes; the others are found by these.
DROP INDEX jobs_unfinished;
DROP INDEX jobs_of_worker;
DROP INDEX jobs_ended;
