-- Named queries: each begins with a line `-- name: ...`; parameters are named.

-- name: unperceived
SELECT body, payload FROM observation WHERE perceived = 0 ORDER BY seq;

-- What a run leaves unfinished lies within its last hour, however long ago that was.
-- name: undecided
SELECT p.body FROM percept p LEFT JOIN decision d ON d.percept_id = p.id
WHERE p.seq >= (SELECT min(seq) FROM percept WHERE at >= (SELECT max(at) FROM percept) - 3600) AND d.id IS NULL ORDER BY p.seq;

-- name: unacted
SELECT d.body FROM decision d
WHERE d.seq >= (SELECT min(seq) FROM decision WHERE at >= (SELECT max(at) FROM decision) - 3600)
  AND NOT EXISTS (SELECT 1 FROM command c WHERE c.decision_id = d.id)
  AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.decision_id = d.id)
ORDER BY d.seq;

-- Open ones are among the newest: what is open for longer has been denied or has expired, and that is an end.
-- name: unsettled
SELECT c.body, coalesce((SELECT o.status FROM outcome o WHERE o.command_id = c.id ORDER BY o.seq DESC LIMIT 1), '') AS status
FROM command c
WHERE c.seq > (SELECT max(seq) FROM command) - 10000 AND coalesce((SELECT o.status FROM outcome o WHERE o.command_id = c.id ORDER BY o.seq DESC LIMIT 1), '') IN ('', 'held', 'sending')
ORDER BY c.seq;

-- name: uncertain
SELECT c.body FROM outcome o JOIN command c ON c.id = o.command_id
WHERE o.status = 'uncertain' AND NOT EXISTS (SELECT 1 FROM outcome n WHERE n.command_id = c.id AND n.seq > o.seq)
ORDER BY o.seq DESC LIMIT :limit;

-- name: uncertain_one
SELECT c.body FROM command c WHERE c.id = :id
  AND (SELECT o.status FROM outcome o WHERE o.command_id = c.id ORDER BY o.seq DESC LIMIT 1) = 'uncertain';

-- name: commanded
SELECT c.body FROM command c
WHERE c.actuator = :actuator
  AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.command_id = c.id AND o.status IN ('refused', 'denied'))
ORDER BY c.seq DESC LIMIT :limit;

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

-- The limit stands inside, too, so that the newest are read and not the whole past.
-- name: examples
SELECT id, scope, text, at, source, action, weight, correction, rejected, reward FROM (
    SELECT * FROM (
    SELECT e.seq, e.id, e.scope, e.text, e.at, e.source, e.action, e.weight, e.correction, 1.0 AS reward, coalesce(json_extract(f.body, '$.rejected'), CASE WHEN e.correction AND d.by <> 'doubt' THEN d.action END) AS rejected
    FROM example e JOIN feedback f ON f.id = e.id JOIN decision d ON d.id = f.decision_id
    ORDER BY e.seq DESC LIMIT :limit)
    UNION ALL
    SELECT * FROM (
      SELECT f.seq, f.id, p.scope, p.text, f.at, f.source, d.action, -f.rating, 0, f.rating, NULL
      FROM standing f CROSS JOIN decision d ON d.id = f.decision_id CROSS JOIN percept p ON p.id = d.percept_id
      WHERE :disliked AND p.synthetic = 0 AND f.kind = 'rating' AND f.rating < 0
        AND f.seq = (SELECT max(n.seq) FROM standing n WHERE n.decision_id = f.decision_id)
      ORDER BY f.seq DESC LIMIT :limit)
) ORDER BY at DESC, seq DESC LIMIT :limit;

-- As `examples`, but of everybody who spoke about a decision the newest word: people may disagree.
-- name: words
SELECT id, scope, text, at, source, action, weight, correction, rejected, reward FROM (
    SELECT * FROM (
    SELECT f.seq, f.id, p.scope, p.text, f.at, f.source,
           CASE WHEN f.kind IN ('correction', 'override', 'preference') THEN f.action ELSE d.action END AS action,
           CASE WHEN f.kind = 'rating' THEN f.rating ELSE 1.0 END AS weight,
           f.kind IN ('correction', 'override', 'preference') AS correction, 1.0 AS reward,
           coalesce(json_extract(f.body, '$.rejected'), CASE WHEN f.kind IN ('correction', 'override', 'preference') AND d.by <> 'doubt' THEN d.action END) AS rejected
    FROM standing f CROSS JOIN decision d ON d.id = f.decision_id CROSS JOIN percept p ON p.id = d.percept_id
    WHERE p.synthetic = 0 AND NOT (f.kind = 'rating' AND f.rating <= 0)
      AND f.seq = (
        SELECT max(n.seq) FROM standing n WHERE n.decision_id = f.decision_id AND n.source = f.source AND NOT (n.kind = 'rating' AND EXISTS (
          SELECT 1 FROM standing c WHERE c.decision_id = n.decision_id AND c.kind IN ('correction', 'override', 'preference'))))
    ORDER BY f.seq DESC LIMIT :limit)
    UNION ALL
    SELECT * FROM (
      SELECT f.seq, f.id, p.scope, p.text, f.at, f.source, d.action, -f.rating, 0, f.rating, NULL
      FROM standing f CROSS JOIN decision d ON d.id = f.decision_id CROSS JOIN percept p ON p.id = d.percept_id
      WHERE :disliked AND p.synthetic = 0 AND f.kind = 'rating' AND f.rating < 0
        AND f.seq = (SELECT max(n.seq) FROM standing n WHERE n.decision_id = f.decision_id)
      ORDER BY f.seq DESC LIMIT :limit)
) ORDER BY at DESC, seq DESC LIMIT :limit;

