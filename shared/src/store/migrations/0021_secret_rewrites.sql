-- When the tables of secrets were written anew after all secrets in the clear had been sealed. Without a row, pages of the
-- database may still have copies.
CREATE TABLE secret_rewrites (
    done_at BIGINT PRIMARY KEY
);
