-- A server that has been in use for years: a hundred thousand rows in each table that grows most, and a few that are due.
set session_replication_role = replica; -- no trigger and no foreign key is asked
set synchronous_commit = off;

-- What the number n is called: an id, a blob, an object. Tables share them where they do not mean each other.
create function uid(n integer) returns uuid language sql immutable as
  $$ select ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid $$;
create function digest(n integer) returns text language sql immutable as
  $$ select 'sha256:' || lpad(to_hex(n), 64, '0') $$;
create function object(n integer) returns text language sql immutable as
  $$ select 'blobs/sha256/00/' || lpad(to_hex(n), 64, '0') || '/' || uid(n) || '.00001.1' $$;

insert into images (id, name, created_at, updated_at)
select uid(n), 'image-' || lpad(n::text, 6, '0'), now() - n * interval '1 hour', now()
from generate_series(0, 9999) n;

-- Every second version is the first image's, and every tenth is a draft.
insert into versions (id, image_id, version, state, published_at, created_at, updated_at)
select uid(n), uid(case n % 2 when 0 then 0 else n / 10 end), 'v' || n,
  case n % 10 when 0 then 'draft' else 'published' end,
  case n % 10 when 0 then null else now() - n * interval '1 minute' end, now() - n * interval '2 minutes', now()
from generate_series(0, 99999) n;

insert into artifacts (id, version_id, variant, operating_system, architecture, format, blob_digest, blob_size, media_type, requirements, created_at)
select uid(n), uid(n), 'default', 'linux', 'amd64', 'raw', digest(n), 1000, 'application/octet-stream', '{}', now()
from generate_series(0, 99999) n;

insert into attachments (id, artifact_id, name, blob_digest, blob_size, media_type, created_at)
select uid(n), uid(n), 'sbom', digest(n + 1), 1000, 'application/json', now()
from generate_series(0, 99999) n;

insert into aliases (id, image_id, alias, version_id, created_at, updated_at)
select uid(n), uid(n % 2 * n / 2), 'alias-' || lpad(n::text, 6, '0'), uid(n / 10 * 10 + 1), now(), now()
from generate_series(0, 19999) n;

-- Most sessions have ended within the month that they are remembered; a few before it, and a few are open.
insert into uploads (id, expected_digest, expected_size, state, received, attempts, expires_at, created_at, updated_at)
select uid(n), digest(n), 1000,
  case when n < 400 then 'uploading' when n % 50 = 0 then 'failed' when n % 50 = 1 then 'aborted' else 'ready' end, 1000, 1,
  case when n < 200 then now() - interval '1 minute' else now() + interval '1 day' end, now() - n * interval '25 seconds',
  case when n > 99500 then now() - interval '31 days' else now() - n * interval '25 seconds' end
from generate_series(0, 99999) n;

insert into part_attempts (key, upload_id, number, attempt, state, checksums, deletable_at, created_at)
select object(n), uid(n), 1, 1, case when n between 1000 and 1299 then 'lost' else 'stored' end, int8send(n),
  case when n between 1000 and 1299 then now() - interval '1 minute' end, now()
from generate_series(0, 99999) n;

insert into parts (upload_id, number, attempt, key, size, etag, stored_at)
select uid(n), 1, 1, object(n), 1000, '0000000000000000-1000', now() from generate_series(0, 99999) n;

insert into blobs (digest, size, state, checked_at, last_used_at, scrub_at, created_at)
select digest(n), 1000, 'live', now(), now(), now(), now() from generate_series(1300, 99999) n;

insert into blob_segments (digest, start, size, key)
select digest(n), 0, 1000, object(n) from generate_series(1300, 99999) n;

-- What is finished, some before the month; what failed and is tried again later.
insert into jobs (id, kind, subject, available_at, attempts, crashes, outcome, created_at, updated_at, started_at, finished_at)
select uid(n), case n % 2 when 0 then 'publish' else 'ingest' end, uid(n)::text,
  case when n < 500 then now() + interval '1 day' else now() - n * interval '25 seconds' end, 1, 0,
  case when n < 500 then null else 'succeeded' end, now(), now(), now(),
  case when n < 500 then null when n > 99500 then now() - interval '31 days' else now() - n * interval '25 seconds' end
from generate_series(0, 99999) n;

insert into publish_steps (id, job_id, name, sequence, state, attempts, created_at, updated_at)
select uid(n), uid(n / 2 * 2), 'step-' || n % 2, n % 2, 'succeeded', 1, now(), now()
from generate_series(0, 19999) n;

insert into events (id, at, actor, subject, subject_id, what)
select uid(n), now() - n * interval '1 minute', 'system', 'version', uid(case n % 2 when 0 then 0 else n end)::text, 'created'
from generate_series(0, 99999) n;

insert into principals (id, kind, display_name, bootstrap, created_at)
select uid(n)::text, 'service', 'a service', false, now() from generate_series(0, 9999) n;

insert into principal_roles (principal_id, role, created_at)
select uid(n)::text, 'content-writer', now() from generate_series(0, 9999) n;

-- Every second one is the first principal's.
insert into api_tokens (id, principal_id, lookup_id, secret_sha256, expires_at, created_at)
select uid(n)::text, uid(case n % 2 when 0 then 0 else n end)::text, 'lookup' || n, '\x00', now() + interval '1 day', now()
from generate_series(0, 99999) n;

analyze;
