-- The journal: everything Corrigible saw, decided, did, was told and learnt. One writer; rows are never changed, except
-- a cycle while it runs and an observation's `perceived`. `body` is the whole message as JSON; the columns beside it are
-- for searching and for people.

CREATE TABLE observation (
    seq       INTEGER PRIMARY KEY,
    id        TEXT NOT NULL UNIQUE,        -- dedupe key
    at        REAL NOT NULL,               -- UTC seconds
    topic     TEXT NOT NULL,
    source    TEXT NOT NULL,
    payload   BLOB NOT NULL,
    perceived INTEGER NOT NULL DEFAULT 0,  -- 1: absorbed into the state of the world
    body      TEXT NOT NULL
) STRICT;
CREATE INDEX observation_waiting ON observation (seq) WHERE perceived = 0;
CREATE INDEX observation_topic ON observation (topic, seq);

CREATE TABLE percept (
    seq       INTEGER PRIMARY KEY,
    id        TEXT NOT NULL UNIQUE,        -- derived from what woke it
    at        REAL NOT NULL,
    scope     TEXT NOT NULL,
    text      TEXT NOT NULL,               -- what the model reads
    synthetic INTEGER NOT NULL,            -- 1: a rehearsal
    body      TEXT NOT NULL
) STRICT;
CREATE INDEX percept_at ON percept (at);

CREATE TABLE decision (
    seq        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    percept_id TEXT NOT NULL UNIQUE REFERENCES percept (id),
    at         REAL NOT NULL,
    scope      TEXT NOT NULL,
    action     TEXT NOT NULL,              -- JSON of the first action
    by         TEXT NOT NULL,              -- model, memory, table, rule, fallback
    adapter    TEXT NOT NULL,              -- what was serving
    p_model    REAL,
    p_behaviour REAL NOT NULL,
    body       TEXT NOT NULL
) STRICT;
CREATE INDEX decision_scope ON decision (scope, seq);
CREATE INDEX decision_at ON decision (at);

CREATE TABLE command (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    decision_id TEXT NOT NULL REFERENCES decision (id),
    at          REAL NOT NULL,
    actuator    TEXT NOT NULL,
    action      TEXT NOT NULL,
    expires_at  REAL NOT NULL,
    body        TEXT NOT NULL
) STRICT;
CREATE INDEX command_decision ON command (decision_id);

CREATE TABLE outcome (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    decision_id TEXT NOT NULL REFERENCES decision (id),
    command_id  TEXT,
    at          REAL NOT NULL,
    status      TEXT NOT NULL,
    reason      TEXT NOT NULL,
    body        TEXT NOT NULL
) STRICT;
CREATE INDEX outcome_decision ON outcome (decision_id, seq);
CREATE INDEX outcome_command ON outcome (command_id, seq);

CREATE TABLE feedback (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    decision_id TEXT NOT NULL REFERENCES decision (id),
    at          REAL NOT NULL,
    kind        TEXT NOT NULL,
    source      TEXT NOT NULL,
    action      TEXT,
    rating      REAL,
    body        TEXT NOT NULL
) STRICT;
CREATE INDEX feedback_decision ON feedback (decision_id, seq);
CREATE INDEX feedback_at ON feedback (at);

CREATE TABLE cycle (
    seq        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    started_at REAL NOT NULL,
    state      TEXT NOT NULL,
    reason     TEXT NOT NULL,
    examples   INTEGER NOT NULL,
    adapter    TEXT NOT NULL,
    body       TEXT NOT NULL
) STRICT;

CREATE TABLE release (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    at          REAL NOT NULL,
    lane        TEXT NOT NULL,
    adapter     TEXT NOT NULL,
    previous    TEXT NOT NULL,
    why         TEXT NOT NULL,
    provisional INTEGER NOT NULL,
    body        TEXT NOT NULL
) STRICT;
CREATE INDEX release_lane ON release (lane, seq);

