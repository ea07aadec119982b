-- +goose Up
-- TLS-RPT reports that are due, under way or done: one for each recipient domain
-- and UTC day with outcomes.
CREATE TABLE report (
    org       TEXT   NOT NULL REFERENCES organisation (id),
    day       TEXT   NOT NULL, -- UTC, 2026-01-31
    domain    TEXT   NOT NULL, -- recipient domain
    id        TEXT   NOT NULL, -- the left part of its report-id
    state     TEXT   NOT NULL, -- waiting, sending, sent, failed, skipped
    why       TEXT   NOT NULL, -- why it failed or was skipped
    next      BIGINT NOT NULL, -- when something is to be done; microseconds since 1970, UTC
    deadline  BIGINT NOT NULL, -- until when it is tried; 0: not tried yet
    attempts  BIGINT NOT NULL, -- lookups of the record that failed
    successes BIGINT NOT NULL,
    failures  BIGINT NOT NULL,
    body      BLOB  NOT NULL, -- gzip; empty before it is built and after it is done
    lease     TEXT   NOT NULL, -- which process works on it
    leased    BIGINT NOT NULL, -- until when
    updated   BIGINT NOT NULL,
    PRIMARY KEY (org, day, domain)
) WITHOUT ROWID;
CREATE INDEX report_due ON report (next) WHERE state IN ('waiting', 'sending');

-- Where a report goes: one for each rua of the domain's record.
CREATE TABLE report_delivery (
    org      TEXT   NOT NULL,
    day      TEXT   NOT NULL,
    domain   TEXT   NOT NULL,
    rua      TEXT   NOT NULL,
    host     TEXT   NOT NULL, -- the mailbox's domain or the URL's host
    state    TEXT   NOT NULL, -- waiting, sending, handed, accepted, failed, suppressed, capped, unknown
    attempts BIGINT NOT NULL,
    next     BIGINT NOT NULL,
    tried    BIGINT NOT NULL, -- when last
    answer   TEXT   NOT NULL, -- what the other side said last
    PRIMARY KEY (org, day, domain, rua)
) WITHOUT ROWID;
CREATE INDEX report_delivery_host ON report_delivery (org, host, tried);

-- How much went to one host in a UTC day, retries included.
CREATE TABLE report_flow (
    org     TEXT   NOT NULL,
    day     TEXT   NOT NULL,
    host    TEXT   NOT NULL,
    reports BIGINT NOT NULL,
    bytes   BIGINT NOT NULL,
    PRIMARY KEY (org, day, host)
) WITHOUT ROWID;

-- Destinations that take no reports, and domains that are to get none.
CREATE TABLE report_suppression (
    org      TEXT   NOT NULL,
    kind     TEXT   NOT NULL, -- rua, domain
    subject  TEXT   NOT NULL,
    failures BIGINT NOT NULL, -- reports in a row that a rua refused
    since    BIGINT NOT NULL,
    until    BIGINT NOT NULL, -- 0: not suppressed (yet)
    why      TEXT   NOT NULL,
    who      TEXT   NOT NULL, -- empty: pawl itself
    PRIMARY KEY (org, kind, subject)
) WITHOUT ROWID;

-- Differences between nodes or days that were told of.
CREATE TABLE outcome_finding (
    org    TEXT NOT NULL,
    day    TEXT NOT NULL,
    domain TEXT NOT NULL,
    mx     TEXT NOT NULL,
    kind   TEXT NOT NULL,
    PRIMARY KEY (org, day, domain, mx, kind)
) WITHOUT ROWID;

-- Mail whose sessions are not counted: reports never cause reports.
ALTER TABLE message ADD COLUMN uncounted BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE message DROP COLUMN uncounted;
DROP TABLE outcome_finding;
DROP TABLE report_suppression;
DROP TABLE report_flow;
DROP TABLE report_delivery;
DROP TABLE report;
