-- min_code_version: 0.1.0
--
-- The registry's tables. The PostgreSQL schema `registry` exists already: the migrations' own table is in it.
-- Names compare by code points (COLLATE "C"), so order and equality are the same on every machine.

-- Ids fit the four signed bytes of existing wire formats. Gaps are allowed; no id is ever issued twice, so no CYCLE.
CREATE SEQUENCE registry.schema_ids AS integer MINVALUE 1 MAXVALUE 2147483647 NO CYCLE;

-- Content, once. Without a text it is a tombstone: purged, but its id and identity stay taken.
CREATE TABLE registry.schemas (
    id integer PRIMARY KEY CHECK (id > 0),
    format smallint NOT NULL CHECK (format > 0),
    text text,
    identity bytea NOT NULL UNIQUE CHECK (octet_length(identity) > 1),
    semantic bytea NOT NULL CHECK (octet_length(semantic) > 1),
    create_time timestamptz NOT NULL,
    dialect text COLLATE "C" NOT NULL
);
CREATE INDEX schemas_semantic ON registry.schemas (semantic, id) WHERE text IS NOT NULL;

-- A content's references as first registered. The target stays right when the version that was named is purged, and
-- cannot vanish: the target's content lives as long as a version with this content does.
CREATE TABLE registry.schema_references (
    schema_id integer NOT NULL REFERENCES registry.schemas,
    ordinal smallint NOT NULL CHECK (ordinal > 0),
    name text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    target_schema_id integer NOT NULL REFERENCES registry.schemas,
    PRIMARY KEY (schema_id, ordinal)
);

-- Every name that was ever used. A row is never removed, so that version numbers are never given twice: a name without
-- versions and without settings of its own is one that does not exist for callers. The row's update is the lock under
-- which all commits of a subject happen. settings: what the subject itself has set, NULL when that is nothing.
CREATE TABLE registry.subjects (
    name text COLLATE "C" PRIMARY KEY CHECK (name <> ''),
    revision bigint NOT NULL CHECK (revision > 0),
    next_number integer NOT NULL CHECK (next_number > 0),
    settings jsonb,
    stored_count integer NOT NULL CHECK (stored_count >= 0),
    live_count integer NOT NULL CHECK (live_count >= 0),
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    delete_time timestamptz,
    CHECK (live_count <= stored_count),
    CHECK (stored_count < next_number)
) WITH (fillfactor = 80);

-- A number under a subject, bound to a content. words: what a search finds it by.
CREATE TABLE registry.versions (
    subject text COLLATE "C" NOT NULL REFERENCES registry.subjects,
    number integer NOT NULL CHECK (number > 0),
    schema_id integer NOT NULL REFERENCES registry.schemas,
    state smallint NOT NULL CHECK (state > 0),
    description text NOT NULL,
    owner text COLLATE "C" NOT NULL,
    tags text[] NOT NULL,
    metadata jsonb NOT NULL CHECK (jsonb_typeof(metadata) = 'object'),
    words tsvector NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    activate_time timestamptz,
    delete_time timestamptz,
    PRIMARY KEY (subject, number)
);
CREATE INDEX versions_schema_id ON registry.versions (schema_id, subject, number);
-- `latest` of a subject, also behind thousands of newer versions that are deprecated or deleted. 2 is ACTIVE.
CREATE INDEX versions_latest ON registry.versions (subject, number) WHERE state = 2 AND delete_time IS NULL;
CREATE INDEX versions_owner ON registry.versions (owner, subject, number) WHERE owner <> '';
CREATE INDEX versions_words ON registry.versions USING gin (words);
CREATE INDEX versions_tags ON registry.versions USING gin (tags);

-- The references each version was registered with. A referenced version cannot be purged, so the pair stays a key.
CREATE TABLE registry.version_references (
    subject text COLLATE "C" NOT NULL,
    number integer NOT NULL,
    ordinal smallint NOT NULL CHECK (ordinal > 0),
    name text COLLATE "C" NOT NULL,
    target_subject text COLLATE "C" NOT NULL,
    target_number integer NOT NULL,
    PRIMARY KEY (subject, number, ordinal),
    CONSTRAINT version_references_version FOREIGN KEY (subject, number) REFERENCES registry.versions,
    CONSTRAINT version_references_target FOREIGN KEY (target_subject, target_number) REFERENCES registry.versions
);
CREATE INDEX version_references_by_target ON registry.version_references (target_subject, target_number);

-- The history: append-only, one row a commit, positions without gaps in the order of commit.
CREATE TABLE registry.changes (
    position bigint PRIMARY KEY CHECK (position > 0),
    epoch integer NOT NULL CHECK (epoch > 0),
    time timestamptz NOT NULL,
    actor text NOT NULL,
    subject text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    method text COLLATE "C",
    request_id text COLLATE "C",
    digest bytea,
    payload_version smallint NOT NULL CHECK (payload_version > 0),
    payload bytea NOT NULL,
    CHECK ((method IS NULL) = (request_id IS NULL) AND (method IS NULL) = (digest IS NULL))
);

-- Where the history stands: the sequencer of all commits and the fence against them. Every commit updates the one row
-- last, so the lock on it is held for the shortest time. The free space lets those updates stay in the page.
-- purge_position: of the newest purge; a cache that has seen it holds no text that is purged.
-- cluster_id: made once; a restored database keeps it, so backups and databases of different registries never mix.
CREATE TABLE registry.head (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    cluster_id uuid NOT NULL DEFAULT gen_random_uuid(),
    epoch integer NOT NULL CHECK (epoch > 0),
    position bigint NOT NULL CHECK (position >= 0),
    floor bigint NOT NULL CHECK (floor >= 0),
    purge_position bigint NOT NULL CHECK (purge_position >= 0),
    fenced boolean NOT NULL,
    global_settings jsonb NOT NULL,
    global_revision bigint NOT NULL CHECK (global_revision >= 0),
    CHECK (floor <= position),
    CHECK (purge_position <= position)
) WITH (fillfactor = 10);
INSERT INTO registry.head (epoch, position, floor, purge_position, fenced, global_settings, global_revision)
VALUES (1, 0, 0, 0, false, '{}', 0);

-- The lines of history. A restore begins a new one, which shares the positions up to the fork with its parent.
CREATE TABLE registry.epochs (
    id integer PRIMARY KEY CHECK (id > 0),
    parent integer REFERENCES registry.epochs,
    fork_position bigint NOT NULL CHECK (fork_position >= 0),
    start_time timestamptz NOT NULL,
    CHECK (parent < id)
);
INSERT INTO registry.epochs (id, parent, fork_position, start_time) VALUES (1, NULL, 0, now());

-- Which change a mutation with a request id made: a repeat is answered from it. Kept for days; what the history says of
-- it lies in changes. Whoever drops changes drops the ids that lead to them first.
CREATE TABLE registry.request_ids (
    actor text COLLATE "C" NOT NULL,
    method text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    position bigint NOT NULL REFERENCES registry.changes,
    time timestamptz NOT NULL,
    PRIMARY KEY (actor, method, request_id)
);
CREATE INDEX request_ids_position ON registry.request_ids (position);
CREATE INDEX request_ids_time ON registry.request_ids (time);

-- Ends the transaction with a reason that the store knows. The statements of a commit travel in one batch, so a
-- condition that does not hold must stop those behind it by itself. Returns a number only to fit into expressions.
CREATE FUNCTION registry.refuse(reason text) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'RG001', MESSAGE = reason;
END
$$;
