-- Who is there, over all replicas. `scope` is that of the user's slots, which say whether they still are.
CREATE TABLE presence (
    project_id UUID NOT NULL,
    user_id    TEXT NOT NULL,
    scope      TEXT NOT NULL,
    state      TEXT NOT NULL,
    since      BIGINT NOT NULL,
    PRIMARY KEY (project_id, user_id)
);
