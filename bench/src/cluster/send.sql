-- What a send writes, by the shortest way that keeps its order: a message, the log's next number, the log's entry; five round
-- trips. Ids begin with the time, as ours do, and the rows are as long as ours. Each client has its project.
\set project :client_id % :projects
\set tail random(1, 9000000000000000000)
BEGIN;
INSERT INTO messages (id, project_id, channel, author, text, created_at, client_key, request)
VALUES (
    (encode(int8send((extract(epoch FROM clock_timestamp()) * 1000000)::bigint), 'hex') || encode(int8send(:tail), 'hex'))::uuid,
    ('00000000-0000-7000-8000-' || lpad(:project, 12, '0'))::uuid, 'general', 'owner',
    'sent to be counted, and about as long as what people say to each other in a chat like this',
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    'key-of-the-message ' || :tail, decode(repeat('5a', 32), 'hex')
)
ON CONFLICT (project_id, author, client_key) WHERE client_key IS NOT NULL DO NOTHING;
INSERT INTO topics (name, epoch, head, floor)
VALUES ('project/00000000-0000-7000-8000-' || lpad(:project, 12, '0'), 1, 1, 1)
ON CONFLICT (name) DO UPDATE SET head = topics.head + excluded.head
RETURNING head
\gset
INSERT INTO entries (topic, seq, type, data, at)
VALUES (
    'project/00000000-0000-7000-8000-' || lpad(:project, 12, '0'), :head, 'message.created', repeat('x', 580),
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint
);
COMMIT;
