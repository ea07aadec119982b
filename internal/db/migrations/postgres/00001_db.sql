-- +goose Up
CREATE TABLE organisation (
    id         TEXT   NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL,
    created_at BIGINT NOT NULL -- unix microseconds
);

-- The organisation of whoever has set up no other (db.DefaultOrg).
INSERT INTO organisation (id, name, created_at)
VALUES ('00000000-0000-7000-8000-000000000001', 'default', (extract(epoch FROM now()) * 1000000)::BIGINT);

-- Facts about the installation as a whole.
CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
