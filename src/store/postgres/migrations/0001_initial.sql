-- What leadloop keeps. docs/STORAGE.md tells for each table who writes it and how long a row lives.
--
-- Every unique key holds the column that the rows are spread by: the lead, or what is looked up.
-- Numbers are made in the program. There is no sequence, trigger, partial index or foreign key.

CREATE TABLE IF NOT EXISTS leads (
    lead_id int8 PRIMARY KEY,
    seq int8 NOT NULL,
    received_at_ms int8 NOT NULL,
    record bytea NOT NULL
);
CREATE INDEX IF NOT EXISTS leads_by_seq ON leads (seq);

-- What CRMs reported; a raw-lead event is part of its lead.
CREATE TABLE IF NOT EXISTS events (
    lead_id int8 NOT NULL,
    seq int8 NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (lead_id, seq)
);
CREATE INDEX IF NOT EXISTS events_by_seq ON events (seq);

-- What is to be sent; dataset 0 holds what has none.
CREATE TABLE IF NOT EXISTS outbox (
    dataset_id int8 NOT NULL,
    event_time int8 NOT NULL,
    reported bool NOT NULL,
    seq int8 NOT NULL,
    lead_id int8 NOT NULL,
    PRIMARY KEY (dataset_id, event_time, reported, seq, lead_id)
);
CREATE INDEX IF NOT EXISTS outbox_by_lead ON outbox (lead_id);

CREATE TABLE IF NOT EXISTS awaiting (
    lead_id int8 NOT NULL,
    seq int8 NOT NULL,
    event_time int8 NOT NULL,
    tolerance_s int8 NOT NULL,
    PRIMARY KEY (lead_id, seq)
);
CREATE INDEX IF NOT EXISTS awaiting_by_time ON awaiting (event_time);

CREATE TABLE IF NOT EXISTS dead (
    lead_id int8 NOT NULL,
    seq int8 NOT NULL,
    reason int2 NOT NULL,
    at_ms int8 NOT NULL,
    PRIMARY KEY (lead_id, seq)
);
CREATE INDEX IF NOT EXISTS dead_by_seq ON dead (seq);

-- The requests to Meta that an event was part of, numbered from 1.
CREATE TABLE IF NOT EXISTS attempts (
    lead_id int8 NOT NULL,
    seq int8 NOT NULL,
    number int8 NOT NULL,
    delivered bool NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (lead_id, seq, number)
);

CREATE TABLE IF NOT EXISTS erased (
    lead_id int8 PRIMARY KEY,
    at_ms int8 NOT NULL
);

CREATE TABLE IF NOT EXISTS crm_ids (
    crm_id text NOT NULL,
    source text NOT NULL,
    lead_id int8 NOT NULL,
    PRIMARY KEY (crm_id, source)
);
CREATE INDEX IF NOT EXISTS crm_ids_by_lead ON crm_ids (lead_id);

CREATE TABLE IF NOT EXISTS customers (
    lead_id int8 PRIMARY KEY,
    record bytea NOT NULL
);

-- Who is found by the digest of an e-mail address or phone number.
CREATE TABLE IF NOT EXISTS contacts (
    contact bytea NOT NULL,
    lead_id int8 NOT NULL,
    PRIMARY KEY (contact, lead_id)
);

-- Whom an id of our own turned out to be.
CREATE TABLE IF NOT EXISTS found_leads (
    own_id int8 PRIMARY KEY,
    lead_id int8 NOT NULL
);
CREATE INDEX IF NOT EXISTS found_leads_by_lead ON found_leads (lead_id);

CREATE TABLE IF NOT EXISTS idempotency (
    key bytea PRIMARY KEY,
    lead_id int8 NOT NULL,
    seq int8 NOT NULL,
    fingerprint bytea NOT NULL
);
CREATE INDEX IF NOT EXISTS idempotency_by_lead ON idempotency (lead_id);

CREATE TABLE IF NOT EXISTS quarantine (
    digest bytea PRIMARY KEY,
    seq int8 NOT NULL,
    received_at_ms int8 NOT NULL,
    record bytea NOT NULL
);
CREATE INDEX IF NOT EXISTS quarantine_by_seq ON quarantine (seq);

CREATE TABLE IF NOT EXISTS unmapped (
    digest bytea PRIMARY KEY,
    seq int8 NOT NULL,
    source text NOT NULL,
    received_at_ms int8 NOT NULL,
    record bytea NOT NULL
);
CREATE INDEX IF NOT EXISTS unmapped_by_seq ON unmapped (seq);

CREATE TABLE IF NOT EXISTS form_marks (
    form_id int8 PRIMARY KEY,
    record bytea NOT NULL
);

CREATE TABLE IF NOT EXISTS api_keys (
    digest bytea PRIMARY KEY
);

CREATE TABLE IF NOT EXISTS alarms (
    subject text NOT NULL,
    first_at_ms int8 NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (subject, first_at_ms)
);

CREATE TABLE IF NOT EXISTS alarm_conditions (
    kind int2 NOT NULL,
    dataset_id int8 NOT NULL,
    since_ms int8 NOT NULL,
    PRIMARY KEY (kind, dataset_id)
);

-- Facts about the store itself.
CREATE TABLE IF NOT EXISTS meta (
    name text PRIMARY KEY,
    value int8 NOT NULL
);

-- Who works on the database; the slot is part of each number that an instance makes.
CREATE TABLE IF NOT EXISTS instances (
    slot int8 PRIMARY KEY,
    owner int8 NOT NULL,
    seen_at timestamptz NOT NULL
);

-- Who has a duty that one instance at a time has, and until when; the epoch grows with each owner.
CREATE TABLE IF NOT EXISTS leases (
    duty text PRIMARY KEY,
    owner int8 NOT NULL,
    epoch int8 NOT NULL,
    until timestamptz NOT NULL
);
