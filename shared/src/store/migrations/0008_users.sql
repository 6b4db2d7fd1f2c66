-- Who has signed in by OpenID Connect, and the name to show; of `simple` mode the file knows.
CREATE TABLE users (
    id   TEXT PRIMARY KEY,
    name TEXT NOT NULL
);
