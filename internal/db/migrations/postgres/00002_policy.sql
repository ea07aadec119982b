-- +goose Up
-- One row for each domain that was ever asked about: its cached MTA-STS policy,
-- if it has one, and what is needed to keep it fresh.
CREATE TABLE policy (
    org            TEXT   NOT NULL,
    domain         TEXT   NOT NULL,
    id             TEXT   NOT NULL, -- of the record that the policy was fetched under
    mode           TEXT   NOT NULL, -- '' if no policy is cached
    policy         TEXT   NOT NULL, -- its lines
    fetched_at     BIGINT NOT NULL, -- stays when the policy goes: an older one is never stored over it
    expires_at     BIGINT NOT NULL,
    record         BIGINT NOT NULL, -- what the last lookup of the record came to
    failed_at      BIGINT NOT NULL, -- the policy host failed; 0: not since the last success
    failed_id      TEXT   NOT NULL,
    failures       BIGINT NOT NULL, -- in a row
    failure_result TEXT   NOT NULL, -- RFC 8460 section 4.3
    failure_reason TEXT   NOT NULL,
    failure_text   TEXT   NOT NULL,
    held_since     BIGINT NOT NULL, -- the record cannot be looked up since then, nothing being cached
    held_tried     BIGINT NOT NULL,
    said           BIGINT NOT NULL, -- bits: events that were raised
    refresh_at     BIGINT NOT NULL, -- looked at again in the background
    used_at        BIGINT NOT NULL, -- asked about last, to the day
    PRIMARY KEY (org, domain)
);
CREATE INDEX policy_refresh ON policy (org, refresh_at);
CREATE INDEX policy_fetched ON policy (org, fetched_at) WHERE mode <> '';

-- What an operator decided for one domain.
CREATE TABLE policy_override (
    org        TEXT   NOT NULL REFERENCES organisation (id),
    domain     TEXT   NOT NULL,
    kind       TEXT   NOT NULL,
    patterns   TEXT   NOT NULL, -- JSON: of a secure override
    reason     TEXT   NOT NULL,
    author     TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    told_at    BIGINT NOT NULL, -- its use was raised as an event; 0: not yet used
    PRIMARY KEY (org, domain)
);

-- +goose Down
DROP TABLE policy_override;
DROP TABLE policy;
