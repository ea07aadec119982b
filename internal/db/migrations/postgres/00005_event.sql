-- +goose Up
CREATE TABLE event (
    org      TEXT   NOT NULL REFERENCES organisation (id),
    id       TEXT   NOT NULL,
    at       BIGINT NOT NULL, -- microseconds since 1970, UTC
    kind     TEXT   NOT NULL,
    severity TEXT   NOT NULL,
    domain   TEXT   NOT NULL,
    text     TEXT   NOT NULL,
    advice   TEXT   NOT NULL,
    evidence TEXT   NOT NULL, -- JSON object of strings
    PRIMARY KEY (org, id)
);
CREATE INDEX event_at ON event (org, at);

-- +goose Down
DROP TABLE event;
