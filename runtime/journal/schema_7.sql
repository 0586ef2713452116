-- Version 7: every commit is a link of a hash chain over what it added (`chain.py`), so that nothing is changed, added or
-- taken out unnoticed. What was there before is named by the first link, and not covered.

CREATE TABLE chain (
    seq    INTEGER PRIMARY KEY,
    at     REAL NOT NULL,
    covers TEXT NOT NULL,                  -- JSON: [table, first seq, last seq] of what it added; '' = all of it was removed since
    gone   BLOB NOT NULL DEFAULT x'',      -- MessagePack: [table, seq, digest] of its rows that retention removed
    hash   BLOB NOT NULL                   -- SHA-256 of the link before, `at`, `covers` and the digests of the rows
) STRICT;

-- What retention removed: rows of links up to this one that were older than it keeps. Covered by the chain itself.
CREATE TABLE removed (
    seq  INTEGER PRIMARY KEY,
    at   REAL NOT NULL,
    name TEXT NOT NULL,                    -- of the table
    link INTEGER NOT NULL,                 -- rows of links up to this one may be gone
    rows INTEGER NOT NULL,
    why  TEXT NOT NULL
) STRICT;