-- How much each has said, and still stands by.
-- name: sources
SELECT source, count(*) FROM standing GROUP BY source ORDER BY count(*) DESC, source;

-- name: example_on
SELECT id, scope, text, at, source, action, weight, correction FROM example WHERE decision_id = :id;

-- What is to be forgotten: one word or all of a decision, of a source, or of a time.
-- name: standing
SELECT id FROM standing WHERE (:decision_id = '' OR :decision_id IN (decision_id, id)) AND (:source = '' OR source = :source)
  AND at >= :since AND at < :until ORDER BY seq;

-- name: forgotten
SELECT feedback_id FROM forgotten ORDER BY seq;

-- name: feedback_since
SELECT count(*) FROM feedback WHERE at > :at;

-- name: learnt_at
SELECT coalesce(max(started_at), 0.0) FROM cycle WHERE state IN ('released', 'provisional', 'rejected');

-- Decisions that chance had a part in, and what people said of them.
-- name: chosen_by_chance
SELECT d.body, p.text, f.body FROM standing f JOIN decision d ON d.id = f.decision_id JOIN percept p ON p.id = d.percept_id
WHERE p.synthetic = 0 AND d.by IN ('model', 'memory')
  AND (d.p_behaviour < 1 OR d.id IN (SELECT value FROM json_each(:shared)))
ORDER BY f.seq DESC LIMIT :limit;

-- name: releases
SELECT body FROM release WHERE lane = :lane ORDER BY seq DESC LIMIT :limit;

-- name: cycles
SELECT body FROM cycle ORDER BY seq DESC LIMIT :limit;

-- name: cycle
SELECT body FROM cycle WHERE id = :id;

-- name: quarantine
SELECT body, payload FROM quarantined ORDER BY seq DESC LIMIT :limit;

-- name: last_observations
WITH RECURSIVE topics (topic) AS (  -- from one to the next by the index, not past every row
  SELECT min(topic) FROM observation
  UNION ALL SELECT (SELECT min(o.topic) FROM observation o WHERE o.topic > topics.topic) FROM topics WHERE topics.topic IS NOT NULL)
SELECT o.body, o.payload FROM topics JOIN observation o ON o.seq = (
  SELECT n.seq FROM observation n WHERE n.topic = topics.topic AND n.perceived = 1 ORDER BY n.seq DESC LIMIT 1);

-- name: heard
SELECT p.producer, p.boot, p.upto, NULL FROM producer p
UNION ALL SELECT h.producer, h.boot, 0, h.number FROM heard h;

-- name: shed
SELECT name, SUM(count) FROM shed WHERE minute >= :since GROUP BY name ORDER BY name;

-- name: gaps
SELECT body FROM gap ORDER BY seq DESC LIMIT :limit;

-- name: open_gaps
SELECT body FROM gap WHERE filled IS NULL ORDER BY producer, boot, first;

-- name: metadata
SELECT value FROM metadata WHERE key = :key;

-- name: judged
SELECT f.kind, d.action = f.action AS same FROM feedback f JOIN decision d ON d.id = f.decision_id
WHERE f.kind IN ('correction', 'override', 'acceptance') AND d.by <> 'doubt' ORDER BY f.seq;

-- The newest decisions of a scope, with what became of them and people's words, newest first, ratings last. Of versions that were
-- taken back nothing counts.
-- name: witnessed
SELECT d.seq, d.at, d.action, d.status, coalesce(f.id, ''), coalesce(f.source, ''),
       CASE WHEN f.kind IN ('correction', 'override') THEN f.action WHEN f.kind = 'acceptance' OR f.rating > 0 THEN d.action END,
       CASE WHEN f.id IS NULL THEN json_extract(d.body, '$.fields') END
