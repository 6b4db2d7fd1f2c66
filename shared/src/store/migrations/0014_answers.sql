-- Answers to questions, owned by proc. What was written is in the log of each; here is who writes it and whose it is.
-- `writer` holds it while `seen_at` is renewed; each that takes it over counts one more of `writers`.
-- `temperature` is in thousandths; `passages` are the messages that the answer rests on, once it has begun.
CREATE TABLE answers (
    id          UUID PRIMARY KEY,
    owner       TEXT NOT NULL,
    stream_id   TEXT NOT NULL,
    project_id  UUID NOT NULL,
    question    TEXT NOT NULL,
    passages    TEXT,
    max_tokens  BIGINT NOT NULL,
    temperature BIGINT NOT NULL,
    max_ms      BIGINT NOT NULL,
    trace_id    TEXT NOT NULL,
    started_at  BIGINT NOT NULL,
    ended_at    BIGINT,
    writer      UUID NOT NULL,
    writers     BIGINT NOT NULL,
    seen_at     BIGINT NOT NULL
);
CREATE UNIQUE INDEX answers_by_stream ON answers (owner, stream_id);
CREATE INDEX answers_by_owner ON answers (owner, started_at);
CREATE INDEX answers_running ON answers (owner) WHERE ended_at IS NULL;
CREATE INDEX answers_unfinished ON answers (seen_at) WHERE ended_at IS NULL;
CREATE INDEX answers_ended ON answers (ended_at) WHERE ended_at IS NOT NULL;

-- Which projects have something new is asked each second, among the logs of all users and answers.
CREATE INDEX topics_of_projects ON topics (name) WHERE name LIKE 'project/%';
