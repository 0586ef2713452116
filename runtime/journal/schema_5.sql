-- Version 5: producers that number their messages. What is missing between two numbers is noticed, and named.

CREATE TABLE producer (
    producer TEXT NOT NULL,
    boot     TEXT NOT NULL,                -- a counter that begins anew has another name
    upto     INTEGER NOT NULL,             -- every number from 1 to this one was heard
    PRIMARY KEY (producer, boot)
) STRICT, WITHOUT ROWID;

CREATE TABLE heard (                       -- numbers beyond that
    producer TEXT NOT NULL,
    boot     TEXT NOT NULL,
    number   INTEGER NOT NULL,
    at       REAL NOT NULL,
    PRIMARY KEY (producer, boot, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE gap (
    seq      INTEGER PRIMARY KEY,
    id       TEXT NOT NULL UNIQUE,
    at       REAL NOT NULL,                -- when it was noticed
    producer TEXT NOT NULL,
    boot     TEXT NOT NULL,
    first    INTEGER NOT NULL,
    last     INTEGER NOT NULL,
    filled   REAL,                         -- when the last of it came after all
    body     TEXT NOT NULL
) STRICT;