FROM (
  SELECT d.seq, d.id, d.at, d.action, p.body,
         (SELECT o.status FROM outcome o WHERE o.decision_id = d.id ORDER BY o.seq DESC LIMIT 1) AS status
  FROM decision d JOIN percept p ON p.id = d.percept_id
  WHERE d.scope = :scope AND p.synthetic = 0 AND d.by NOT IN ('fallback', 'doubt') AND status IS NOT NULL
    AND (d.adapter = (SELECT adapter FROM release ORDER BY seq DESC LIMIT 1) OR d.adapter NOT IN (
      SELECT before FROM (SELECT adapter, why, lag(adapter) OVER (ORDER BY seq) AS before FROM release)
      WHERE why IN ('rollback', 'probation', 'forget') AND before <> adapter))
  ORDER BY d.seq DESC LIMIT :limit
) d LEFT JOIN standing f ON f.decision_id = d.id AND f.kind <> 'preference'
ORDER BY d.seq, f.kind = 'rating', f.seq DESC;

-- Of the newest decisions up to the last that somebody spoke of: did people correct it? Whoever speaks has seen those before.
-- name: corrected
SELECT EXISTS (SELECT 1 FROM standing f WHERE f.decision_id = d.id
               AND ((f.kind IN ('correction', 'override') AND f.action <> d.action) OR (f.kind = 'rating' AND f.rating < 0)))
FROM decision d JOIN percept p ON p.id = d.percept_id
WHERE d.at > :since AND d.by IN ('model', 'memory', 'table') AND p.synthetic = 0
  AND d.seq <= (SELECT s.seq FROM decision s WHERE EXISTS (SELECT 1 FROM standing f WHERE f.decision_id = s.id) ORDER BY s.seq DESC LIMIT 1)
ORDER BY d.seq DESC LIMIT :limit;

-- Of the newest decisions of a version (and the memory beside it), up to the last that somebody spoke of or that is settled: what
-- people said. Whoever speaks has seen those before; silence about them counts, or complaints would be nearly all that is seen.
-- name: lived
SELECT d.id, d.scope, d.text, d.action, s.body FROM (
  SELECT d.seq, d.id, p.scope, p.text, d.action FROM decision d JOIN percept p ON p.id = d.percept_id
  WHERE d.adapter = :adapter AND d.at >= :since AND d.by IN ('model', 'memory') AND p.synthetic = 0
    AND (d.at <= :settled OR d.seq <= (
      SELECT s.seq FROM decision s WHERE EXISTS (SELECT 1 FROM standing f WHERE f.decision_id = s.id) ORDER BY s.seq DESC LIMIT 1))
  ORDER BY d.seq DESC LIMIT :limit
) d LEFT JOIN standing s ON s.decision_id = d.id ORDER BY d.seq, s.seq;

-- Decisions as people took them, newest first: what was spoken, what was decided, and the newest word and rating on it.
-- name: turns
SELECT d.seq, d.id, d.at, d.scope, d.adapter, d.by = 'doubt', d.action,
       coalesce((SELECT CASE f.kind WHEN 'acceptance' THEN d.action ELSE f.action END FROM standing f
                 WHERE f.decision_id = d.id AND f.kind IN ('correction', 'override', 'acceptance')
                 ORDER BY f.seq DESC LIMIT 1), ''),
       (SELECT f.rating FROM standing f WHERE f.decision_id = d.id AND f.kind = 'rating' ORDER BY f.seq DESC LIMIT 1),
       CASE json_extract(p.body, '$.kind') WHEN 'speech' THEN coalesce(json_extract(p.body, '$.fields.says'), p.text) ELSE '' END,
       CAST(coalesce(json_extract(p.body, '$.fields.who'), '') AS TEXT)
FROM decision d JOIN percept p ON p.id = d.percept_id
WHERE p.synthetic = 0 AND d.seq < :before ORDER BY d.seq DESC LIMIT :limit;

-- Of the newest situations up to a time, each text of a scope once.
-- name: situations
SELECT scope, text FROM (
  SELECT scope, text, seq FROM percept WHERE synthetic = 0 AND at <= :until ORDER BY seq DESC LIMIT :among
) GROUP BY scope, text ORDER BY max(seq) DESC;

-- What a person ought to know (`runtime.notices`), newest first.
-- name: notices
SELECT value FROM metadata WHERE key > 'notice ' AND key < 'notice!' ORDER BY value ->> 'at' DESC LIMIT :limit;

-- How the daemon stood and stands (`runtime.condition`), newest first.
-- name: transitions
SELECT value FROM metadata WHERE key > 'transition ' AND key < 'transition:' ORDER BY key DESC LIMIT :limit;
