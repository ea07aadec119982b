-- +goose Up
CREATE TABLE organisation (
    id         TEXT    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL,
    created_at INTEGER NOT NULL -- unix microseconds
) STRICT;

-- The organisation of whoever has set up no other (db.DefaultOrg).
INSERT INTO organisation (id, name, created_at)
VALUES ('00000000-0000-7000-8000-000000000001', 'default', CAST(unixepoch('subsec') * 1000000 AS INTEGER));

-- Facts about the installation as a whole.
CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
