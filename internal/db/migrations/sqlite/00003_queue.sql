-- +goose Up
-- A message as it was accepted.
CREATE TABLE message (
    org          TEXT   NOT NULL REFERENCES organisation (id),
    id           TEXT   NOT NULL,
    sender       TEXT   NOT NULL, -- reverse path; empty: null sender
    received     BIGINT NOT NULL, -- microseconds since 1970, UTC, like every time here
    size         BIGINT NOT NULL,
    body_type    TEXT   NOT NULL, -- 7BIT, 8BITMIME
    smtputf8     BIGINT NOT NULL,
    requiretls   BIGINT NOT NULL,
    tls_optional BIGINT NOT NULL, -- TLS-Required: No, granted
    envid        TEXT   NOT NULL,
    ret          TEXT   NOT NULL,
    client       TEXT   NOT NULL,
    spooled      BIGINT NOT NULL, -- the body is a file of the spool, while it is needed
    incoming     BIGINT NOT NULL, -- not accepted yet: parts of its body are still being written
    PRIMARY KEY (org, id)
) WITHOUT ROWID;
CREATE INDEX message_spooled ON message (id) WHERE spooled = 1;
CREATE INDEX message_incoming ON message (received) WHERE incoming = 1;

-- A body in wire form (CRLF), in parts from 0 on, until every delivery of its
-- message has ended.
CREATE TABLE body (
    org     TEXT   NOT NULL,
    message TEXT   NOT NULL,
    part    BIGINT NOT NULL,
    data    BLOB   NOT NULL,
    PRIMARY KEY (org, message, part)
);

-- One row for each destination domain of a message. Its id is the message's but
-- for the last four digits, so that the deliveries of a message lie together.
CREATE TABLE delivery (
    org        TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    message    TEXT   NOT NULL,
    domain     TEXT   NOT NULL,
    recipients TEXT   NOT NULL, -- JSON
    state      TEXT   NOT NULL, -- queued, held, delivered, failed, dropped
    version    BIGINT NOT NULL, -- one more with each change by an attempt or by hand
    attempts   BIGINT NOT NULL,
    next       BIGINT NOT NULL, -- tried from then on, once its destination's gate is open
    expires    BIGINT NOT NULL,
    lease      TEXT   NOT NULL, -- owner of the lease it is under; empty: free
    by_policy  BIGINT NOT NULL,
    why        TEXT   NOT NULL,
    advice     TEXT   NOT NULL,
    updated    BIGINT NOT NULL,
    ended      BIGINT NOT NULL, -- 0: it waits
    PRIMARY KEY (org, id)
) WITHOUT ROWID;
CREATE INDEX delivery_due ON delivery (org, domain, next, expires) WHERE state = 'queued';
CREATE INDEX delivery_queued ON delivery (org, id) WHERE state = 'queued';
CREATE INDEX delivery_ended ON delivery (ended) WHERE ended > 0;
-- These hold few rows, and cost nothing on the way of mail that simply goes.
CREATE INDEX delivery_held ON delivery (org, id, domain) WHERE state = 'held';
CREATE INDEX delivery_failed ON delivery (org, id, domain) WHERE state = 'failed';
CREATE INDEX delivery_dropped ON delivery (org, id, domain) WHERE state = 'dropped';
CREATE INDEX delivery_policy ON delivery (org, id, domain) WHERE state = 'queued' AND by_policy = 1;

-- The flight recorder: one row for each attempt, and for each act by hand.
CREATE TABLE attempt (
    org      TEXT NOT NULL,
    delivery TEXT NOT NULL,
    id       TEXT NOT NULL,
    story    TEXT NOT NULL, -- JSON
    PRIMARY KEY (org, delivery, id)
);

-- What is known of a destination. While none of its hosts can be used its mail
-- waits behind a gate, and one delivery is tried when that opens.
CREATE TABLE destination (
    org       TEXT   NOT NULL,
    domain    TEXT   NOT NULL,
    reached   BIGINT NOT NULL, -- a host was used then, give or take half an hour
    down      BIGINT NOT NULL, -- how many times in a row no host could be used
    until     BIGINT NOT NULL, -- the gate is closed
    by_policy BIGINT NOT NULL,
    why       TEXT   NOT NULL,
    advice    TEXT   NOT NULL,
    PRIMARY KEY (org, domain)
) WITHOUT ROWID;
CREATE INDEX destination_policy ON destination (org, domain) WHERE by_policy = 1;

-- The processes that lease deliveries from a database that several share.
CREATE TABLE lease (
    owner TEXT   NOT NULL PRIMARY KEY,
    node  TEXT   NOT NULL, -- its name, for people
    until BIGINT NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE lease;
DROP TABLE destination;
DROP TABLE attempt;
DROP TABLE delivery;
DROP TABLE body;
DROP TABLE message;
