-- Version 6: what was let go because too much came, by class and minute.

CREATE TABLE shed (
    name   TEXT NOT NULL,                  -- the topic filter that allows it, or `qos 0`
    minute INTEGER NOT NULL,               -- since 1970
    count  INTEGER NOT NULL,
    PRIMARY KEY (name, minute)
) STRICT, WITHOUT ROWID;
