-- Named queries: each begins with a line `-- name: ...`; parameters are named.

-- name: unperceived
SELECT body, payload FROM observation WHERE perceived = 0 ORDER BY seq;

-- What a run leaves unfinished lies within its last hour, however long ago that was.
-- name: undecided
SELECT p.body FROM percept p LEFT JOIN decision d ON d.percept_id = p.id
WHERE p.at >= (SELECT max(at) FROM percept) - 3600 AND d.id IS NULL ORDER BY p.seq;

-- name: unacted
SELECT d.body FROM decision d
WHERE d.at >= (SELECT max(at) FROM decision) - 3600
  AND NOT EXISTS (SELECT 1 FROM command c WHERE c.decision_id = d.id)
  AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.decision_id = d.id)
ORDER BY d.seq;

-- name: unsettled
SELECT c.body, coalesce((SELECT o.status FROM outcome o WHERE o.command_id = c.id ORDER BY o.seq DESC LIMIT 1), '') AS status
FROM command c
WHERE coalesce((SELECT o.status FROM outcome o WHERE o.command_id = c.id ORDER BY o.seq DESC LIMIT 1), '') IN ('', 'held')
ORDER BY c.seq;

-- name: decision
SELECT body FROM decision WHERE id = :id;

-- name: percept
SELECT body FROM percept WHERE id = :id;

-- name: feedback_of
SELECT body FROM feedback WHERE decision_id = :id ORDER BY seq;

-- name: outcomes_of
SELECT body FROM outcome WHERE decision_id = :id ORDER BY seq;

-- name: commands_of
SELECT body FROM command WHERE decision_id = :id ORDER BY seq;

-- name: decisions
SELECT d.body FROM decision d JOIN percept p ON p.id = d.percept_id
WHERE p.synthetic = 0
  AND (:before IS NULL OR d.seq < (SELECT seq FROM decision WHERE id = :before))
  AND (:scope IS NULL OR d.scope = :scope)
ORDER BY d.seq DESC LIMIT :limit;

-- name: corrections
WITH word AS (
  SELECT f.seq, f.id, p.scope, p.text, f.at, f.source, f.kind, f.action, d.action AS decided,
         max(CASE WHEN f.kind <> 'acceptance' THEN f.seq END) OVER (PARTITION BY p.scope, p.text) AS last
  FROM standing f JOIN decision d ON d.id = f.decision_id JOIN percept p ON p.id = d.percept_id
  WHERE p.synthetic = 0 AND f.kind IN ('correction', 'override', 'acceptance'))
SELECT id, scope, text, at, source, action, 1.0, 1 FROM word e
WHERE seq = last AND NOT EXISTS (
  SELECT 1 FROM word n WHERE n.scope = e.scope AND n.text = e.text AND n.seq > e.seq AND n.decided <> e.action)
ORDER BY seq;

-- name: feedback
SELECT body FROM feedback WHERE id = :id;

-- name: examples
SELECT id, scope, text, at, source, action, weight, correction, rejected, reward FROM (
    SELECT e.seq, e.id, e.scope, e.text, e.at, e.source, e.action, e.weight, e.correction, 1.0 AS reward, coalesce(json_extract(f.body, '$.rejected'), CASE WHEN e.correction AND d.by <> 'doubt' THEN d.action END) AS rejected
    FROM example e JOIN feedback f ON f.id = e.id JOIN decision d ON d.id = f.decision_id
    UNION ALL
    SELECT f.seq, f.id, p.scope, p.text, f.at, f.source, d.action, -f.rating, 0, f.rating, NULL
    FROM standing f JOIN decision d ON d.id = f.decision_id JOIN percept p ON p.id = d.percept_id
    WHERE :disliked AND p.synthetic = 0 AND f.kind = 'rating' AND f.rating < 0
      AND f.seq = (SELECT max(n.seq) FROM standing n WHERE n.decision_id = f.decision_id)
) ORDER BY at DESC, seq DESC LIMIT :limit;

-- name: example_on
SELECT id, scope, text, at, source, action, weight, correction FROM example WHERE decision_id = :id;

-- What is to be forgotten: of a decision, of a source, or of a time.
-- name: standing
SELECT id FROM standing WHERE (:decision_id = '' OR decision_id = :decision_id) AND (:source = '' OR source = :source)
  AND at >= :since AND at < :until ORDER BY seq;

-- name: forgotten
SELECT feedback_id FROM forgotten ORDER BY seq;

-- name: feedback_since
SELECT count(*) FROM feedback WHERE at > :at;

-- name: releases
SELECT body FROM release WHERE lane = :lane ORDER BY seq DESC LIMIT :limit;

-- name: cycles
SELECT body FROM cycle ORDER BY seq DESC LIMIT :limit;

-- name: cycle
SELECT body FROM cycle WHERE id = :id;

-- name: quarantine
SELECT body, payload FROM quarantined ORDER BY seq DESC LIMIT :limit;

-- name: last_observations
SELECT body, payload FROM observation WHERE seq IN (SELECT max(seq) FROM observation WHERE perceived = 1 GROUP BY topic);

-- name: metadata
SELECT value FROM metadata WHERE key = :key;

-- name: judged
SELECT f.kind, d.action = f.action AS same FROM feedback f JOIN decision d ON d.id = f.decision_id
WHERE f.kind IN ('correction', 'override', 'acceptance') AND d.by <> 'doubt' ORDER BY f.seq;

-- name: complaints
SELECT EXISTS (SELECT 1 FROM standing f WHERE f.decision_id = d.id
               AND (f.kind IN ('correction', 'override') OR (f.kind = 'rating' AND f.rating < 0)))
FROM decision d JOIN percept p ON p.id = d.percept_id
WHERE d.adapter = :adapter AND d.by IN ('model', 'memory') AND p.synthetic = 0
  AND (d.at <= :settled OR EXISTS (SELECT 1 FROM feedback f WHERE f.decision_id = d.id))
ORDER BY d.seq DESC LIMIT :limit;

-- Of the newest situations up to a time, each text of a scope once.
-- name: situations
SELECT scope, text FROM (
  SELECT scope, text, seq FROM percept WHERE synthetic = 0 AND at <= :until ORDER BY seq DESC LIMIT :among
) GROUP BY scope, text ORDER BY max(seq) DESC;
