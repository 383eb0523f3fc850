-- PostgreSQL sorts texts as a language would. What lists are sorted and paged by sorts by bytes, as in SQLite: collate "C".

-- One row: the lock for decisions about the server as a whole, and the name of the store whose objects the rows know.
create table if not exists instance (
  id integer primary key check (id = 1),
  turn bigint not null,
  store uuid
);
insert into instance (id, turn) values (1, 0) on conflict do nothing;

-- One row: counts the changes of what the public sees.
create table if not exists catalog_generation (
  id integer primary key check (id = 1),
  n bigint not null
);
insert into catalog_generation (id, n) values (1, 0) on conflict do nothing;

create table if not exists images (
  id uuid primary key,
  name text collate "C" not null unique,
  display_name text,
  description text,
  -- The catalogue's generation in which the public last saw something change in it; 0 before it saw anything.
  generation bigint not null default 0,
  created_at timestamptz not null,
  updated_at timestamptz not null
);
create index if not exists images_generation on images (generation);

create table if not exists versions (
  id uuid primary key,
  image_id uuid not null references images (id),
  version text not null,
  state text not null check (state in ('draft', 'publishing', 'published')),
  published_at timestamptz,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  unique (image_id, version),
  check ((state = 'published') = (published_at is not null))
);
create index if not exists versions_newest on versions (image_id, state, published_at, id);
create index if not exists versions_created on versions (image_id, state, created_at, id);

create table if not exists artifacts (
  id uuid primary key,
  version_id uuid not null references versions (id),
  variant text not null,
  operating_system text not null,
  architecture text not null,
  format text not null,
  blob_digest text not null,
  blob_size bigint not null check (blob_size >= 0),
  media_type text not null,
  requirements jsonb not null,
  created_at timestamptz not null,
  unique (version_id, variant, operating_system, architecture, format)
);
create index if not exists artifacts_blob on artifacts (blob_digest);

create table if not exists attachments (
  id uuid primary key,
  artifact_id uuid not null references artifacts (id),
  name text collate "C" not null,
  blob_digest text not null,
  blob_size bigint not null check (blob_size >= 0),
  media_type text not null,
  created_at timestamptz not null,
  unique (artifact_id, name)
);
create index if not exists attachments_blob on attachments (blob_digest);

create table if not exists aliases (
  id uuid primary key,
  image_id uuid not null references images (id),
  alias text collate "C" not null,
  version_id uuid not null references versions (id),
  created_at timestamptz not null,
  updated_at timestamptz not null,
  unique (image_id, alias)
);
create index if not exists aliases_version on aliases (version_id);

create table if not exists uploads (
  id uuid primary key,
  expected_digest text not null,
  expected_size bigint not null check (expected_size >= 0),
  media_type_hint text,
  filename_hint text,
  state text not null check (state in ('created', 'uploading', 'completed', 'ingesting', 'ready', 'failed', 'aborted')),
  received bigint not null check (received between 0 and expected_size),
  attempts integer not null,
  failure_reason text,
  expires_at timestamptz not null,
  created_at timestamptz not null,
  updated_at timestamptz not null
);
create index if not exists uploads_expiry on uploads (state, expires_at);
create index if not exists uploads_ended on uploads (updated_at);
create index if not exists uploads_newest on uploads (created_at, id);
create index if not exists uploads_state on uploads (state, created_at, id);
create index if not exists uploads_digest on uploads (expected_digest, created_at, id);

-- Every object of the store has its row here, from before its first byte until after its last.
create table if not exists part_attempts (
  key text primary key,
  upload_id uuid not null,
  number integer not null,
  attempt integer not null,
  state text not null check (state in ('writing', 'stored', 'lost')),
  deletable_at timestamptz,
  created_at timestamptz not null,
  -- CRC-64/NVME of its first 64 KiB, of its first 128 KiB and so on, the last one of the whole: eight bytes each.
  checksums bytea,
  unique (upload_id, number, attempt),
  check ((state = 'lost') = (deletable_at is not null)),
  check (state <> 'stored' or checksums is not null)
);
create index if not exists part_attempts_lost on part_attempts (deletable_at, key) where deletable_at is not null;

