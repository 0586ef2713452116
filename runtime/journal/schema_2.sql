-- Version 2: feedback can be taken back. The row stays, for the record; nothing is learnt from it any more.

CREATE TABLE forgotten (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    at          REAL NOT NULL,
    feedback_id TEXT NOT NULL UNIQUE REFERENCES feedback (id),
    by          TEXT NOT NULL,
    body        TEXT NOT NULL
) STRICT;

-- What people said and still stand by.
CREATE VIEW standing AS SELECT * FROM feedback f WHERE NOT EXISTS (SELECT 1 FROM forgotten g WHERE g.feedback_id = f.id);

DROP VIEW example;
CREATE VIEW example AS
SELECT f.seq, f.id, f.decision_id, p.scope, p.text, f.at, f.source,
       CASE WHEN f.kind IN ('correction', 'override', 'preference') THEN f.action ELSE d.action END AS action,
       CASE WHEN f.kind = 'rating' THEN f.rating ELSE 1.0 END AS weight,
       f.kind IN ('correction', 'override', 'preference') AS correction
FROM standing f
JOIN decision d ON d.id = f.decision_id
JOIN percept p ON p.id = d.percept_id
WHERE p.synthetic = 0
  AND f.seq = (
    SELECT max(n.seq) FROM standing n WHERE n.decision_id = f.decision_id AND NOT (n.kind = 'rating' AND EXISTS (
      SELECT 1 FROM standing c WHERE c.decision_id = n.decision_id AND c.kind IN ('correction', 'override', 'preference'))))
  AND NOT (f.kind = 'rating' AND f.rating <= 0);
