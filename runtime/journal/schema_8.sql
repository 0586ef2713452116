-- Version 8: the row of a gap answers for its numbers. `producer.upto` moves past them as soon as the row is there; `heard` has what is
-- beyond that, and what came of a gap that is still open.

CREATE INDEX gap_open ON gap (producer, boot, first) WHERE filled IS NULL;
