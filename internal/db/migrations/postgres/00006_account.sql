-- +goose Up
-- Who may hand mail in by AUTH.
CREATE TABLE submitter (
    org          TEXT   NOT NULL REFERENCES organisation (id),
    name         TEXT   NOT NULL, -- as in AUTH, in lower case
    password     TEXT   NOT NULL, -- argon2id, as a PHC string
    senders      TEXT   NOT NULL, -- JSON: addresses and domains that may stand in MAIL FROM; "*": any
    tls_optional BIGINT NOT NULL, -- may send TLS-Required: No (RFC 8689)
    disabled     BIGINT NOT NULL,
    created_at   BIGINT NOT NULL, -- microseconds since 1970, UTC
    PRIMARY KEY (org, name)
);
-- AUTH names no organisation.
CREATE UNIQUE INDEX submitter_name ON submitter (name);

-- +goose Down
DROP TABLE submitter;
