-- The journal. One append-only table holds everything that is ever read back; `jobs` holds
-- what was asked, and the index that forbids a second active upgrade (I8).

CREATE TABLE jobs (
    id          TEXT    PRIMARY KEY NOT NULL,
    -- JSON of what was asked and planned; the same text is in the journal's row of kind 'job'.
    body        TEXT    NOT NULL,
    created_ms  INTEGER NOT NULL,
    -- 1 while the upgrade is under way, 0 once it has come to rest.
    active      INTEGER NOT NULL CHECK (active IN (0, 1))
) STRICT;

CREATE UNIQUE INDEX jobs_one_active ON jobs (active) WHERE active = 1;

CREATE TRIGGER jobs_are_kept BEFORE DELETE ON jobs
BEGIN SELECT RAISE(ABORT, 'jobs are never deleted'); END;

CREATE TRIGGER jobs_only_end BEFORE UPDATE ON jobs
WHEN NOT (old.id = new.id AND old.body = new.body AND old.created_ms = new.created_ms)
BEGIN SELECT RAISE(ABORT, 'a job never changes but for being active'); END;

CREATE TABLE journal (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Milliseconds since the epoch, by the host's clock.
    at_ms   INTEGER NOT NULL,
    kind    TEXT    NOT NULL CHECK (kind IN
        ('job', 'hop', 'intent', 'outcome', 'transition', 'end', 'log', 'event')),
    -- The job and the hop (1, 2, …) that it belongs to.
    job     TEXT    REFERENCES jobs (id),
    hop     INTEGER,
    -- Of an event: its type and status (contract section 1). Of an intent and an outcome: the
    -- step. Of a transition: its event.
    name    TEXT,
    status  TEXT,
    -- JSON, but for a log line, which is text.
    body    TEXT    NOT NULL,
    -- Hex sha256 of the hash before it and this row, see src/journal/chain.rs.
    hash    TEXT    NOT NULL
) STRICT;

CREATE INDEX journal_of_job ON journal (job, kind, seq);
CREATE INDEX journal_events ON journal (name COLLATE NOCASE, status COLLATE NOCASE, seq) WHERE kind = 'event';
CREATE INDEX journal_all_events ON journal (seq) WHERE kind = 'event';

CREATE TRIGGER journal_is_append_only_update BEFORE UPDATE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

CREATE TRIGGER journal_is_append_only_delete BEFORE DELETE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
