-- +goose Up
-- Outcomes of TLS attempts, counted by UTC day. A row is one combination of
-- everything a TLS-RPT report tells apart (RFC 8460 section 4.4).
CREATE TABLE outcome (
    org           TEXT   NOT NULL REFERENCES organisation (id),
    day           TEXT   NOT NULL, -- UTC, 2026-01-31
    domain        TEXT   NOT NULL, -- recipient domain
    digest        TEXT   NOT NULL, -- of the columns below, hexadecimal
    source        TEXT   NOT NULL, -- relay, postfix, policy
    node          TEXT   NOT NULL, -- the name of the node that saw it
    policy_type   TEXT   NOT NULL, -- tlsa, sts, no-policy-found
    policy_domain TEXT   NOT NULL,
    policy        TEXT   NOT NULL, -- JSON: strings and mx patterns
    result        TEXT   NOT NULL, -- RFC 8460 result type; empty: success
    reason        TEXT   NOT NULL, -- failure-reason-code
    info          TEXT   NOT NULL, -- additional-information
    mx            TEXT   NOT NULL,
    helo          TEXT   NOT NULL, -- what the MX host calls itself
    ip            TEXT   NOT NULL,
    source_ip     TEXT   NOT NULL,
    transport     TEXT   NOT NULL, -- none, clear, encrypted, verified
    unverified    BIGINT NOT NULL, -- 1: called a success by a witness that looked at no certificate
    sessions      BIGINT NOT NULL,
    last          BIGINT NOT NULL, -- microseconds since 1970, UTC
    PRIMARY KEY (org, day, domain, digest)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE outcome;