CREATE TABLE quarantined (
    seq     INTEGER PRIMARY KEY,
    id      TEXT NOT NULL UNIQUE,
    at      REAL NOT NULL,
    topic   TEXT NOT NULL,
    reason  TEXT NOT NULL,
    size    INTEGER NOT NULL,              -- bytes; the payload kept is at most 64 KiB
    sha256  TEXT NOT NULL,
    payload BLOB NOT NULL,
    body    TEXT NOT NULL
) STRICT;

CREATE TABLE metadata (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL                    -- JSON
) STRICT;

-- The newest word on each decision, and what the learner makes of it: `example` is derived, never a second copy.
-- A rating is no word where somebody also said what would have been right.
CREATE VIEW example AS
SELECT f.seq, f.id, p.scope, p.text, f.at, f.source,
       CASE WHEN f.kind IN ('correction', 'override', 'preference') THEN f.action ELSE d.action END AS action,
       CASE WHEN f.kind = 'rating' THEN f.rating ELSE 1.0 END AS weight,
       f.kind IN ('correction', 'override', 'preference') AS correction
FROM feedback f
JOIN decision d ON d.id = f.decision_id
JOIN percept p ON p.id = d.percept_id
WHERE p.synthetic = 0
  AND f.seq = (
    SELECT max(n.seq) FROM feedback n WHERE n.decision_id = f.decision_id AND NOT (n.kind = 'rating' AND EXISTS (
      SELECT 1 FROM feedback c WHERE c.decision_id = n.decision_id AND c.kind IN ('correction', 'override', 'preference'))))
  AND NOT (f.kind = 'rating' AND f.rating <= 0);

-- For people: `SELECT * FROM v_decisions LIMIT 20;`
CREATE VIEW v_decisions AS
SELECT datetime(d.at, 'unixepoch', 'localtime') AS time, d.id, d.scope, p.text AS situation, d.action, d.by, d.adapter,
       round(d.p_model, 3) AS p,
       (SELECT o.status FROM outcome o WHERE o.decision_id = d.id ORDER BY o.seq DESC LIMIT 1) AS outcome,
       (SELECT group_concat(f.kind) FROM feedback f WHERE f.decision_id = d.id) AS feedback
FROM decision d JOIN percept p ON p.id = d.percept_id ORDER BY d.seq DESC;

CREATE VIEW v_feedback AS
SELECT datetime(f.at, 'unixepoch', 'localtime') AS time, f.kind, f.source, p.scope, p.text AS situation,
       d.action AS decided, f.action AS right_action, f.rating, f.decision_id
FROM feedback f JOIN decision d ON d.id = f.decision_id JOIN percept p ON p.id = d.percept_id ORDER BY f.seq DESC;

CREATE VIEW v_learning AS
SELECT datetime(started_at, 'unixepoch', 'localtime') AS time, id, state, examples, adapter, reason
FROM cycle ORDER BY seq DESC;

CREATE VIEW v_releases AS
SELECT datetime(at, 'unixepoch', 'localtime') AS time, adapter, previous, why, provisional FROM release ORDER BY seq DESC;

CREATE VIEW v_timeline AS
SELECT at, datetime(at, 'unixepoch', 'localtime') AS time, 'observation' AS what, topic || ' ' || CAST(substr(payload, 1, 80) AS TEXT) AS detail FROM observation
UNION ALL SELECT at, datetime(at, 'unixepoch', 'localtime'), 'decision', scope || ': ' || action || ' by ' || by FROM decision
UNION ALL SELECT at, datetime(at, 'unixepoch', 'localtime'), 'outcome', status || ' ' || reason FROM outcome
UNION ALL SELECT at, datetime(at, 'unixepoch', 'localtime'), 'feedback', kind || ' by ' || source FROM feedback
UNION ALL SELECT at, datetime(at, 'unixepoch', 'localtime'), 'release', adapter || ' (' || why || ')' FROM release
ORDER BY 1 DESC;
