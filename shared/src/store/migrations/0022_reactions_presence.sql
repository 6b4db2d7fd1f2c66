-- Users of an imported kind of reaction beyond those that are stored.
CREATE TABLE reaction_counts (
    message_id UUID NOT NULL,
    emoji      TEXT NOT NULL,
    more       BIGINT NOT NULL,
    PRIMARY KEY (message_id, emoji)
);

-- The replica that answers for a user's presence: it has a stream of the user, or waits for the grace. Other replicas take the
-- user out only when this one is gone.
ALTER TABLE presence ADD COLUMN replica UUID;