create table if not exists parts (
  upload_id uuid not null references uploads (id) on delete cascade,
  number integer not null check (number between 1 and 10000),
  attempt integer not null,
  key text not null,
  size bigint not null check (size >= 0),
  etag text not null,
  sha256 text,
  chain bytea,
  chain_after integer,
  stored_at timestamptz not null,
  primary key (upload_id, number)
);

create table if not exists blobs (
  digest text primary key,
  size bigint not null check (size >= 0),
  media_type text,
  state text not null check (state in ('live', 'condemned', 'deleting', 'damaged', 'quarantined')),
  condemned_at timestamptz,
  checked_at timestamptz not null,
  last_used_at timestamptz not null,
  -- When its bytes are to be read again.
  scrub_at timestamptz not null,
  created_at timestamptz not null
);
create index if not exists blobs_scrub on blobs (scrub_at);
create index if not exists blobs_state on blobs (state, condemned_at);
create index if not exists blobs_checked on blobs (state, checked_at);

create table if not exists blob_segments (
  digest text not null references blobs (digest),
  start bigint not null check (start >= 0),
  size bigint not null check (size > 0),
  key text not null unique references part_attempts (key),
  primary key (digest, start)
);

create table if not exists sweep_plans (
  id uuid primary key,
  created_at timestamptz not null,
  plan jsonb not null
);

create table if not exists jobs (
  id uuid primary key,
  kind text not null,
  subject text not null,
  available_at timestamptz not null,
  lease uuid,
  attempts integer not null,
  crashes integer not null,
  last_error text,
  traceparent text,
  outcome text check (outcome in ('succeeded', 'failed', 'abandoned')),
  created_at timestamptz not null,
  updated_at timestamptz not null,
  started_at timestamptz,
  finished_at timestamptz,
  check ((outcome is null) = (finished_at is null)),
  check (finished_at is null or lease is null)
);
create index if not exists jobs_due on jobs (available_at, id) where finished_at is null;
create unique index if not exists jobs_open on jobs (kind, subject) where finished_at is null;
create index if not exists jobs_ended on jobs (kind, finished_at) where finished_at is not null;
create index if not exists jobs_subject on jobs (kind, subject, created_at);

create table if not exists publish_steps (
  id uuid primary key,
  job_id uuid not null references jobs (id) on delete cascade,
  name text not null,
  sequence integer not null,
  state text not null check (state in ('queued', 'running', 'succeeded', 'failed', 'skipped')),
  attempts integer not null,
  output jsonb,
  failure_message text,
  started_at timestamptz,
  finished_at timestamptz,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  unique (job_id, sequence),
  unique (job_id, name)
);

-- What Incus calls a metadata file and a root file together: SHA-256 of the one and then the other.
create table if not exists incus_fingerprints (
  metadata_digest text not null,
  root_digest text not null,
  fingerprint text not null,
  primary key (metadata_digest, root_digest)
);

create table if not exists events (
  id uuid primary key,
  at timestamptz not null,
  actor text not null,
  subject text not null,
  subject_id text not null,
  subject_name text,
  what text not null,
  from_value text,
  to_value text
);
create index if not exists events_subject on events (subject, subject_id, at, id);

create table if not exists principals (
  id text collate "C" primary key,
  kind text not null check (kind in ('user', 'service')),
  display_name text not null,
  attributes jsonb,
  bootstrap boolean not null,
  created_at timestamptz not null
);
create unique index if not exists principals_bootstrap on principals (bootstrap) where bootstrap;

create table if not exists principal_roles (
  principal_id text collate "C" not null references principals (id) on delete cascade,
  role text not null,
  created_at timestamptz not null,
  primary key (principal_id, role)
);
create index if not exists principal_roles_role on principal_roles (role, principal_id);

create table if not exists api_tokens (
  id text collate "C" primary key,
  principal_id text collate "C" not null references principals (id) on delete cascade,
  name text,
  lookup_id text not null unique,
  secret_sha256 bytea not null,
  expires_at timestamptz not null,
  revoked_at timestamptz,
  last_used_at timestamptz,
  created_at timestamptz not null
);
create index if not exists api_tokens_principal on api_tokens (principal_id, id);
